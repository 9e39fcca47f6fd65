//! The messages as plain values, and what each of them may hold.
//!
//! Owns the limits of fields; a message that breaks one is neither sent nor handed on. Knows nothing of bytes (`wire`)
//! or of the order of messages (`session`).

use std::fmt;

use super::frame::Kind;
use crate::id::{CommitId, DeviceId, FolderId, ReplicaId};

/// How many commits `Hello`, `Located` and `Common` may list.
pub const HAVE_LIMIT: usize = 256;
/// How many commits `Hello` may want once more.
pub const WANTED_LIMIT: usize = 256;
/// How many prerequisites a bundle may have.
pub const PREREQUISITE_LIMIT: usize = 1024;
/// The longest text for people in bytes: of `Notice`, `Rejected` and `Fault`.
pub const TEXT_LIMIT: usize = 1024;
/// The longest name of a device, or of a piece of software, in bytes.
const NAME_LIMIT: usize = 255;

/// Everything that one side can say to the other. The order of use is the protocol module's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Who I am, what I have, what I would take.
    Hello(Box<Hello>),
    /// Asks for finer samples of the other side's history.
    Locate(Locate),
    /// The answer to `Locate`: commits of the asked range, newest first; none where the range is not known here.
    Located(Vec<CommitId>),
    /// The other side's commits that this side has, best first.
    Common(Vec<CommitId>),
    /// What is about to be sent.
    Offer(Offer),
    /// A bundle begins.
    BundleBegin(BundleBegin),
    /// The next bytes of the bundle.
    BundleData(Vec<u8>),
    /// The bundle ends.
    BundleEnd(BundleEnd),
    /// A bundle of the other side's is durable here.
    Stored(Stored),
    /// A bundle of the other side's is refused.
    Rejected(Rejected),
    /// No more bundles; this side's head, which they led up to.
    SentAll(Option<CommitId>),
    /// Merged and written.
    Merged(Merged),
    /// The other side's `Merged` has been heard.
    Bye,
    /// This side gives up.
    Fault(Fault),
    /// A text for people.
    Notice(String),
    /// Alive, and busy.
    Working,
}

/// Who a side is, what it has, and what it would take.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent answers to separate questions")]
pub struct Hello {
    /// The lowest version of the protocol that it speaks.
    pub version_min: u16,
    /// The highest version of the protocol that it speaks.
    pub version_max: u16,
    /// What it is, for logs: `foldersync 0.1.0`.
    pub software: String,
    /// The device's key, as it claims.
    pub device: DeviceId,
    /// The device's name: no path, no control characters.
    pub device_name: String,
    /// This copy of the folder.
    pub replica: ReplicaId,
    /// The folder; none in a copy that has never had an identity.
    pub folder: Option<FolderId>,
    /// Whether it would take over the other side's folder identity.
    pub joinable: bool,
    /// Whether it has any revision.
    pub has_history: bool,
    /// Its newest revision.
    pub head: Option<CommitId>,
    /// Commits that it certainly has, newest first: its head, the last known revision of the other side, spaced
    /// samples of its history, tips of bundles received but not merged.
    pub have: Vec<CommitId>,
    /// Whether it would send.
    pub sends: bool,
    /// Whether it would receive.
    pub receives: bool,
    /// The largest bundle that it takes, in bytes.
    pub bundle_limit: u64,
    /// For a repair: the other side's commits whose contents it has lost, parents first, and wants once more.
    pub wanted: Vec<CommitId>,
}

/// Asks for samples of the other side's history between two of its commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Locate {
    /// A commit of the other side's that this side lacks.
    pub newer: CommitId,
    /// An older one that this side has; none: from the beginning.
    pub older: Option<CommitId>,
}

/// What is about to be sent, for progress; no promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Bundles, where that is known.
    pub bundles: Option<u32>,
    /// Revisions; zero where nothing is to be sent.
    pub revisions: u64,
    /// Bytes, where that is known.
    pub bytes: Option<u64>,
    /// The head that they lead up to.
    pub head: Option<CommitId>,
    /// The revision that the receiver is known to have had, where its head is older: it was restored from a backup.
    pub restored: Option<CommitId>,
}

