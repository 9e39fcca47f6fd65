//! A relay of one's own: carries the packets of paired devices that do not find a direct way to each other, and tells
//! them how they look from outside so that they may find one.
//!
//! It sees who talks to whom and how much, never what. Lets in this device, those that the gate admits, and while the
//! gate pairs a few others. Listens on one port number: TCP (HTTPS) for the packets, UDP for the telling; the latter
//! answers anybody. Its certificate signs itself; whoever is to use it knows its hash. Certificate and key lie in one
//! file that only its owner may read; they are made once, and a crash leaves the whole file or none.

use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use iroh::EndpointId;
use iroh_relay::server::{
    Access, AccessControl, CertConfig, ClientRequest, ConnectionId, QuicConfig, RelayConfig, Server, ServerConfig,
    TlsConfig,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::TransportError;
use super::network::{Gate, Reactor};
use crate::id::DeviceId;

/// The name in the certificate; who pins the certificate does not look at it.
const NAME: &str = "foldersync.invalid";
/// How many keys are remembered between packets.
const KEY_CACHE: usize = 256;
/// How many connections unknown devices may have while the gate pairs.
const STRANGERS: usize = 8;
/// How long stopping may take.
const FAREWELL: Duration = Duration::from_secs(3);
/// How often a free port is looked for, when any will do.
const PORT_TRIES: usize = 16;

/// How a relay is started.
#[derive(Debug, Clone)]
pub struct RelayOptions {
    /// The TCP and UDP port; 0 for any.
    pub port: u16,
    /// To be reached from this computer only.
    pub loopback_only: bool,
    /// The file with the certificate and its key; made when it is missing.
    pub certificate: PathBuf,
    /// This device, which may use its own relay.
    pub own: DeviceId,
}

/// A relay; dropping it stops it.
pub struct Relay {
    reactor: Reactor,
    server: Option<Server>,
    address: SocketAddr,
    certificate: [u8; 32],
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Relay {
    /// Starts a relay for whom the gate admits.
    pub fn start(options: &RelayOptions, gate: Arc<dyn Gate>) -> Result<Self, TransportError> {
        let (chain, key) = certificate(&options.certificate)?;
        let hash = Sha256::digest(&chain).into();
        let tls = rustls::ServerConfig::builder_with_provider(iroh::tls::default_provider())
            .with_safe_default_protocol_versions()
            .and_then(|tls| tls.with_no_client_auth().with_single_cert(vec![chain], key))
            .map_err(|error| open(&error))?;
        let reactor = Reactor::start().map_err(|error| open(&error))?;
        let access = Arc::new(Doorkeeper { gate, own: options.own, strangers: Mutex::default() });
        let server = reactor.block_on(spawn(options, &tls, &access))?;
        let address =
            server.https_addr().ok_or_else(|| TransportError::Open { reason: "it has no address".to_owned() })?;
        Ok(Self { reactor, server: Some(server), address, certificate: hash })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL that devices are to be told, when they reach this computer as `host` (a name or an address).
    pub fn url(&self, host: &str) -> String {
        let port = self.address.port();
        if host.contains(':') { format!("https://[{host}]:{port}/") } else { format!("https://{host}:{port}/") }
    }

    /// The SHA-256 of its certificate, to be pinned.
    pub fn certificate_sha256(&self) -> [u8; 32] {
        self.certificate
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            self.reactor.block_on(async { drop(timeout(FAREWELL, server.shutdown()).await) });
        }
    }
}

fn open(error: &dyn Error) -> TransportError {
    TransportError::Open { reason: format!("the relay: {error}") }
}

/// Starts the server on the one port, or on any.
async fn spawn(
    options: &RelayOptions,
    tls: &rustls::ServerConfig,
    access: &Arc<Doorkeeper>,
) -> Result<Server, TransportError> {
    let mut tries = if options.port == 0 { PORT_TRIES } else { 1 };
    loop {
        let address = free_address(options).map_err(|error| taken(&error, options.port))?;
        let mut relay = RelayConfig::new((Ipv4Addr::LOCALHOST, 0));
        relay.tls = Some(TlsConfig::new(address, CertConfig::Manual { server_config: tls.clone() }));
        relay.key_cache_capacity = Some(KEY_CACHE);
        relay.access = Arc::<Doorkeeper>::clone(access);
        let mut config = ServerConfig::default();
        config.relay = Some(relay);
        config.quic = Some(QuicConfig::new(address));
        match Server::spawn(config).await {
            Ok(server) => return Ok(server),
            // Somebody else has taken the other half of the port.
            Err(_) if tries > 1 => tries -= 1,
            Err(error) => return Err(taken(&error, options.port)),
        }
    }
}

/// An address to listen on, of both families where there are both.
fn free_address(options: &RelayOptions) -> io::Result<SocketAddr> {
    let (first, second) = if options.loopback_only {
        (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into())
    } else {
        (Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into())
    };
    let address = |ip| SocketAddr::new(ip, options.port);
    let probe = TcpListener::bind(address(first)).or_else(|error| match error.kind() {
        io::ErrorKind::AddrInUse => Err(error),
        _ => TcpListener::bind(address(second)),
    })?;
    probe.local_addr()
}

fn taken(error: &(dyn Error + 'static), port: u16) -> TransportError {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::AddrInUse) {
            return TransportError::Open { reason: format!("port {port} (TCP and UDP), for the relay, is in use") };
        }
        cause = error.source();
    }
    open(error)
}

/// The certificate and the key in a file, which is made when it is missing.
fn certificate(file: &Path) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), TransportError> {
    let failed = |reason: String| TransportError::Open {
        reason: format!("the relay's certificate in {}: {reason}", file.display()),
    };
    let text = match fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let made = make_certificate().map_err(|error| failed(error.to_string()))?;
            keep(file, &made).and_then(|()| fs::read(file))
        }
        other => other,
    };
    let text = text.map_err(|error| failed(error.to_string()))?;
    let chain = CertificateDer::from_pem_slice(&text).map_err(|error| failed(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| failed(error.to_string()))?;
    Ok((chain, key))
}

