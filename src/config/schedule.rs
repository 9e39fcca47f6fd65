//! When a peer may be exchanged with, and when it is due. Pure: the time and its zone are handed in.
//!
//! A window goes by the clock on the wall. In the night in which an hour comes twice it is open in both; an hour that
//! does not come opens nothing, and a window that begins in it opens when it is over. The day of a window is the day on
//! which it begins, also where it goes on past midnight.

use std::fmt;
use std::time::Duration;

use jiff::civil::{Time, Weekday};
use jiff::{SignedDuration, Zoned};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::period;
use crate::clock::Timestamp;

/// How many days ahead the next opening is looked for: a week, and one more for a day that a zone leaves out.
const AHEAD: i32 = 15;

/// Days of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Days(u8);

/// A text is no day of the week, or there is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DayError {
    /// Not the name of a day.
    #[error("`{}` is no day: days are `mon`, `tue`, `wed`, `thu`, `fri`, `sat` and `sun`", .0.escape_debug())]
    Name(String),
    /// An empty list.
    #[error("no day is named")]
    None,
}

const NAMES: [(Weekday, &str, &str); 7] = [
    (Weekday::Monday, "mon", "monday"),
    (Weekday::Tuesday, "tue", "tuesday"),
    (Weekday::Wednesday, "wed", "wednesday"),
    (Weekday::Thursday, "thu", "thursday"),
    (Weekday::Friday, "fri", "friday"),
    (Weekday::Saturday, "sat", "saturday"),
    (Weekday::Sunday, "sun", "sunday"),
];

impl Days {
    /// Every day.
    pub const ALL: Self = Self(0x7f);

    /// The days of these names.
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, DayError> {
        let mut days = Self(0);
        for name in names {
            let is = |(_, short, long): &&(Weekday, &str, &str)| {
                name.eq_ignore_ascii_case(short) || name.eq_ignore_ascii_case(long)
            };
            let (day, ..) = NAMES.iter().find(is).ok_or_else(|| DayError::Name(name.to_owned()))?;
            days.0 |= Self::bit(*day);
        }
        if days.0 == 0 { Err(DayError::None) } else { Ok(days) }
    }

    fn bit(day: Weekday) -> u8 {
        1 << day.to_monday_zero_offset()
    }

    /// Whether it is one of them.
    pub fn contains(self, day: Weekday) -> bool {
        self.0 & Self::bit(day) != 0
    }

    /// Their short names, Monday first.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().filter(move |(day, ..)| self.contains(*day)).map(|(_, short, _)| *short)
    }
}

impl Default for Days {
    fn default() -> Self {
        Self::ALL
    }
}

impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().collect::<Vec<_>>().join(","))
    }
}

impl Serialize for Days {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.names())
    }
}

impl<'de> Deserialize<'de> for Days {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        Self::named(names.iter().map(String::as_str)).map_err(serde::de::Error::custom)
    }
}

/// A text is no time of day.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no time of day: it takes `HH:MM`, from `00:00` to `24:00`", .0.escape_debug())]
pub struct TimeError(String);

/// The time of day that `HH:MM` tells; `24:00` is midnight, too.
pub fn parse_time(text: &str) -> Result<Time, TimeError> {
    let parse = || {
        let (hour, minute) = text.split_once(':')?;
        let digits = |text: &str| text.bytes().all(|c| c.is_ascii_digit());
        if !(1..=2).contains(&hour.len()) || minute.len() != 2 || !digits(hour) || !digits(minute) {
            return None;
        }
        match (hour.parse().ok()?, minute.parse().ok()?) {
            (24, 0) => Some(Time::midnight()),
            (hour, minute) => Time::new(hour, minute, 0, 0).ok(),
        }
    };
    parse().ok_or_else(|| TimeError(text.to_owned()))
}

/// A time of day as `HH:MM`.
pub fn print_time(time: Time) -> String {
    format!("{:02}:{:02}", time.hour(), time.minute())
}

/// Reads a key that may be there.
pub(super) fn read_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Time>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_time(&text).map(Some).map_err(serde::de::Error::custom)
}

/// Some hours of some days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Window {
    /// From when to when, over midnight where the end is not after the beginning; `None` is all day.
    pub hours: Option<(Time, Time)>,
    /// On which days it begins.
    pub days: Days,
}

impl Window {
    /// Open at all times.
    pub const ALWAYS: Self = Self { hours: None, days: Days::ALL };

    /// Its days, where they are not all.
    pub fn days_if_some(&self) -> Option<Days> {
        (self.days != Days::ALL).then_some(self.days)
    }

