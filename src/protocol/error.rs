//! Everything that can end a session, each with its own words.
//!
//! Owns what is told to the other side about a failure, and whether another try may mend it.

use std::fmt;

use super::frame::Kind;
use super::message::{Fault, FaultCode, printable};
use super::session::Phase;
use crate::id::{CommitId, ReplicaId};

/// Who did it. A rule broken by this side is a fault in its driver; by the other side, in the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    /// The side that reports it.
    Us,
    /// Its peer.
    Them,
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Us => "this side",
            Self::Them => "the other side",
        })
    }
}

/// Why a session cannot go on. Texts from the other side are escaped in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Something else than foldersync is at the other end, or talks before it.
    #[error("the other side does not speak foldersync: it began with `{}`", seen.escape_ascii())]
    NotFoldersync {
        /// What came first, at most 64 bytes.
        seen: Vec<u8>,
    },
    /// The preamble is another form, or arrived changed.
    #[error(
        "the connection changes what is sent over it, or the other side speaks an unknown form of foldersync: \
         it began with `{}`",
        seen.escape_ascii()
    )]
    Mangled {
        /// What came first, at most 64 bytes.
        seen: Vec<u8>,
    },
    /// A frame of a type that has no meaning and must not be skipped.
    #[error("the other side sent a message of the unknown type {byte:#04x}; it may be newer than this side")]
    UnknownType {
        /// The type.
        byte: u8,
    },
    /// A frame longer than its type allows.
    #[error("the other side announced a {kind} of {length} bytes, at most {limit} are allowed")]
    TooLong {
        /// Which message.
        kind: Kind,
        /// Its length.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// A frame that could be skipped, if it were not so long.
    #[error(
        "the other side announced a message of the unknown type {byte:#04x} and {length} bytes, at most {limit} are skipped"
    )]
    SkippedTooLong {
        /// The type.
        byte: u8,
        /// Its length.
        length: u32,
        /// The limit.
        limit: u32,
    },
    /// A payload that is not what its type demands.
    #[error("the other side sent a {kind} that cannot be read: {reason}")]
    Malformed {
        /// Which message.
        kind: Kind,
        /// What is wrong.
        reason: String,
    },
    /// A field that holds what it must not.
    #[error("{who} made a {kind} whose field {field} {why}")]
    BadField {
        /// Who.
        who: Party,
        /// Which message.
        kind: Kind,
        /// Which field.
        field: &'static str,
        /// What is wrong with it, as a clause.
        why: String,
    },
    /// A message at a time when it means nothing.
    #[error("{who} sent a {kind} out of order: {phase}")]
    OutOfOrder {
        /// Who.
        who: Party,
        /// Which message.
        kind: Kind,
        /// How far the sender was.
        phase: Phase,
    },
    /// `Hello` again.
    #[error("{who} sent a second Hello")]
    SecondHello {
        /// Who.
        who: Party,
    },
    /// `BundleData` or `BundleEnd` while no bundle is open.
    #[error("{who} sent a {kind} outside a bundle")]
    OutsideBundle {
        /// Who.
        who: Party,
        /// Which message.
        kind: Kind,
    },
    /// Another message while a bundle is open.
    #[error("{who} sent a {kind} in the middle of bundle {number}")]
    InsideBundle {
        /// Who.
        who: Party,
        /// Which message.
        kind: Kind,
        /// The open bundle.
        number: u32,
    },
    /// A bundle whose number is not the next.
    #[error("{who} began bundle {number} where bundle {expected} was due")]
    WrongNumber {
        /// Who.
        who: Party,
        /// Its number.
        number: u32,
        /// The number due.
        expected: u32,
    },
    /// A bundle from a side that does not send, or to one that does not receive.
    #[error("{who} began a bundle, but this direction is switched off")]
    DirectionOff {
        /// Who.
        who: Party,
    },
    /// A bundle larger than its receiver takes.
    #[error("bundle {number} from {who} is larger than {limit} bytes, the most that its receiver takes")]
    BundleTooLarge {
        /// Who.
        who: Party,
        /// The bundle.
        number: u32,
        /// The receiver's limit.
        limit: u64,
    },
    /// A bundle shorter or longer than it says.
    #[error("bundle {number} from {who} is {counted} bytes long, but should be {said}")]
    WrongLength {
        /// Who sent it.
        who: Party,
        /// The bundle.
        number: u32,
        /// The length that it says.
        said: u64,
        /// The length that it has.
        counted: u64,
    },
    /// A bundle whose bytes are not those that were sent.
    #[error("bundle {number} from {who} does not have the checksum that it should: it was damaged on the way")]
    WrongChecksum {
        /// Who sent it.
        who: Party,
        /// The bundle.
        number: u32,
    },
    /// An answer to a bundle that was not sent, is not complete, or is answered already.
    #[error("{who} acknowledged bundle {number}, which does not wait for an answer")]
    NeverSent {
        /// Who.
        who: Party,
        /// The bundle.
        number: u32,
    },
    /// An answer that names another commit than the bundle brought.
    #[error("{who} acknowledged bundle {number} with the tip {said}, but it brings {tip}")]
    WrongTip {
        /// Who.
        who: Party,
        /// The bundle.
        number: u32,
        /// The commit in the answer.
        said: CommitId,
        /// The commit that the bundle brings.
        tip: CommitId,
    },
    /// More of something than a session allows.
    #[error("{who} exceeded the limit of {limit} {what}")]
    TooMany {
        /// Who.
        who: Party,
        /// Of what, in the plural.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The ranges of versions do not meet.
    #[error(
        "the other side ({software}) speaks versions {}-{} of the protocol, this side {}-{}: update the older one",
        theirs.0, theirs.1, ours.0, ours.1
    )]
    VersionsDiffer {
        /// What this side speaks.
        ours: (u16, u16),
        /// What the other side speaks.
        theirs: (u16, u16),
        /// What the other side is.
        software: String,
    },
    /// Both sides are one and the same copy.
    #[error("both sides are the same copy of the folder (replica {replica}): a folder cannot be its own peer")]
    SelfConnection {
        /// The copy.
        replica: ReplicaId,
    },
    /// The other side gave up, and said why.
    #[error("the other side gave up ({}): {}", .0.code, printable(&.0.text))]
    Fault(Fault),
    /// The stream ended before the session did.
    #[error("the connection ended too early: {phase}{}", if *.within { ", in the middle of a message" } else { "" })]
    Cut {
        /// How far the other side was.
        phase: Phase,
        /// Whether a message was under way.
        within: bool,
    },
    /// The session has ended already.
    #[error("the session has ended already")]
    Over,
}

