//! Identifiers: one type per meaning, so that a tree's id cannot be passed where a commit's is due.
//!
//! Owns the textual form (lower-case hexadecimal) of every id. Does no I/O and draws no random numbers:
//! who needs a fresh id brings the bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that is not the hexadecimal form of the id that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what} ({digits} hexadecimal digits)")]
pub struct IdError {
    what: &'static str,
    digits: usize,
    text: String,
}

fn decode_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    if text.len() != N * 2 {
        return None;
    }
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// The id with these bytes.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The id in these bytes, if there are just as many as it has.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// The bytes of the id.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// The first ten hexadecimal digits, for people.
            pub fn short(&self) -> String {
                self.to_string()[..10].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                decode_hex(text).map(Self).ok_or_else(|| IdError { what: $what, digits: $len * 2, text: text.to_owned() })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id_type!(
    /// Any git object, where its kind does not matter.
    ObjectId, 20, "an object id"
);
id_type!(
    /// A git commit: a revision of the folder.
    CommitId, 20, "a commit id"
);
id_type!(
    /// A git tree: the state of a folder.
    TreeId, 20, "a tree id"
);
id_type!(
    /// A shared folder, the same on every device that has a copy.
    FolderId, 16, "a folder id"
);
id_type!(
    /// One copy of a folder: one repository on one disk.
    ReplicaId, 16, "a replica id"
);
id_type!(
    /// A device: its ed25519 public key.
    DeviceId, 32, "a device id"
);

impl TreeId {
    /// Git's empty tree, which stands for an empty folder.
    pub const EMPTY: Self = Self([
        0x4b, 0x82, 0x5d, 0xc6, 0x42, 0xcb, 0x6e, 0xb9, 0xa0, 0x60, 0xe5, 0x4b, 0xf8, 0xd6, 0x92, 0x88, 0xfb, 0xee,
        0x49, 0x04,
    ]);
}

impl From<CommitId> for ObjectId {
    fn from(id: CommitId) -> Self {
        Self(id.0)
    }
}

impl From<TreeId> for ObjectId {
    fn from(id: TreeId) -> Self {
        Self(id.0)
    }
}

impl ObjectId {
    /// The same id, known to be a commit's.
    pub const fn as_commit(self) -> CommitId {
        CommitId(self.0)
    }

    /// The same id, known to be a tree's.
    pub const fn as_tree(self) -> TreeId {
        TreeId(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_parses_itself() {
        let text = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";
        assert_eq!(text.parse::<TreeId>(), Ok(TreeId::EMPTY));
        assert_eq!(TreeId::EMPTY.to_string(), text);
        assert_eq!(TreeId::EMPTY.short(), "4b825dc642");
    }

    #[test]
    fn refuses_what_is_no_id() {
        let error = "xyz".parse::<CommitId>().expect_err("not hexadecimal");
        assert_eq!(error.to_string(), "`xyz` is not a commit id (40 hexadecimal digits)");
        assert!("4b825dc642cb6eb9a060e54bf8d69288fbee490".parse::<CommitId>().is_err());
        assert!("4b825dc642cb6eb9a060e54bf8d69288fbee490ö".parse::<CommitId>().is_err());
    }
}
