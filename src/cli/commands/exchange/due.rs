//! Which exchanges are due, by the schedules and pauses of folders and peers.

use std::time::Duration;

use jiff::Zoned;
use serde::Serialize;

use crate::cli::session::Session;
use crate::clock::Timestamp;
use crate::config::{Config, Due, Name, Pause};
use crate::engine::Folder;

use super::Task;

/// Cron comes at whole minutes, and the last exchange ended a little after it began: what is due within a tenth of its
/// interval, and within this time, is due.
const SLACK: Duration = Duration::from_mins(1);

/// What a person wants in spite of the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Insists {
    /// Nothing.
    No,
    /// He named the peer: schedules do not count.
    Names,
    /// He said `--now`: pauses do not count either.
    Now,
}

/// Why an exchange is not due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "why")]
pub(super) enum Later {
    /// The folder is paused.
    Folder {
        /// For how long.
        paused: Pause,
    },
    /// The peer is paused.
    Peer {
        /// For how long.
        paused: Pause,
    },
    /// Its schedule has it at another time.
    Schedule {
        /// When; never, if that is not known.
        due: Option<Timestamp>,
    },
}

/// Why this exchange is not due now; `None`: it is. `last` tells when the last one ended.
pub(super) fn later(
    config: &Config,
    folder: &Name,
    peer: &Name,
    insists: Insists,
    now: &Zoned,
    last: impl FnOnce() -> Option<Timestamp>,
) -> Option<Later> {
    if insists == Insists::Now {
        return None;
    }
    match config.pause_of(folder, now.timestamp().into()) {
        Pause::No => {}
        paused => return Some(Later::Folder { paused }),
    }
    let slack = config.schedule_of(peer).every.map(|every| (every / 10).min(SLACK));
    let last = slack.and_then(|slack| {
        let last = last()?;
        Some(Timestamp::new(last.secs - i64::try_from(slack.as_secs()).unwrap_or(0), last.nanos))
    });
    match config.is_due(peer, last, now) {
        Due::Now => None,
        Due::Paused(paused) => Some(Later::Peer { paused }),
        Due::Later(_) if insists == Insists::Names => None,
        Due::Later(due) => Some(Later::Schedule { due }),
    }
}

/// Why this exchange is not due now; `None`: it is.
pub(super) fn later_than_now(config: &Config, task: &Task<'_>, insists: Insists) -> Option<Later> {
    later(config, task.folder, task.peer, insists, &Zoned::now(), || {
        // A folder that cannot be opened says so when the exchange is tried.
        let folder = Folder::open(task.path, Session::silent_context()).ok()?;
        folder.last_seen(task.peer.as_str())
    })
}

impl Later {
    /// As the end of a sentence.
    pub(super) fn words(self, time: impl Fn(Timestamp) -> String) -> String {
        let paused = |what: &str, paused| match paused {
            Pause::Until(end) => format!("the {what} is paused until {}", time(end)),
            _ => format!("the {what} is paused"),
        };
        match self {
            Self::Folder { paused: until } => paused("folder", until),
            Self::Peer { paused: until } => paused("peer", until),
            Self::Schedule { due: Some(due) } => format!("not due before {}", time(due)),
            Self::Schedule { due: None } => "never due, by its schedule".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Home;
    use rstest::rstest;

    const TEXT: &str = r#"
        [folder.docs]
        path = "/docs"
        [folder.photos]
        path = "/photos"
        paused = true
        [peer.nas]
        address = "/nas"
        folders = ["docs", "photos"]
        every = "10m"
        from = "08:00"
        to = "18:00"
        [peer.off]
        address = "/off"
        folders = ["docs"]
        paused = true
    "#;

    fn at(time: &str) -> Zoned {
        format!("2026-11-20T{time}[UTC]").parse().unwrap()
    }

    #[rstest]
    #[case("docs", "nas", Insists::No, "09:00:00", None, None)]
    #[case("docs", "nas", Insists::No, "07:00:00", None, Some("not due before 08:00"))]
    #[case("docs", "nas", Insists::Names, "07:00:00", None, None)]
    #[case("docs", "nas", Insists::No, "09:05:00", Some("09:00:00"), Some("not due before 09:09"))]
    #[case::cron_is_a_little_early("docs", "nas", Insists::No, "09:10:00", Some("09:00:20"), None)]
    #[case("photos", "nas", Insists::No, "09:00:00", None, Some("the folder is paused"))]
    #[case("photos", "nas", Insists::Names, "09:00:00", None, Some("the folder is paused"))]
    #[case("photos", "nas", Insists::Now, "07:00:00", None, None)]
    #[case("docs", "off", Insists::Names, "09:00:00", None, Some("the peer is paused"))]
    #[case("docs", "off", Insists::Now, "09:00:00", None, None)]
    fn settings_are_heeded_unless_a_person_insists(
        #[case] folder: &str,
        #[case] peer: &str,
        #[case] insists: Insists,
        #[case] now: &str,
        #[case] last: Option<&str>,
        #[case] words: Option<&str>,
    ) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.toml"), TEXT).unwrap();
        let config = Home::at(dir.path().to_owned()).load().unwrap();
        let name = |text: &str| Name::new(text).unwrap();
        let last = || last.map(|last| Timestamp::new(at(last).timestamp().as_second(), 0));
        let later = later(&config, &name(folder), &name(peer), insists, &at(now), last);
        let time = |time: Timestamp| {
            jiff::Timestamp::from_second(time.secs)
                .unwrap()
                .to_zoned(jiff::tz::TimeZone::UTC)
                .strftime("%H:%M")
                .to_string()
        };
        assert_eq!(later.map(|later| later.words(time)).as_deref(), words);
    }
}
