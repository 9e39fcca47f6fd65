//! Pairing by ticket: `share` makes one, `join` comes with it, and each side pins the other's key.
//!
//! What is said is in `crate::protocol::pairing`; here are the stream, the clock, and what has to last: the offers
//! (`offers`, in `state/offers.json`) and the pinned peers (in `config.toml`). The person who gave the ticket away, or
//! was given it, has thereby agreed.
//!
//! After a kill: an offer that somebody has taken up is burnt, whether or not a pairing came of it. A side that has
//! pinned the other stays so. A folder that was made for a joiner may stand there empty; joining again with a new
//! ticket goes on with it.
//!
//! Must never write, log or show a ticket's secret but to who asked for the ticket.
//!
//! **Guessing.** A secret has 128 random bits, and four strangers at most are heard at once; to guess it is hopeless.
//! A wrong proof therefore burns no offer: else anybody could cancel other people's tickets. But whoever tries keeps this
//! device busy, so that after five wrong proofs in a minute no stranger is heard for the rest of it.

mod join;
mod offers;
mod pin;
mod share;
mod talk;

pub use self::join::folder_of;
pub(super) use self::join::join;
pub(super) use self::offers::Offers;
pub(super) use self::share::{joined, offer, pair};
