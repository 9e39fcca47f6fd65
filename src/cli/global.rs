//! The options that every command takes.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The options that every command takes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Work on the folder that DIR lies in
    ///
    /// Without it, that is the folder that the current directory lies in. Paths are relative to the current
    /// directory if that lies in the folder, otherwise to the top of the folder.
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub folder: Option<PathBuf>,
    /// Print one JSON document for scripts
    ///
    /// Errors are printed as a JSON document on standard error. The section JSON of the manual says what the documents hold.
    #[arg(long, global = true)]
    pub json: bool,
    /// Print no summaries, hints and progress
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Print everything, however long
    #[arg(long, short, global = true)]
    pub verbose: bool,
    /// Keep configuration and keys in DIR
    ///
    /// Without it, they are in `FOLDERSYNC_HOME`, or in `foldersync` below `XDG_CONFIG_HOME`, or in `~/.config/foldersync`.
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub home: Option<PathBuf>,
    /// Use colours
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t, hide_possible_values = false)]
    pub color: Color,
}