    /// Whether it is open.
    pub fn is_open(&self, now: &Zoned) -> bool {
        let (today, time) = (now.weekday(), now.time());
        let begins = self.days.contains(today);
        match self.hours {
            None => begins,
            Some((from, to)) if from < to => begins && from <= time && time < to,
            Some((from, to)) => (begins && from <= time) || (self.days.contains(today.previous()) && time < to),
        }
    }

    /// When it is open next: now, if it is.
    pub fn next_open(&self, now: &Zoned) -> Option<Zoned> {
        if self.is_open(now) { Some(now.clone()) } else { self.next_change(now) }
    }

    /// When it opens next, if it is shut, or shuts, if it is open; `None` where that never happens.
    pub fn next_change(&self, now: &Zoned) -> Option<Zoned> {
        let open = self.is_open(now);
        self.turns(now).into_iter().find(|turn| self.is_open(turn) != open)
    }

    /// The moments after `now` at which it may open or shut, in order.
    fn turns(&self, now: &Zoned) -> Vec<Zoned> {
        let midnight = Time::midnight();
        let (from, to) = self.hours.unwrap_or((midnight, midnight));
        let zone = now.time_zone();
        let mut turns = Vec::new();
        for day in -1..=AHEAD {
            let Ok(date) = now.date().checked_add(SignedDuration::from_hours(24 * i64::from(day))) else { continue };
            for time in [from, to] {
                let moment = zone.to_ambiguous_timestamp(date.to_datetime(time));
                turns.extend([moment.earlier(), moment.later()].into_iter().flatten());
            }
        }
        let end = turns.iter().max().copied();
        let leaps = zone.following(now.timestamp()).map(|leap| leap.timestamp());
        turns.extend(leaps.take_while(|leap| Some(*leap) <= end));
        turns.retain(|turn| *turn > now.timestamp());
        turns.sort_unstable();
        turns.into_iter().map(|turn| turn.to_zoned(zone.clone())).collect()
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.hours {
            Some((from, to)) => write!(f, "{}-{}", print_time(from), print_time(to))?,
            None if self.days == Days::ALL => f.write_str("always")?,
            None => f.write_str("all day")?,
        }
        if self.days == Days::ALL { Ok(()) } else { write!(f, " {}", self.days) }
    }
}

/// When a peer is exchanged with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Schedule {
    /// How much time lies between the beginnings of two exchanges at least; `None`: as soon as there is something.
    pub every: Option<Duration>,
    /// When exchanges may be.
    pub window: Window,
}

impl Schedule {
    /// Whether an exchange may be now.
    pub fn is_open(&self, now: &Zoned) -> bool {
        self.window.is_open(now)
    }

    /// When an exchange may be next: now, if it may.
    pub fn next_open(&self, now: &Zoned) -> Option<Zoned> {
        self.window.next_open(now)
    }

    /// Whether an exchange is due, when the last one was at `last`. A last one in the future, told by a clock that was
    /// wrong, counts as none.
    pub fn is_due(&self, last: Option<Timestamp>, now: &Zoned) -> bool {
        self.is_open(now) && self.rested(last, now).is_none()
    }

    /// When an exchange is due next: now, if it is; `None` where that is never.
    pub fn next_due(&self, last: Option<Timestamp>, now: &Zoned) -> Option<Zoned> {
        self.next_open(&self.rested(last, now).unwrap_or_else(|| now.clone()))
    }

    /// The moment from which enough time lies behind the last exchange, where that is still to come.
    fn rested(&self, last: Option<Timestamp>, now: &Zoned) -> Option<Zoned> {
        let last = jiff::Timestamp::try_from(last?).ok()?;
        let every = SignedDuration::try_from(self.every?).ok()?;
        let rested = last.checked_add(every).ok()?;
        let waits = last <= now.timestamp() && rested > now.timestamp();
        waits.then(|| rested.to_zoned(now.time_zone().clone()))
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.every, self.window == Window::ALWAYS) {
            (Some(every), true) => write!(f, "every {}", period::print(every)),
            (Some(every), false) => write!(f, "every {}, {}", period::print(every), self.window),
            (None, _) => write!(f, "{}", self.window),
        }
    }
}

/// When exchanges are, as it is set, for all peers or for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScheduleSettings {
    /// How much time lies between two exchanges at least; zero: as soon as there is something.
    pub every: Option<Duration>,
    /// When the window opens.
    pub from: Option<Time>,
    /// When the window shuts.
    pub to: Option<Time>,
    /// On which days the window opens.
    pub days: Option<Days>,
}

