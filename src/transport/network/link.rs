//! A link: one QUIC connection with a known device, and the streams on it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use iroh::TransportAddr;
use iroh::endpoint::{Connection as Quic, VarInt};
use tokio::time::timeout;

use super::place::is_local;
use super::reactor::Reactor;
use super::reason::{self, DONE, REFUSED};
use super::{Gate, stream};
use crate::id::DeviceId;
use crate::transport::{Connection, TransportError};

/// How long opening a stream waits while the other side has as many open as it allows.
const OPEN_TIME: Duration = Duration::from_secs(10);

/// How the bytes of a link travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind {
    /// Straight to the other device, over the internet.
    Direct,
    /// Straight to the other device, within the same network or computer.
    Local,
    /// Through a relay.
    Relay,
    /// Not known at the moment.
    Unknown,
}

impl fmt::Display for PathKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Local => "LAN",
            Self::Relay => "relay",
            Self::Unknown => "unknown",
        })
    }
}

/// The way that a link takes at the moment; it may change while it is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkPath {
    /// What kind of way.
    pub kind: PathKind,
    /// The other end of it: an address with its port, or a relay's; empty when it is not known.
    pub remote: String,
    /// The time there and back, when it is known.
    pub rtt: Option<Duration>,
}

/// One QUIC connection with a known device. It stays open while a clone or a stream of it is there.
///
/// All calls block; none may be made from asynchronous code.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    reactor: Reactor,
    quic: Quic,
    gate: Arc<dyn Gate>,
    device: DeviceId,
    ours: bool,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("device", &self.0.device).field("ours", &self.0.ours).finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(reactor: Reactor, quic: Quic, gate: Arc<dyn Gate>, device: DeviceId, ours: bool) -> Self {
        Self(Arc::new(Inner { reactor, quic, gate, device, ours }))
    }

    /// The device at the other end.
    pub fn device(&self) -> DeviceId {
        self.0.device
    }

    /// Whether this side dialed.
    pub fn is_ours(&self) -> bool {
        self.0.ours
    }

    /// A number that tells this link from all others of this process.
    pub fn number(&self) -> usize {
        self.0.quic.stable_id()
    }

    fn closed(&self, reason: String) -> TransportError {
        TransportError::Closed { device: self.0.device, reason }
    }

    fn stream(&self, streams: (iroh::endpoint::SendStream, iroh::endpoint::RecvStream)) -> Connection {
        stream::connection(&self.0.reactor, &self.0.quic, streams, &self.0.device.short())
    }

    /// Opens a stream. The other side learns of it with the first byte that is written to it.
    pub fn open(&self) -> Result<Connection, TransportError> {
        let opened = self.0.reactor.block_on(async { timeout(OPEN_TIME, self.0.quic.open_bi()).await });
        match opened {
            Ok(Ok(streams)) => Ok(self.stream(streams)),
            Ok(Err(lost)) => Err(self.closed(reason::text(&lost, self.0.reactor.is_shut()))),
            Err(_) => Err(TransportError::Busy { device: self.0.device }),
        }
    }

    /// Waits for the next stream that the other side opens. None: the link is gone, or the gate no longer admits the
    /// device, which closes the link.
    pub fn accept(&self) -> Option<Connection> {
        let streams = self.0.reactor.block_on(async { self.0.quic.accept_bi().await }).ok()?;
        if self.0.gate.admits(self.0.device) {
            return Some(self.stream(streams));
        }
        self.0.quic.close(VarInt::from_u32(REFUSED), b"unknown key");
        None
    }

    /// The way that the link takes at the moment.
    pub fn path(&self) -> LinkPath {
        let paths = self.0.quic.paths();
        let Some(path) = paths.iter().find(iroh::endpoint::Path::is_selected) else {
            return LinkPath { kind: PathKind::Unknown, remote: String::new(), rtt: None };
        };
        let (kind, remote) = match path.remote_addr() {
            TransportAddr::Ip(address) if is_local(address.ip()) => (PathKind::Local, plain(*address)),
            TransportAddr::Ip(address) => (PathKind::Direct, plain(*address)),
            TransportAddr::Relay(url) => (PathKind::Relay, url.to_string()),
            _ => (PathKind::Unknown, String::new()),
        };
        LinkPath { kind, remote, rtt: Some(path.rtt()) }
    }

    /// Closes the link at once: what the other side has not read may be lost. `reason` is told to it.
    pub fn close(&self, reason: &str) {
        self.0.quic.close(VarInt::from_u32(DONE), reason.as_bytes());
    }

    /// Whether the link is over.
    pub fn is_closed(&self) -> bool {
        self.0.quic.close_reason().is_some()
    }

    /// Waits until the link is over, and tells why.
    pub fn wait_closed(&self) -> String {
        let lost = self.0.reactor.block_on(self.0.quic.closed());
        reason::text(&lost, self.0.reactor.is_shut())
    }
}

/// Where the other end is, if the way that is taken leads straight to it.
pub(super) fn direct_address(quic: &Quic) -> Option<SocketAddr> {
    let paths = quic.paths();
    let path = paths.iter().find(iroh::endpoint::Path::is_selected)?;
    match path.remote_addr() {
        TransportAddr::Ip(address) => Some(SocketAddr::new(address.ip().to_canonical(), address.port())),
        _ => None,
    }
}

/// An address without the dress of IPv4 in IPv6.
fn plain(address: SocketAddr) -> String {
    SocketAddr::new(address.ip().to_canonical(), address.port()).to_string()
}
