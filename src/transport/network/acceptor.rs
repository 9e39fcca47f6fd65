//! Who is let in: every connection from outside passes here, before anybody else sees it.
//!
//! Bounded whoever knocks and however often: so many handshakes at once, fewer from one place, none for long, all in
//! tasks of a few kilobytes. Once it gets crowded a knocker must show that its address is its own before it takes a
//! place. A key that is not admitted is turned away with code 403 before any of its streams is looked at.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use iroh::Endpoint;
use iroh::endpoint::{Connection as Quic, Incoming, IncomingAddr, RecvStream, SendStream, ServerConfig, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use super::endpoint::{LINK, LINK_WINDOW, PAIRING, quic_for_strangers};
use super::reason::{BUSY, REFUSED, TOO_SLOW};
use super::{Gate, device_of};

/// How many handshakes may be under way.
const HANDSHAKES: usize = 64;
/// How many of them from one place.
const HANDSHAKES_EACH: usize = 16;
/// From how many on a knocker must prove that it is where it says.
const CROWDED: usize = 8;
/// How long a handshake may take, up to the first byte of a pairing.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// How many pairings may be under way.
const PAIRINGS: usize = 4;
/// How long a pairing may take.
const PAIRING_TIME: Duration = Duration::from_mins(1);

/// What the side that lets in says first, on a stream of its own: the other is in.
pub(super) const WELCOME: u8 = 1;

/// Somebody who was let in.
pub(super) enum Admitted {
    Link(Quic),
    Pairing(Quic, (SendStream, RecvStream)),
}

/// Where a knocker is, as far as it can be held to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    V4([u8; 4]),
    /// The network: whoever has one address of it has them all.
    V6([u8; 8]),
    Relayed([u8; 32]),
    Other,
}

impl Source {
    fn of(address: &IncomingAddr) -> Self {
        match address {
            IncomingAddr::Ip(address) => Self::of_ip(*address),
            IncomingAddr::Relay { endpoint_id, .. } => Self::Relayed(*endpoint_id.as_bytes()),
            _ => Self::Other,
        }
    }

    fn of_ip(address: SocketAddr) -> Self {
        match address.ip().to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip.octets()),
            IpAddr::V6(ip) => Self::V6(ip.octets()[..8].try_into().expect("eight of sixteen")),
        }
    }
}

/// The handshakes under way.
#[derive(Default)]
struct Doors(Mutex<HashMap<Source, usize>>);

/// A place among them; free again when it is dropped.
struct Place {
    doors: Arc<Doors>,
    source: Source,
}

enum Entry {
    Enter(Place),
    /// It must come again with a proof of its address.
    Prove,
    /// There is no place; it may knock again.
    Full,
}

impl Doors {
    fn knock(self: &Arc<Self>, source: Source, proven: bool) -> Entry {
        let mut inside = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = inside.values().sum();
        let same = inside.get(&source).copied().unwrap_or(0);
        if all >= CROWDED && !proven {
            Entry::Prove
        } else if all >= HANDSHAKES || same >= HANDSHAKES_EACH {
            Entry::Full
        } else {
            inside.insert(source, same + 1);
            Entry::Enter(Place { doors: Arc::clone(self), source })
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.doors.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = inside.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                inside.remove(&self.source);
            }
        }
    }
}

/// What each handshake needs.
struct Acceptor {
    gate: Arc<dyn Gate>,
    config: Arc<ServerConfig>,
    queue: mpsc::Sender<Admitted>,
    pairings: Arc<Semaphore>,
}

/// Lets in whom the gate admits, until the endpoint is closed.
pub(super) async fn run(endpoint: Endpoint, gate: Arc<dyn Gate>, queue: mpsc::Sender<Admitted>) {
    let alpns = vec![LINK.to_vec(), PAIRING.to_vec()];
    let config = endpoint.create_server_config_builder(alpns).set_transport_config(quic_for_strangers()).build();
    let pairings = Arc::new(Semaphore::new(PAIRINGS));
    let acceptor = Arc::new(Acceptor { gate, config: Arc::new(config), queue, pairings });
    let doors = Arc::<Doors>::default();
    while let Some(incoming) = endpoint.accept().await {
        let source = Source::of(&incoming.remote_addr());
        match doors.knock(source, incoming.remote_addr_validated()) {
            Entry::Enter(place) => {
                let acceptor = Arc::clone(&acceptor);
                drop(tokio::spawn(async move { acceptor.handshake(incoming, place).await }));
            }
            // Only one that has proven itself already could not be asked, and that one was not.
            Entry::Prove => drop(incoming.retry()),
            // Without an answer it tries again by itself, and soon.
            Entry::Full => incoming.ignore(),
        }
    }
}