/// A bundle begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleBegin {
    /// Its number in this direction, from 1.
    pub number: u32,
    /// Commits that the receiver must have.
    pub prerequisites: Vec<CommitId>,
    /// The commit that it brings.
    pub tip: CommitId,
    /// Revisions in it; none: an instalment.
    pub revisions: u64,
    /// Its size, where that is known.
    pub bytes_hint: Option<u64>,
}

/// A bundle ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BundleEnd {
    /// Its length.
    pub bytes: u64,
    /// The SHA-256 of its bytes.
    pub sha256: [u8; 32],
}

/// A bundle of the other side's has been checked, and is synced to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its number.
    pub number: u32,
    /// The commit that it brought.
    pub tip: CommitId,
}

/// A bundle of the other side's is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Its number.
    pub number: u32,
    /// Why.
    pub code: RejectCode,
    /// Why, for people.
    pub text: String,
}

/// The merge is done and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merged {
    /// The head after it.
    pub head: Option<CommitId>,
    /// Files written or removed.
    pub applied: u64,
    /// Conflict copies made.
    pub conflicts: u64,
    /// Paths that could not be written.
    pub left_out: u64,
}

/// Why a side gives up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The kind of failure.
    pub code: FaultCode,
    /// What happened, for people.
    pub text: String,
    /// Whether a new session may mend it.
    pub retry: bool,
}

impl Rejected {
    /// A rejection whose text is cut to what may be sent.
    pub fn new(number: u32, code: RejectCode, text: &str) -> Self {
        Self { number, code, text: cut(text).to_owned() }
    }
}

impl Fault {
    /// A fault whose text is cut to what may be sent.
    pub fn new(code: FaultCode, text: &str, retry: bool) -> Self {
        Self { code, text: cut(text).to_owned(), retry }
    }
}

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $number:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
            /// A code that this version does not know.
            Other(u16),
        }

        impl From<u16> for $name {
            fn from(number: u16) -> Self {
                match number {
                    $($number => Self::$variant,)*
                    _ => Self::Other(number),
                }
            }
        }

        impl From<$name> for u16 {
            fn from(code: $name) -> Self {
                match code {
                    $($name::$variant => $number,)*
                    $name::Other(number) => number,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant => f.write_str($text),)*
                    Self::Other(number) => write!(f, "code {number}"),
                }
            }
        }
    };
}

codes! {
    /// The kind of failure that ends a session.
    FaultCode {
        /// Another exchange or command holds the folder.
        Busy = 1 "busy",
        /// This peer, or this folder, is not served.
        Refused = 2 "refused",
        /// The two folders are not copies of one another.
        Unrelated = 3 "unrelated folders",
        /// No common version.
        Version = 4 "no common version",
        /// Bytes arrived damaged, or the repository of who says so is.
        Damaged = 5 "damaged",
        /// Who says so failed by itself.
        Internal = 6 "internal failure",
        /// Something is larger than who says so takes.
        Limits = 7 "over a limit",
        /// Who hears it broke the protocol.
        Protocol = 8 "protocol broken",
    }
}

codes! {
    /// Why a bundle is refused.
    RejectCode {
        /// Its objects are not what they say, or not complete.
        Damaged = 1 "damaged",
        /// A prerequisite is missing here.
        Missing = 2 "prerequisite missing",
        /// It holds a name that must not be written, or another breach of the rules of a folder.
        Unsafe = 3 "unsafe content",
        /// Something in it is larger than is taken here.
        Limits = 4 "over a limit",
        /// It could not be stored here: disk full, no rights.
        Storage = 5 "could not be stored",
    }
}

/// The beginning of a text that may be sent: at most [`TEXT_LIMIT`] bytes of whole characters.
pub fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_LIMIT)]
}

