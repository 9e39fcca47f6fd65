//! `foldersync peer rename`

use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::session::Session;
use crate::cli::tell::tell_daemon;
use crate::config::Name;

/// Give a peer another name
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  foldersync peer rename origin nas")]
pub(crate) struct Args {
    /// Its name now
    #[arg(value_name = "OLD")]
    old: Name,
    /// Its new name
    #[arg(value_name = "NEW")]
    new: Name,
}

pub(crate) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    session.home()?.edit(|config, editor| {
        let peer = super::known(config, &args.old)?.clone();
        if config.peers.contains_key(&args.new) {
            return Err(super::taken(config, &args.new).into());
        }
        // The configuration is last: until then, the same command goes on where a kill ended it.
        super::in_each_folder(session, config, &peer, |folder| {
            Ok(folder.rename_peer(args.old.as_str(), args.new.as_str())?)
        });
        editor.rename_peer(&args.old, &args.new);
        Ok::<_, CommandError>(())
    })?;
    tell_daemon(session);
    Ok(ExitCode::Done)
}
