//! The side that shares: makes tickets, and hears who comes with one.

use std::io;
use std::sync::mpsc::Sender;
use std::time::Duration;

use super::offers::{End, Right, Standing};
use super::pin::{Device, pin};
use super::talk::talk;
use crate::clock::Timestamp;
use crate::config::{Direction, Name, Relay, RelayCertificate};
use crate::daemon::Order;
use crate::daemon::asks::reload;
use crate::daemon::control::{Answer, Refusal, Secretive};
use crate::daemon::shared::Shared;
use crate::engine::{Failure, Folder, folder::random};
use crate::guard::Guards;
use crate::id::FolderId;
use crate::monitor::Silent;
use crate::protocol::pairing::{Channel, Event, Grant, PairingError, Secret, Sharer};
use crate::transport::network::PairingStream;
use crate::transport::ticket::Ticket;

/// How long a ticket may hold, in seconds: 30 days.
const LONGEST: u64 = 30 * 86400;
/// How often who waits for a joiner is shown to be there still.
const PULSE: Duration = Duration::from_secs(1);

/// The identity of a folder of the configuration.
fn identity(shared: &Shared, name: &Name) -> Result<FolderId, Refusal> {
    if let Some(folder) = shared.folder(name) {
        return Ok(folder.id());
    }
    // Its thread may not have come so far, or it is paused.
    let config = shared.config();
    let Some(settings) = config.folders.get(name) else {
        let known = format!("no folder is named `{name}` here");
        return Err(Refusal { failure: Failure::Usage, message: known, hint: None });
    };
    Ok(Folder::open(&settings.path, shared.context(std::sync::Arc::new(Silent), Guards::default()))?.id())
}

/// Makes a ticket.
pub(in crate::daemon) fn offer(
    shared: &Shared,
    folder: &Name,
    read_only: bool,
    expires: u64,
) -> Result<Answer, Refusal> {
    let refused = |failure, message: String| Refusal { failure, message, hint: None };
    let network = shared.network().ok_or_else(|| refused(Failure::Busy, "the network is closed".to_owned()))?;
    if !(1..=LONGEST).contains(&expires) {
        return Err(refused(Failure::Usage, "a ticket holds from a second to 30 days".to_owned()));
    }
    let folder_id = identity(shared, folder)?;
    let bytes = random()?;
    let secret = Secret::new(bytes);
    let now = shared.now();
    let until = Timestamp::new(now.secs.saturating_add_unsigned(expires), now.nanos);
    let right = if read_only { Right::Read } else { Right::Both };
    let number = shared
        .offers
        .add(now, &secret, until, (folder.clone(), folder_id), right)
        .map_err(|why| refused(Failure::Failed, format!("the ticket was not made: {why}")))?;
    let (relay, relay_certificate) = relay(shared);
    let ticket = Ticket {
        secret: bytes,
        device: shared.device,
        folder: folder.to_string(),
        addresses: addresses(network.addresses()),
        relay,
        relay_certificate,
    };
    tracing::info!(folder = %folder, read_only, "a ticket was given out");
    Ok(Answer::Ticket { text: Secretive(ticket.to_text()), offer: number, expires: until })
}

/// Where others may find this device. Its loopback addresses lead to itself, and count only where there are no others.
fn addresses(known: Vec<std::net::SocketAddr>) -> Vec<String> {
    let only_loopback = known.iter().all(|address| address.ip().is_loopback());
    let useful = known.into_iter().filter(|address| only_loopback || !address.ip().is_loopback());
    useful.map(|address| address.to_string()).collect()
}

/// The relay of one's own. The public ones are for those who chose them: a ticket leads nobody there.
fn relay(shared: &Shared) -> (Option<String>, Option<[u8; 32]>) {
    let device = &shared.config().device;
    match &device.relay {
        Some(Relay::Own(url)) => {
            let certificate = match &device.relay_certificate {
                Some(RelayCertificate::Sha256(hash)) => Some(*hash),
                _ => None,
            };
            (Some(url.clone()), certificate)
        }
        Some(Relay::Public) | None => (None, None),
    }
}

/// Waits until somebody has joined with a ticket, or it is over. `alive` is called now and then; an error ends the
/// waiting.
pub(in crate::daemon) fn joined(
    shared: &Shared,
    number: u64,
    alive: &mut dyn FnMut() -> io::Result<()>,
) -> io::Result<Result<Answer, Refusal>> {
    loop {
        let failed = |message: String, hint: &str| {
            Ok(Err(Refusal { failure: Failure::Refused, message, hint: Some(hint.to_owned()) }))
        };
        match shared.offers.wait(number, shared.now(), PULSE) {
            Standing::Open => alive()?,
            Standing::Ended(folder, End::Joined(peer, device_name, device)) => {
                return Ok(Ok(Answer::Paired { peer, device_name, device, folder, read_only: false, note: None }));
            }
            Standing::Ended(_, End::Failed(why)) => {
                let message = format!("somebody came with the ticket, but it came to nothing: {why}");
                return failed(message, "the ticket is used up; `foldersync share` makes a new one");
            }
            Standing::Over => {
                return failed("the ticket has expired; nobody came".to_owned(), "`foldersync share` makes a new one");
            }
        }
        if shared.is_stopping() {
            let message = "the daemon is stopping; the ticket holds when it runs again".to_owned();
            return Ok(Err(Refusal { failure: Failure::Busy, message, hint: None }));
        }
    }
}

