//! The daemon's place on the network: opened by the settings, opened anew when they change.
//!
//! Whoever comes in is handed to the thread of its peer, or paired with. While the network cannot be opened (another
//! program has the port), that stands on the board, and it is tried again at every pulse of the daemon; folders are
//! watched, and peers reached by ssh and by paths, all the same. Keeps nothing.

use std::sync::{Arc, mpsc};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use super::peer::ToPeer;
use super::shared::Shared;
use super::{DaemonError, DaemonOptions, Order, pairing, relay, spawn};
use crate::config::Address;
use crate::transport::TransportError;
use crate::transport::network::{Accepted, Gate, Network, NetworkOptions};

/// How often, and after which pauses, a port is asked for that was in use a moment ago.
const PORT_TRIES: u32 = 20;
const PORT_PAUSE: Duration = Duration::from_millis(100);

/// Opens and closes the network.
pub(super) struct Reach {
    shared: Arc<Shared>,
    gate: Arc<dyn Gate>,
    secret: [u8; 32],
    options: DaemonOptions,
    orders: mpsc::Sender<Order>,
    open: Option<Open>,
}

struct Open {
    options: NetworkOptions,
    accepting: Option<JoinHandle<()>>,
}

impl Reach {
    /// What is to be reached with this key, and lets in whom the gate admits. Nothing is open yet.
    pub(super) fn new(
        shared: &Arc<Shared>,
        gate: Arc<dyn Gate>,
        secret: [u8; 32],
        options: DaemonOptions,
        orders: mpsc::Sender<Order>,
    ) -> Self {
        Self { shared: Arc::clone(shared), gate, secret, options, orders, open: None }
    }

    /// Has the network be as the settings want it. Where it is so, nothing is done; otherwise every link is lost, and
    /// comes back.
    pub(super) fn arrange(&mut self) -> Result<(), DaemonError> {
        let done = self.wanted().and_then(|wanted| match &self.open {
            Some(open) if open.options == wanted => Ok(()),
            open => {
                // Its own port is free a moment after it has closed.
                let tries = if open.is_some() { PORT_TRIES } else { 1 };
                self.close();
                self.open(wanted, tries)
            }
        });
        self.shared.board.network(done.as_ref().err().map(ToString::to_string));
        done
    }

    fn wanted(&self) -> Result<NetworkOptions, DaemonError> {
        let config = self.shared.config();
        let device = &config.device;
        Ok(NetworkOptions {
            secret: self.secret,
            // Several daemons of one computer need a port each.
            port: if self.options.loopback_only { device.port.unwrap_or(0) } else { device.port() },
            loopback_only: self.options.loopback_only,
            relay: relay::choice(device)?,
            local_discovery: device.local_discovery(),
        })
    }

    fn open(&mut self, options: NetworkOptions, mut tries: u32) -> Result<(), DaemonError> {
        let network = loop {
            match Network::open(options.clone(), Arc::clone(&self.gate)) {
                Err(TransportError::PortInUse { .. }) if tries > 1 => {
                    tries -= 1;
                    sleep(PORT_PAUSE);
                }
                opened => break opened?,
            }
        };
        self.shared.set_network(Some(network.clone()));
        let (shared, orders) = (Arc::clone(&self.shared), self.orders.clone());
        let accepting = spawn("accept", move || accept(&shared, &network, &orders));
        self.open = Some(Open { options, accepting });
        Ok(())
    }

    /// Closes it, within some seconds.
    pub(super) fn close(&mut self) {
        let network = self.shared.network();
        self.shared.set_network(None);
        if let Some(network) = network {
            network.close();
        }
        if let Some(accepting) = self.open.take().and_then(|open| open.accepting) {
            drop(accepting.join());
        }
    }
}

/// Hands those who connect to the threads of their peers.
fn accept(shared: &Arc<Shared>, network: &Network, orders: &mpsc::Sender<Order>) {
    while let Some(accepted) = network.accept() {
        match accepted {
            Accepted::Link(link) => match shared.peer_with(link.device()) {
                Some(peer) if matches!(shared.config().peers[&peer].address, Address::Device(_)) => {
                    shared.tell_peer(&peer, ToPeer::Linked(link));
                }
                _ => link.close("this device does not know yours"),
            },
            Accepted::Pairing(stream) => {
                let (shared, orders) = (Arc::clone(shared), orders.clone());
                spawn("pairing", move || pairing::pair(&shared, &orders, stream));
            }
        }
    }
}