fn make_certificate() -> Result<String, rcgen::Error> {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
    Ok(made.cert.pem() + &made.signing_key.serialize_pem())
}

/// Writes the file as a whole, for its owner alone; one that has come to be meanwhile is left.
fn keep(file: &Path, text: &str) -> io::Result<()> {
    let mut draft = tempfile::NamedTempFile::new_in(file.parent().unwrap_or(Path::new(".")))?;
    draft.write_all(text.as_bytes())?;
    draft.as_file().sync_all()?;
    match draft.persist_noclobber(file) {
        Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => Err(error.error),
        _ => Ok(()),
    }
}

/// Who may use the relay.
struct Doorkeeper {
    gate: Arc<dyn Gate>,
    own: DeviceId,
    strangers: Mutex<HashSet<ConnectionId>>,
}

impl fmt::Debug for Doorkeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doorkeeper").finish_non_exhaustive()
    }
}

impl Doorkeeper {
    fn admits(&self, device: DeviceId, connection: ConnectionId) -> bool {
        if device == self.own || self.gate.admits(device) {
            return true;
        }
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        self.gate.pairs() && strangers.len() < STRANGERS && strangers.insert(connection)
    }
}

impl AccessControl for Doorkeeper {
    async fn on_connect(&self, request: &ClientRequest) -> Access {
        let device = DeviceId::from_bytes(*request.endpoint_id().as_bytes());
        if self.admits(device, request.connection_id()) {
            Access::Allow
        } else {
            Access::Deny { reason: Some("unknown key".to_owned()) }
        }
    }

    fn on_disconnect(&self, _device: EndpointId, connection: ConnectionId) {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner).remove(&connection);
    }
}

#[cfg(test)]
mod tests {
    use super::super::network::tests::{Doorkeeper as Known, PATIENCE, Side, options};
    use super::super::network::{Accepted, Hints, NetworkOptions, PathKind, RelayChoice};
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn relay(dir: &Path, gate: &Arc<Known>) -> Relay {
        let own = DeviceId::from_bytes([0; 32]);
        let options = RelayOptions { port: 0, loopback_only: true, certificate: dir.join("relay.pem"), own };
        Relay::start(&options, Arc::clone(gate) as Arc<dyn Gate>).unwrap()
    }

