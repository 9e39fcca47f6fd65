//! `foldersync git-filter`

use std::env;
use std::io::{self, BufReader, BufWriter};
use std::path::PathBuf;

use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::session::Session;
use crate::engine::{Folder, git_filter};

/// Give plain git the bytes of large files (run by git itself)
///
/// A large file is kept in chunks, and lies in git as the list of them. A folder's repository that has such files tells
/// git to run this wherever it writes files or looks at them, so that `git checkout`, `git diff` and `git archive` work
/// with what is in the file. It only reads; what it does not know passes as it is. In a plain clone it is set up by hand.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Example, in a clone that git made:\n  git config filter.foldersync.process 'foldersync git-filter'\n  echo '* -text filter=foldersync' >> .git/info/attributes\n  git checkout -f HEAD"
)]
pub(crate) struct Args {}

pub(crate) fn run(session: &Session, _: &Args) -> Result<ExitCode, CommandError> {
    let git_dir = match env::var_os("GIT_DIR") {
        Some(dir) => Session::absolute(&PathBuf::from(dir))?,
        None => git_dir(session)?,
    };
    let (mut input, mut output) = (BufReader::new(io::stdin()), BufWriter::new(io::stdout()));
    git_filter::serve(&git_dir, &mut input, &mut output)?;
    Ok(ExitCode::Done)
}

/// The repository around the current directory: a shared folder's, or any.
fn git_dir(session: &Session) -> Result<PathBuf, CommandError> {
    let here = Session::current_dir()?;
    if let Some(dir) = here.ancestors().map(|dir| dir.join(".git")).find(|dir| dir.join("objects").is_dir()) {
        return Ok(dir);
    }
    Ok(Folder::open(&session.root()?, session.context())?.git_dir().to_owned())
}
