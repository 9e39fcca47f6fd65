//! Kills the real program, thousands of times, and checks after each that nothing is lost and the work goes on.
//!
//! ```text
//! cargo build --release
//! cargo run --release --example kills -- --kills 10000
//! ```
//!
//! - `--kills N`: so many kills at random moments of all operations (`--seed S`; `--case N`: only this one of them);
//! - `--exact`: a kill before each single call that changes files, in a small scene of each operation (needs strace);
//! - `--power-loss N`: the calls of an operation are recorded, and every state that a power cut may leave of them is put
//!   up, or N of them chosen by the seed if there are more (needs strace);
//! - `--plant objects|refs|folders|stage`, after that: as if the program made no such syncs, to see that this is found;
//! - `--operation init,commit,...`: only these; `--foldersync PATH`: this program; `--dir DIR`: scenes are put up there;
//!   `--jobs N`: so many at the same time.
//!
//! A case that fails keeps its folders, and says how to see it again.

#![expect(clippy::print_stderr, clippy::print_stdout, reason = "a program that prints what it found")]

mod harness;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use harness::{Mode, Options, Plant};

/// The program that was built with this one.
fn beside() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let target = own.ancestors().nth(2).unwrap_or(Path::new("."));
    target.join("foldersync")
}

fn options() -> Result<Options, String> {
    let dir = harness::scratch().join(format!("foldersync-kills-{}", std::process::id()));
    let mut options = Options {
        program: beside(),
        dir,
        mode: Mode::Random { kills: 500 },
        seed: u64::from(std::process::id()),
        case: None,
        operations: Vec::new(),
        jobs: std::thread::available_parallelism().map_or(2, usize::from),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("`{word}` needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("`{text}` is no number"));
        match word.as_str() {
            "--kills" => options.mode = Mode::Random { kills: number(value()?)? },
            "--exact" => options.mode = Mode::Exact,
            "--power-loss" => {
                let states = usize::try_from(number(value()?)?).map_err(|error| error.to_string())?;
                options.mode = Mode::PowerLoss { states, plant: None };
            }
            "--plant" => {
                let forgotten = match value()?.as_str() {
                    "objects" => Plant::Objects,
                    "refs" => Plant::Refs,
                    "folders" => Plant::Folders,
                    "stage" => Plant::Stage,
                    other => return Err(format!("`{other}` is none of objects, refs, folders and stage")),
                };
                match &mut options.mode {
                    Mode::PowerLoss { plant, .. } => *plant = Some(forgotten),
                    _ => return Err("`--plant` goes with a `--power-loss N` before it".to_owned()),
                }
            }
            "--seed" => options.seed = number(value()?)?,
            "--case" => options.case = Some(number(value()?)?),
            "--operation" => options.operations = value()?.split(',').map(str::to_owned).collect(),
            "--foldersync" => options.program = value()?.into(),
            "--dir" => options.dir = value()?.into(),
            "--jobs" => options.jobs = usize::try_from(number(value()?)?).map_err(|error| error.to_string())?,
            _ => return Err(format!("`{word}` is not understood; the head of examples/kills/main.rs says what is")),
        }
    }
    let found = options.program.canonicalize();
    options.program = found.map_err(|error| {
        let program = options.program.display();
        format!("{program}: {error}; `cargo build --release` makes it, `--foldersync PATH` names another")
    })?;
    Ok(options)
}

fn main() -> ExitCode {
    let report = options().and_then(|options| {
        println!("seed {}, {}", options.seed, options.program.display());
        let report = harness::run(&options, &|line| eprintln!("{line}"))?;
        if report.faults.is_empty() {
            drop(std::fs::remove_dir_all(&options.dir));
        }
        Ok(report)
    });
    match report {
        Ok(report) => {
            print!("{}", report.table());
            if report.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
