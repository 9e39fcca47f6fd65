//! The kernel's figures: foldersync against plain git on the same data in the same run.
//!
//! `cargo bench --bench kernel` makes its data in `$BENCH_DIR` (default: the temporary folder), runs the release binary
//! as a person would, and prints a table of seconds and ratios. Ratios are what counts: machines differ. Where the data
//! lies matters too: on tmpfs a sync costs nothing, on a disk that discards each deleted block everything does. Each
//! figure is the median of `REPEATS` runs.
//!
//! `cargo bench --bench kernel -- NAME` runs the benchmarks whose name contains NAME.

#![expect(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used, reason = "a program that prints figures")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

const REPEATS: usize = 3;

struct Bench {
    dir: PathBuf,
    filter: Option<String>,
}

fn main() {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let dir = std::env::var_os("BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from).join("foldersync-kernel");
    let bench = Bench { dir, filter };
    println!("| what | foldersync | git | ratio |");
    println!("|---|---|---|---|");
    bench.init("init, 20,000 nested files", 20_000, 20);
    bench.init("init, 80,000 nested files", 80_000, 19);
    bench.init("init, 10,000 files in one folder", 10_000, usize::MAX);
    bench.unchanged("commit, 100,000 files, nothing changed", 100_000);
    bench.history("log FILE, 100,000 revisions", 100_000);
    bench.edits("bundle of 20,000 edits, a commit of all at once (bytes)", 20_000, 20_000);
    bench.edits("bundle of 20,000 edits, 20 commits of 1,000 (bytes)", 2_000, 1_000);
    bench.edits("bundle of 20,000 edits, 1,000 commits of 20 (bytes)", 2_000, 20);
    drop(fs::remove_dir_all(&bench.dir));
}

impl Bench {
    fn wanted(&self, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| name.contains(filter))
    }

    fn init(&self, name: &str, files: usize, per_folder: usize) {
        if !self.wanted(name) {
            return;
        }
        let (mut ours, mut gits) = (Vec::new(), Vec::new());
        for _ in 0..REPEATS {
            let root = self.fresh(files, per_folder);
            ours.push(seconds(&mut self.foldersync(&root, &["init", "."])));
            fs::remove_dir_all(root.join(".git")).unwrap();
            run(&mut git(&root, &["init", "-q"]));
            gits.push(seconds(&mut git(&root, &["add", "-A"])) + seconds(&mut git(&root, &["commit", "-qm", "all"])));
        }
        tell(name, ours, gits);
    }

    fn unchanged(&self, name: &str, files: usize) {
        if !self.wanted(name) {
            return;
        }
        let root = self.fresh(files, 20);
        run(&mut self.foldersync(&root, &["init", "."]));
        let (mut ours, mut gits) = (Vec::new(), Vec::new());
        for _ in 0..2 * REPEATS {
            ours.push(seconds(&mut self.foldersync(&root, &["commit"])));
            gits.push(seconds(&mut git(&root, &["status", "--porcelain"])));
        }
        tell(name, ours, gits);
    }

    fn history(&self, name: &str, revisions: usize) {
        if !self.wanted(name) {
            return;
        }
        let root = self.fresh(revisions, 20);
        run(&mut self.foldersync(&root, &["init", "."]));
        run(&mut self.foldersync(&root, &["log", "folder 7/file 7.txt"]));
        let (mut ours, mut gits) = (Vec::new(), Vec::new());
        for _ in 0..REPEATS {
            ours.push(seconds(&mut self.foldersync(&root, &["log", "folder 7/file 7.txt"])));
            gits.push(seconds(&mut git(&root, &["log", "--", "folder 7/file 7.txt"])));
        }
        tell(name, ours, gits);
    }

    /// Small edits at random places of random files, so many captured at a time: the bundles of them, for somebody who
    /// has what was there before.
    fn edits(&self, name: &str, files: usize, at_a_time: usize) {
        const EDITS: usize = 20_000;
        if !self.wanted(name) {
            return;
        }
        let root = self.fresh(files, 20);
        run(&mut self.foldersync(&root, &["init", "."]));
        let before = said(&mut git(&root, &["rev-parse", "main"]));
        let mut state = 1u64;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(state >> 33).unwrap() % below
        };
        for _ in 0..EDITS / at_a_time {
            let mut chosen = std::collections::BTreeSet::new();
            while chosen.len() < at_a_time {
                chosen.insert(next(files));
            }
            for n in chosen {
                let path = root.join(format!("folder {}/{}/file {n}.txt", n / 20 % 37, n / 20));
                let mut content = fs::read(&path).unwrap();
                let at = next(content.len());
                let end = (at + next(12)).min(content.len());
                content.splice(at..end, format!("{:x}", next(1 << 30)).into_bytes());
                fs::write(&path, content).unwrap();
            }
            run(&mut self.foldersync(&root, &["commit"]));
        }
        let (ours, gits) = (self.dir.join("ours.bundle.sz"), self.dir.join("gits.bundle"));
        run(&mut self.foldersync(&root, &["bundle", "create", ours.to_str().unwrap(), "--since", &before]));
        run(&mut git(&root, &["bundle", "create", "-q", gits.to_str().unwrap(), &format!("{before}..main")]));
        let [ours, gits] = [ours, gits].map(|file| fs::metadata(file).unwrap().len());
        let hundredths = ours * 100 / gits;
        println!("| {name} | {ours} | {gits} | {}.{:02} |", hundredths / 100, hundredths % 100);
        eprintln!("{name}: done");
    }

    /// A folder with so many text files of about 4 KiB, not in anybody's cache but the system's.
    fn fresh(&self, files: usize, per_folder: usize) -> PathBuf {
        drop(fs::remove_dir_all(&self.dir));
        let root = self.dir.join("root");
        let mut seed = 1u64;
        let words: Vec<String> =
            (0..4000u64).map(|n| format!("{:x} ", n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40)).collect();
        for n in 0..files {
            let folder = if per_folder == usize::MAX {
                root.clone()
            } else {
                let number = n / per_folder;
                root.join(format!("folder {}", number % 37)).join(format!("{number}"))
            };
            fs::create_dir_all(&folder).unwrap();
            let mut text = String::new();
            while text.len() < 500 + (n * 7919) % 7000 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                text.push_str(&words[usize::try_from(seed >> 40).unwrap() % words.len()]);
            }
            fs::write(folder.join(format!("file {n}.txt")), text).unwrap();
        }
        fs::create_dir_all(root.join("folder 7")).unwrap();
        fs::write(root.join("folder 7/file 7.txt"), "looked for").unwrap();
        run(&mut Command::new("sync"));
        root
    }

    fn foldersync(&self, root: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_foldersync"));
        command.args(args).current_dir(root).env("FOLDERSYNC_HOME", self.dir.join("home"));
        command
    }
}

fn git(root: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=x", "-c", "user.email=x", "-c", "gc.auto=0"]).args(args).current_dir(root);
    command
}

fn run(command: &mut Command) {
    let status = command.stdout(Stdio::null()).stderr(Stdio::inherit()).status().unwrap();
    assert!(status.success(), "{command:?}");
}

fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn seconds(command: &mut Command) -> f64 {
    let start = Instant::now();
    run(command);
    start.elapsed().as_secs_f64()
}

fn tell(name: &str, mut ours: Vec<f64>, mut gits: Vec<f64>) {
    ours.sort_by(f64::total_cmp);
    gits.sort_by(f64::total_cmp);
    let (ours, gits) = (ours[ours.len() / 2], gits[gits.len() / 2]);
    println!("| {name} | {ours:.3} s | {gits:.3} s | {:.2} |", ours / gits);
    eprintln!("{name}: done");
}
