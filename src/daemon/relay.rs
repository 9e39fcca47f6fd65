//! Relays: the one that this device is reached through, and the one that it may itself be for its peers.
//!
//! Owns how the settings become a choice, and a process that is nothing but a relay. The relay itself is in
//! `transport`, in builds with the cargo feature `relay`; others say that they lack it. Nothing is kept but the
//! relay's certificate, `relay.pem` in the home, made once.

use std::sync::{Arc, PoisonError, RwLock, mpsc};

use super::{DaemonError, Order, PULSE};
#[cfg(feature = "relay")]
use crate::config::host_name;
use crate::config::{Config, DeviceSettings, Home, Relay, RelayCertificate};
use crate::id::DeviceId;
use crate::transport::network::{Gate, Network, RelayChoice, certificate_sha256};

/// The port of a relay, for TCP and UDP, when none is named.
pub const DEFAULT_RELAY_PORT: u16 = 3340;

/// How a relay of one's own is run.
#[derive(Debug, Clone, Copy)]
pub struct RelayOptions {
    /// The TCP and UDP port; 0 for any.
    pub port: u16,
    /// To be reached from this computer only.
    pub loopback_only: bool,
}

/// The relay that the settings choose.
pub(super) fn choice(device: &DeviceSettings) -> Result<RelayChoice, DaemonError> {
    Ok(match &device.relay {
        None => RelayChoice::None,
        Some(Relay::Public) => RelayChoice::Public,
        Some(Relay::Own(url)) => {
            let certificate = device.relay_certificate.as_ref().map(pinned).transpose()?;
            RelayChoice::Own { url: url.clone(), certificate }
        }
    })
}

/// The relay that peers are to be met at, whether or not it can be reached just now.
pub(super) fn url(device: &DeviceSettings, network: Option<&Network>) -> Option<String> {
    match &device.relay {
        Some(Relay::Own(url)) => Some(url.clone()),
        Some(Relay::Public) => network.and_then(Network::relay),
        None => None,
    }
}

fn pinned(certificate: &RelayCertificate) -> Result<[u8; 32], DaemonError> {
    let path = match certificate {
        RelayCertificate::Sha256(sum) => return Ok(*sum),
        RelayCertificate::File(path) => path,
    };
    let unusable = |why: String| DaemonError::RelayCertificate { path: path.clone(), why };
    let bytes = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
    certificate_sha256(&bytes).ok_or_else(|| unusable("there is no certificate in it".to_owned()))
}

/// A relay that runs until it is dropped.
#[cfg(feature = "relay")]
pub(super) struct Running(
    #[expect(dead_code, reason = "it runs as long as it is there")] crate::transport::relay::Relay,
);

/// This build has none.
#[cfg(not(feature = "relay"))]
pub(super) enum Running {}

/// Starts a relay for those whom the gate admits, and says what they are to be told of it.
#[cfg(feature = "relay")]
pub(super) fn start(
    home: &Home,
    own: DeviceId,
    options: RelayOptions,
    gate: Arc<dyn Gate>,
) -> Result<Running, DaemonError> {
    let certificate = home.dir().join("relay.pem");
    let RelayOptions { port, loopback_only } = options;
    let options = crate::transport::relay::RelayOptions { port, loopback_only, certificate, own };
    let relay = crate::transport::relay::Relay::start(&options, gate)?;
    let sum = RelayCertificate::Sha256(relay.certificate_sha256());
    let host = if loopback_only { "127.0.0.1".to_owned() } else { host_name().to_string() };
    tracing::info!(relay = relay.url(&host), relay_certificate = %sum, "the relay is ready");
    Ok(Running(relay))
}

/// Says that this build has none.
#[cfg(not(feature = "relay"))]
pub(super) fn start(_: &Home, _: DeviceId, _: RelayOptions, _: Arc<dyn Gate>) -> Result<Running, DaemonError> {
    Err(DaemonError::NoRelay)
}

/// A process that is a relay and nothing else, for the peers of a home.
pub struct RelayOnly {
    home: Home,
    peers: Arc<Peers>,
    orders: (mpsc::Sender<Order>, mpsc::Receiver<Order>),
    _running: Running,
}

/// Lets in the devices that are peers.
struct Peers(RwLock<Config>);

impl Gate for Peers {
    fn admits(&self, device: DeviceId) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).peer_with_key(&device).is_some()
    }

    fn pairs(&self) -> bool {
        false
    }
}

impl RelayOnly {
    /// Starts it.
    pub fn start(home: &Home, options: RelayOptions) -> Result<Self, DaemonError> {
        let peers = Arc::new(Peers(RwLock::new(home.load()?)));
        let running = start(home, home.device_key()?.id(), options, Arc::<Peers>::clone(&peers))?;
        Ok(Self { home: home.clone(), peers, orders: mpsc::channel(), _running: running })
    }

    /// Where to tell it something.
    pub fn orders(&self) -> mpsc::Sender<Order> {
        self.orders.0.clone()
    }

    /// Works until it is told to stop; `pulse` is called now and then.
    pub fn work(self, pulse: &dyn Fn()) {
        let pause = PULSE.min(super::notify::watchdog_interval().unwrap_or(PULSE));
        loop {
            match self.orders.1.recv_timeout(pause) {
                Ok(Order::Reload(_)) => match self.home.load() {
                    Ok(config) => *self.peers.0.write().unwrap_or_else(PoisonError::into_inner) = config,
                    Err(error) => {
                        tracing::error!("the configuration is not used: {}", error.to_string().escape_debug());
                    }
                },
                Err(mpsc::RecvTimeoutError::Timeout) => pulse(),
                Ok(Order::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(toml: &str) -> Config {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.toml"), toml).unwrap();
        Home::at(dir.path().to_owned()).load().unwrap()
    }

    #[test]
    fn a_certificate_is_pinned_by_its_sum_or_by_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("relay.der");
        let url = "https://relay.example:3340";
        let with = |pin: &str| settings(&format!("[device]\nrelay = \"{url}\"\nrelay_certificate = \"{pin}\"\n"));
        let chosen = choice(&with(&"07".repeat(32)).device).unwrap();
        assert_eq!(chosen, RelayChoice::Own { url: url.to_owned(), certificate: Some([7; 32]) });

        let by_file = with(file.to_str().unwrap());
        assert!(choice(&by_file.device).unwrap_err().to_string().contains("relay.der"));
        std::fs::write(&file, "no certificate").unwrap();
        assert!(choice(&by_file.device).is_err());
        // DER begins as a sequence.
        std::fs::write(&file, b"\x30\x00").unwrap();
        let RelayChoice::Own { certificate: Some(from_file), .. } = choice(&by_file.device).unwrap() else {
            panic!("one's own")
        };
        assert_eq!(Some(from_file), certificate_sha256(b"\x30\x00"));
    }

    #[test]
    fn without_a_setting_there_is_no_relay_and_public_ones_only_by_name() {
        assert_eq!(choice(&settings("").device).unwrap(), RelayChoice::None);
        assert_eq!(choice(&settings("[device]\nrelay = \"public\"\n").device).unwrap(), RelayChoice::Public);
    }
}
