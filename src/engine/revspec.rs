//! The `@` grammar: how a person names a revision of a file.
//!
//! `FILE@REVISION`, where a revision is
//!
//! ```text
//! 3                        the third revision, counted from 1, oldest first
//! -1  -2                   the one before the latest, the one before that
//! latest                   what the folder holds now
//! 2026-11-01               as it was at the end of that day
//! 2026-11-01 10:30         ... of that minute (a `T` may stand for the space)
//! 2026-11-01T10:30:05Z     ... of that second; `Z` or an offset (`+01:00`) instead of local time
//! today  yesterday  now    as it was at the end of that day; at this moment
//! 2 hours ago              that long before now: second, minute, hour, day, week, month, year (2.hours.ago, a day ago)
//! 1a2b3c4                  the commit with this id: 7 digits or more, a letter among them, or all 40
//! ```
//!
//! **A time means the end of what it names.** Who asks for a file as it was on 1 November wants the work of that day in
//! it, so a day counts to its last moment, a minute to its last second. (Git takes the time of day at which it is
//! asked; the answer would change by the hour.) Local times that a clock change makes happen twice mean the second one.
//!
//! The revision begins behind the last `@`. What stands there and does not look like a revision is part of the name:
//! `mail@example.com` is a file. What looks like one but cannot be (`@0`, `@2026-13-01`) is an error, and a name that
//! really ends so is given after `--`. Paths are resolved against the caller's place in the folder by their text alone;
//! links are not followed. Does no I/O and asks no clock: times are resolved later, with the time and zone of the asker.

use std::fmt;
use std::ops::RangeInclusive;

use jiff::civil;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Span};

use crate::clock::Timestamp;
use crate::path::{NameError, SyncPath, quote};

/// What is wrong with a revision, or with the path before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevError {
    /// The text is no revision at all.
    #[error(
        "`{text}` is not a revision: a revision is a number (`3`), `-1` (the one before the latest), `latest`, a date \
         (`2026-11-01`, `2026-11-01 10:30`: as it was at the end of that), `yesterday`, a span (`2 hours ago`), or a \
         commit id (7 digits or more)"
    )]
    NotARevision {
        /// What was given.
        text: String,
    },
    /// Revision 0.
    #[error("there is no revision `{text}`: revisions are counted from 1, and `-1` is the one before the latest")]
    Zero {
        /// What was given.
        text: String,
    },
    /// A date, a time or a span that does not exist.
    #[error("`{text}` is not a time: {why}")]
    NotATime {
        /// What was given.
        text: String,
        /// What does not fit.
        why: String,
    },
    /// Nothing stands before the `@`, or it is the folder itself.
    #[error("`{arg}` does not name a file in the folder")]
    NoFile {
        /// What was given.
        arg: String,
    },
    /// The path leads out of the folder.
    #[error("`{arg}` is outside the folder")]
    Outside {
        /// What was given.
        arg: String,
    },
    /// The path has a name that cannot be in a folder.
    #[error("`{arg}` cannot be in the folder: {source}")]
    Name {
        /// What was given.
        arg: String,
        /// Why not.
        source: NameError,
    },
}

/// Which revision of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevSpec {
    /// By its number, from 1.
    Number(u64),
    /// So many before the latest, from 1.
    Back(u64),
    /// What the folder holds now.
    Latest,
    /// As it was then.
    Time(TimeSpec),
    /// As it was in the commit whose id begins with these (lower-case hexadecimal) digits.
    Commit(String),
}

/// A point in time as a person names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimeSpec {
    /// The end of a day.
    Day(civil::Date),
    /// The end of a minute or a second, or an exact moment; in local time where there is no offset.
    Moment {
        /// The clock's time.
        at: civil::DateTime,
        /// How exactly it was given.
        precision: Precision,
        /// The offset from UTC, if one was given.
        offset: Option<Offset>,
    },
    /// The end of today.
    Today,
    /// The end of yesterday.
    Yesterday,
    /// This moment.
    Now,
    /// So long before this moment.
    Ago {
        /// How many.
        count: u32,
        /// Of what.
        unit: Unit,
    },
}

