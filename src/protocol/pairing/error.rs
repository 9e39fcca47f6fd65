//! Everything that can end a pairing, each with its own words, and what the other side is told of it.

use crate::protocol::Party;

/// Why a pairing came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PairingError {
    /// The joiner's proof is not that of any offer.
    #[error("the ticket's secret is none that is on offer")]
    WrongSecret,
    /// The sharer's proof is wrong: something else than the maker of the ticket answers.
    #[error("the other side does not know the ticket's secret, so it did not make the ticket")]
    NotTheSharer,
    /// The offer is over.
    #[error("the ticket has expired")]
    Expired,
    /// The offer was used before.
    #[error("the ticket was used before; each serves once")]
    Used,
    /// A person did not agree, or gave up.
    #[error("{0} cancelled")]
    Cancelled(Party),
    /// The versions that both sides speak have none in common.
    #[error("the two sides have no version of pairing in common")]
    Version,
    /// What the other side sent has no meaning.
    #[error("the other side sent what is no message of pairing: {0}")]
    Garbage(String),
    /// A message when it has no meaning.
    #[error("the other side sent a {0} out of order")]
    OutOfOrder(&'static str),
    /// This side's driver asked for what is not due.
    #[error("this side is not so far that it could {0}")]
    NotDue(&'static str),
    /// What this side would say must not be said.
    #[error("the {0} cannot be told to the other side: it takes 1 to 255 bytes without control characters and slashes")]
    BadName(&'static str),
    /// The stream ended before both sides were done.
    #[error("the connection was cut before both sides were done")]
    Cut,
    /// This side failed by itself.
    #[error("this side could not go on")]
    Internal,
    /// The other side told of something else.
    #[error("the other side refused: {0}")]
    Refused(Refusal),
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $number:literal $text:literal,)*) => {
        /// What a side is told when the other ends the pairing.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Refusal {
            $($(#[$doc])* $name,)*
            /// A code that this version does not know.
            Other(u16),
        }

        impl Refusal {
            pub(super) const fn code(self) -> u16 {
                match self {
                    $(Self::$name => $number,)*
                    Self::Other(code) => code,
                }
            }

            pub(super) const fn from_code(code: u16) -> Self {
                match code {
                    $($number => Self::$name,)*
                    _ => Self::Other(code),
                }
            }
        }

        impl std::fmt::Display for Refusal {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    $(Self::$name => f.write_str($text),)*
                    Self::Other(code) => write!(f, "code {code}"),
                }
            }
        }
    };
}

refusals! {
    /// The proof is not that of any offer.
    WrongSecret = 1 "wrong secret",
    /// The offer is over.
    Expired = 2 "expired",
    /// The offer was used before.
    Used = 3 "used before",
    /// The person did not agree, or gave up.
    Cancelled = 4 "cancelled",
    /// No common version.
    Version = 5 "no common version",
    /// Who hears it broke the protocol.
    Protocol = 6 "protocol broken",
    /// Who says so failed by itself.
    Internal = 7 "internal failure",
}

impl Refusal {
    /// The error that it is for who hears it.
    pub(super) const fn heard(self) -> PairingError {
        match self {
            Self::WrongSecret => PairingError::WrongSecret,
            Self::Expired => PairingError::Expired,
            Self::Used => PairingError::Used,
            Self::Cancelled => PairingError::Cancelled(Party::Them),
            Self::Version => PairingError::Version,
            Self::Protocol | Self::Internal | Self::Other(_) => PairingError::Refused(self),
        }
    }
}

impl PairingError {
    /// What the other side is told; nothing where it told this side, or is not there any more.
    pub const fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::WrongSecret | Self::NotTheSharer => Some(Refusal::WrongSecret),
            Self::Expired => Some(Refusal::Expired),
            Self::Used => Some(Refusal::Used),
            Self::Cancelled(Party::Us) => Some(Refusal::Cancelled),
            Self::Version => Some(Refusal::Version),
            Self::Garbage(_) | Self::OutOfOrder(_) => Some(Refusal::Protocol),
            Self::NotDue(_) | Self::BadName(_) | Self::Internal => Some(Refusal::Internal),
            Self::Cancelled(Party::Them) | Self::Cut | Self::Refused(_) => None,
        }
    }
}
