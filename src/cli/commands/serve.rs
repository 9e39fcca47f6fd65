//! `foldersync serve`

use std::path::PathBuf;
use std::sync::mpsc::Sender;

use crate::cli::error::{CommandError, Kind};
use crate::cli::exit::ExitCode;
use crate::cli::session::Session;
use crate::daemon::log::{Log, LogOptions};
use crate::daemon::relay::{DEFAULT_RELAY_PORT, RelayOnly, RelayOptions};
use crate::daemon::signals::{Signal, Signals};
use crate::daemon::{self, Daemon, DaemonError, DaemonOptions, Order};
use crate::engine::{Context, ExchangeOptions, Folder};

/// Keep all folders in step with their peers, until it is stopped
///
/// Watches every registered folder, captures what changes as soon as a file is quiet, and exchanges at once with the
/// peers that are connected; listens for peers on UDP port 44996 (`device.port`). SIGTERM or Ctrl-C stops it within
/// seconds, SIGHUP has it read the configuration again. `foldersync service install` runs it whenever you are logged
/// in.
///
/// With `--relay` this device is also a relay for its peers: those that cannot reach each other directly meet here, if
/// their `device.relay` names it and their `device.relay_certificate` has the SHA-256 that is logged at the start. The
/// relay sees who talks to whom, never what. With `--relay-only` it is nothing else. Not every build can be one.
///
/// With `--stdio` it answers one exchange that another foldersync began, about the folder of `--folder` or of the
/// current directory: that is what runs at the far end of an ssh connection.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  foldersync serve\n  foldersync serve --log-file ~/foldersync.log --log-json\n  foldersync serve --relay\n  foldersync serve --stdio --folder ~/docs"
)]
pub(crate) struct Args {
    /// Answer one exchange on standard input and output
    #[arg(long)]
    stdio: bool,
    /// Listen on this computer only, on any port
    #[arg(long, conflicts_with = "stdio")]
    loopback: bool,
    /// Be a relay for the peers, too
    #[arg(long, conflicts_with = "stdio")]
    relay: bool,
    /// Be a relay for the peers, and nothing else
    #[arg(long, conflicts_with_all = ["stdio", "relay"])]
    relay_only: bool,
    /// The relay's port, TCP and UDP
    #[arg(long, value_name = "PORT", default_value_t = DEFAULT_RELAY_PORT, conflicts_with = "stdio")]
    relay_port: u16,
    /// Append the log to this file instead of standard error
    #[arg(long, value_name = "FILE", conflicts_with = "stdio")]
    log_file: Option<PathBuf>,
    /// Log one JSON document a line
    #[arg(long, conflicts_with = "stdio")]
    log_json: bool,
}

impl From<DaemonError> for CommandError {
    fn from(error: DaemonError) -> Self {
        match error {
            DaemonError::Config(error) => error.into(),
            DaemonError::Engine(error) => error.into(),
            DaemonError::Running { .. } => Self::from_source(Kind::Busy, &error)
                .with_hint("`foldersync status` tells what it does; `foldersync exchange` asks it for an exchange"),
            DaemonError::NoRelay => {
                Self::from_source(Kind::Usage, &error).with_hint("`cargo install --features relay` builds one that can")
            }
            error => Self::from_source(Kind::Failed, &error),
        }
    }
}

pub(crate) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    if args.stdio {
        // Standard output belongs to the protocol, and standard error to the side that began: nothing is shown here.
        let root = session.root()?;
        let context = Context { guards: session.context_of(&root).guards, ..Session::silent_context() };
        let folder = Folder::open(&root, context)?;
        let report = folder.serve_stdio(ExchangeOptions::default())?;
        return Ok(ExitCode::left_out_if(!report.left_out.is_empty()));
    }
    daemon::pools::share();
    let options = LogOptions {
        file: args.log_file.as_deref().map(Session::absolute).transpose()?,
        json: args.log_json,
        verbose: session.ui().is_verbose(),
        filter: None,
    };
    let log =
        Log::start(&options.with_environment()).map_err(|error| CommandError::from_source(Kind::Usage, &error))?;
    if args.relay_only {
        let options = RelayOptions { port: args.relay_port, loopback_only: args.loopback };
        let relay = RelayOnly::start(&session.home()?, options)?;
        let _signals = heed(log, relay.orders())?;
        daemon::notify::ready();
        relay.work(&daemon::notify::watchdog);
        daemon::notify::stopping();
        return Ok(ExitCode::Done);
    }
    let daemon = Daemon::start(
        &session.home()?,
        &Session::silent_context(),
        DaemonOptions { loopback_only: args.loopback, relay_port: args.relay.then_some(args.relay_port) },
    )?;
    let _signals = heed(log, daemon.orders())?;
    let addresses: Vec<_> = daemon.addresses().iter().map(ToString::to_string).collect();
    tracing::info!(addresses = addresses.join(" "), "ready");
    daemon::notify::ready();
    daemon.work(&daemon::notify::watchdog);
    daemon::notify::stopping();
    Ok(ExitCode::Done)
}

/// Has signals become orders.
fn heed(log: Log, orders: Sender<Order>) -> Result<Signals, CommandError> {
    Signals::listen(move |signal| {
        let order = match signal {
            Signal::Stop => Order::Stop,
            Signal::Reload => {
                if let Err(error) = log.reopen() {
                    tracing::error!("{error}");
                }
                Order::Reload(None)
            }
        };
        // Who is gone needs no orders.
        drop(orders.send(order));
    })
    .map_err(|error| CommandError::new(Kind::Failed, format!("cannot heed signals: {error}")))
}