impl ScheduleSettings {
    /// What holds where these win over others. `from` and `to` win together.
    pub fn over(&self, others: &Self) -> Schedule {
        let every = self.every.or(others.every).filter(|every| !every.is_zero());
        let hours = self.from.zip(self.to).or_else(|| others.from.zip(others.to));
        let days = self.days.or(others.days).unwrap_or_default();
        Schedule { every, window: Window { hours, days } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::TimeZone;
    use proptest::prelude::*;
    use rstest::rstest;

    /// Middle Europe: on 2026-03-29 02:00 becomes 03:00, on 2026-10-25 03:00 becomes 02:00.
    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    fn zoned(text: &str) -> Zoned {
        text.parse::<jiff::Timestamp>().unwrap().to_zoned(berlin())
    }

    fn local(text: &str) -> Zoned {
        text.parse::<jiff::civil::DateTime>().unwrap().to_zoned(berlin()).unwrap()
    }

    fn window(hours: &str, days: &str) -> Window {
        let hours = hours.split_once('-').map(|(from, to)| (parse_time(from).unwrap(), parse_time(to).unwrap()));
        let days = if days.is_empty() { Days::ALL } else { Days::named(days.split(',')).unwrap() };
        Window { hours, days }
    }

    #[rstest]
    #[case("00:00", "00:00")]
    #[case("8:05", "08:05")]
    #[case("23:59", "23:59")]
    #[case("24:00", "00:00")]
    fn times_are_read_and_printed(#[case] text: &str, #[case] printed: &str) {
        assert_eq!(print_time(parse_time(text).unwrap()), printed);
    }

    #[rstest]
    #[case("")]
    #[case("8")]
    #[case("24:01")]
    #[case("12:60")]
    #[case("+8:00")]
    #[case("8:0")]
    #[case("08:00:00")]
    fn what_is_no_time_is_refused(#[case] text: &str) {
        assert!(parse_time(text).is_err());
    }

    #[test]
    fn days_have_short_and_long_names() {
        assert_eq!(Days::named(["Monday", "sun", "TUE"]).unwrap().to_string(), "mon,tue,sun");
        assert_eq!(Days::named(["someday"]), Err(DayError::Name("someday".to_owned())));
        assert_eq!(Days::named([]), Err(DayError::None));
    }

    // 2026-11-20 is a Friday.
    #[rstest]
    #[case::always("", "", "2026-11-20T03:00", true)]
    #[case::before("22:00-23:00", "", "2026-11-20T21:59:59", false)]
    #[case::at_its_beginning("22:00-23:00", "", "2026-11-20T22:00", true)]
    #[case::at_its_end("22:00-23:00", "", "2026-11-20T23:00", false)]
    #[case::over_midnight_evening("22:00-06:00", "", "2026-11-20T23:00", true)]
    #[case::over_midnight_morning("22:00-06:00", "", "2026-11-20T05:59", true)]
    #[case::over_midnight_noon("22:00-06:00", "", "2026-11-20T12:00", false)]
    #[case::all_day("00:00-24:00", "", "2026-11-20T12:00", true)]
    #[case::began_on_a_day_of_it("22:00-06:00", "fri", "2026-11-21T05:00", true)]
    #[case::began_on_another_day("22:00-06:00", "fri", "2026-11-20T05:00", false)]
    #[case::whole_days("", "sat,sun", "2026-11-20T23:59:59", false)]
    #[case::whole_days_begun("", "sat,sun", "2026-11-21T00:00", true)]
    #[case::full_circle("06:00-06:00", "fri", "2026-11-21T05:59", true)]
    fn is_open(#[case] hours: &str, #[case] days: &str, #[case] now: &str, #[case] open: bool) {
        assert_eq!(window(hours, days).is_open(&local(now)), open);
    }

    #[rstest]
    #[case::is_open("22:00-06:00", "", "2026-11-20T23:00", "2026-11-20T23:00")]
    #[case::today("22:00-06:00", "", "2026-11-20T12:00", "2026-11-20T22:00")]
    #[case::tomorrow("08:00-09:00", "", "2026-11-20T12:00", "2026-11-21T08:00")]
    #[case::next_week("08:00-09:00", "fri", "2026-11-20T09:00", "2026-11-27T08:00")]
    #[case::weekend("", "sat,sun", "2026-11-20T12:00", "2026-11-21T00:00")]
    #[case::over_the_leap("08:00-09:00", "mon", "2026-10-24T12:00", "2026-10-26T08:00")]
    fn opens_next(#[case] hours: &str, #[case] days: &str, #[case] now: &str, #[case] open: &str) {
        assert_eq!(window(hours, days).next_open(&local(now)), Some(local(open)));
    }

    #[test]
    fn an_hour_that_comes_twice_is_open_twice() {
        let night = window("01:00-02:30", "");
        // 02:15 in summer, 02:45 in summer, then 02:15 and 02:45 in winter.
        let times = ["2026-10-25T00:15:00Z", "2026-10-25T00:45:00Z", "2026-10-25T01:15:00Z", "2026-10-25T01:45:00Z"];
        assert_eq!(times.map(|time| night.is_open(&zoned(time))), [true, false, true, false]);
        assert_eq!(night.next_open(&zoned(times[1])), Some(zoned("2026-10-25T01:00:00Z")));
    }

    #[test]
    fn a_window_that_begins_in_an_hour_that_does_not_come_opens_after_it() {
        let evening = zoned("2026-03-28T20:00:00Z");
        assert_eq!(window("02:30-04:00", "").next_open(&evening), Some(zoned("2026-03-29T01:00:00Z")));
        // One that lies in it has no turn that night.
        assert_eq!(window("02:15-02:45", "").next_open(&evening), Some(local("2026-03-30T02:15")));
        assert_eq!(window("02:15-02:45", "sun").next_open(&evening), Some(local("2026-04-05T02:15")));
    }

    #[test]
    fn is_due_when_it_is_open_and_rested() {
        let schedule = Schedule { every: Some(Duration::from_mins(10)), window: window("22:00-06:00", "") };
        let ago = |now: &Zoned, secs: i64| Some((now.timestamp() - SignedDuration::from_secs(secs)).into());
        let (night, noon) = (local("2026-11-20T23:00"), local("2026-11-20T12:00"));
        assert!(schedule.is_due(None, &night) && !schedule.is_due(None, &noon));
        assert!(!schedule.is_due(ago(&night, 599), &night) && schedule.is_due(ago(&night, 600), &night));
        assert!(schedule.is_due(ago(&night, -3600), &night), "a clock that was wrong stops nothing");
        assert!(schedule.is_due(Some(Timestamp::new(i64::MAX, 0)), &night));
        assert_eq!(schedule.next_due(ago(&night, 540), &night), Some(local("2026-11-20T23:01")));
        assert_eq!(schedule.next_due(ago(&night, 601), &night), Some(night));
        assert_eq!(schedule.next_due(None, &noon), Some(local("2026-11-20T22:00")));
        let late = local("2026-11-20T05:55");
        assert_eq!(schedule.next_due(ago(&late, 0), &late), Some(local("2026-11-20T22:00")));
        assert!(Schedule::default().is_due(ago(&noon, 0), &noon));
    }

    #[test]
    fn the_nearer_settings_win_key_by_key_and_hours_together() {
        let (ten, six) = (parse_time("22:00").ok(), parse_time("06:00").ok());
        let far = ScheduleSettings {
            every: Some(Duration::from_mins(1)),
            from: ten,
            to: six,
            days: Days::named(["mon"]).ok(),
        };
        assert_eq!(ScheduleSettings::default().over(&far).to_string(), "every 1m, 22:00-06:00 mon");
        let near = ScheduleSettings { every: Some(Duration::ZERO), days: Some(Days::ALL), ..Default::default() };
        assert_eq!(near.over(&far).to_string(), "22:00-06:00");
        let all_day = ScheduleSettings { from: six, to: six, ..near };
        assert!(all_day.over(&far).is_open(&local("2026-11-20T12:00")));
        assert_eq!(ScheduleSettings::default().over(&ScheduleSettings::default()).to_string(), "always");
    }

    #[test]
    fn times_before_the_epoch_convert_both_ways() {
        for time in [Timestamp::new(-2, 750_000_000), Timestamp::new(0, 0), Timestamp::new(1_800_000_000, 5)] {
            assert_eq!(Timestamp::from(jiff::Timestamp::try_from(time).unwrap()), time);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Against looking at every quarter of an hour, around both leaps.
        #[test]
        fn turns_are_found_where_looking_finds_them(
            from in 0_i8..24, from_quarter in 0_i8..4, to in 0_i8..24, to_quarter in 0_i8..4, days in 1_u8..0x80,
            autumn: bool, start in 0_i64..96 * 3, whole: bool,
        ) {
            let time = |hour, quarter: i8| Time::new(hour, quarter * 15, 0, 0).unwrap();
            let hours = (!whole).then(|| (time(from, from_quarter), time(to, to_quarter)));
            let window = Window { hours, days: Days(days) };
            let begin = zoned(if autumn { "2026-10-24T00:00:00Z" } else { "2026-03-28T00:00:00Z" });
            let step = |n: i64| begin.checked_add(SignedDuration::from_mins(15 * n)).unwrap();
            let now = step(start);
            let looked = (start + 1..start + 96 * 9).map(step).find(|at| window.is_open(at) != window.is_open(&now));
            match looked {
                Some(at) => prop_assert_eq!(window.next_change(&now), Some(at)),
                None => prop_assert!(window.next_change(&now).is_none_or(|at| at > step(start + 96 * 9 - 1))),
            }
        }
    }
}
