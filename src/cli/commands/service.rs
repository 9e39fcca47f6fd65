//! `foldersync service`

use std::io::Write as _;
use std::path::Path;

use clap::Subcommand;

use crate::cli::error::{CommandError, Kind};
use crate::cli::exit::ExitCode;
use crate::cli::session::Session;
use crate::cli::ui::table::Table;
use crate::config::env;
use crate::daemon::service::{self, Service, ServiceError, Systemd};

/// Run the daemon as a service that is started at login
///
/// The service is a unit of systemd for this person alone; no rights of an administrator are needed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Install(InstallArgs),
    Uninstall(UninstallArgs),
    Status(StatusArgs),
}

/// Write the unit, and start the service now and at each login
///
/// It runs this very program with `serve`. Installing it again replaces the unit and starts the service anew. On
/// macOS the property list for launchd is printed instead.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  foldersync service install\n  foldersync service install --print")]
struct InstallArgs {
    /// Print the unit and change nothing
    #[arg(long)]
    print: bool,
    /// Print the property list of launchd
    #[arg(long, requires = "print")]
    launchd: bool,
}

/// Stop the service, and remove its unit
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  foldersync service uninstall")]
struct UninstallArgs {}

/// Tell whether the service is installed, and how it does
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  foldersync service status")]
struct StatusArgs {}

impl From<ServiceError> for CommandError {
    fn from(error: ServiceError) -> Self {
        let kind = match &error {
            ServiceError::NotOurs { .. } => Kind::Refused,
            ServiceError::NoHome => Kind::Config,
            _ => Kind::Failed,
        };
        error.hint().into_iter().fold(Self::new(kind, error.to_string()), Self::with_hint)
    }
}

pub(crate) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    match &args.command {
        Command::Install(args) => install(session, args),
        Command::Uninstall(_) => uninstall(session),
        Command::Status(_) => status(session),
    }
}

/// This program, with the home that it was given.
fn this_service(session: &Session) -> Result<Service, CommandError> {
    let program = std::env::current_exe()
        .map_err(|error| CommandError::new(Kind::Failed, format!("cannot tell where this program is: {error}")))?;
    // What systemd has in its environment need not be what is in ours.
    let usual = env::HOME.get().map(|home| Path::new(&home).join(".config/foldersync"));
    let home = Session::absolute(session.home()?.dir())?;
    let home = (Some(&home) != usual.as_ref()).then_some(home);
    Ok(Service { program, home })
}

fn install(session: &Session, args: &InstallArgs) -> Result<ExitCode, CommandError> {
    let ui = session.ui();
    let service = this_service(session)?;
    if args.print || cfg!(target_os = "macos") {
        let launchd = args.launchd || cfg!(target_os = "macos");
        let text = if launchd { service.launchd_plist()? } else { service.systemd_unit()? };
        let mut out = ui.out();
        out.write_all(text.as_bytes())?;
        out.finish()?;
        if launchd {
            ui.hint(&format!(
                "write it to ~/Library/LaunchAgents/{label}.plist, then `launchctl bootstrap gui/$(id -u) ~/Library/LaunchAgents/{label}.plist`",
                label = service::LABEL
            ));
        }
        return Ok(ExitCode::Done);
    }
    let dir = service::unit_dir()?;
    let file = service.write_unit(&dir)?;
    Systemd::default().enable().map_err(|error| {
        let hint = format!("the unit is written: {}", file.display());
        CommandError::from(error).with_hint(hint)
    })?;
    if ui.is_json() {
        ui.json(&Systemd::default().status(&dir))?;
    } else {
        ui.status(&format!("{} runs now and at each login", service::UNIT));
        ui.hint("`loginctl enable-linger` keeps it running while you are logged out");
    }
    Ok(ExitCode::Done)
}

fn uninstall(session: &Session) -> Result<ExitCode, CommandError> {
    let ui = session.ui();
    let dir = service::unit_dir()?;
    let systemd = Systemd::default();
    // A unit that systemd does not know, or no systemd at all: the file goes nonetheless.
    let stopped = if dir.join(service::UNIT).exists() { systemd.disable() } else { Ok(()) };
    let removed = service::remove_unit(&dir)?;
    if removed {
        drop(systemd.reload());
    }
    if ui.is_json() {
        ui.json(&systemd.status(&dir))?;
    } else if removed {
        ui.status("the service is removed");
    } else {
        ui.status("the service was not installed");
    }
    match stopped {
        Err(ServiceError::NoSystemd) | Ok(()) => Ok(ExitCode::Done),
        Err(error) => Err(error.into()),
    }
}

fn status(session: &Session) -> Result<ExitCode, CommandError> {
    let ui = session.ui();
    let status = Systemd::default().status(&service::unit_dir()?);
    if ui.is_json() {
        ui.json(&status)?;
        return Ok(ExitCode::Done);
    }
    let enabled = match status.enabled {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown: systemd cannot be asked",
    };
    let mut table = Table::default();
    let file = if status.installed { status.file } else { "not installed".to_owned() };
    table.push(["unit", file.as_str()]);
    table.push(["starts at login", enabled]);
    table.push(["state", status.state.as_deref().unwrap_or("unknown")]);
    if let Some(said) = &status.said {
        table.push(["says", said]);
    }
    let mut out = ui.out();
    table.print(&mut out)?;
    out.finish()?;
    Ok(ExitCode::Done)
}
