//! The daemon: folders that are watched, peers that are kept in step, until it is told to stop.
//!
//! A thread for each folder (`folder`: watch, capture, announce) and one for each peer (`peer`: connection, news,
//! when to exchange), joined by inboxes; what goes on stands on a `board`; people ask through a socket ([`control`]).
//! All of it may be killed at any moment: what was captured or received is safe by the engine's rules, and the next
//! start finds the rest.

mod asks;
mod board;
pub mod control;
mod folder;
mod link;
pub mod log;
mod memory;
pub mod notify;
mod once;
pub mod pairing;
mod peer;
pub mod pools;

mod reach;
pub mod relay;
mod rule;
pub mod service;
mod shared;
pub mod signals;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use self::asks::Asked;
use self::control::{Control, OnlyOne, Refusal};
use self::folder::Actor;
use self::peer::{Driver, Legacy, ToPeer};
use self::reach::Reach;
use self::shared::{Doorkeeper, Shared, ToFolder};
use crate::clock::{Timestamp, receive};
use crate::config::{Config, ConfigError, Home, Name};
use crate::engine::{Context, Failure};
use crate::guard::Guards;
use crate::transport::TransportError;
use crate::transport::network::{Gate, Network};

pub use self::once::Once;
pub use self::peer::engine_address;

pub use self::board::{DaemonStatus, Doing, FolderState, LinkState, PairState, PeerState, Progress};

