//! The command `foldersync`: everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    foldersync::cli::main(std::env::args_os()).into()
}