/// How exactly a time of day was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// `10:30`.
    Minute,
    /// `10:30:05`.
    Second,
    /// `10:30:05.25`.
    Exact,
}

/// What a span is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are what they are called")]
pub enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl Unit {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Second, "second"),
        (Self::Minute, "minute"),
        (Self::Hour, "hour"),
        (Self::Day, "day"),
        (Self::Week, "week"),
        (Self::Month, "month"),
        (Self::Year, "year"),
    ];

    fn parse(text: &str) -> Option<Self> {
        let one = text.strip_suffix('s').unwrap_or(text);
        Self::ALL.into_iter().find(|&(_, word)| word == one).map(|(unit, _)| unit)
    }

    fn word(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// The fewest digits of a commit's id that are taken for one; fewer are too often words (`cafe`, `face`).
const COMMIT_DIGITS: RangeInclusive<usize> = 7..=40;

impl RevSpec {
    /// The revision that `text` (what stands behind the `@`) names.
    pub fn parse(text: &str) -> Result<Self, RevError> {
        let not_a_revision = || RevError::NotARevision { text: text.to_owned() };
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = |digits: &str| match digits.parse() {
            Ok(0) => Err(RevError::Zero { text: text.to_owned() }),
            Ok(number) => Ok(number),
            Err(_) => Err(not_a_revision()),
        };
        let lower = text.to_ascii_lowercase();
        if digits(text) && text.len() != *COMMIT_DIGITS.end() {
            return number(text).map(Self::Number);
        }
        if let Some(back) = text.strip_prefix('-').filter(|back| digits(back)) {
            return number(back).map(Self::Back);
        }
        if lower == "latest" {
            return Ok(Self::Latest);
        }
        if COMMIT_DIGITS.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(Self::Commit(lower));
        }
        TimeSpec::try_parse(text)?.map(Self::Time).ok_or_else(not_a_revision)
    }
}

impl fmt::Display for RevSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Back(number) => write!(f, "-{number}"),
            Self::Latest => f.write_str("latest"),
            Self::Time(time) => time.fmt(f),
            Self::Commit(digits) => f.write_str(digits),
        }
    }
}

impl TimeSpec {
    /// The time that `text` names; none where it does not look like one.
    fn try_parse(text: &str) -> Result<Option<Self>, RevError> {
        let lower = text.to_ascii_lowercase();
        Ok(match lower.as_str() {
            "today" => Some(Self::Today),
            "yesterday" => Some(Self::Yesterday),
            "now" => Some(Self::Now),
            _ => match Self::parse_ago(&lower) {
                Some(ago) => Some(ago),
                None => Self::parse_date(text)?,
            },
        })
    }

    fn parse_ago(lower: &str) -> Option<Self> {
        let mut words = lower.split([' ', '.']).filter(|word| !word.is_empty());
        let (count, unit, ago) = (words.next()?, words.next()?, words.next()?);
        let count = match count {
            "a" | "an" => 1,
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
            _ => return None,
        };
        (ago == "ago" && words.next().is_none()).then_some(())?;
        Some(Self::Ago { count, unit: Unit::parse(unit)? })
    }