impl ProtocolError {
    /// Who broke a rule, if somebody did.
    const fn culprit(&self) -> Option<Party> {
        match self {
            Self::BadField { who, .. }
            | Self::OutOfOrder { who, .. }
            | Self::SecondHello { who }
            | Self::OutsideBundle { who, .. }
            | Self::InsideBundle { who, .. }
            | Self::WrongNumber { who, .. }
            | Self::DirectionOff { who }
            | Self::BundleTooLarge { who, .. }
            | Self::WrongLength { who, .. }
            | Self::WrongChecksum { who, .. }
            | Self::NeverSent { who, .. }
            | Self::WrongTip { who, .. }
            | Self::TooMany { who, .. } => Some(*who),
            Self::UnknownType { .. } | Self::TooLong { .. } | Self::SkippedTooLong { .. } | Self::Malformed { .. } => {
                Some(Party::Them)
            }
            _ => None,
        }
    }

    /// What to tell the other side before the connection is closed; nothing to one that does not listen (any more).
    pub fn to_fault(&self) -> Option<Fault> {
        if self.culprit() == Some(Party::Us) {
            return Some(Fault::new(FaultCode::Internal, "the exchange was driven wrongly", false));
        }
        let code = match self {
            Self::NotFoldersync { .. } | Self::Mangled { .. } | Self::Fault(_) | Self::Cut { .. } | Self::Over => {
                return None;
            }
            Self::VersionsDiffer { .. } => FaultCode::Version,
            Self::SelfConnection { .. } => FaultCode::Refused,
            Self::WrongLength { .. } | Self::WrongChecksum { .. } => FaultCode::Damaged,
            Self::TooLong { .. } | Self::SkippedTooLong { .. } | Self::BundleTooLarge { .. } | Self::TooMany { .. } => {
                FaultCode::Limits
            }
            _ => FaultCode::Protocol,
        };
        // The words say "the other side" of whoever reads them here; there, they are about the reader.
        let text = self.to_string().replace("the other side", "the receiver of this message");
        Some(Fault::new(code, &text, self.may_retry()))
    }

    /// Whether a new session, perhaps later, may succeed without anybody changing anything.
    pub const fn may_retry(&self) -> bool {
        match self {
            Self::Cut { .. } | Self::WrongLength { .. } | Self::WrongChecksum { .. } => true,
            Self::Fault(fault) => fault.retry,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_other_side_is_told_is_not_its_own_words() {
        let cut = ProtocolError::Cut { phase: Phase::Sending, within: true };
        assert_eq!(cut.to_fault(), None);
        assert!(cut.may_retry());

        let wrong = ProtocolError::WrongChecksum { who: Party::Them, number: 3 };
        let fault = wrong.to_fault().expect("worth telling");
        assert_eq!((fault.code, fault.retry), (FaultCode::Damaged, true));
        assert!(fault.text.starts_with("bundle 3 from the receiver of this message"), "{}", fault.text);

        let ours = ProtocolError::SecondHello { who: Party::Us };
        assert_eq!(ours.to_fault().expect("worth telling").code, FaultCode::Internal);
    }

    #[test]
    fn a_hostile_text_cannot_reach_the_terminal_unescaped() {
        let fault = Fault::new(FaultCode::Busy, "wait\x1b]0;owned\x07", true);
        let text = ProtocolError::Fault(fault).to_string();
        assert_eq!(text, "the other side gave up (busy): wait\\u{1b}]0;owned\\u{7}");
    }
}
