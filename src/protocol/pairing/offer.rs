//! What a sharer has offered: one folder, to one device, for a time.

use super::error::PairingError;
use super::secret::{Channel, Proof, Role, Secret, SecretHash};
use crate::clock::Timestamp;
use crate::id::FolderId;

/// What the joiner may do with the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Grant {
    /// Send and receive.
    #[default]
    Both,
    /// Receive only: what it sends is refused.
    Receive,
    /// Send only: it is sent nothing.
    Send,
}

impl Grant {
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Both => 0,
            Self::Receive => 1,
            Self::Send => 2,
        }
    }

    pub(super) const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Both),
            1 => Some(Self::Receive),
            2 => Some(Self::Send),
            _ => None,
        }
    }
}

/// One ticket, as its maker keeps it.
#[derive(Debug, Clone)]
pub struct Offer {
    /// What is kept of its secret.
    pub secret: SecretHash,
    /// When it is over, by the clock of its maker.
    pub expires: Timestamp,
    /// The folder.
    pub folder: FolderId,
    /// The folder's name here.
    pub folder_name: String,
    /// What who comes with it may do.
    pub grant: Grant,
    /// Whether somebody came with it. It is kept until it is over, so that who comes again can be told.
    pub used: bool,
}

/// An offer that was taken up, for [`Sharer::welcome`](super::Sharer::welcome).
#[derive(Debug)]
#[must_use = "the offer is burnt"]
pub struct Accepted {
    pub(super) secret: SecretHash,
    pub(super) channel: Channel,
    pub(super) folder: FolderId,
    pub(super) folder_name: String,
    pub(super) grant: Grant,
}

impl Accepted {
    /// The folder.
    pub const fn folder(&self) -> FolderId {
        self.folder
    }

    /// What the joiner may do with it.
    pub const fn grant(&self) -> Grant {
        self.grant
    }
}

impl Offer {
    /// An offer under this secret.
    pub fn new(secret: &Secret, expires: Timestamp, folder: FolderId, folder_name: String, grant: Grant) -> Self {
        Self { secret: secret.hash(), expires, folder, folder_name, grant, used: false }
    }

    /// Takes the offer up, and burns it, if `proof` is of its secret and it is neither used nor over. Whoever keeps the
    /// offer makes that durable before the joiner is answered.
    pub fn accept(&mut self, now: Timestamp, proof: &Proof) -> Result<Accepted, PairingError> {
        if !self.secret.is_proof(Role::Joiner, &proof.channel, &proof.bytes) {
            return Err(PairingError::WrongSecret);
        }
        if self.used {
            return Err(PairingError::Used);
        }
        if now >= self.expires {
            return Err(PairingError::Expired);
        }
        self.used = true;
        Ok(Accepted {
            secret: self.secret.clone(),
            channel: proof.channel.clone(),
            folder: self.folder,
            folder_name: self.folder_name.clone(),
            grant: self.grant,
        })
    }
}

/// Takes up, and burns, the one of the offers that `proof` is of. All are looked at, so that the time it takes tells
/// their number alone.
pub fn accept<'a>(
    offers: impl IntoIterator<Item = &'a mut Offer>,
    now: Timestamp,
    proof: &Proof,
) -> Result<Accepted, PairingError> {
    let mut found = Err(PairingError::WrongSecret);
    for offer in offers {
        let tried = offer.accept(now, proof);
        if matches!(found, Err(PairingError::WrongSecret)) {
            found = tried;
        }
    }
    found
}