    /// `2026-11-01`, then perhaps `[ T]10:30[:05[.25]][Z|+01:00]`.
    fn parse_date(text: &str) -> Result<Option<Self>, RevError> {
        let mut rest = Fields(text);
        let (Some(year), true, Some(month), true, Some(day)) =
            (rest.number(4), rest.skip('-'), rest.number(2), rest.skip('-'), rest.number(2))
        else {
            return Ok(None);
        };
        // A name may begin as a date does (`scan@2026-11-01.pdf`): only what has nothing else in it is meant as one.
        if !text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b':' | b'.' | b' ' | b'T' | b't' | b'Z' | b'z'))
        {
            return Ok(None);
        }
        let wrong = |why: &str| RevError::NotATime { text: text.to_owned(), why: why.to_owned() };
        let date = civil::Date::new(year.cast_signed(), narrow(month), narrow(day))
            .map_err(|_| wrong("there is no such day"))?;
        if rest.0.is_empty() {
            return Ok(Some(Self::Day(date)));
        }
        let form = "write the time of day as in `2026-11-01 10:30` or `2026-11-01T10:30:05Z`";
        let (true, Some(hour), true, Some(minute)) =
            (rest.skip(' ') || rest.skip('T') || rest.skip('t'), rest.number(2), rest.skip(':'), rest.number(2))
        else {
            return Err(wrong(form));
        };
        let (mut precision, mut second, mut nanos) = (Precision::Minute, 0, 0);
        if rest.skip(':') {
            precision = Precision::Second;
            second = rest.number(2).ok_or_else(|| wrong(form))?;
            if rest.skip('.') {
                precision = Precision::Exact;
                nanos = rest.fraction().ok_or_else(|| wrong(form))?;
            }
        }
        let offset = rest.offset().map_err(|()| wrong("the offset from UTC is written `Z` or `+01:00`"))?;
        if !rest.0.is_empty() {
            return Err(wrong(form));
        }
        let time = civil::Time::new(narrow(hour), narrow(minute), narrow(second), nanos)
            .map_err(|_| wrong("there is no such time of day"))?;
        Ok(Some(Self::Moment { at: date.to_datetime(time), precision, offset }))
    }

    /// The moment that is meant, when it is `now` in the zone `tz`: everything up to and including it counts.
    pub fn resolve(&self, now: Timestamp, tz: &TimeZone) -> Result<Timestamp, RevError> {
        self.resolve_in(now, tz).map(Timestamp::from).map_err(|error| RevError::NotATime {
            text: self.to_string(),
            why: format!("it is beyond what can be counted ({error})"),
        })
    }

    fn resolve_in(&self, now: Timestamp, tz: &TimeZone) -> Result<jiff::Timestamp, jiff::Error> {
        let now = jiff::Timestamp::try_from(now)?.to_zoned(tz.clone());
        let end_of = |day: civil::Date| -> Result<_, jiff::Error> {
            let next = day.tomorrow()?.to_datetime(civil::Time::midnight());
            tz.to_ambiguous_timestamp(next).compatible()?.checked_sub(SignedDuration::from_nanos(1))
        };
        match *self {
            Self::Day(date) => end_of(date),
            Self::Today => end_of(now.date()),
            Self::Yesterday => end_of(now.date().yesterday()?),
            Self::Now => Ok(now.timestamp()),
            Self::Moment { at, precision, offset } => {
                let begin = match offset {
                    Some(offset) => offset.to_timestamp(at)?,
                    None => tz.to_ambiguous_timestamp(at).later()?,
                };
                match precision {
                    Precision::Minute => begin.checked_add(SignedDuration::from_nanos(59_999_999_999)),
                    Precision::Second => begin.checked_add(SignedDuration::from_nanos(999_999_999)),
                    Precision::Exact => Ok(begin),
                }
            }
            Self::Ago { count, unit } => {
                let span = Span::new();
                let span = match unit {
                    Unit::Second => span.try_seconds(count),
                    Unit::Minute => span.try_minutes(count),
                    Unit::Hour => span.try_hours(count),
                    Unit::Day => span.try_days(count),
                    Unit::Week => span.try_weeks(count),
                    Unit::Month => span.try_months(count),
                    Unit::Year => span.try_years(count),
                }?;
                Ok(now.checked_sub(span)?.timestamp())
            }
        }
    }
}

impl fmt::Display for TimeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Today => f.write_str("today"),
            Self::Yesterday => f.write_str("yesterday"),
            Self::Now => f.write_str("now"),
            Self::Ago { count: 1, unit } => write!(f, "1 {} ago", unit.word()),
            Self::Ago { count, unit } => write!(f, "{count} {}s ago", unit.word()),
            Self::Day(date) => write!(f, "{:04}-{:02}-{:02}", date.year(), date.month(), date.day()),
            Self::Moment { at, precision, offset } => {
                Self::Day(at.date()).fmt(f)?;
                write!(f, " {:02}:{:02}", at.hour(), at.minute())?;
                if *precision != Precision::Minute {
                    write!(f, ":{:02}", at.second())?;
                }
                if *precision == Precision::Exact {
                    write!(f, ".{:09}", at.subsec_nanosecond())?;
                }
                match offset.map(|offset| offset.seconds() / 60) {
                    None => Ok(()),
                    Some(0) => f.write_str("Z"),
                    Some(minutes) => {
                        let sign = if minutes < 0 { '-' } else { '+' };
                        write!(f, "{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
                    }
                }
            }
        }
    }
}

