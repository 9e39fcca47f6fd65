//! The names of conflict copies: `notes (conflict laptop 2026-11-20 10.31.02).txt`.
//!
//! A name is made of the losing revision's own device and time, so that every peer chooses the same.

use crate::clock::Timestamp;
use crate::path::SyncPath;

/// The most bytes of a name that all file systems take.
const LONGEST_NAME: usize = 255;
/// The most characters of a device's name that go into a copy's.
const LONGEST_DEVICE: usize = 32;
/// The most bytes of an ending that is still taken for one.
const LONGEST_ENDING: usize = 16;
const OPEN: &str = " (conflict ";

/// The path of the `number`-th copy (from 1) of `original`.
pub(super) fn copy_path(original: &SyncPath, device: &str, time: Timestamp, number: usize) -> SyncPath {
    let (stem, ending) = split_ending(original.file_name());
    let mut mark = format!("{OPEN}{} {})", sanitise(device), stamp(time)).into_bytes();
    if number > 1 {
        mark.extend_from_slice(format!(" {number}").as_bytes());
    }
    let room = LONGEST_NAME.saturating_sub(mark.len() + ending.len());
    let name = [shorten(stem, room), &mark, ending].concat();
    let path = match original.parent() {
        [] => name,
        parent => [parent, b"/", &name].concat(),
    };
    SyncPath::new(path).expect("the mark brings no byte that a name must not have, and no reserved name has it")
}

/// What a conflict copy's name says: the path that it is a copy of, the device, and the time. (A stem that had to be
/// shortened is told as it stands.)
pub fn parse_copy_name(path: &SyncPath) -> Option<(SyncPath, String, Timestamp)> {
    let name = path.file_name();
    let (stem, ending) = split_ending(name);
    let open = (0..stem.len()).rev().find(|&at| stem[at..].starts_with(OPEN.as_bytes()))?;
    let mark = std::str::from_utf8(&stem[open + OPEN.len()..]).ok()?;
    let (inner, number) = mark.rsplit_once(')')?;
    let numbered = number.strip_prefix(' ').is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    if !number.is_empty() && !numbered {
        return None;
    }
    let split = inner.len().checked_sub("2026-11-20 10.31.02".len() + 1).filter(|&at| inner.is_char_boundary(at))?;
    let (device, time) = (&inner[..split], inner[split..].strip_prefix(' ')?);
    let time = jiff::civil::DateTime::strptime("%Y-%m-%d %H.%M.%S", time).ok()?;
    let time = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    let original = [&stem[..open], ending].concat();
    let original = match path.parent() {
        [] => original,
        parent => [parent, b"/", &original].concat(),
    };
    Some((SyncPath::new(original).ok()?, device.to_owned(), Timestamp::new(time.as_second(), 0)))
}

/// A name in two: what may be lengthened, and its ending, dot included. A dot at the beginning makes no ending.
fn split_ending(name: &[u8]) -> (&[u8], &[u8]) {
    let last_dot = |name: &[u8]| name.iter().rposition(|&byte| byte == b'.').filter(|&at| at > 0);
    let Some(mut at) = last_dot(name) else { return (name, &[]) };
    let ending = &name[at + 1..];
    let plain = |&byte: &u8| !byte.is_ascii_whitespace() && byte != b')';
    if ending.is_empty() || ending.len() > LONGEST_ENDING || !ending.iter().all(plain) {
        return (name, &[]);
    }
    // `.tar.gz` and its like are one ending.
    if let Some(inner) = last_dot(&name[..at]).filter(|&inner| name[inner..at].eq_ignore_ascii_case(b".tar")) {
        at = inner;
    }
    name.split_at(at)
}

/// A device's name as part of a file's: without what some file system refuses, and without the parentheses by which
/// the name of a copy is recognised.
fn sanitise(device: &str) -> String {
    let tame = |c: char| match c {
        '/' | '\\' | '<' | '>' | ':' | '"' | '|' | '?' | '*' => '-',
        '(' => '[',
        ')' => ']',
        c if c.is_control() => '-',
        c => c,
    };
    let tame: String = device.trim().chars().map(tame).take(LONGEST_DEVICE).collect();
    match tame.trim() {
        "" => "unknown".to_owned(),
        tame => tame.to_owned(),
    }
}

/// The time in UTC, to the second, as it stands in names; times beyond four digits of years as the nearest.
fn stamp(time: Timestamp) -> String {
    const YEAR_0001: i64 = -62_135_596_800;
    const YEAR_9999: i64 = 253_402_000_000;
    let seconds = time.secs.clamp(YEAR_0001, YEAR_9999);
    let time = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y-%m-%d %H.%M.%S").to_string()
}

