//! Pairing by ticket: what two devices that do not know each other yet say until each has pinned the other's key.
//!
//! This header is the specification; `fixtures/pairing/v1` freezes the bytes. MUST and MAY are meant as usual.
//!
//! # Participants and channel
//! The **sharer** made a ticket for one folder; the **joiner** was given it by way of people. Both speak over one stream
//! of one connection that is encrypted, ordered, and has proved the device key of each side to the other; the channel
//! is agreed for this protocol alone (ALPN `foldersync-pair/1`). From the connection both sides export the same 32
//! bytes of keying material, which no other connection has ([`Channel`]). The ticket holds the sharer's key, and the
//! joiner MUST NOT begin with another one.
//!
//! # Goals
//! * Both sides prove that they know the ticket's secret, and neither tells it: who listens, relays, repeats or reflects
//!   what it heard has nothing.
//! * A secret serves once. Who does not know it learns nothing: no folder, no name, not even whether there are tickets.
//! * Both sides learn the other's name, and a person, or who speaks for one, agrees on each side.
//! * Each side knows, when it is over, that the other has pinned its key durably.
//!
//! Non-goals: secrecy and integrity of the bytes (the channel's), timeouts and the number of tries (the driver's),
//! where offers and keys are kept (the daemon's), the exchange that follows (it is another connection).
//!
//! # The secret and the proofs
//! The secret is 16 random bytes. Its hash, SHA-256 of `foldersync-pair/1 secret` and the secret, is the key of the
//! proofs, and all that the sharer keeps. A proof is HMAC-SHA256 under that key over
//! `foldersync-pair/1 joiner` or `foldersync-pair/1 sharer` (who proves), the 32 bytes of keying material, the joiner's
//! device key, and the sharer's. Proofs MUST be compared in constant time.
//!
//! # Bytes
//! Frames: type (1 byte), length of the payload (2 bytes, big-endian, at most [`LIMIT`]), payload: one CBOR map with
//! small numbers as keys, and nothing after it. Receivers MUST skip keys that they do not know. Types below 0x80 that a
//! receiver does not know are an error; those from 0x80 up are skipped, at most [`SKIPPED`] of them.
//!
//! # Messages
//! | type | message | from | fields (key) | when |
//! |---|---|---|---|---|
//! | 01 | Knock | joiner | lowest and highest version (0, 1), proof (2) | first, at once |
//! | 02 | Welcome | sharer | version (0), proof (1), folder id (2), folder's name (3), device's name (4), grant (5) | when the proof is right, and the offer has been burnt durably |
//! | 03 | Name | joiner | device's name (0) | when the sharer's proof is right |
//! | 04 | Agree | both | | when the person agrees: after `Welcome`, and after `Name` |
//! | 05 | Done | both | | after both `Agree`s, when the other's key is pinned durably |
//! | 7f | Refuse | both | code (0) | at any time; ends it |
//!
//! The grant is what the joiner may do: 0 send and receive, 1 receive only, 2 send only.
//!
//! Names are UTF-8 of 1 to 255 bytes without control characters, `/` and `\`; whoever prints them escapes them.
//!
//! # Failures
//! Every violation is a [`PairingError`] of its own, and ends the pairing. To a wrong proof the answer MUST be the same
//! whether there are offers or not; that an offer has expired, or was used, is told only to who knows its secret.
//!
//! | code of a `Refuse` | means |
//! |---|---|
//! | 1 wrong secret | the proof is not that of any offer |
//! | 2 expired | the offer is over |
//! | 3 used | the offer was used before |
//! | 4 cancelled | the person did not agree, or gave up |
//! | 5 version | no common version |
//! | 6 protocol | the receiver of this broke this specification |
//! | 7 internal | the sender failed, through no fault of the receiver |
//!
//! A cut before both `Agree`s pairs nobody, and has burnt the offer if a `Welcome` was due. After them each side pins
//! the other's key; a side that has pinned and hears no `Done` is paired all the same if the other came as far, which
//! the next connection shows.
//!
//! # Driving it
//! The driver owns the stream, the clock and the people. It feeds what it read ([`Joiner::receive`],
//! [`Sharer::receive`]), does what each [`Event`] says, and writes what [`Joiner::take_output`] hands out, also after an
//! error. On [`Event::Knocked`] it looks for the offer by [`accept`], makes durable that it is burnt, and answers by
//! [`Sharer::welcome`] or [`Sharer::refuse`].

mod error;
mod offer;
mod secret;
mod session;
mod wire;

#[cfg(test)]
mod tests;

pub use error::{PairingError, Refusal};
pub use offer::{Accepted, Grant, Offer, accept};
pub use secret::{Channel, Proof, Secret, SecretHash};
pub use session::{Event, Joiner, Sharer, VERSION, Welcome};
pub use wire::{LIMIT, SKIPPED};