fn narrow(two_digits: u16) -> i8 {
    i8::try_from(two_digits).expect("two digits are at most 99")
}

/// Takes a time apart from the left.
struct Fields<'a>(&'a str);

impl Fields<'_> {
    fn skip(&mut self, c: char) -> bool {
        let rest = self.0.strip_prefix(c);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn number(&mut self, digits: usize) -> Option<u16> {
        let (field, rest) = self.0.split_at_checked(digits)?;
        let number = field.bytes().all(|byte| byte.is_ascii_digit()).then(|| field.parse().ok())??;
        self.0 = rest;
        Some(number)
    }

    fn fraction(&mut self) -> Option<i32> {
        let end = self.0.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.0.len());
        let (digits, rest) = self.0.split_at(end);
        self.0 = rest;
        (1..=9).contains(&digits.len()).then(|| format!("{digits:0<9}").parse().ok())?
    }

    fn offset(&mut self) -> Result<Option<Offset>, ()> {
        if self.0.is_empty() {
            return Ok(None);
        }
        if self.skip('Z') || self.skip('z') {
            return Ok(Some(Offset::UTC));
        }
        let sign = if self.skip('+') {
            1
        } else if self.skip('-') {
            -1
        } else {
            return Err(());
        };
        let hours = self.number(2).ok_or(())?;
        self.skip(':');
        let minutes = if self.0.is_empty() { 0 } else { self.number(2).filter(|&minutes| minutes < 60).ok_or(())? };
        let seconds = sign * (i32::from(hours) * 3600 + i32::from(minutes) * 60);
        Offset::from_seconds(seconds).map(Some).map_err(|_| ())
    }
}

/// A file, and perhaps which revision of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRev {
    /// The file, from the top of the folder.
    pub path: SyncPath,
    /// Which revision; none where nothing was said.
    pub rev: Option<RevSpec>,
}

impl FileRev {
    /// What the argument `arg` names, for somebody whose current folder is `prefix` (from the top of the synced folder;
    /// empty there). After `--` it is `literal`: all of it is the path.
    pub fn parse(arg: &[u8], prefix: &[u8], literal: bool) -> Result<Self, RevError> {
        let (path, rev) = if literal { (arg, None) } else { split(arg)? };
        match resolve_path(path, prefix)? {
            Some(path) => Ok(Self { path, rev }),
            None => Err(RevError::NoFile { arg: quote(arg) }),
        }
    }
}

impl fmt::Display for FileRev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rev {
            Some(rev) => write!(f, "{}@{rev}", self.path),
            None => self.path.fmt(f),
        }
    }
}

fn split(arg: &[u8]) -> Result<(&[u8], Option<RevSpec>), RevError> {
    // No revision has an `@` in it, so only the last can begin one.
    let Some(at) = arg.iter().rposition(|&byte| byte == b'@') else { return Ok((arg, None)) };
    let Ok(text) = std::str::from_utf8(&arg[at + 1..]) else { return Ok((arg, None)) };
    match RevSpec::parse(text) {
        Ok(rev) => Ok((&arg[..at], Some(rev))),
        Err(RevError::NotARevision { .. }) => Ok((arg, None)),
        Err(error) => Err(error),
    }
}