/// Why a daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The network cannot be used.
    #[error(transparent)]
    Network(#[from] TransportError),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] crate::engine::EngineError),
    /// Another daemon runs for the same home.
    #[error("a daemon runs already for `{}`", home.display())]
    Running {
        /// The home.
        home: PathBuf,
    },
    /// The certificate that the relay is to have cannot be read.
    #[error("the relay's certificate `{}` cannot be used: {why}", path.display())]
    RelayCertificate {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// This build cannot be a relay.
    #[error("this build of foldersync cannot be a relay: it lacks the cargo feature `relay`")]
    NoRelay,
    /// The control socket cannot be made.
    #[error("could not make the control socket in `{}`: {source}", home.display())]
    Control {
        /// The home.
        home: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What a daemon is told to do.
#[derive(Debug)]
pub enum Order {
    /// Read the configuration again, and tell how that went.
    Reload(Option<mpsc::Sender<Result<(), Refusal>>>),
    /// End.
    Stop,
}

/// How a daemon is run.
#[derive(Debug, Clone, Copy, Default)]
pub struct DaemonOptions {
    /// To listen on this computer only, on any port: for tests and measurements.
    pub loopback_only: bool,
    /// To be a relay for the peers, too, on this port.
    pub relay_port: Option<u16>,
}

/// A thread, and the settings that it runs with.
struct Running<S, T = ()> {
    settings: S,
    thread: JoinHandle<T>,
}

/// A running daemon.
pub struct Daemon {
    shared: Arc<Shared>,
    folders: BTreeMap<Name, Running<(crate::config::FolderSettings, Guards)>>,
    peers: BTreeMap<Name, Running<crate::config::PeerSettings, Legacy>>,
    reach: Reach,
    orders: (mpsc::Sender<Order>, mpsc::Receiver<Order>),
    control: Arc<Control>,
    answering: Option<JoinHandle<()>>,
    _relay: Option<relay::Running>,
    _only: OnlyOne,
}

/// Starts a thread. Where the system has none left, the work is not done, and said so.
fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Option<JoinHandle<T>> {
    // The system cuts longer names.
    let short: String = name.chars().take(15).collect();
    match std::thread::Builder::new().name(short).spawn(work) {
        Ok(thread) => Some(thread),
        Err(error) => {
            tracing::error!("no thread for `{name}`: {error}");
            None
        }
    }
}

fn zoned(time: Timestamp, zone: &jiff::tz::TimeZone) -> jiff::Zoned {
    jiff::Timestamp::try_from(time).unwrap_or_default().to_zoned(zone.clone())
}

impl Daemon {
    /// Starts to work by the configuration of `home`.
    pub fn start(home: &Home, context: &Context, options: DaemonOptions) -> Result<Self, DaemonError> {
        let failed = |source| DaemonError::Control { home: home.dir().to_owned(), source };
        let running = || DaemonError::Running { home: home.dir().to_owned() };
        // Makes the home, where it is missing, for its owner alone.
        let key = home.device_key()?;
        let only = OnlyOne::take(home).map_err(failed)?.ok_or_else(running)?;
        let config = home.load()?;
        let instance = u64::from_ne_bytes(crate::engine::folder::random()?);
        let shared = Arc::new(Shared::new(home.clone(), key.id(), context, config, instance));
        let gate: Arc<dyn Gate> = Arc::new(Doorkeeper(Arc::downgrade(&shared)));
        let relay = options.relay_port.map(|port| {
            let options = relay::RelayOptions { port, loopback_only: options.loopback_only };
            relay::start(home, key.id(), options, Arc::clone(&gate))
        });
        let relay = relay.transpose()?;
        let orders = mpsc::channel();
        let mut reach = Reach::new(&shared, gate, key.secret(), options, orders.0.clone());
        reach.arrange()?;
        let control = Arc::new(Control::open(home, &only).map_err(failed)?);
        let answering = {
            let asked = Asked { shared: Arc::clone(&shared), orders: orders.0.clone(), since: shared.now() };
            let control = Arc::clone(&control);
            spawn("control", move || asked.run(&control))
        };
        let mut daemon = Self {
            shared,
            folders: BTreeMap::new(),
            peers: BTreeMap::new(),
            reach,
            orders,
            control,
            answering,
            _relay: relay,
            _only: only,
        };
        daemon.arrange();
        Ok(daemon)
    }

    /// Reads the configuration again, and works by it: only what has changed is begun anew.
    pub fn reload(&mut self) -> Result<(), DaemonError> {
        self.shared.set_config(self.shared.home.load()?);
        let reached = self.reach.arrange();
        self.arrange();
        if let Some(network) = self.shared.network() {
            network.recheck();
        }
        reached
    }

    /// Ends the threads whose settings have changed or are gone, and starts those that are lacking.
    fn arrange(&mut self) {
        let config = self.shared.config();
        let rates = config.rates_in_all(&self.shared.zoned_now());
        self.shared.upload.set_rate(rates.upload.bytes_per_second());
        self.shared.download.set_rate(rates.download.bytes_per_second());

        let stale: Vec<Name> = self
            .peers
            .iter()
            .filter(|(name, running)| config.peers.get(*name) != Some(&running.settings))
            .map(|(name, _)| name.clone())
            .collect();
        let mut legacies = BTreeMap::new();
        for name in stale {
            let legacy = self.stop_peer(&name);
            if config.peers.contains_key(&name) {
                legacies.extend(legacy.map(|legacy| (name, legacy)));
            } else {
                self.shared.inboxes().peers.remove(&name);
                self.shared.board.forget_peer(&name);
            }
        }
        let stale: Vec<Name> = self
            .folders
            .iter()
            .filter(|(name, running)| {
                let (settings, guards) = &running.settings;
                config.folders.get(*name) != Some(settings) || config.guards_of(Some(name)) != *guards
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in stale {
            self.stop_folder(&name);
            if !config.folders.contains_key(&name) {
                self.shared.board.forget_folder(&name);
            }
        }
        self.start_lacking(&config, legacies);
    }

    fn start_lacking(&mut self, config: &Config, mut legacies: BTreeMap<Name, Legacy>) {
        for name in config.folders.keys().filter(|name| !self.folders.contains_key(*name)) {
            self.shared.await_folder(name);
        }
        for (name, settings) in &config.peers {
            if self.peers.contains_key(name) {
                continue;
            }
            let legacy = legacies.remove(name).unwrap_or_else(|| {
                let (sender, inbox) = mpsc::channel();
                self.shared.inboxes().peers.insert(name.clone(), sender);
                Legacy::new(inbox)
            });
            let driver = Driver::new(Arc::clone(&self.shared), name.clone(), settings.clone(), legacy);
            if let Some(thread) = spawn(&format!("peer {name}"), move || driver.run()) {
                self.peers.insert(name.clone(), Running { settings: settings.clone(), thread });
            }
        }
        for (name, settings) in &config.folders {
            if self.folders.contains_key(name) {
                continue;
            }
            let (sender, inbox) = mpsc::channel();
            self.shared.inboxes().folders.insert(name.clone(), sender);
            let guards = config.guards_of(Some(name));
            let actor = Actor {
                shared: Arc::clone(&self.shared),
                name: name.clone(),
                path: settings.path.clone(),
                paused: settings.paused,
                guards,
                inbox,
            };
            if let Some(thread) = spawn(&format!("folder {name}"), move || actor.run()) {
                self.folders.insert(name.clone(), Running { settings: (settings.clone(), guards), thread });
            } else {
                self.shared.close_folder(name);
            }
        }
    }

    /// Ends the thread of a peer. What it is told meanwhile (an exchange has ended) is for its successor, if it has one.
    fn stop_peer(&mut self, name: &Name) -> Option<Legacy> {
        self.shared.tell_peer(name, ToPeer::Stop);
        let running = self.peers.remove(name)?;
        let legacy = running.thread.join().ok();
        if legacy.is_none() {
            self.shared.inboxes().peers.remove(name);
        }
        legacy
    }

    fn stop_folder(&mut self, name: &Name) {
        self.shared.tell_folder(name, ToFolder::Stop);
        self.shared.inboxes().folders.remove(name);
        if let Some(running) = self.folders.remove(name) {
            drop(running.thread.join());
        }
    }

    /// Where to tell it something.
    pub fn orders(&self) -> mpsc::Sender<Order> {
        self.orders.0.clone()
    }

    /// Where it can be reached, as far as it is known by now.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.shared.network().map(|network| network.addresses()).unwrap_or_default()
    }

    /// Works until it is told to stop; `pulse` is called now and then, as long as all is well.
    pub fn work(mut self, pulse: &dyn Fn()) {
        let pause = PULSE.min(self::notify::watchdog_interval().unwrap_or(PULSE));
        loop {
            match receive(&*self.shared.clock, &self.orders.1, pause) {
                Ok(Order::Reload(told)) => {
                    let done = self.reload().map_err(|error| Refusal {
                        failure: Failure::Usage,
                        message: error.to_string(),
                        hint: None,
                    });
                    if let Err(refusal) = &done {
                        tracing::error!("the configuration is not used: {}", refusal.message.escape_debug());
                    }
                    if let Some(told) = told {
                        drop(told.send(done));
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    if let Err(error) = self.reach.arrange() {
                        tracing::warn!("not reached over the network: {}", error.to_string().escape_debug());
                    }
                    let rates = self.shared.config().rates_in_all(&self.shared.zoned_now());
                    self.shared.upload.set_rate(rates.upload.bytes_per_second());
                    self.shared.download.set_rate(rates.download.bytes_per_second());
                    pulse();
                }
                Ok(Order::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        self.stop();
    }

    /// Stops: no work is begun any more; what is under way ends within seconds, or is cut off as by a kill; peers are
    /// told where the folders stand, and connections are closed.
    pub fn stop(mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.shared.wait_for_exchanges(GRACE);
        for name in self.folders.keys().cloned().collect::<Vec<_>>() {
            self.stop_folder(&name);
        }
        for name in self.peers.keys().cloned().collect::<Vec<_>>() {
            self.stop_peer(&name);
        }
        self.reach.close();
        // Wakes the thread that waits there.
        drop(UnixStream::connect(self.control.path()));
        if let Some(answering) = self.answering.take() {
            drop(answering.join());
        }
        drop(std::fs::remove_file(self.control.path()));
        self.shared.wait_for_exchanges(GRACE);
    }
}

/// How often a daemon shows that it lives.
const PULSE: Duration = Duration::from_secs(20);
/// How long exchanges under way may take to end when the daemon stops.
const GRACE: Duration = Duration::from_secs(3);

fn status(shared: &Shared, since: Timestamp) -> DaemonStatus {
    let (folders, peers) = shared.board.read();
    let (network, network_trouble) = (shared.network(), shared.board.network_trouble());
    DaemonStatus {
        process: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        since,
        device: shared.device,
        addresses: network
            .as_ref()
            .map(|network| network.addresses().iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
        relay: network.as_ref().and_then(Network::relay),
        network_trouble,
        folders,
        peers,
    }
}
