//! The network: QUIC between devices, dialed by public key, through iroh. The only module that knows iroh or tokio.
//!
//! Owns the UDP port and a runtime of two threads; everything outside calls blocking functions, never from
//! asynchronous code. Contacts nobody but the devices that are dialed, the chosen relay, and the local network where
//! that is switched on.
//!
//! * A device is its key. Whoever connects with a key that the [`Gate`] does not admit is closed with code 403 before
//!   any stream of it is accepted. So that a dialer knows, the side that lets it in says so first: one byte, 1, on a
//!   one-way stream.
//! * Two protocols: `foldersync/1` for links, and `foldersync-pair/1`, on which unknown keys are heard while the gate
//!   pairs: a few at once, for a minute at most, on one stream.
//! * A connection that says nothing for 10 s is lost; a sign of life goes out every 3 s.
//! * Closing loses what the other side's program has not read. A stream whose writer was dropped keeps its connection
//!   until the other side has acknowledged the bytes, for some seconds at most, and [`Network::close`] waits for that,
//!   too; but only an answer over the same stream tells that they were read. Let the side that reads last close.
//!
//! Nothing is kept on disk, and nothing is retried.

mod acceptor;
mod dial;
mod endpoint;
mod link;
mod pins;
mod place;
mod reactor;
mod reason;
mod stream;
#[cfg(test)]
pub(super) mod tests;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use iroh::endpoint::{Connection as Quic, VarInt, WeakConnectionHandle};
use iroh::{Endpoint, Watcher};
use tokio::sync::mpsc;
use tokio::time::timeout;

use self::acceptor::Admitted;
use self::dial::Dial;
use self::endpoint::{LINK, PAIRING};
pub use self::link::{Link, LinkPath, PathKind};
use self::pins::Pins;
pub use self::pins::certificate_sha256;
pub use self::place::DEFAULT_PORT;
#[cfg(not(feature = "relay"))]
use self::reactor::Reactor;
#[cfg(feature = "relay")]
pub(in crate::transport) use self::reactor::Reactor;
use self::reason::{DONE, REFUSED};
use super::{Connection, TransportError};
use crate::id::DeviceId;

/// How many of those who were let in may wait to be taken.
const QUEUE: usize = 64;
/// How long closing waits for what was written to arrive.
const SETTLE: Duration = Duration::from_secs(2);
/// How long closing waits for the other sides to hear of it.
const FAREWELL: Duration = Duration::from_secs(1);

/// The label under which both sides of a pairing draw a secret of their connection.
const KEYING: &[u8] = b"foldersync pairing 1";

/// How the network is opened.
#[derive(Clone, PartialEq, Eq)]
pub struct NetworkOptions {
    /// The ed25519 secret key of this device.
    pub secret: [u8; 32],
    /// The UDP port, the same for IPv4 and IPv6; 0 for any.
    pub port: u16,
    /// To be reached from this computer only.
    pub loopback_only: bool,
    /// The relay to be reached through.
    pub relay: RelayChoice,
    /// To announce this device in the local network by multicast, with its key and its local addresses, and to find
    /// others there. Without effect for `loopback_only`.
    pub local_discovery: bool,
}

impl fmt::Debug for NetworkOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkOptions")
            .field("port", &self.port)
            .field("loopback_only", &self.loopback_only)
            .field("relay", &self.relay)
            .field("local_discovery", &self.local_discovery)
            .finish_non_exhaustive()
    }
}

/// The relay to be reached through where there is no direct way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum RelayChoice {
    /// None.
    #[default]
    None,
    /// One of one's own. It tells this device's own address over UDP, at the same port number.
    Own {
        /// `https://HOST[:PORT]`.
        url: String,
        /// The SHA-256 of the only certificate to believe it with; without, it needs one that browsers would take.
        certificate: Option<[u8; 32]>,
    },
    /// The public relays of iroh's makers.
    Public,
}

/// Who may connect. Asked for every connection and every stream, from threads of the network: it must answer at once,
/// and may change its mind at any time.
pub trait Gate: Send + Sync {
    /// Whether this device may have a link.
    fn admits(&self, device: DeviceId) -> bool;

    /// Whether unknown devices may pair just now.
    fn pairs(&self) -> bool;
}

