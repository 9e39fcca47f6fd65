//! The secret of a ticket, and the proofs that a side knows it. None of them prints what it holds.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::id::DeviceId;

/// What is hashed before the secret.
const HASHED: &[u8] = b"foldersync-pair/1 secret";

/// The one-time secret of a ticket.
#[derive(Clone)]
pub struct Secret([u8; Secret::LENGTH]);

impl Secret {
    /// Its bytes.
    pub const LENGTH: usize = 16;

    /// The secret with these bytes, which must be random.
    pub const fn new(bytes: [u8; Self::LENGTH]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the ticket.
    pub const fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }

    /// What the sharer keeps of it.
    pub fn hash(&self) -> SecretHash {
        SecretHash(Sha256::new().chain_update(HASHED).chain_update(self.0).finalize().into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The hash of a secret, the key of the proofs. The ticket cannot be had from it, but who has it can pair: it is kept
/// where only the owner can read.
#[derive(Clone)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// The hash with these bytes, as it was kept.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, to be kept.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The proof that `role` makes on this channel.
    pub(super) fn proof(&self, role: Role, channel: &Channel) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("any length will do");
        mac.update(role.label());
        mac.update(&channel.keying);
        mac.update(channel.joiner.as_bytes());
        mac.update(channel.sharer.as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// Whether `proof` is the one that `role` makes on this channel, in a time that does not tell how much of it is.
    pub(super) fn is_proof(&self, role: Role, channel: &Channel, proof: &[u8; 32]) -> bool {
        self.proof(role, channel).ct_eq(proof).into()
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

/// Who proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Joiner,
    Sharer,
}

impl Role {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Joiner => b"foldersync-pair/1 joiner",
            Self::Sharer => b"foldersync-pair/1 sharer",
        }
    }
}

/// The connection that a pairing runs over.
#[derive(Clone)]
pub struct Channel {
    /// The key of who was given the ticket, as the connection has proved it.
    pub joiner: DeviceId,
    /// The key of who made the ticket, as the connection has proved it.
    pub sharer: DeviceId,
    /// The keying material that both sides exported from the connection.
    pub keying: [u8; 32],
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Channel({} joins {})", self.joiner.short(), self.sharer.short())
    }
}

/// What a joiner showed, and on which channel. Only a [`Sharer`](super::Sharer) that was knocked at makes one.
pub struct Proof {
    pub(super) bytes: [u8; 32],
    pub(super) channel: Channel,
}

impl Proof {
    /// The device that showed it.
    pub const fn joiner(&self) -> &DeviceId {
        &self.channel.joiner
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proof({})", self.channel.joiner.short())
    }
}
