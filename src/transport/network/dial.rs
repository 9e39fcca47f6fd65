//! Finding a device and connecting to it.
//!
//! Addresses are tried at once; names are looked up meanwhile, and join in when they are known: a name server that
//! hangs holds up nothing but the names. Nothing goes on after the time is over.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use iroh::endpoint::{ConnectError, Connection as Quic, ReadError, ReadToEndError, VarInt};
use iroh::{Endpoint, EndpointAddr, EndpointId, RelayUrl};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::acceptor::WELCOME;
use super::place::Place;
use super::reason::{self, DONE};
use crate::id::DeviceId;
use crate::transport::TransportError;

/// How many hints are used.
const HINTS_LIMIT: usize = 32;
/// How many addresses are tried.
const ADDRESSES_LIMIT: usize = 32;

/// A device to be connected to, and what is known of where it is.
pub(super) struct Dial<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) device: DeviceId,
    pub(super) hints: &'a [String],
    pub(super) relay: Option<RelayUrl>,
    pub(super) alpn: &'static [u8],
}

/// What was tried, for the message when nothing came of it.
#[derive(Default)]
struct Attempts {
    tried: Vec<String>,
    /// The first name that led nowhere.
    lost: Option<(String, io::Error)>,
}

impl Dial<'_> {
    /// A connection that the other side has let in.
    pub(super) async fn run(&self, limit: Duration) -> Result<Quic, TransportError> {
        let device = self.device;
        let id = EndpointId::from_bytes(device.as_bytes()).map_err(|_| TransportError::NotAKey { device })?;
        if id == self.endpoint.id() {
            return Err(TransportError::OwnKey);
        }
        let attempts = Mutex::new(Attempts::default());
        let result = timeout(limit, self.connect(id, &attempts)).await;
        let Attempts { tried, lost } = attempts.into_inner().unwrap_or_else(PoisonError::into_inner);
        match (result, lost) {
            (Ok(Ok(quic)), _) => Ok(quic),
            (Ok(Err(Some(TransportError::NoAddress { .. }) | None)) | Err(_), Some((host, source)))
                if tried.is_empty() =>
            {
                Err(TransportError::Unresolved { host, source })
            }
            (Ok(Err(Some(error))), _) => Err(error),
            (Ok(Err(None)) | Err(_), _) => Err(TransportError::Unreachable { device, tried, after: limit }),
        }
    }

    async fn connect(&self, id: EndpointId, attempts: &Mutex<Attempts>) -> Result<Quic, Option<TransportError>> {
        let note =
            |change: &dyn Fn(&mut Attempts)| change(&mut attempts.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(relay) = &self.relay {
            note(&|attempts| attempts.tried.push(relay.to_string()));
        }
        let (known, names) = self.places(attempts);
        note(&|attempts| attempts.tried.extend(known.iter().map(ToString::to_string)));
        let at_once = self.connect_to(id, &known);
        let looked_up = async {
            let found = look_up(names, attempts).await;
            let fresh = found.iter().any(|address| !known.contains(address));
            let all: BTreeSet<_> = known.union(&found).copied().take(ADDRESSES_LIMIT).collect();
            note(&|attempts| attempts.tried.extend(all.difference(&known).map(ToString::to_string)));
            fresh.then_some(all)
        };
        tokio::pin!(at_once, looked_up);
        let quic = tokio::select! {
            biased;
            first = &mut at_once => match first {
                Ok(quic) => Ok(quic),
                // The names may know better.
                Err(error) => match looked_up.await {
                    Some(all) => self.connect_to(id, &all).await,
                    None => Err(error),
                },
            },
            all = &mut looked_up => match all {
                Some(all) => self.connect_to(id, &all).await,
                None => at_once.await,
            },
        };
        let quic = quic.map_err(|error| reason::dialing(self.device, &error))?;
        self.enter(&quic).await?;
        Ok(quic)
    }

    /// The addresses and the names among the hints.
    fn places(&self, attempts: &Mutex<Attempts>) -> (BTreeSet<SocketAddr>, Vec<Place>) {
        let (mut known, mut names) = (BTreeSet::new(), Vec::new());
        for hint in self.hints.iter().take(HINTS_LIMIT) {
            match Place::parse(hint) {
                Some(Place::Address(address)) => drop(known.insert(address)),
                Some(name) => names.push(name),
                None => lose(attempts, hint.clone(), io::Error::from(io::ErrorKind::InvalidInput)),
            }
        }
        (known, names)
    }

    async fn connect_to(&self, id: EndpointId, addresses: &BTreeSet<SocketAddr>) -> Result<Quic, ConnectError> {
        let mut target = EndpointAddr::new(id);
        for address in addresses {
            target = target.with_ip_addr(*address);
        }
        if let Some(relay) = &self.relay {
            target = target.with_relay_url(relay.clone());
        }
        self.endpoint.connect(target, self.alpn).await
    }

    /// Waits for the other side's word that this device is let in: the handshake alone does not say so.
    async fn enter(&self, quic: &Quic) -> Result<(), Option<TransportError>> {
        let device = self.device;
        let mut stream = quic.accept_uni().await.map_err(|lost| reason::dialed(device, &lost))?;
        match stream.read_to_end(64).await {
            Ok(said) if said.first() == Some(&WELCOME) => Ok(()),
            Err(ReadToEndError::Read(ReadError::ConnectionLost(lost))) => Err(reason::dialed(device, &lost)),
            Ok(_) | Err(_) => {
                quic.close(VarInt::from_u32(DONE), b"not understood");
                let reason = "it says what this version of foldersync does not understand".to_owned();
                Err(Some(TransportError::Handshake { device, reason }))
            }
        }
    }
}

fn lose(attempts: &Mutex<Attempts>, host: String, why: io::Error) {
    attempts.lock().unwrap_or_else(PoisonError::into_inner).lost.get_or_insert((host, why));
}

/// What the names lead to, all looked up at once.
async fn look_up(names: Vec<Place>, attempts: &Mutex<Attempts>) -> BTreeSet<SocketAddr> {
    let mut running = JoinSet::new();
    for name in names {
        running.spawn(async move { (name.to_string(), name.resolve().await) });
    }
    let mut found = BTreeSet::new();
    while let Some(done) = running.join_next().await {
        match done {
            Ok((_, Ok(addresses))) => found.extend(addresses),
            Ok((host, Err(error))) => lose(attempts, host, error),
            Err(_) => {}
        }
    }
    found
}
