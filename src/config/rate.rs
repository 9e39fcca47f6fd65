//! Limits on how fast bytes go, at all times and by the time of day.

use std::fmt;
use std::num::NonZeroU64;

use jiff::Zoned;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize};

use super::schedule::{Days, Window, print_time, read_time};

/// How many bytes may go in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate(Option<NonZeroU64>);

/// A text is no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no rate: it takes a number with `B/s`, `kB/s`, `MB/s`, `GB/s`, `KiB/s`, `MiB/s` or `GiB/s`, or `unlimited`", .0.escape_debug())]
pub struct RateError(String);

/// The units, in the order in which they are tried for printing.
const UNITS: [(&str, u64); 7] = [
    ("GB/s", 1_000_000_000),
    ("MB/s", 1_000_000),
    ("GiB/s", 1 << 30),
    ("MiB/s", 1 << 20),
    ("kB/s", 1000),
    ("KiB/s", 1 << 10),
    ("B/s", 1),
];

/// How many digits may stand behind the point.
const DECIMALS: usize = 6;

impl Rate {
    /// No limit.
    pub const UNLIMITED: Self = Self(None);

    /// The rate of so many bytes a second; `None` for zero.
    pub const fn new(bytes_per_second: u64) -> Option<Self> {
        match NonZeroU64::new(bytes_per_second) {
            Some(rate) => Some(Self(Some(rate))),
            None => None,
        }
    }

    /// Bytes per second; `None` where there is no limit.
    pub const fn bytes_per_second(self) -> Option<u64> {
        match self.0 {
            Some(rate) => Some(rate.get()),
            None => None,
        }
    }
}

impl std::str::FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        if text == "unlimited" {
            return Ok(Self::UNLIMITED);
        }
        let parse = || {
            let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (number, unit) = text.split_at(end);
            let (_, factor) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim_start()))?;
            let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
            if whole.is_empty() || part.is_empty() || part.len() > DECIMALS {
                return None;
            }
            let millionths = whole.parse::<u64>().ok()?.checked_mul(1_000_000)?;
            let millionths = millionths.checked_add(format!("{part:0<DECIMALS$}").parse().ok()?)?;
            let bytes = u128::from(millionths) * u128::from(*factor) / 1_000_000;
            Self::new(u64::try_from(bytes).ok()?)
        };
        parse().ok_or_else(|| RateError(text.to_owned()))
    }
}

impl TryFrom<String> for Rate {
    type Error = RateError;

    fn try_from(text: String) -> Result<Self, RateError> {
        text.parse()
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        rate.to_string()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(rate) = self.bytes_per_second() else { return f.write_str("unlimited") };
        let (unit, factor) = UNITS.iter().find(|(_, factor)| rate.is_multiple_of(*factor)).unwrap_or(&("B/s", 1));
        write!(f, "{}{unit}", rate / factor)
    }
}

/// Limits that hold at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// From here to there.
    pub upload: Rate,
    /// From there to here.
    pub download: Rate,
}

/// Limits as they are set, for all peers together or for one alone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RateSettings {
    /// From here to there, at all times that no window says otherwise.
    pub upload: Option<Rate>,
    /// From there to here, at all times that no window says otherwise.
    pub download: Option<Rate>,
    /// Windows with limits of their own; the first that is open and says something wins.
    pub limits: Vec<Limit>,
}

impl RateSettings {
    /// What holds at this moment.
    pub fn at(&self, now: &Zoned) -> Rates {
        let open = || self.limits.iter().filter(|limit| limit.window.is_open(now));
        let upload = open().find_map(|limit| limit.upload).or(self.upload);
        let download = open().find_map(|limit| limit.download).or(self.download);
        Rates { upload: upload.unwrap_or_default(), download: download.unwrap_or_default() }
    }

    /// When next a window opens or closes, so that [`Self::at`] may say something else.
    pub fn next_change(&self, now: &Zoned) -> Option<Zoned> {
        self.limits.iter().filter_map(|limit| limit.window.next_change(now)).min()
    }
}

/// Limits that hold in a window of time.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "LimitText")]
pub struct Limit {
    /// When.
    pub window: Window,
    /// From here to there.
    pub upload: Option<Rate>,
    /// From there to here.
    pub download: Option<Rate>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitText {
    #[serde(default, deserialize_with = "read_time")]
    from: Option<jiff::civil::Time>,
    #[serde(default, deserialize_with = "read_time")]
    to: Option<jiff::civil::Time>,
    #[serde(default)]
    days: Days,
    upload: Option<Rate>,
    download: Option<Rate>,
}

impl TryFrom<LimitText> for Limit {
    type Error = &'static str;