impl Acceptor {
    async fn handshake(&self, incoming: Incoming, place: Place) {
        // What fails here is the other side's affair, or noise.
        let Ok(accepting) = incoming.accept_with(Arc::clone(&self.config)) else { return };
        let quic = match timeout(HANDSHAKE_TIME, accepting).await {
            Ok(Ok(quic)) => quic,
            Ok(Err(error)) => return tracing::debug!("a connection did not come about: {error:#}"),
            Err(_) => return,
        };
        let device = device_of(&quic);
        let pairs = quic.alpn() == PAIRING;
        let admitted = if pairs { self.gate.pairs() } else { self.gate.admits(device) };
        if !admitted {
            tracing::debug!("{} was refused", device.short());
            return quic.close(VarInt::from_u32(REFUSED), b"unknown key");
        }
        let (last_word, entered) = if pairs {
            (quic.clone(), timeout(HANDSHAKE_TIME, self.pair(quic)).await)
        } else {
            (quic.clone(), timeout(HANDSHAKE_TIME, self.link(quic)).await)
        };
        drop(place);
        let Ok(entered) = entered else { return last_word.close(VarInt::from_u32(TOO_SLOW), b"too slow") };
        let Some(entered) = entered else { return };
        // Whoever takes them may be behind; those who wait are few, for each was let in.
        if !matches!(timeout(HANDSHAKE_TIME, self.queue.send(entered)).await, Ok(Ok(()))) {
            last_word.close(VarInt::from_u32(BUSY), b"busy");
        }
    }

    async fn link(&self, quic: Quic) -> Option<Admitted> {
        quic.set_receive_window(VarInt::from_u32(LINK_WINDOW));
        welcome(&quic).await?;
        Some(Admitted::Link(quic))
    }

    async fn pair(&self, quic: Quic) -> Option<Admitted> {
        let Ok(permit) = Arc::clone(&self.pairings).try_acquire_owned() else {
            quic.close(VarInt::from_u32(BUSY), b"busy");
            return None;
        };
        drop(tokio::spawn(limit(quic.clone(), permit)));
        welcome(&quic).await?;
        let streams = quic.accept_bi().await.ok()?;
        Some(Admitted::Pairing(quic, streams))
    }
}

/// Tells the other side that it was let in. None: it has gone.
async fn welcome(quic: &Quic) -> Option<()> {
    let mut stream = quic.open_uni().await.ok()?;
    stream.write_all(&[WELCOME]).await.ok()?;
    stream.finish().ok()
}

/// Ends a pairing that takes too long; its place is free when it is over.
async fn limit(quic: Quic, permit: OwnedSemaphorePermit) {
    let weak = quic.weak_handle();
    let closed = weak.closed();
    drop(quic);
    if timeout(PAIRING_TIME, closed).await.is_err()
        && let Some(quic) = weak.upgrade()
    {
        quic.close(VarInt::from_u32(TOO_SLOW), b"too slow");
    }
    drop(permit);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Source {
        Source::of_ip(text.parse().unwrap())
    }

    #[test]
    fn one_place_cannot_take_all_doors_and_unproven_ones_only_a_few() {
        let doors = Arc::<Doors>::default();
        let flood = ip("192.0.2.1:5");
        let mut inside = Vec::new();
        loop {
            match doors.knock(flood, false) {
                Entry::Enter(place) => inside.push(place),
                Entry::Prove => break,
                Entry::Full => panic!("it was not asked for a proof"),
            }
        }
        assert_eq!(inside.len(), CROWDED);
        while let Entry::Enter(place) = doors.knock(flood, true) {
            inside.push(place);
        }
        assert_eq!(inside.len(), HANDSHAKES_EACH);
        assert!(matches!(doors.knock(ip("192.0.2.2:5"), true), Entry::Enter(_)));
        assert_eq!(ip("[2001:db8::1]:1"), ip("[2001:db8::ffff:2]:2"));
        assert_eq!(ip("192.0.2.1:1"), ip("[::ffff:192.0.2.1]:2"));
        assert_ne!(ip("[2001:db8::1]:1"), ip("[2001:db8:0:1::1]:1"));
        drop(inside);
        assert!(doors.0.lock().unwrap().is_empty());
    }

    #[test]
    fn there_are_only_so_many_doors() {
        let doors = Arc::<Doors>::default();
        let places: Vec<_> = (0..200_u8)
            .filter_map(|n| match doors.knock(Source::V4([10, 0, 0, n]), true) {
                Entry::Enter(place) => Some(place),
                _ => None,
            })
            .collect();
        assert_eq!(places.len(), HANDSHAKES);
    }
}
