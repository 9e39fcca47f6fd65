//! The kernel's figures: foldersync against plain git on the same data in the same run.
//!
//! `cargo bench --bench kernel` makes its data in `$BENCH_DIR` (default: the temporary folder), runs the release binary
//! as a person would, and prints a table of seconds and ratios. Ratios are what counts: machines differ. Where the data
//! lies matters too: on tmpfs a sync costs nothing, on a disk that discards each deleted block everything does. Each
//! figure is the median of `REPEATS` runs.
//!
//! `cargo bench --bench kernel -- NAME` runs the benchmarks whose name contains NAME. One is run only when it is named:
//! `a year` (200,000 revisions in small batches on one side, exchanged with another after each: what a folder costs as
//! it grows, every tenth of it, and cutting the last tenth;
//! some twenty minutes).

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
    bench.year("a year", 200_000, 20);
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
        let mut numbers = Numbers(1);
        for _ in 0..EDITS / at_a_time {
            edit(&root, &mut numbers, files, at_a_time);
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

    /// Revisions in small batches, each captured and brought to a second folder: what both cost as they grow, and at the
    /// end, what cutting a range costs.
    fn year(&self, name: &str, revisions: usize, at_a_time: usize) {
        const FILES: usize = 5000;
        if self.filter.as_deref() != Some(name) {
            return;
        }
        let root = self.fresh(FILES, 20);
        let other = self.dir.join("other");
        run(&mut self.foldersync(&root, &["init", "."]));
        run(&mut self.foldersync(&self.dir, &["clone", root.to_str().unwrap(), other.to_str().unwrap()]));
        println!(
            "| {name}: revisions | packs, here / there | MiB, here / there | nothing new | log FILE | one change exchanged | MiB of memory for it |"
        );
        println!("|---|---|---|---|---|---|---|");
        let mut numbers = Numbers(1);
        let mut tenth = String::new();
        for batch in 0..=revisions / at_a_time {
            if batch % (revisions / at_a_time / 10) == 0 {
                if batch * at_a_time == revisions / 10 * 9 {
                    tenth = said(&mut git(&root, &["rev-parse", "main"]));
                }
                let packs = [&root, &other].map(|folder| packs(folder));
                let quiet = median(|| seconds(&mut self.foldersync(&root, &["commit"])));
                let log = median(|| seconds(&mut self.foldersync(&root, &["log", "folder 7/file 7.txt"])));
                let exchange = median(|| {
                    edit(&root, &mut numbers, FILES, 1);
                    seconds(&mut self.foldersync(&other, &["exchange"]))
                });
                edit(&root, &mut numbers, FILES, 1);
                let memory = peak_memory(&mut self.foldersync(&other, &["exchange"]));
                println!(
                    "| {} | {} / {} | {} / {} | {quiet:.3} s | {log:.3} s | {exchange:.3} s | {memory} |",
                    batch * at_a_time,
                    packs[0].0,
                    packs[1].0,
                    packs[0].1 >> 20,
                    packs[1].1 >> 20
                );
            }
            edit(&root, &mut numbers, FILES, at_a_time);
            run(&mut self.foldersync(&other, &["exchange"]));
        }
        let (bundle, copy) = (self.dir.join("range.bundle.sz"), self.dir.join("copy"));
        let cut = median(|| {
            drop(fs::remove_file(&bundle));
            seconds(&mut self.foldersync(&root, &["bundle", "create", bundle.to_str().unwrap(), "--since", &tenth]))
        });
        let copied = median(|| {
            drop(fs::remove_file(&copy));
            seconds(
                Command::new("dd")
                    .arg("conv=fsync")
                    .arg("bs=64K")
                    .args([format!("if={}", bundle.display()), format!("of={}", copy.display())]),
            )
        });
        println!(
            "cutting the last {} revisions: {cut:.3} s; copying the {} bytes: {copied:.3} s",
            revisions / 10,
            fs::metadata(&bundle).unwrap().len()
        );
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

/// Numbers that look random and are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % below
    }
}

/// Edits `count` of the `files` that [`Bench::fresh`] made, 20 in a folder: some bytes become others.
fn edit(root: &Path, numbers: &mut Numbers, files: usize, count: usize) {
    let mut chosen = std::collections::BTreeSet::new();
    while chosen.len() < count {
        chosen.insert(numbers.next(files));
    }
    for n in chosen {
        let path = root.join(format!("folder {}/{}/file {n}.txt", n / 20 % 37, n / 20));
        let mut content = fs::read(&path).unwrap();
        let at = numbers.next(content.len());
        let end = (at + numbers.next(12)).min(content.len());
        content.splice(at..end, format!("{:x}", numbers.next(1 << 30)).into_bytes());
        fs::write(&path, content).unwrap();
    }
}

/// How many packs a folder has, and their bytes.
fn packs(root: &Path) -> (usize, u64) {
    let packs = fs::read_dir(root.join(".git/objects/pack")).unwrap().map(|entry| entry.unwrap());
    let packs = packs.filter(|entry| entry.path().extension().is_some_and(|ending| ending == "pack"));
    packs.fold((0, 0), |(count, bytes), entry| (count + 1, bytes + entry.metadata().unwrap().len()))
}

/// The most memory that a command has had, in MiB.
fn peak_memory(command: &mut Command) -> u64 {
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(&status).unwrap_or_default();
        let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        most = kib.unwrap_or(0).max(most);
    }
    most >> 10
}

fn median(mut measure: impl FnMut() -> f64) -> f64 {
    let mut figures: Vec<f64> = (0..REPEATS).map(|_| measure()).collect();
    figures.sort_by(f64::total_cmp);
    figures[REPEATS / 2]
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