    fn try_from(text: LimitText) -> Result<Self, Self::Error> {
        let LimitText { from, to, days, upload, download } = text;
        let hours = match (from, to) {
            (Some(from), Some(to)) => Some((from, to)),
            (None, None) => None,
            _ => return Err("`from` and `to` go together"),
        };
        if upload.is_none() && download.is_none() {
            return Err("a limit has `upload`, `download` or both");
        }
        Ok(Self { window: Window { hours, days }, upload, download })
    }
}

impl Limit {
    /// Its keys and their values.
    pub(super) fn keys(&self) -> Vec<(&'static str, String)> {
        let hours = self.window.hours.map(|(from, to)| [("from", from), ("to", to)]);
        let hours = hours.into_iter().flatten().map(|(key, time)| (key, print_time(time)));
        let rates = [("upload", self.upload), ("download", self.download)];
        hours.chain(rates.into_iter().filter_map(|(key, rate)| Some((key, rate?.to_string())))).collect()
    }

    /// The limits that a text in TOML lists.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, String> {
        #[derive(Deserialize)]
        struct Only {
            limits: Vec<Limit>,
        }
        let only: Only = toml::from_str(&format!("limits = {text}")).map_err(|error| error.message().to_owned())?;
        Ok(only.limits)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.window)?;
        for (name, rate) in [("upload", self.upload), ("download", self.download)] {
            if let Some(rate) = rate {
                write!(f, " {name} {rate}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for Limit {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let hours = self.window.hours;
        let mut map = serializer.serialize_struct("Limit", 5)?;
        map.serialize_field("from", &hours.map(|(from, _)| print_time(from)))?;
        map.serialize_field("to", &hours.map(|(_, to)| print_time(to)))?;
        map.serialize_field("days", &self.window.days)?;
        map.serialize_field("upload", &self.upload)?;
        map.serialize_field("download", &self.download)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case("500kB/s", 500_000, "500kB/s")]
    #[case("2MB/s", 2_000_000, "2MB/s")]
    #[case("1MiB/s", 1 << 20, "1MiB/s")]
    #[case("1.5MB/s", 1_500_000, "1500kB/s")]
    #[case("1.5 MiB/s", 3 << 19, "1536KiB/s")]
    #[case("500KB/s", 500_000, "500kB/s")]
    #[case("7B/s", 7, "7B/s")]
    fn reads_and_prints(#[case] text: &str, #[case] bytes: u64, #[case] printed: &str) {
        let rate: Rate = text.parse().unwrap();
        assert_eq!(rate.bytes_per_second(), Some(bytes));
        assert_eq!(rate.to_string(), printed);
    }

    #[rstest]
    #[case("")]
    #[case("0kB/s")]
    #[case("0.1B/s")]
    #[case("500")]
    #[case("500kB")]
    #[case("500kbit/s")]
    #[case("-1MB/s")]
    #[case(".5MB/s")]
    #[case("1.MB/s")]
    #[case("1.2.3MB/s")]
    #[case("99999999999999GB/s")]
    fn refuses(#[case] text: &str) {
        assert!(text.parse::<Rate>().is_err());
    }

    #[test]
    fn unlimited_is_no_number() {
        assert_eq!("unlimited".parse(), Ok(Rate::UNLIMITED));
        assert_eq!(Rate::UNLIMITED.to_string(), "unlimited");
        assert_eq!(Rate::UNLIMITED.bytes_per_second(), None);
    }

    fn at(text: &str) -> Zoned {
        text.parse::<jiff::civil::DateTime>().unwrap().to_zoned(jiff::tz::TimeZone::UTC).unwrap()
    }

    #[test]
    fn the_first_window_that_is_open_and_says_something_wins() {
        let limits = Limit::parse_list(
            r#"[{ from = "08:00", to = "18:00", upload = "200kB/s" },
                { from = "12:00", to = "13:00", upload = "1kB/s", download = "3kB/s" },
                { days = ["sat", "sun"], upload = "unlimited" }]"#,
        )
        .unwrap();
        let settings = RateSettings { upload: Rate::new(2_000_000), download: None, limits };
        let told = |time: &str| {
            let rates = settings.at(&at(time));
            format!("{} {}", rates.upload, rates.download)
        };
        // A Friday.
        assert_eq!(told("2026-11-20T07:59:59"), "2MB/s unlimited");
        assert_eq!(told("2026-11-20T08:00"), "200kB/s unlimited");
        assert_eq!(told("2026-11-20T12:30"), "200kB/s 3kB/s");
        assert_eq!(told("2026-11-20T18:00"), "2MB/s unlimited");
        assert_eq!(told("2026-11-21T19:00"), "unlimited unlimited");
        assert_eq!(settings.next_change(&at("2026-11-20T07:00")), Some(at("2026-11-20T08:00")));
        assert_eq!(settings.next_change(&at("2026-11-20T18:30")), Some(at("2026-11-21T00:00")));
        assert_eq!(RateSettings::default().next_change(&at("2026-11-20T18:30")), None);
    }

    #[rstest]
    #[case(r#"[{ from = "08:00", upload = "1kB/s" }]"#, "`from` and `to` go together")]
    #[case(r#"[{ from = "08:00", to = "09:00" }]"#, "a limit has `upload`, `download` or both")]
    fn a_limit_is_whole(#[case] text: &str, #[case] why: &str) {
        assert_eq!(Limit::parse_list(text).unwrap_err(), why);
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read(bytes in 1..=u64::MAX / 1_000_000) {
            let rate = Rate::new(bytes).unwrap();
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            drop(text.parse::<Rate>());
        }
    }
}