/// A text from the other side with its control characters escaped.
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { printable.extend(c.escape_default()) } else { printable.push(c) }
    }
    printable
}

/// A field that holds what it must not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BadField {
    pub(super) field: &'static str,
    pub(super) why: String,
}

fn at_most(field: &'static str, ids: &[CommitId], limit: usize) -> Result<(), BadField> {
    if ids.len() <= limit {
        return Ok(());
    }
    Err(BadField { field, why: format!("lists {} commits, at most {limit} are allowed", ids.len()) })
}

fn no_longer(field: &'static str, text: &str, limit: usize) -> Result<(), BadField> {
    if text.len() <= limit {
        return Ok(());
    }
    Err(BadField { field, why: format!("is {} bytes long, at most {limit} are allowed", text.len()) })
}

impl Hello {
    fn check(&self) -> Result<(), BadField> {
        if self.version_min == 0 || self.version_min > self.version_max {
            let why = format!("is {} to {}, which is no range", self.version_min, self.version_max);
            return Err(BadField { field: "versions", why });
        }
        no_longer("software", &self.software, NAME_LIMIT)?;
        no_longer("device_name", &self.device_name, NAME_LIMIT)?;
        if self.device_name.is_empty() || self.device_name.contains(|c: char| c.is_control() || matches!(c, '/' | '\\'))
        {
            let why = format!("is `{}`, which is no plain name", printable(&self.device_name));
            return Err(BadField { field: "device_name", why });
        }
        at_most("have", &self.have, HAVE_LIMIT)?;
        at_most("wanted", &self.wanted, WANTED_LIMIT)
    }
}

impl Message {
    /// The kind of the message.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::Locate(_) => Kind::Locate,
            Self::Located(_) => Kind::Located,
            Self::Common(_) => Kind::Common,
            Self::Offer(_) => Kind::Offer,
            Self::BundleBegin(_) => Kind::BundleBegin,
            Self::BundleData(_) => Kind::BundleData,
            Self::BundleEnd(_) => Kind::BundleEnd,
            Self::Stored(_) => Kind::Stored,
            Self::Rejected(_) => Kind::Rejected,
            Self::SentAll(_) => Kind::SentAll,
            Self::Merged(_) => Kind::Merged,
            Self::Bye => Kind::Bye,
            Self::Fault(_) => Kind::Fault,
            Self::Notice(_) => Kind::Notice,
            Self::Working => Kind::Working,
        }
    }

    /// Whether every field holds what it may.
    pub(super) fn check(&self) -> Result<(), BadField> {
        match self {
            Self::Hello(hello) => hello.check(),
            Self::Located(have) | Self::Common(have) => at_most("have", have, HAVE_LIMIT),
            Self::BundleBegin(begin) => at_most("prerequisites", &begin.prerequisites, PREREQUISITE_LIMIT),
            Self::BundleData(data) if data.is_empty() => Err(BadField { field: "data", why: "is empty".to_owned() }),
            Self::Rejected(Rejected { text, .. }) | Self::Fault(Fault { text, .. }) | Self::Notice(text) => {
                no_longer("text", text, TEXT_LIMIT)
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = "ö".repeat(TEXT_LIMIT);
        assert_eq!(cut(&format!("x{long}")).len(), TEXT_LIMIT - 1);
        assert!(Message::Fault(Fault::new(FaultCode::Busy, &long, true)).check().is_ok());
        assert!(Message::Notice(long).check().is_err());
    }

    #[test]
    fn control_characters_are_escaped_for_people() {
        assert_eq!(printable("a\x1b[31mb\nö"), "a\\u{1b}[31mb\\nö");
    }

    #[test]
    fn codes_of_later_versions_are_kept() {
        assert_eq!(FaultCode::from(1), FaultCode::Busy);
        assert_eq!(FaultCode::from(900), FaultCode::Other(900));
        assert_eq!(u16::from(FaultCode::Other(900)), 900);
        assert_eq!(FaultCode::Other(900).to_string(), "code 900");
    }
}
