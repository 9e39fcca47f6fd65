//! Exchanges with devices while no daemon runs: a network that lives as long as they last.
//!
//! For cron, and for whoever says `exchange`. It dials the peers that are meant, does one exchange after the other, and
//! closes. Nobody is let in meanwhile. It keeps nothing but the
//! addresses at which peers were found; a kill costs what a lost connection costs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::link::{self, DIAL};
use super::{DaemonError, memory, relay};
use crate::config::{Config, Home, Name, Rates};
use crate::engine::report::ExchangeReport;
use crate::engine::{Context, EngineError, ExchangeOptions, Folder, Repair};
use crate::id::DeviceId;
use crate::transport::network::{Gate, Link, Network, NetworkOptions};
use crate::transport::throttle::Limiter;
use crate::transport::{Connection, TransportError};

/// Lets nobody in: a daemon there would take a connection of its own for the newer one, and close the one that is used.
struct Closed;

impl Gate for Closed {
    fn admits(&self, _: DeviceId) -> bool {
        false
    }

    fn pairs(&self) -> bool {
        false
    }
}

/// Limits for sending and for receiving.
struct Limits(Arc<Limiter>, Arc<Limiter>);

impl Limits {
    fn new(rates: Rates) -> Self {
        let limiter = |rate: crate::config::Rate| Arc::new(Limiter::new(rate.bytes_per_second()));
        Self(limiter(rates.upload), limiter(rates.download))
    }
}

/// A network for some exchanges.
pub struct Once {
    config: Config,
    home: Home,
    network: Network,
    links: BTreeMap<Name, Link>,
    all: Limits,
    now: jiff::Zoned,
}

impl Once {
    /// Opens the network by the configuration of `home`: on the port of the device, or on any if that is in use.
    pub fn open(home: &Home, context: &Context) -> Result<Self, DaemonError> {
        let config = home.load()?;
        let secret = home.device_key()?.secret();
        let relay = relay::choice(&config.device)?;
        let open = |port| {
            let options = NetworkOptions {
                secret,
                port,
                loopback_only: false,
                relay: relay.clone(),
                local_discovery: config.device.local_discovery(),
            };
            Network::open(options, Arc::new(Closed))
        };
        let network = match open(config.device.port()) {
            Err(TransportError::PortInUse { .. }) => open(0)?,
            opened => opened?,
        };
        let now = super::zoned(context.clock.now(), &context.zone);
        let all = Limits::new(config.rates_in_all(&now));
        Ok(Self { home: home.clone(), config, network, links: BTreeMap::new(), all, now })
    }

    /// One exchange of this folder with a device that is a peer of it.
    pub fn exchange(
        &mut self,
        folder: &Folder,
        name: &Name,
        peer: &Name,
        wait: bool,
    ) -> Result<ExchangeReport, EngineError> {
        let connection = self.connect(folder, peer)?;
        let options = ExchangeOptions { wait, ..link::options(&self.config.peers[peer], name) };
        folder.exchange_over(connection, peer.as_str(), options)
    }

    /// Asks the peer `peer` for what is lost in a folder that is under repair.
    pub fn ask(&mut self, repair: &mut Repair<'_>, folder: &Folder, peer: &Name) {
        let device = self.config.peers.get(peer).and_then(|settings| settings.key().copied());
        repair.ask_over(peer.as_str(), device, &mut || self.connect(folder, peer));
    }

    /// A connection to the peer, for an exchange of this folder.
    fn connect(&mut self, folder: &Folder, peer: &Name) -> Result<Connection, EngineError> {
        let link = self.link(peer)?;
        let own = Limits::new(self.config.rates_of(peer, &self.now));
        let connection = link::open_exchange(&link, folder)?;
        Ok(connection.limited(vec![own.0, Arc::clone(&self.all.0)], vec![own.1, Arc::clone(&self.all.1)]))
    }

    /// The link with a peer: the one that is there, or a new one.
    fn link(&mut self, peer: &Name) -> Result<Link, EngineError> {
        if let Some(link) = self.links.get(peer).filter(|link| !link.is_closed()) {
            return Ok(link.clone());
        }
        let unreachable =
            |why: &dyn std::fmt::Display| EngineError::Unreachable { peer: peer.to_string(), why: why.to_string() };
        let settings = self.config.peers.get(peer).ok_or_else(|| unreachable(&"it is no peer any more"))?;
        let device = *settings.key().ok_or_else(|| unreachable(&"its device key is not known"))?;
        let hints = memory::hints(&self.home, peer, settings, relay::url(&self.config.device, Some(&self.network)));
        let link = self.network.dial(device, &hints, DIAL).map_err(|error| match error {
            TransportError::Refused { .. } => EngineError::Transport(error),
            error => unreachable(&error),
        })?;
        memory::remember(&self.home, peer, &link.path());
        self.links.insert(peer.clone(), link.clone());
        Ok(link)
    }
}

impl Drop for Once {
    /// Waits, for some seconds at most, until the other sides have what was sent.
    fn drop(&mut self) {
        self.network.close();
    }
}
