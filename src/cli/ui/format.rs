//! Sizes, counts and times, as people read them.

use jiff::tz::TimeZone;

use crate::clock::Timestamp;

/// Bytes with three digits and a unit: `812 B`, `1.2 KiB`, `35.0 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A number and a noun in the form that goes with it: `1 file`, `2 files`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// Words in a row: `a`, `a and b`, `a, b and c`.
pub(crate) fn list(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// A point in time in this time zone, to the second: `2026-11-20 10:31:02`.
pub(crate) fn time(time: Timestamp, zone: &TimeZone) -> String {
    match jiff::Timestamp::from_second(time.secs) {
        Ok(time) => time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => format!("@{}", time.secs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(0, "0 B")]
    #[case(1023, "1023 B")]
    #[case(1024, "1.0 KiB")]
    #[case(1_048_575, "1.0 MiB")]
    #[case(36_700_160, "35.0 MiB")]
    #[case(u64::MAX, "16.0 EiB")]
    fn sizes(#[case] bytes: u64, #[case] text: &str) {
        assert_eq!(size(bytes), text);
    }

    #[test]
    fn lists_and_counts() {
        assert_eq!(count(1, "file"), "1 file");
        assert_eq!(count(0, "file"), "0 files");
        let words: Vec<_> = ["a", "b", "c"].map(str::to_owned).into();
        assert_eq!(list(&words), "a, b and c");
        assert_eq!(list(&words[..1]), "a");
    }

    #[test]
    fn times_are_local_and_never_fail() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(time(Timestamp::new(0, 0), &zone), "1970-01-01 02:00:00");
        assert_eq!(time(Timestamp::new(i64::MAX, 0), &zone), format!("@{}", i64::MAX));
    }
}
