//! The side that joins: comes with a ticket, pins who made it, and makes the first copy.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use super::pin::{Device, pin};
use super::talk::talk;
use crate::config::{Config, ConfigError, Direction, Editor, HostPort, Name, Relay, RelayCertificate};
use crate::daemon::Order;
use crate::daemon::asks::reload;
use crate::daemon::control::{Answer, Refusal};
use crate::daemon::peer::ToPeer;
use crate::daemon::shared::Shared;
use crate::engine::{self, Failure, InitOptions, Place, Taken};
use crate::guard::Guards;
use crate::monitor::Silent;
use crate::protocol::pairing::{Channel, Event, Grant, Joiner, PairingError, Secret, Welcome};
use crate::transport::TransportError;
use crate::transport::network::{Hints, PairingStream};
use crate::transport::ticket::Ticket;

/// How long the other device may take to answer.
const DIAL: Duration = Duration::from_secs(15);
/// How often progress of the first copy is told at least.
const PULSE: Duration = Duration::from_millis(250);
/// How soon the first exchange is asked for again when it has failed.
const AGAIN: Duration = Duration::from_millis(500);

const ANEW: &str = "ask for a new one: `foldersync share` on the other device makes it";

fn refusal(failure: Failure, message: impl Into<String>) -> Refusal {
    Refusal { failure, message: message.into(), hint: None }
}

fn read(ticket: &str) -> Result<Ticket, Refusal> {
    ticket.parse().map_err(|error: crate::transport::ticket::TicketError| Refusal {
        failure: Failure::Usage,
        message: error.to_string(),
        hint: Some("it is all that `foldersync share` prints on the other device".to_owned()),
    })
}

/// What the folder of a ticket is called where it was made.
pub fn folder_of(ticket: &str) -> Result<Name, Refusal> {
    Ok(name_of(&read(ticket)?.folder))
}

/// Where this device has no relay, the ticket's becomes its own, durably; the two may have no other way to meet.
fn take_relay(shared: &Shared, orders: &Sender<Order>, ticket: &Ticket) -> Result<bool, Refusal> {
    let taken = shared.home.edit(|config, editor| Ok::<_, ConfigError>(set_relay(config, editor, ticket)))?;
    if taken {
        reload(orders)?;
    }
    Ok(taken)
}

fn own() -> Refusal {
    let hint = "`foldersync join` is to be run on the other device".to_owned();
    Refusal { hint: Some(hint), ..refusal(Failure::Usage, "this device made the ticket itself") }
}

/// What a folder that is called so elsewhere is called here.
fn name_of(text: &str) -> Name {
    Name::from_text(text, "folder")
}

/// Takes the ticket's relay where there is none; whether it did.
fn set_relay(config: &Config, editor: &mut Editor, ticket: &Ticket) -> bool {
    let relay = ticket.relay.as_ref().filter(|_| config.device.relay.is_none());
    // A ticket opts nobody into the public relays.
    match relay.and_then(|url| url.parse::<Relay>().ok()) {
        Some(relay @ Relay::Own(_)) => {
            let certificate = ticket.relay_certificate.map(RelayCertificate::Sha256);
            editor.set_relay(&relay, certificate.as_ref());
            true
        }
        Some(Relay::Public) | None => false,
    }
}

/// What both sides have agreed on.
struct Pinned {
    peer: Name,
    folder: Name,
}

