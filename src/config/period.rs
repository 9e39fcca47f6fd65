//! Lengths of time as people write them: `50ms`, `10m`, `1h30m`.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// A text is no length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no length of time: it takes numbers with `d`, `h`, `m`, `s` or `ms`, as `10m` or `1h30m`", .0.escape_debug())]
pub struct PeriodError(String);

/// The units, the longest first, and the milliseconds in each.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// The longest: a hundred years.
const LONGEST: u64 = 100 * 366 * 86_400_000;

/// The length of time that a text tells; units may follow one another, `1h30m`, and `0s` is none.
pub fn parse(text: &str) -> Result<Duration, PeriodError> {
    let refused = || PeriodError(text.to_owned());
    let mut rest = text.trim();
    let mut millis = 0_u64;
    if rest.is_empty() {
        return Err(refused());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(refused)?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let number: u64 = number.parse().map_err(|_| refused())?;
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refused)?;
        millis = number.checked_mul(*factor).and_then(|more| millis.checked_add(more)).ok_or_else(refused)?;
        rest = after.trim_start();
    }
    if millis > LONGEST { Err(refused()) } else { Ok(Duration::from_millis(millis)) }
}

/// The text of a length of time, as [`parse`] reads it; what is finer than a millisecond is dropped.
pub fn print(period: Duration) -> String {
    let mut millis = u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, factor) in UNITS {
        let number = millis / factor;
        if number > 0 {
            text.push_str(&format!("{number}{unit}"));
            millis %= factor;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Reads a key that may be there.
pub(super) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case("50ms", 50, "50ms")]
    #[case("10m", 600_000, "10m")]
    #[case("1h30m", 5_400_000, "1h30m")]
    #[case("90m", 5_400_000, "1h30m")]
    #[case("1h 30m", 5_400_000, "1h30m")]
    #[case("0s", 0, "0s")]
    #[case("36h", 129_600_000, "1d12h")]
    fn reads_and_prints(#[case] text: &str, #[case] millis: u64, #[case] printed: &str) {
        let period = parse(text).unwrap();
        assert_eq!(period, Duration::from_millis(millis));
        assert_eq!(print(period), printed);
    }

    #[rstest]
    #[case("")]
    #[case("10")]
    #[case("m")]
    #[case("1.5h")]
    #[case("-1s")]
    #[case("10 minutes")]
    #[case("10x")]
    #[case("99999999999999999999s")]
    #[case("18446744073709551615d")]
    #[case("40000d")]
    fn refuses(#[case] text: &str) {
        assert!(parse(text).is_err());
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read(millis in 0..LONGEST) {
            let period = Duration::from_millis(millis);
            prop_assert_eq!(parse(&print(period)), Ok(period));
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            drop(parse(&text));
        }
    }
}
