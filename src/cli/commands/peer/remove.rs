//! `foldersync peer remove`

use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::session::Session;
use crate::cli::tell::tell_daemon;
use crate::config::Name;

/// Remove a peer
///
/// Nothing is exchanged with it any more, and what was known of it is forgotten. Its files and ours stay as they are.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  foldersync peer remove usb")]
pub(crate) struct Args {
    /// The peer
    #[arg(value_name = "NAME")]
    name: Name,
}

pub(crate) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    session.home()?.edit(|config, editor| {
        let peer = super::known(config, &args.name)?.clone();
        // The configuration is last: until then, the same command goes on where a kill ended it.
        super::in_each_folder(session, config, &peer, |folder| Ok(folder.forget_peer(args.name.as_str())?));
        editor.remove_peer(&args.name);
        Ok::<_, CommandError>(())
    })?;
    tell_daemon(session);
    Ok(ExitCode::Done)
}