/// Where a device may be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hints {
    /// `HOST[:PORT]`, names or addresses; IPv6 with a port in brackets.
    pub addresses: Vec<String>,
    /// The relay that the device is reached through. Used only while this side has a relay, too.
    pub relay: Option<String>,
    /// The SHA-256 of that relay's certificate, when it is pinned.
    pub relay_certificate: Option<[u8; 32]>,
}

/// Somebody who connected.
#[derive(Debug)]
pub enum Accepted {
    /// A known device. It may have a link already; which of them to keep is for the caller to settle.
    Link(Link),
    /// Anybody, to pair.
    Pairing(PairingStream),
}

/// A stream with a device that is not known yet.
#[derive(Debug)]
pub struct PairingStream {
    /// The key that it proved to have.
    pub device: DeviceId,
    /// Bytes that both sides draw from their connection, and nobody else can: what is signed with them holds for this
    /// connection alone.
    pub keying: [u8; 32],
    /// Where it is at the moment, if this is a direct way to it.
    pub address: Option<SocketAddr>,
    /// The stream. The dialer speaks first.
    pub connection: Connection,
}

/// The open links, to be looked over when the gate has changed.
type Links = Arc<Mutex<HashMap<usize, (DeviceId, WeakConnectionHandle)>>>;

/// This device on the network. Clones are the same; the last one that is dropped closes it.
#[derive(Clone)]
pub struct Network(Arc<Inner>);

struct Inner {
    reactor: Reactor,
    endpoint: Endpoint,
    options: NetworkOptions,
    gate: Arc<dyn Gate>,
    pins: Pins,
    queue: Mutex<mpsc::Receiver<Admitted>>,
    links: Links,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("device", &self.device()).finish_non_exhaustive()
    }
}

/// The device at the other end of a connection.
fn device_of(quic: &Quic) -> DeviceId {
    DeviceId::from_bytes(*quic.remote_id().as_bytes())
}

impl Network {
    /// Binds the port and begins to let in whom the gate admits.
    pub fn open(options: NetworkOptions, gate: Arc<dyn Gate>) -> Result<Self, TransportError> {
        let reactor = Reactor::start().map_err(|error| TransportError::Open { reason: error.to_string() })?;
        let pins = Pins::default();
        let endpoint = reactor.block_on(endpoint::bind(&options, &pins))?;
        let (sender, queue) = mpsc::channel(QUEUE);
        drop(reactor.spawn(acceptor::run(endpoint.clone(), Arc::clone(&gate), sender)));
        Ok(Self(Arc::new(Inner {
            reactor,
            endpoint,
            options,
            gate,
            pins,
            queue: Mutex::new(queue),
            links: Links::default(),
        })))
    }

    /// This device: its public key.
    pub fn device(&self) -> DeviceId {
        DeviceId::from_bytes(*self.0.endpoint.id().as_bytes())
    }

