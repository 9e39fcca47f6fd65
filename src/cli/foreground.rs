//! A daemon in the process of a command, where none runs for the home: for `share` and `join`.
//!
//! The command talks with it through the control socket, as with any other, so that there is one way of doing things.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use super::error::{CommandError, Kind};
use super::exit::ExitCode;
use super::session::Session;
use super::tell::ask;
use crate::daemon::control::Ask;
use crate::daemon::log::{Log, LogOptions};
use crate::daemon::signals::{Signal, Signals};
use crate::daemon::{Daemon, DaemonError, DaemonOptions, Order};

/// How long a daemon that is just starting may take to answer.
const STARTING: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(50);

/// A daemon in this process.
pub(crate) struct Foreground {
    orders: Sender<Order>,
    working: JoinHandle<()>,
    stopped: Arc<AtomicBool>,
    _signals: Signals,
}

impl Foreground {
    /// Starts a daemon, unless one runs.
    pub(crate) fn start_unless_running(session: &Session, loopback: bool) -> Result<Option<Self>, CommandError> {
        let began = Instant::now();
        loop {
            if is_running(session)? {
                return Ok(None);
            }
            let options = DaemonOptions { loopback_only: loopback, relay_port: None };
            match Daemon::start(&session.home()?, &Session::silent_context(), options) {
                Ok(daemon) => return Self::work(session, daemon).map(Some),
                // One that starts at this moment has its socket soon; one that stops is soon gone.
                Err(DaemonError::Running { .. }) if began.elapsed() < STARTING => sleep(AGAIN),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn work(session: &Session, daemon: Daemon) -> Result<Self, CommandError> {
        let ui = session.ui();
        let filter = if ui.is_verbose() { "warn,foldersync=info" } else { "error,foldersync=warn" };
        let log = LogOptions { json: ui.is_json(), filter: Some(filter.to_owned()), ..LogOptions::default() };
        Log::start(&log.with_environment()).map_err(|error| CommandError::from_source(Kind::Usage, &error))?;
        let stopped = Arc::new(AtomicBool::new(false));
        let orders = daemon.orders();
        let (told, stop) = (orders.clone(), Arc::clone(&stopped));
        let failed = |what: &str, error| CommandError::new(Kind::Failed, format!("cannot {what}: {error}"));
        let signals = Signals::listen(move |signal| {
            let order = match signal {
                Signal::Stop => {
                    stop.store(true, Ordering::Relaxed);
                    Order::Stop
                }
                Signal::Reload => Order::Reload(None),
            };
            // A daemon that is gone needs no orders.
            drop(told.send(order));
        })
        .map_err(|error| failed("heed signals", error))?;
        let working = std::thread::Builder::new().name("daemon".to_owned()).spawn(move || daemon.work(&|| ()));
        let working = working.map_err(|error| failed("start a thread", error))?;
        Ok(Self { orders, working, stopped, _signals: signals })
    }

    /// Whether a person has asked it to stop.
    pub(crate) fn was_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Works until a person stops it.
    pub(crate) fn serve(self) {
        drop(self.working.join());
    }

    /// Ends it.
    pub(crate) fn stop(self) {
        drop(self.orders.send(Order::Stop));
        self.serve();
    }
}

/// Ends a command for which a daemon may have been started here: that goes on with its work until a person stops it,
/// unless the command has failed or asks for it `once`.
pub(crate) fn finish(
    session: &Session,
    here: Option<Foreground>,
    done: Result<(), CommandError>,
    once: bool,
) -> Result<ExitCode, CommandError> {
    let Some(here) = here else { return done.map(|()| ExitCode::Done) };
    match done {
        Err(_) if here.was_stopped() => {}
        Err(error) => {
            here.stop();
            return Err(error);
        }
        Ok(()) if once => here.stop(),
        Ok(()) => {
            session.ui().status("the folder is kept in step until this command is stopped (Ctrl-C)");
            here.serve();
        }
    }
    Ok(ExitCode::Done)
}

/// Whether a daemon runs and answers.
pub(crate) fn is_running(session: &Session) -> Result<bool, CommandError> {
    Ok(ask(session, &Ask::Status)?.is_some())
}

/// That a daemon has gone which was there a moment ago.
pub(crate) fn gone() -> CommandError {
    CommandError::new(Kind::Failed, "the daemon has ended").with_hint("`foldersync serve` starts it anew")
}
