//! What a device guards its folders against: a mass change that comes from a peer, and a disk that fills up.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The guards of one folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Guards {
    /// How much of the folder a peer may delete or rewrite before a person is asked.
    pub brake: Brake,
    /// How much of the disk stays free.
    pub free_space: FreeSpace,
}

/// The share of a folder beyond which what a peer deletes and rewrites is held back: percent; `None`: never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Brake(Option<u8>);

impl Brake {
    /// Nothing is held back.
    pub const OFF: Self = Self(None);

    /// The share in percent; none: nothing is held back.
    pub const fn percent(self) -> Option<u8> {
        self.0
    }
}

impl Default for Brake {
    fn default() -> Self {
        Self(Some(50))
    }
}

/// A text is no share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no share of a folder: it takes `1%` to `99%`, or `off`", .0.escape_debug())]
pub struct BrakeError(String);

impl FromStr for Brake {
    type Err = BrakeError;

    fn from_str(text: &str) -> Result<Self, BrakeError> {
        if text == "off" {
            return Ok(Self::OFF);
        }
        let percent = text.strip_suffix('%').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let percent = percent.and_then(|digits| digits.parse().ok()).filter(|percent| (1..=99).contains(percent));
        percent.map(|percent| Self(Some(percent))).ok_or_else(|| BrakeError(text.to_owned()))
    }
}

impl TryFrom<String> for Brake {
    type Error = BrakeError;

    fn try_from(text: String) -> Result<Self, BrakeError> {
        text.parse()
    }
}

impl From<Brake> for String {
    fn from(brake: Brake) -> Self {
        brake.to_string()
    }
}

impl fmt::Display for Brake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(percent) => write!(f, "{percent}%"),
            None => f.write_str("off"),
        }
    }
}

/// How much of a disk stays free of what peers send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum FreeSpace {
    /// A hundredth of the disk, but no more than 512 MiB.
    #[default]
    Usual,
    /// So many hundredths of a percent of the disk.
    Share(u16),
    /// So many bytes; 0: the disk may fill.
    Bytes(u64),
}

impl FreeSpace {
    /// How many bytes of a disk that has `total` stay free.
    pub fn of(self, total: u64) -> u64 {
        match self {
            Self::Usual => (total / 100).min(512 << 20),
            Self::Share(share) => total / 10_000 * u64::from(share),
            Self::Bytes(bytes) => bytes,
        }
    }
}

const UNITS: [(&str, u64); 9] = [
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("B", 1),
];

/// A text is no free space.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no part of a disk: it takes `1%`, `500MB`, `2GiB`, or `off`", .0.escape_debug())]
pub struct FreeSpaceError(String);

impl FromStr for FreeSpace {
    type Err = FreeSpaceError;

    fn from_str(text: &str) -> Result<Self, FreeSpaceError> {
        let number = |digits: &str| {
            let (whole, hundredths) = digits.split_once('.').unwrap_or((digits, ""));
            let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            let sound = !whole.is_empty() && plain(whole) && plain(hundredths) && hundredths.len() <= 2;
            let hundredths = format!("{hundredths:0<2}");
            sound.then(|| whole.parse::<u64>().ok()?.checked_mul(100)?.checked_add(hundredths.parse().ok()?)).flatten()
        };
        let space = match text {
            "default" => Some(Self::Usual),
            "off" => Some(Self::Bytes(0)),
            _ => match text.strip_suffix('%') {
                Some(digits) => number(digits)
                    .and_then(|share| u16::try_from(share).ok())
                    .filter(|share| (1..=9_900).contains(share))
                    .map(Self::Share),
                None => UNITS.iter().find_map(|(unit, bytes)| {
                    let number = number(text.strip_suffix(unit)?.trim_end())?;
                    Some(Self::Bytes(u64::try_from(u128::from(number) * u128::from(*bytes) / 100).ok()?))
                }),
            },
        };
        space.ok_or_else(|| FreeSpaceError(text.to_owned()))
    }
}

impl TryFrom<String> for FreeSpace {
    type Error = FreeSpaceError;

    fn try_from(text: String) -> Result<Self, FreeSpaceError> {
        text.parse()
    }
}

impl From<FreeSpace> for String {
    fn from(space: FreeSpace) -> Self {
        space.to_string()
    }
}

impl fmt::Display for FreeSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Usual => f.write_str("default"),
            Self::Share(share) if share % 100 == 0 => write!(f, "{}%", share / 100),
            Self::Share(share) => write!(f, "{}.{:02}%", share / 100, share % 100),
            Self::Bytes(0) => f.write_str("off"),
            Self::Bytes(bytes) => {
                let unit = UNITS.iter().filter(|(_, unit)| bytes % unit == 0).max_by_key(|(_, unit)| *unit);
                let (name, unit) = unit.copied().unwrap_or(("B", 1));
                write!(f, "{}{name}", bytes / unit)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case("50%", Some(50))]
    #[case("1%", Some(1))]
    #[case("99%", Some(99))]
    #[case("off", None)]
    fn a_brake_prints_and_parses_itself(#[case] text: &str, #[case] percent: Option<u8>) {
        let brake: Brake = text.parse().unwrap();
        assert_eq!((brake.percent(), brake.to_string().as_str()), (percent, text));
    }

    #[rstest]
    fn what_is_no_share_is_refused(
        #[values("", "0%", "100%", "50", "-1%", "+5%", "5.5%", "%", "no", "256%")] text: &str,
    ) {
        assert!(text.parse::<Brake>().is_err());
    }

    #[rstest]
    #[case("1%", 10)]
    #[case("0.5%", 5)]
    #[case("off", 0)]
    #[case("500B", 500)]
    #[case("1.5kB", 1500)]
    #[case("2 KiB", 2048)]
    fn free_space_is_a_share_or_a_number_of_bytes(#[case] text: &str, #[case] of_a_thousand_blocks: u64) {
        let space: FreeSpace = text.parse().unwrap();
        let total = if text.ends_with('%') { 10_000 / 10 } else { 7 };
        let expected = of_a_thousand_blocks;
        // A share of a disk is exact to its hundredths of a percent.
        assert_eq!(space.of(total * 10) / if text.ends_with('%') { 10 } else { 1 }, expected, "{text}");
        assert_eq!(space.to_string().parse(), Ok(space));
    }

    #[test]
    fn the_usual_reserve_is_small_on_small_disks() {
        assert_eq!(FreeSpace::Usual.of(100 << 20), 1 << 20);
        assert_eq!(FreeSpace::Usual.of(1 << 50), 512 << 20);
    }

    #[rstest]
    fn what_is_no_space_is_refused(
        #[values("", "5", "GB", "-1%", "100%", "0%", "1.234%", "99999999TB", "1e3B")] text: &str,
    ) {
        assert!(text.parse::<FreeSpace>().is_err());
    }

    proptest! {
        #[test]
        fn any_number_of_bytes_is_read_as_it_is_printed(bytes in 0..u64::MAX / 100) {
            let space = FreeSpace::Bytes(bytes);
            prop_assert_eq!(space.to_string().parse(), Ok(space));
        }
    }
}