    fn side(relay: &Relay, certificate: [u8; 32]) -> Side {
        let choice = RelayChoice::Own { url: relay.url("127.0.0.1"), certificate: Some(certificate) };
        Side::open_with(NetworkOptions { relay: choice, ..options() })
    }

    #[test]
    fn two_devices_meet_by_the_relay_alone() {
        let dir = tempfile::tempdir().unwrap();
        let gate = Arc::<Known>::default();
        let relay = relay(dir.path(), &gate);
        let (a, b) = (side(&relay, relay.certificate_sha256()), side(&relay, relay.certificate_sha256()));
        for (one, other) in [(&a, &b), (&b, &a)] {
            one.gate.know(other.network.device());
            gate.know(one.network.device());
        }
        let url = b.network.wait_for_relay(PATIENCE).expect("it is connected to the relay");
        let hints = Hints { relay: Some(url), ..Hints::default() };
        let ours = a.network.dial(b.network.device(), &hints, PATIENCE).unwrap();
        let Some(Accepted::Link(theirs)) = b.network.accept() else { panic!("no link") };
        let mut near = ours.open().unwrap();
        near.writer.write_all(b"over the relay").unwrap();
        drop(near.writer);
        let mut said = String::new();
        io::Read::read_to_string(&mut theirs.accept().unwrap().reader, &mut said).unwrap();
        assert_eq!(said, "over the relay");
        // Both are on this computer, so it may have found the direct way already.
        assert!(matches!(ours.path().kind, PathKind::Relay | PathKind::Local), "{:?}", ours.path());
    }

    #[test]
    fn strangers_and_those_who_expect_another_certificate_stay_outside() {
        let dir = tempfile::tempdir().unwrap();
        let gate = Arc::<Known>::default();
        let relay = relay(dir.path(), &gate);
        let stranger = side(&relay, relay.certificate_sha256());
        let suspicious = side(&relay, [1; 32]);
        gate.know(suspicious.network.device());
        let known = side(&relay, relay.certificate_sha256());
        gate.know(known.network.device());
        assert!(known.network.wait_for_relay(PATIENCE).is_some());
        assert_eq!(stranger.network.wait_for_relay(Duration::from_millis(300)), None);
        assert_eq!(suspicious.network.wait_for_relay(Duration::from_millis(300)), None);
    }

    #[test]
    fn only_a_few_strangers_come_in_and_only_to_pair() {
        let gate = Arc::<Known>::default();
        let own = DeviceId::from_bytes([1; 32]);
        let keeper = Doorkeeper { gate: Arc::clone(&gate) as Arc<dyn Gate>, own, strangers: Mutex::default() };
        let stranger = DeviceId::from_bytes([2; 32]);
        let connection = || {
            let id = EndpointId::from_bytes(&[0; 32]).unwrap();
            iroh_relay::server::OnDisconnectGuard::empty(id).connection_id()
        };
        assert!(keeper.admits(own, connection()));
        assert!(!keeper.admits(stranger, connection()));
        gate.pair(true);
        let inside: Vec<_> = (0..STRANGERS).map(|_| connection()).collect();
        assert!(inside.iter().all(|connection| keeper.admits(stranger, *connection)));
        assert!(!keeper.admits(stranger, connection()));
        keeper.on_disconnect(EndpointId::from_bytes(&[0; 32]).unwrap(), inside[0]);
        assert!(keeper.admits(stranger, connection()));
    }

    #[test]
    fn the_certificate_stays_the_same_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let gate = Arc::<Known>::default();
        let first = relay(dir.path(), &gate).certificate_sha256();
        assert_eq!(relay(dir.path(), &gate).certificate_sha256(), first);
        let file = dir.path().join("relay.pem");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&file, "nonsense").unwrap();
        let error = certificate(&file).unwrap_err();
        assert!(error.to_string().contains("relay.pem"), "{error}");
    }
}