/// As many bytes of a name as there is room for, cut between characters.
fn shorten(stem: &[u8], room: usize) -> &[u8] {
    if stem.len() <= room {
        return stem;
    }
    let continues = |&at: &usize| stem[at] & 0b1100_0000 == 0b1000_0000;
    let start = room.saturating_sub(3);
    let cut = (start..=room).rev().find(|at| !continues(at)).unwrap_or(room);
    &stem[..cut]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    /// 2026-11-20 10:31:02 UTC.
    const TIME: Timestamp = Timestamp::new(1_795_170_662, 5);

    fn path(text: &str) -> SyncPath {
        SyncPath::new(text).unwrap()
    }

    #[rstest]
    #[case::plain("notes.txt", "laptop", 1, "notes (conflict laptop 2026-11-20 10.31.02).txt")]
    #[case::numbered("notes.txt", "laptop", 2, "notes (conflict laptop 2026-11-20 10.31.02) 2.txt")]
    #[case::in_a_folder("a.b/c", "laptop", 1, "a.b/c (conflict laptop 2026-11-20 10.31.02)")]
    #[case::two_endings("a.tar.gz", "x", 1, "a (conflict x 2026-11-20 10.31.02).tar.gz")]
    #[case::hidden(".bashrc", "x", 1, ".bashrc (conflict x 2026-11-20 10.31.02)")]
    #[case::hidden_with_ending(".a.txt", "x", 1, ".a (conflict x 2026-11-20 10.31.02).txt")]
    #[case::no_ending("Dr. Who", "x", 1, "Dr. Who (conflict x 2026-11-20 10.31.02)")]
    #[case::long_ending("a.0123456789abcdef", "x", 1, "a (conflict x 2026-11-20 10.31.02).0123456789abcdef")]
    #[case::no_ending_any_more("a.0123456789abcdefg", "x", 1, "a.0123456789abcdefg (conflict x 2026-11-20 10.31.02)")]
    #[case::dot_at_the_end("a.", "x", 1, "a. (conflict x 2026-11-20 10.31.02)")]
    #[case::wild_device("a", " ../<b>:\u{1}(c) ", 1, "a (conflict ..--b---[c] 2026-11-20 10.31.02)")]
    #[case::nameless_device("a", "  ", 1, "a (conflict unknown 2026-11-20 10.31.02)")]
    fn names(#[case] original: &str, #[case] device: &str, #[case] number: usize, #[case] expected: &str) {
        let copy = copy_path(&path(original), device, TIME, number);
        assert_eq!(copy, path(expected));
        assert_eq!(parse_copy_name(&copy), Some((path(original), sanitise(device), Timestamp::new(TIME.secs, 0))));
    }

    #[test]
    fn a_copy_of_a_copy_names_the_copy() {
        let first = copy_path(&path("a.txt"), "x", TIME, 1);
        let second = copy_path(&first, "y", TIME, 1);
        assert_eq!(
            parse_copy_name(&second).map(|(original, device, _)| (original, device)),
            Some((first, "y".to_owned()))
        );
    }

    #[rstest]
    #[case("notes.txt")]
    #[case("notes (conflict laptop).txt")]
    #[case("notes (conflict laptop 2026-13-20 10.31.02).txt")]
    #[case("notes (conflict laptop 2026-11-20 10.31.02) b.txt")]
    #[case("notes (conflict é2026-11-20 10.31.02).txt")]
    fn other_names_are_no_copies(#[case] name: &str) {
        assert_eq!(parse_copy_name(&path(name)), None);
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        for (length, number) in (60..=255).flat_map(|length| [(length, 12), (length, 123)]) {
            let stem = "é".repeat(length / 2);
            let copy = copy_path(&path(&format!("a/{stem}.jpg")), &"ü".repeat(99), TIME, number);
            assert!(copy.file_name().len() <= 255, "{}", copy.file_name().len());
            let text = std::str::from_utf8(copy.file_name()).unwrap();
            let end = format!("2026-11-20 10.31.02) {number}.jpg");
            assert!(text.starts_with('é') && text.ends_with(&end), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_path_any_device_and_any_time_have_a_name(
            name in prop::collection::vec(1u8.., 1..255), device: String, secs: i64, nanos in 0u32..1_000_000_000, number in 1usize..9,
        ) {
            if let Ok(original) = SyncPath::new(name) {
                let copy = copy_path(&original, &device, Timestamp::new(secs, nanos), number);
                prop_assert!(copy.file_name().len() <= 255);
                prop_assert_eq!(copy.parent(), original.parent());
                prop_assert!(parse_copy_name(&copy).is_some());
            }
        }
    }
}