/// Takes part in the folder of a ticket, at `path`. `tell` hands on who was joined, and then, by `None`, that it
/// goes on; an error of it ends the waiting, not the work.
pub(in crate::daemon) fn join(
    shared: &Shared,
    orders: &Sender<Order>,
    ticket: &str,
    path: &Path,
    tell: &mut dyn FnMut(Option<Answer>) -> io::Result<()>,
) -> io::Result<Result<Answer, Refusal>> {
    let met = read(ticket).and_then(|ticket| {
        if ticket.device == shared.device {
            return Err(own());
        }
        let taken = take_relay(shared, orders, &ticket)?;
        let (welcome, pinned) = meet(shared, orders, &ticket, path)?;
        let note = ticket.relay.filter(|_| taken);
        let note = note.map(|relay| format!("`device.relay` is {relay} from now on, as the ticket says"));
        Ok((ticket.device, welcome, pinned, note))
    });
    let (device, welcome, Pinned { peer, folder }, note) = match met {
        Ok(met) => met,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let paired = Answer::Paired {
        peer: peer.clone(),
        device_name: welcome.device_name,
        device,
        folder: folder.clone(),
        read_only: welcome.grant == Grant::Receive,
        note,
    };
    tell(Some(paired))?;
    first_copy(shared, &peer, &folder, &mut || tell(None))
}

/// Waits until an exchange of the folder with the peer that began from now on has ended well: then both sides know that
/// the copy is there. One that began before may have counted here and not there, where the peer was put in the
/// configuration anew just then.
fn first_copy(
    shared: &Shared,
    peer: &Name,
    folder: &Name,
    alive: &mut dyn FnMut() -> io::Result<()>,
) -> io::Result<Result<Answer, Refusal>> {
    let mut asked: Option<(Receiver<_>, Instant)> = None;
    let mut seen = shared.board.changes();
    loop {
        let heard = asked.as_ref().map(|(hears, since)| (hears.try_recv(), shared.since(*since)));
        match heard {
            Some((Ok((_, _, Ok(_))), _)) => return Ok(Ok(Answer::Done)),
            Some((Err(TryRecvError::Empty), _)) => {}
            // It has failed soon.
            Some((_, since)) if since < AGAIN => {}
            _ => {
                let (_, peers) = shared.board.read();
                if peers.get(peer).is_some_and(|state| state.link.is_some()) {
                    let (tells, hears) = mpsc::channel();
                    shared.tell_peer(peer, ToPeer::Exchange(folder.clone(), tells));
                    asked = Some((hears, shared.instant()));
                }
            }
        }
        if shared.is_stopping() {
            return Ok(Err(refusal(Failure::Busy, "the daemon is stopping; the copy goes on when it runs again")));
        }
        alive()?;
        seen = shared.board.wait(seen, PULSE);
    }
}

/// Pairs, and has the daemon know the folder and the peer.
fn meet(shared: &Shared, orders: &Sender<Order>, ticket: &Ticket, path: &Path) -> Result<(Welcome, Pinned), Refusal> {
    // Found out before the ticket is used up.
    let cx = shared.context(Arc::new(Silent), Guards::default());
    if !path.is_absolute() {
        return Err(refusal(Failure::Usage, format!("{} is not an absolute path", path.display())));
    }
    Place::look(path, &cx).map_err(|error| not_here(error, path))?;
    let network = shared.network().ok_or_else(|| refusal(Failure::Busy, "the network is closed"))?;
    let hints = Hints {
        addresses: ticket.addresses.clone(),
        relay: ticket.relay.clone(),
        relay_certificate: ticket.relay_certificate,
    };
    let stream = network.dial_pairing(ticket.device, &hints, DIAL).map_err(|error| not_reached(&error, ticket))?;
    let PairingStream { keying, connection, .. } = stream;
    let channel = Channel { joiner: shared.device, sharer: ticket.device, keying };
    let own_name = shared.config().device_name();
    let mut joiner = Joiner::new(&Secret::new(ticket.secret), channel, own_name.to_string())?;
    let mut welcome = None;
    let mut taken = None;
    let mut pinned = None;
    let result = talk(&mut joiner, connection, &mut |joiner, event| -> Result<(), Refusal> {
        match event {
            Event::Welcomed(offered) => {
                let device = engine::Device { id: shared.device, name: own_name.to_string() };
                let options = InitOptions { alongside: false, device, folder_id: Some(offered.folder) };
                match Taken::take(path, &options, cx.clone()) {
                    Ok(made) => taken = Some(made),
                    Err(error) => {
                        joiner.cancel();
                        return Err(not_here(error, path));
                    }
                }
                welcome = Some(offered);
                joiner.agree()?;
            }
            Event::Agreed => {
                let welcome = welcome.as_ref().ok_or(PairingError::Internal)?;
                match pin_sharer(shared, ticket, welcome, path) {
                    Ok(done) => pinned = Some(done),
                    Err(refusal) => {
                        joiner.give_up();
                        return Err(refusal);
                    }
                }
                joiner.done()?;
            }
            Event::Knocked(_) | Event::Named(_) | Event::Paired => {}
        }
        Ok(())
    });
    match (welcome, pinned, result) {
        (Some(welcome), Some(pinned), result) => {
            if let Err(refusal) = result {
                // The other side has pinned this one, too, or its next answer shows that it has not.
                tracing::warn!(peer = %pinned.peer, "the end of the pairing was not heard: {}", refusal.message);
            }
            tracing::info!(folder = %pinned.folder, peer = %pinned.peer, "joined");
            reload(orders)?;
            Ok((welcome, pinned))
        }
        (_, _, result) => {
            if let Some(Err(error)) = taken.map(Taken::undo) {
                tracing::warn!("what was made for the copy was not removed: {error}");
            }
            Err(result.err().unwrap_or_else(|| PairingError::Internal.into()))
        }
    }
}

/// Why a copy cannot be at a place.
fn not_here(error: engine::EngineError, path: &Path) -> Refusal {
    match error {
        engine::EngineError::NotEmpty { .. } => {
            let message = format!("{} is neither empty nor a copy of this folder", path.display());
            let hint = "name another place: `foldersync join TICKET DIR`; one that does not exist is made".to_owned();
            Refusal { hint: Some(hint), ..refusal(Failure::Usage, message) }
        }
        error => error.into(),
    }
}

fn not_reached(error: &TransportError, ticket: &Ticket) -> Refusal {
    let who = ticket.device.short();
    match error {
        TransportError::Refused { .. } => {
            let message = format!(
                "the ticket has expired, or was used: the device that made it ({who}) hears nobody new at the moment"
            );
            Refusal { hint: Some(ANEW.to_owned()), ..refusal(Failure::Refused, message) }
        }
        error => {
            let mut hint = "`foldersync share` or `foldersync serve` must run on the other device".to_owned();
            if let Some(relay) = &ticket.relay {
                hint.push_str(&format!(", and `device.relay` be {relay} here"));
            }
            let message = format!("the device that made the ticket cannot be reached: {error}");
            Refusal { hint: Some(hint), ..refusal(Failure::Unreachable, message) }
        }
    }
}

impl From<PairingError> for Refusal {
    fn from(error: PairingError) -> Self {
        let failure = match &error {
            PairingError::Cut => Failure::Unreachable,
            PairingError::Internal | PairingError::NotDue(_) | PairingError::BadName(_) => Failure::Failed,
            _ => Failure::Refused,
        };
        let hint = matches!(error, PairingError::Expired | PairingError::Used | PairingError::WrongSecret)
            .then(|| ANEW.to_owned());
        Self { failure, message: error.to_string(), hint }
    }
}

impl From<ConfigError> for Refusal {
    fn from(error: ConfigError) -> Self {
        Self { failure: Failure::Failed, message: error.to_string(), hint: error.hint() }
    }
}

/// Registers the folder, with the sharer as its peer.
fn pin_sharer(shared: &Shared, ticket: &Ticket, welcome: &Welcome, path: &Path) -> Result<Pinned, Refusal> {
    let direction = match welcome.grant {
        Grant::Both => Direction::Both,
        Grant::Receive => Direction::Receive,
        Grant::Send => Direction::Send,
    };
    let hosts: Vec<HostPort> = ticket.addresses.iter().filter_map(|address| address.parse().ok()).collect();
    shared.home.edit(|config, editor| {
        let (folder, is_new) = match config.folder_at(path) {
            Some(name) => (name.clone(), false),
            None => (name_of(&welcome.folder_name).unique(|name| config.folders.contains_key(name)), true),
        };
        if is_new {
            editor.add_folder(&folder, path)?;
        }
        let sharer = Device { key: ticket.device, name: &welcome.device_name, hosts };
        let peer = pin(config, editor, sharer, &folder, direction)?;
        Ok(Pinned { peer, folder })
    })
}
