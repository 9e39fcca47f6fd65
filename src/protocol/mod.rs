//! The exchange protocol: what two copies of a folder say to each other, as a state machine without any I/O.
//!
//! This header is the specification; `fixtures/wire/v1` freezes the bytes. MUST and MAY are meant as usual.
//!
//! # Participants and channel
//! Two **sides**, each with one copy (a *replica*) of one folder, over one full-duplex, ordered, reliable channel of
//! bytes (QUIC, ssh's stdin and stdout, a pipe). The sides are equals: neither is client or server once the channel
//! stands, and both directions run at once and independently. Who the other side is, and whether it may be spoken
//! to, is the channel's matter (a pinned key, an ssh login): the ids in `Hello` are claims, not proofs.
//!
//! # Goals
//! * Both sides end with each other's revisions, received, checked and synced to disk before that is said (I6).
//! * What was cut off resumes at the last acknowledged bundle, by a new session; nothing acknowledged is sent again.
//! * A hostile peer can waste a session, not memory: a session holds at most one frame, whatever is sent to it.
//! * Text in place of the protocol (a `.bashrc` that greets, an HTTP server) is told apart at the first byte.
//! * Old and new versions understand each other as far as they can, and say so where they cannot.
//!
//! # Non-goals
//! Secrecy, authentication and repair of bytes (the channel's), timeouts and keep-alive intervals (the driver's, who
//! has a clock), what is in a bundle (the store's), which folders belong together (the engine's, from both `Hello`s),
//! more than one folder or more than one round a session (open another: it costs one round trip).
//!
//! # Bytes
//! Each side first sends the [preamble](PREAMBLE), 16 bytes: `foldersync/1` CR LF 0xFF LF. The `1` is the form of the
//! framing, not the version of the protocol; the last four show a channel that translates line ends or is not clean
//! for eight bits. Then frames: type (1 byte), length of the payload (4 bytes, big-endian), payload. Each type has a
//! size limit of its own ([`Kind::limit`]), checked before anything is allocated.
//!
//! A payload is one CBOR map with small numbers as keys, except that of `BundleData`, which is the bytes themselves.
//! Receivers MUST skip keys that they do not know; senders leave out optional fields that they have no value for.
//! Nothing may follow the map. Lists of commit ids are one byte string, 20 bytes an id. Fields are added, never
//! renumbered, and never required later. Frame types below 0x80 that a receiver does not know are an error; those
//! from 0x80 up (to 64 KiB of payload) are skipped.
//!
//! # Messages
//! | type | message | says | when it may be sent |
//! |---|---|---|---|
//! | 01 | [`Hello`] | who I am, what I have, what I would take | first, once |
//! | 02 | [`Locate`] | sample your history between these two commits more finely | before my `Common`; one at a time, at most 64 |
//! | 03 | `Located` | the samples, newest first | once for each `Locate` |
//! | 04 | `Common` | the commits of yours that I have, best first: cut there | once, after my last `Located` has come |
//! | 05 | [`Offer`] | what I am about to send (zero revisions: nothing) | once, after both `Common`s |
//! | 10 | [`BundleBegin`] | a bundle begins; numbered 1, 2, 3... | after my `Offer`, outside a bundle |
//! | 11 | `BundleData` | its next bytes, 1 to 256 KiB | inside a bundle |
//! | 12 | [`BundleEnd`] | it ends; its length and SHA-256 | inside a bundle |
//! | 13 | [`Stored`] | your bundle is checked and durable here | once for each bundle that has ended, in order: |
//! | 14 | [`Rejected`] | your bundle was refused, why | either of the two |
//! | 15 | `SentAll` | no more bundles; my head | after my `Offer`, outside a bundle |
//! | 20 | [`Merged`] | I have merged, and my folder is written; my head | after both `SentAll`s, all your bundles answered |
//! | 21 | `Bye` | I have heard your `Merged` | after both `Merged`s |
//! | 7f | [`Fault`] | I give up, and why | at any time; ends the session |
//! | 80 | `Notice` | a text for people | at any time after my `Hello`, at most 256 |
//! | 81 | `Working` | I am alive, and busy | at any time before my `Bye` |
//!
//! All but `Hello`, `Notice`, `Working` and `Fault` need both `Hello`s. A side that serves several folders MAY wait
//! for the other's `Hello` before it says its own; the side that opened the channel MUST NOT wait.
//!
//! The phases of each direction ([`Phase`]):
//! ```text
//! Silent -Hello-> Negotiating -Common-> Agreed -Offer-> Sending -SentAll-> Merging -Merged-> Merged -Bye-> Done
//! ```
//!
//! **Search.** `Hello` carries samples of a side's own history, denser towards the head, and the commits that it has
//! from bundles not merged yet. When they do not bracket the best common commit closely enough, a side asks for finer
//! samples between one that it lacks and an older one that it has. `Common` ends its search; it may be empty (all is
//! to be sent).
//!
//! An `Offer` tells the other side, where its head is older than it is known to have been (`restored`), which revision
//! it had: it was restored from a backup.
//!
//! **Transfer.** Bundles may be sent back to back, without waiting for answers, up to [`WINDOW`] of them unanswered.
//! No bundle may be larger than the receiver's `bundle_limit`. A bundle of zero revisions is an *instalment*: its commit
//! is for no history, it brings contents of a revision to come. A receiver lists the last one that it holds in `have`. `Stored` MUST be said only when the bundle's data, its
//! index and whatever keeps it from being collected are synced to disk: the other side will never send it again.
//! After a `Rejected` a sender begins no further bundle (they build on it) and says `SentAll`; what was already under
//! way is rejected too. The opposite direction goes on. A side whose `Hello` says that it does not send sends no
//! bundles, and none are sent to a side that says that it does not receive: it still says `Offer` (nothing) and
//! `SentAll`.
//!
//! **Repair.** A side that has lost contents names, in `Hello`, the commits that brought them (`wanted`). It sends
//! nothing in such a session. The other side, if it sends to it at all, sends in place of what is new: what each of
//! those commits brings, as far as its own head reaches them, and the commits that lead up to them from `Common`. One
//! that does not know the field sends everything that leads from `Common` to its head: more, and of the same use.
//! Nothing is merged; `Merged` names no head.
//!
//! **End.** `Merged` says what the head is after the merge, and that disk and repository hold it. The heads are equal
//! when nothing went wrong and nothing changed meanwhile. After both `Merged`s the session has succeeded; `Bye` lets
//! the channel be closed without losing bytes under way: close after the other's `Bye` or end of stream.
//!
//! **Keep-alive.** A side that says nothing for a while because it works (scans, merges, writes) says `Working` now
//! and then, also before its `Hello`: at least every 10 seconds. A side that hears nothing for 60 seconds MAY take the channel for dead.
//!
//! # Failures
//! Every violation is a [`ProtocolError`] of its own, and ends the session; [`ProtocolError::to_fault`] says what to
//! tell the other side. Nothing that a session brought is undone: each acknowledged bundle stays, and the folder is
//! only written after a merge. [`ProtocolError::may_retry`] tells what a new session may mend (a cut, a wrong
//! checksum, a side that was busy) from what it will not (another folder, another version, a peer that breaks rules).
//! Texts from the other side are UTF-8 of limited length and may hold anything: whoever prints them escapes them.
//!
//! | code of a `Fault` | means |
//! |---|---|
//! | 1 busy | another exchange or command holds the folder: try later |
//! | 2 refused | this peer, or this folder, is not served |
//! | 3 unrelated | the two folders are not copies of one another |
//! | 4 version | no common version |
//! | 5 damaged | bytes arrived damaged, or the sender's repository is |
//! | 6 internal | the sender failed, through no fault of the receiver |
//! | 7 limits | something is larger than the sender of the fault takes |
//! | 8 protocol | the receiver of the fault broke this specification |
//!
//! # Versions
//! `Hello` is understood by all versions, for ever. It carries the range of versions that a side speaks; the highest
//! common one is spoken from then on ([`Session::version`]); when there is none both sides know it. This is
//! version 1. What an older receiver can safely ignore is an optional field or a type from 0x80 up, and no new version.
//!
//! # Driving a session
//! The driver owns the channel, the clock and the threads or tasks; a [`Session`] only turns bytes into messages and
//! messages into bytes, and checks both. Feed it what was read ([`Session::receive`]), tell it the end of the stream
//! ([`Session::end`]), write what it hands out ([`Session::take_output`]). **Backpressure is the driver's**: not to
//! read while a bundle's bytes wait to be written to disk, and not to send more while the output is not yet written.
//! It MUST go on reading while it writes, or two sides that both send wait for each other for ever.

mod error;
mod frame;
pub mod link;
mod message;
pub mod pairing;
mod session;
mod wire;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod samples;

pub use error::{Party, ProtocolError};
pub use frame::{Kind, PREAMBLE};
pub use message::{
    BundleBegin, BundleEnd, Fault, FaultCode, HAVE_LIMIT, Hello, Locate, Merged, Message, Offer, PREREQUISITE_LIMIT,
    RejectCode, Rejected, Stored, TEXT_LIMIT, WANTED_LIMIT, cut, printable,
};
pub use session::{NOTICES, Phase, SEARCHES, Session, VERSION, WINDOW};