/// The path that `arg` names for somebody in the folder `prefix`, by its text alone: `.`, `..`, doubled and trailing
/// slashes are taken out. `None` is the top of the folder.
pub fn resolve_path(arg: &[u8], prefix: &[u8]) -> Result<Option<SyncPath>, RevError> {
    if arg.is_empty() {
        return Err(RevError::NoFile { arg: String::new() });
    }
    if arg.starts_with(b"/") {
        return Err(RevError::Outside { arg: quote(arg) });
    }
    let mut names: Vec<&[u8]> = Vec::new();
    for name in prefix.split(|&byte| byte == b'/').chain(arg.split(|&byte| byte == b'/')) {
        match name {
            b"" | b"." => {}
            b".." => {
                names.pop().ok_or_else(|| RevError::Outside { arg: quote(arg) })?;
            }
            name => names.push(name),
        }
    }
    if names.is_empty() {
        return Ok(None);
    }
    SyncPath::new(names.join(&b'/')).map(Some).map_err(|source| RevError::Name { arg: quote(arg), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn file(arg: &str) -> (String, Option<String>) {
        let parsed = FileRev::parse(arg.as_bytes(), b"", false).expect("a file");
        (parsed.path.to_string(), parsed.rev.map(|rev| rev.to_string()))
    }

    #[rstest]
    #[case("notes.txt@3", "notes.txt", "3")]
    #[case("notes.txt@-1", "notes.txt", "-1")]
    #[case("notes.txt@LATEST", "notes.txt", "latest")]
    #[case("notes.txt@2026-11-01", "notes.txt", "2026-11-01")]
    #[case("notes.txt@2026-11-01 10:30", "notes.txt", "2026-11-01 10:30")]
    #[case("notes.txt@2026-11-01T10:30:05Z", "notes.txt", "2026-11-01 10:30:05Z")]
    #[case("notes.txt@2026-11-01T10:30+0130", "notes.txt", "2026-11-01 10:30+01:30")]
    #[case("notes.txt@2026-11-01 10:30:05.25-05", "notes.txt", "2026-11-01 10:30:05.250000000-05:00")]
    #[case("notes.txt@Yesterday", "notes.txt", "yesterday")]
    #[case("notes.txt@today", "notes.txt", "today")]
    #[case("notes.txt@now", "notes.txt", "now")]
    #[case("notes.txt@2 hours ago", "notes.txt", "2 hours ago")]
    #[case("notes.txt@2.hours.ago", "notes.txt", "2 hours ago")]
    #[case("notes.txt@an hour ago", "notes.txt", "1 hour ago")]
    #[case("notes.txt@10 minutes ago", "notes.txt", "10 minutes ago")]
    #[case("notes.txt@1 week ago", "notes.txt", "1 week ago")]
    #[case("notes.txt@3 months ago", "notes.txt", "3 months ago")]
    #[case("notes.txt@1 year ago", "notes.txt", "1 year ago")]
    #[case("notes.txt@1A2B3C4", "notes.txt", "1a2b3c4")]
    #[case("notes.txt@1234567", "notes.txt", "1234567")]
    #[case("a@3@4", "a@3", "4")]
    #[case("a b@c/d@yesterday", "a b@c/d", "yesterday")]
    fn splits_at_the_last_at_sign(#[case] arg: &str, #[case] path: &str, #[case] rev: &str) {
        assert_eq!(file(arg), (path.to_owned(), Some(rev.to_owned())));
    }

    #[rstest]
    #[case("mail@example.com")]
    #[case("notes.txt")]
    #[case("notes.txt@")]
    #[case("team@cafe")]
    #[case("a@3/b")]
    #[case("scan@2026-11-01.pdf")]
    #[case("a@2 hours")]
    #[case("a@2 hours hence")]
    #[case("a@2 hours ago or so")]
    #[case("a@+2 hours ago")]
    #[case("a@99999999999999999999999")]
    #[case("a@+3")]
    fn what_is_no_revision_belongs_to_the_name(#[case] arg: &str) {
        assert_eq!(file(arg), (arg.to_owned(), None));
    }

    #[test]
    fn digits_are_a_number_unless_they_are_a_whole_commit_id() {
        assert_eq!(RevSpec::parse("20261101"), Ok(RevSpec::Number(20_261_101)));
        let id = "1234567890123456789012345678901234567890";
        assert_eq!(RevSpec::parse(id), Ok(RevSpec::Commit(id.to_owned())));
    }

    #[rstest]
    #[case("a@0", "revisions are counted from 1")]
    #[case("a@-0", "revisions are counted from 1")]
    #[case("a@2026-13-01", "there is no such day")]
    #[case("a@2026-02-29", "there is no such day")]
    #[case("a@2026-11-01 25:00", "there is no such time of day")]
    #[case("a@2026-11-01 10", "write the time of day as in")]
    #[case("a@2026-11-01 10:30+99", "the offset from UTC is written")]
    #[case("a@2026-11-01 10:30+01:60", "the offset from UTC is written")]
    #[case("@3", "does not name a file")]
    #[case(".", "does not name a file")]
    #[case("../x@3", "is outside the folder")]
    #[case("a/../../x", "is outside the folder")]
    #[case("/etc/passwd", "is outside the folder")]
    #[case(".git/config", "`.git/config` cannot be in the folder")]
    #[case("", "does not name a file")]
    fn says_what_is_wrong(#[case] arg: &str, #[case] message: &str) {
        let error = FileRev::parse(arg.as_bytes(), b"", false).expect_err("not a file").to_string();
        assert!(error.contains(message), "{error}");
    }

    #[test]
    fn says_what_a_revision_is() {
        let error = RevSpec::parse("soon").expect_err("not a revision").to_string();
        assert!(error.starts_with("`soon` is not a revision: a revision is a number"), "{error}");
    }

    #[rstest]
    #[case("notes.txt")]
    #[case("a/notes.txt@3")]
    #[case("notes.txt@2 hours ago")]
    fn prints_a_file_as_it_is_named(#[case] arg: &str) {
        assert_eq!(FileRev::parse(arg.as_bytes(), b"", false).expect("a file").to_string(), arg);
    }

    #[test]
    fn after_two_dashes_all_of_it_is_the_name() {
        let parsed = FileRev::parse(b"notes@3", b"", true).expect("a file");
        assert_eq!((parsed.path.to_string().as_str(), parsed.rev), ("notes@3", None));
    }

    #[rstest]
    #[case("./a", "sub", "sub/a")]
    #[case("../b", "sub", "b")]
    #[case("a//b/", "", "a/b")]
    #[case("../../c/./d", "x/y", "c/d")]
    fn resolves_against_the_current_folder(#[case] arg: &str, #[case] prefix: &str, #[case] path: &str) {
        let parsed = FileRev::parse(arg.as_bytes(), prefix.as_bytes(), false).expect("a file");
        assert_eq!(parsed.path.to_string(), path);
    }

    #[test]
    fn the_top_of_the_folder_is_no_file() {
        assert_eq!(resolve_path(b"..", b"sub"), Ok(None));
        assert_eq!(resolve_path(b".", b""), Ok(None));
    }

    /// 2026-11-02 09:15:30.5 in Berlin (UTC+1); summer time ended there on 2026-10-25 at 03:00.
    fn in_berlin(text: &str) -> String {
        let tz = TimeZone::get("Europe/Berlin").expect("known");
        let now: jiff::Timestamp = "2026-11-02T08:15:30.5Z".parse().expect("valid");
        let RevSpec::Time(time) = RevSpec::parse(text).expect("a time") else { panic!("not a time: {text}") };
        let time = time.resolve(now.into(), &tz).expect("within range");
        jiff::Timestamp::new(time.secs, time.nanos.cast_signed()).expect("valid").to_string()
    }

    #[rstest]
    #[case::a_day("2026-11-01", "2026-11-01T22:59:59.999999999Z")]
    #[case::a_long_day("2026-10-25", "2026-10-25T22:59:59.999999999Z")]
    #[case::a_minute("2026-11-01 10:30", "2026-11-01T09:30:59.999999999Z")]
    #[case::a_second("2026-11-01 10:30:05", "2026-11-01T09:30:05.999999999Z")]
    #[case::exactly("2026-11-01 10:30:05.25", "2026-11-01T09:30:05.25Z")]
    #[case::elsewhere("2026-11-01T10:30:05Z", "2026-11-01T10:30:05.999999999Z")]
    #[case::twice("2026-10-25 02:30", "2026-10-25T01:30:59.999999999Z")]
    #[case::never("2026-03-29 02:30", "2026-03-29T01:30:59.999999999Z")]
    #[case::yesterday("yesterday", "2026-11-01T22:59:59.999999999Z")]
    #[case::today("today", "2026-11-02T22:59:59.999999999Z")]
    #[case::now("now", "2026-11-02T08:15:30.5Z")]
    #[case::hours("2 hours ago", "2026-11-02T06:15:30.5Z")]
    #[case::across_summer_time("2 weeks ago", "2026-10-19T07:15:30.5Z")]
    #[case::months("1 month ago", "2026-10-02T07:15:30.5Z")]
    fn a_time_means_its_end(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(in_berlin(text), expected);
    }

    #[test]
    fn times_before_1970_count_downwards() {
        let RevSpec::Time(time) = RevSpec::parse("1969-12-31T23:59:58.25Z").expect("a time") else { panic!() };
        assert_eq!(time.resolve(Timestamp::default(), &TimeZone::UTC), Ok(Timestamp::new(-2, 250_000_000)));
    }

    #[test]
    fn a_span_beyond_all_calendars_is_an_error() {
        let RevSpec::Time(time) = RevSpec::parse("99999 years ago").expect("a span") else { panic!() };
        let error = time.resolve(Timestamp::default(), &TimeZone::UTC).expect_err("too long");
        assert!(error.to_string().contains("beyond what can be counted"), "{error}");
    }

    fn specs() -> impl Strategy<Value = RevSpec> {
        let date = (0i16..=9999, 1i8..=12, 1i8..=28).prop_map(|(y, m, d)| civil::date(y, m, d));
        let units = (0usize..7).prop_map(|at| Unit::ALL[at].0);
        let offset = proptest::option::of((-1500i32..1500).prop_map(|m| Offset::from_seconds(m * 60).expect("small")));
        let time = (0i8..24, 0i8..60, 0i8..60, 0i32..1_000_000_000);
        prop_oneof![
            (1u64..).prop_map(RevSpec::Number),
            (1u64..).prop_map(RevSpec::Back),
            Just(RevSpec::Latest),
            "[0-9]{3}[a-f][0-9a-f]{3,36}".prop_map(RevSpec::Commit),
            prop_oneof![
                date.clone().prop_map(TimeSpec::Day),
                Just(TimeSpec::Now),
                Just(TimeSpec::Today),
                Just(TimeSpec::Yesterday),
                (any::<u32>(), units).prop_map(|(count, unit)| TimeSpec::Ago { count, unit }),
                (date, time, 0..3, offset).prop_map(|(date, (hour, minute, second, nanos), precision, offset)| {
                    let (precision, second, nanos) = match precision {
                        0 => (Precision::Minute, 0, 0),
                        1 => (Precision::Second, second, 0),
                        _ => (Precision::Exact, second, nanos),
                    };
                    TimeSpec::Moment { at: date.at(hour, minute, second, nanos), precision, offset }
                }),
            ]
            .prop_map(RevSpec::Time),
        ]
    }

    proptest! {
        #[test]
        fn reads_what_it_prints(spec in specs()) {
            prop_assert_eq!(RevSpec::parse(&spec.to_string()), Ok(spec));
        }

        #[test]
        fn takes_anything_without_panic(arg: Vec<u8>, prefix in "[a-z/]{0,9}", literal: bool) {
            let _any = FileRev::parse(&arg, prefix.as_bytes(), literal);
        }

        #[test]
        fn takes_what_is_nearly_right_without_panic(text in "[-+0-9a-fT:. Zéag]{0,24}", now in -400_000_000_000i64..400_000_000_000) {
            if let Ok(RevSpec::Time(time)) = RevSpec::parse(&text) {
                let _any = time.resolve(Timestamp::new(now, 0), &TimeZone::UTC);
            }
        }

        #[test]
        fn resolves_times_without_panic(spec in specs(), now: i64) {
            if let RevSpec::Time(time) = spec {
                let _any = time.resolve(Timestamp::new(now, 999_999_999), &TimeZone::UTC);
            }
        }
    }
}