/// Hears one who came to pair.
pub(in crate::daemon) fn pair(shared: &Shared, orders: &Sender<Order>, stream: PairingStream) {
    let PairingStream { device, keying, address, connection } = stream;
    let mut sharer = Sharer::new(Channel { joiner: device, sharer: shared.device, keying });
    let mut taken = None;
    let mut name = String::new();
    let mut pinned = None;
    let result = talk(&mut sharer, connection, &mut |sharer, event| -> Result<(), Refusal> {
        match event {
            Event::Knocked(proof) => match shared.offers.take_up(shared.now(), &proof) {
                Ok(up) => {
                    taken = Some((up.number, up.folder.clone(), up.accepted.folder(), up.accepted.grant()));
                    sharer.welcome(up.accepted, shared.config().device_name().as_str())?;
                }
                Err(error) => {
                    sharer.refuse(error.clone());
                    return Err(error.into());
                }
            },
            Event::Named(said) => {
                name = said;
                sharer.agree()?;
            }
            Event::Agreed => {
                let Some((_, folder, id, grant)) = &taken else { return Err(PairingError::Internal.into()) };
                let hosts = address.and_then(|address| address.to_string().parse().ok()).into_iter().collect();
                let joiner = Device { key: device, name: &name, hosts };
                match pin_joiner(shared, orders, joiner, (folder, *id), *grant) {
                    Ok(peer) => pinned = Some(peer),
                    Err(refusal) => {
                        sharer.give_up();
                        return Err(refusal);
                    }
                }
                sharer.done()?;
            }
            Event::Welcomed(_) | Event::Paired => {}
        }
        Ok(())
    });
    let key = device.short();
    match (taken, pinned, result) {
        (Some((number, folder, ..)), Some(peer), _) => {
            tracing::info!(folder = %folder, peer = %peer, "`{}` ({key}) has joined", name.escape_debug());
            shared.offers.ended(number, End::Joined(peer, name, device));
        }
        (Some((number, folder, ..)), None, result) => {
            let why = result.err().map_or_else(|| PairingError::Internal.to_string(), |refusal| refusal.message);
            tracing::warn!(folder = %folder, "{key} came with a ticket, but did not join: {}", why.escape_debug());
            shared.offers.ended(number, End::Failed(why));
        }
        (None, _, Err(refusal)) => {
            tracing::warn!("{key} came to join and was refused: {}", refusal.message.escape_debug());
        }
        (None, _, Ok(())) => {}
    }
}

/// Makes the joiner a peer of the folder, durably, and has the daemon know it.
fn pin_joiner(
    shared: &Shared,
    orders: &Sender<Order>,
    joiner: Device<'_>,
    (folder, id): (&Name, FolderId),
    grant: Grant,
) -> Result<Name, Refusal> {
    if identity(shared, folder)? != id {
        let message = format!("`{folder}` is another folder than it was when the ticket was made");
        return Err(Refusal { failure: Failure::Refused, message, hint: None });
    }
    let direction = match grant {
        Grant::Both => Direction::Both,
        Grant::Receive => Direction::Send,
        Grant::Send => Direction::Receive,
    };
    let peer = shared.home.edit(|config, editor| {
        if config.folders.contains_key(folder) {
            pin(config, editor, joiner, folder, direction)
        } else {
            let message = format!("folder `{folder}` is no longer shared");
            Err(Refusal { failure: Failure::Refused, message, hint: None })
        }
    })?;
    // Pinned it is in any case; a daemon that is stopping reads it when it starts.
    if let Err(refusal) = reload(orders) {
        tracing::warn!("{}", refusal.message.escape_debug());
    }
    Ok(peer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HostPort;

    #[test]
    fn loopback_addresses_are_for_those_who_have_no_others() {
        let known = |texts: &[&str]| addresses(texts.iter().map(|text| text.parse().unwrap()).collect());
        assert_eq!(known(&["127.0.0.1:1", "192.0.2.1:1", "[::1]:1"]), ["192.0.2.1:1"]);
        assert_eq!(known(&["127.0.0.1:1", "[::1]:2"]), ["127.0.0.1:1", "[::1]:2"]);
    }

    #[test]
    fn an_address_of_the_network_is_one_of_the_configuration() {
        for text in ["192.0.2.1:5", "[2001:db8::1]:44996"] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
        }
    }
}