    /// Where this device can be reached, as far as it is known by now: the addresses of its interfaces, and what a
    /// relay sees. For loopback only, the sockets themselves.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let known: Vec<_> = self.0.endpoint.addr().ip_addrs().copied().collect();
        if known.is_empty() || self.0.options.loopback_only { self.0.endpoint.bound_sockets() } else { known }
    }

    /// The relay that this device is reached through, while it is connected to it.
    pub fn relay(&self) -> Option<String> {
        let relays = self.0.endpoint.home_relay_status().get();
        relays.iter().find(|relay| relay.is_connected()).map(|relay| relay.url().to_string())
    }

    /// Waits until this device can be reached through a relay. None: it cannot, within the time.
    pub fn wait_for_relay(&self, limit: Duration) -> Option<String> {
        let online = self.0.reactor.block_on(async { timeout(limit, self.0.endpoint.online()).await });
        online.ok().and_then(|()| self.relay())
    }

    /// Connects to a device, and waits until it has let this one in.
    pub fn dial(&self, device: DeviceId, hints: &Hints, limit: Duration) -> Result<Link, TransportError> {
        Ok(self.link(self.connect(device, hints, LINK, limit)?, true))
    }

    /// Connects to a device that may not know this one yet, while it pairs. Say something within 10 s: the other side
    /// waits no longer.
    pub fn dial_pairing(
        &self,
        device: DeviceId,
        hints: &Hints,
        limit: Duration,
    ) -> Result<PairingStream, TransportError> {
        let quic = self.connect(device, hints, PAIRING, limit)?;
        let streams = self.0.reactor.block_on(async { quic.open_bi().await });
        let streams = streams
            .map_err(|lost| TransportError::Closed { device, reason: reason::text(&lost, self.0.reactor.is_shut()) })?;
        self.pairing(&quic, streams, true)
    }

    /// Waits for the next one who was let in. None once the network is closed.
    pub fn accept(&self) -> Option<Accepted> {
        loop {
            let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
            let admitted = self.0.reactor.block_on(async {
                tokio::select! {
                    biased;
                    () = self.0.reactor.until_shut() => None,
                    admitted = queue.recv() => admitted,
                }
            })?;
            match admitted {
                Admitted::Link(quic) => return Some(Accepted::Link(self.link(quic, false))),
                Admitted::Pairing(quic, streams) => {
                    if let Ok(pairing) = self.pairing(&quic, streams, false) {
                        return Some(Accepted::Pairing(pairing));
                    }
                }
            }
        }
    }

    /// Closes the links with devices that the gate no longer admits: to be called when it has changed.
    pub fn recheck(&self) {
        self.0.close_links(REFUSED, b"unknown key", |device| !self.0.gate.admits(device));
    }

    /// Closes all connections and the port, within a few seconds: waits for finished streams to arrive, and for the
    /// other sides to hear of it.
    pub fn close(&self) {
        self.0.close();
    }

    fn connect(
        &self,
        device: DeviceId,
        hints: &Hints,
        alpn: &'static [u8],
        limit: Duration,
    ) -> Result<Quic, TransportError> {
        let mut relay = None;
        if let (Some(url), true) = (&hints.relay, self.0.options.relay != RelayChoice::None) {
            let url = endpoint::relay_url(url)?;
            if let (Some(certificate), Some(host)) = (hints.relay_certificate, url.host_str()) {
                self.0.pins.add(host, certificate);
            }
            relay = Some(url);
        }
        let dial = Dial { endpoint: &self.0.endpoint, device, hints: &hints.addresses, relay, alpn };
        self.0.reactor.block_on(async {
            tokio::select! {
                biased;
                () = self.0.reactor.until_shut() => Err(TransportError::Shut),
                result = dial.run(limit) => result,
            }
        })
    }

    fn link(&self, quic: Quic, ours: bool) -> Link {
        let (number, device, weak) = (quic.stable_id(), device_of(&quic), quic.weak_handle());
        let closed = weak.closed();
        self.0.links.lock().unwrap_or_else(PoisonError::into_inner).insert(number, (device, weak));
        let links = Arc::clone(&self.0.links);
        drop(self.0.reactor.spawn(async move {
            drop(closed.await);
            links.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        }));
        Link::new(self.0.reactor.clone(), quic, Arc::clone(&self.0.gate), device, ours)
    }

    fn pairing(
        &self,
        quic: &Quic,
        streams: (iroh::endpoint::SendStream, iroh::endpoint::RecvStream),
        ours: bool,
    ) -> Result<PairingStream, TransportError> {
        let device = device_of(quic);
        let own = self.device();
        let (dialer, dialed) = if ours { (own, device) } else { (device, own) };
        let both = [*dialer.as_bytes(), *dialed.as_bytes()].concat();
        let mut keying = [0; 32];
        quic.export_keying_material(&mut keying, KEYING, &both).map_err(|_| TransportError::Handshake {
            device,
            reason: "the connection gives no keying material".to_owned(),
        })?;
        let connection = stream::connection(&self.0.reactor, quic, streams, &device.short());
        Ok(PairingStream { device, keying, address: link::direct_address(quic), connection })
    }
}

impl Inner {
    fn close_links(&self, code: u32, reason: &[u8], which: impl Fn(DeviceId) -> bool) {
        let links: Vec<_> = self.links.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for (device, link) in links {
            if let Some(quic) = link.upgrade()
                && which(device)
            {
                quic.close(VarInt::from_u32(code), reason);
            }
        }
    }

    fn close(&self) {
        if !self.reactor.shut() {
            return;
        }
        self.reactor.block_on(async {
            self.reactor.settled(SETTLE).await;
            self.close_links(DONE, b"closing down", |_| true);
            // It has its own limits; this one is for what it does not limit.
            drop(timeout(FAREWELL, self.endpoint.close()).await);
        });
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}
