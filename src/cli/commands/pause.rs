//! `foldersync pause`

use jiff::{SignedDuration, Zoned, civil};
use serde::Serialize;

use crate::cli::commands::peer;
use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::registry;
use crate::cli::session::Session;
use crate::cli::tell::tell_daemon;
use crate::clock::Timestamp;
use crate::config::{Name, Pause, parse_time, period};

/// Leave a folder or a peer alone for now
///
/// A paused folder is neither watched nor exchanged, and a paused peer is not exchanged with, until `resume`, or until
/// the time is over. Nothing is lost meanwhile: what changes is captured and exchanged afterwards. Without `--peer`,
/// the folder is paused.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  foldersync pause\n  foldersync pause --peer nas --for 2h\n  foldersync --folder ~/docs pause --until 08:00"
)]
pub(crate) struct Args {
    /// Pause this peer, not the folder
    #[arg(long, value_name = "NAME")]
    peer: Option<Name>,
    /// Resume by itself after this time, as `30m`, `2h` or `1d`
    #[arg(long = "for", value_name = "TIME", conflicts_with = "until")]
    period: Option<String>,
    /// Resume by itself at this time, as `08:00`, `2026-11-22` or `"2026-11-22 08:00"`
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

/// What `--json` prints, for `resume` too.
#[derive(Debug, Serialize)]
struct Document<'a> {
    folder: Option<&'a Name>,
    peer: Option<&'a Name>,
    paused: Pause,
}

pub(crate) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    let now = Zoned::now();
    let pause = match (&args.period, &args.until) {
        (Some(text), _) => after(text, &now)?,
        (_, Some(text)) => until(text, &now)?,
        _ => Pause::Forever,
    };
    set(session, args.peer.as_ref(), pause)
}

/// Pauses or resumes a peer, or else the folder that the command is about.
pub(super) fn set(session: &Session, peer: Option<&Name>, pause: Pause) -> Result<ExitCode, CommandError> {
    let root = if peer.is_none() { Some(session.root()?) } else { None };
    let (folder, was) = session.home()?.edit(|config, editor| {
        if let Some(name) = peer {
            let mut peer = peer::known(config, name)?.clone();
            let was = std::mem::replace(&mut peer.paused, pause);
            editor.set_peer(name, &peer);
            return Ok::<_, CommandError>((None, was));
        }
        let root = root.as_deref().expect("a folder is paused where no peer is");
        let name = registry::name_of(config, root).ok_or_else(|| registry::not_registered(root))?;
        editor.pause_folder(name, pause);
        Ok((Some(name.clone()), config.folders[name].paused))
    })?;
    tell_daemon(session);
    let ui = session.ui();
    if ui.is_json() {
        ui.json(&Document { folder: folder.as_ref(), peer, paused: pause })?;
        return Ok(ExitCode::Done);
    }
    let what = folder.as_ref().or(peer).expect("one of them");
    ui.status(&match (pause, was) {
        (Pause::No, Pause::No) => format!("{what} was not paused"),
        (Pause::No, _) => format!("{what} goes on"),
        (Pause::Forever, _) => format!("{what} is paused"),
        (Pause::Until(end), _) => format!("{what} is paused until {}", ui.out().time(end)),
    });
    Ok(ExitCode::Done)
}

/// A pause as a setting tells it: `true`, `false`, a length of time, or a point in time.
pub(super) fn setting(text: &str, now: &Zoned) -> Result<Pause, CommandError> {
    match text {
        "true" => Ok(Pause::Forever),
        "false" => Ok(Pause::No),
        _ if period::parse(text).is_ok() => after(text, now),
        _ => until(text, now),
    }
}

/// A pause for a length of time.
fn after(text: &str, now: &Zoned) -> Result<Pause, CommandError> {
    let period = period::parse(text).map_err(|error| CommandError::usage(error.to_string()))?;
    let period = SignedDuration::try_from(period).expect("lengths of time are limited");
    let end = now.timestamp().checked_add(period);
    end.map(pause_until).map_err(|_| CommandError::usage(format!("`{text}` is too long")))
}

/// A pause until a point in time, which must lie ahead; a time of day is the next one.
fn until(text: &str, now: &Zoned) -> Result<Pause, CommandError> {
    let zone = now.time_zone();
    let refused = || {
        CommandError::usage(format!("`{text}` is no point in time"))
            .with_hint("it takes a time as `08:00`, `2026-11-22`, `\"2026-11-22 08:00\"` or `2026-11-22T08:00:00Z`")
    };
    let local = |time: civil::DateTime| time.to_zoned(zone.clone()).map(|time| time.timestamp());
    let end = if let Ok(time) = parse_time(text) {
        let today = local(now.date().to_datetime(time));
        match today {
            Ok(today) if today > now.timestamp() => Ok(today),
            _ => now.date().tomorrow().and_then(|tomorrow| local(tomorrow.to_datetime(time))),
        }
    } else if let Ok(end) = text.parse::<jiff::Timestamp>() {
        Ok(end)
    } else {
        let time = text.parse::<civil::DateTime>();
        time.or_else(|_| text.parse::<civil::Date>().map(|date| date.at(0, 0, 0, 0))).and_then(local)
    };
    let end = end.map_err(|_| refused())?;
    if end <= now.timestamp() {
        return Err(CommandError::usage(format!("`{text}` is over already")));
    }
    Ok(pause_until(end))
}

/// To the second, as it is written.
fn pause_until(end: jiff::Timestamp) -> Pause {
    Pause::Until(Timestamp::new(end.as_second(), 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// A Friday, in a zone an hour ahead of UTC.
    fn now() -> Zoned {
        let time: civil::DateTime = "2026-11-20T13:00:00".parse().unwrap();
        time.to_zoned(jiff::tz::TimeZone::fixed(jiff::tz::offset(1))).unwrap()
    }

    #[rstest]
    #[case("true", "true")]
    #[case("false", "false")]
    #[case("2h", "2026-11-20T14:00:00Z")]
    #[case("1d", "2026-11-21T12:00:00Z")]
    #[case("18:00", "2026-11-20T17:00:00Z")]
    #[case("08:00", "2026-11-21T07:00:00Z")]
    #[case("13:00", "2026-11-21T12:00:00Z")]
    #[case("2026-11-22", "2026-11-21T23:00:00Z")]
    #[case("2026-11-22 08:30", "2026-11-22T07:30:00Z")]
    #[case("2026-11-22T08:30:00", "2026-11-22T07:30:00Z")]
    #[case("2026-11-22T08:30:00Z", "2026-11-22T08:30:00Z")]
    fn settings(#[case] text: &str, #[case] pause: &str) {
        assert_eq!(setting(text, &now()).unwrap().to_string(), pause);
    }

    #[rstest]
    #[case("")]
    #[case("soon")]
    #[case("25:00")]
    #[case("2026-11-19")]
    #[case("2026-11-20T11:59:59Z")]
    fn what_is_no_time_or_over_is_refused(#[case] text: &str) {
        assert!(setting(text, &now()).is_err());
    }
}
