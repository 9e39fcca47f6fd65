//! Kills of the real program, at many points of each operation: the next command finishes the work, nothing is lost,
//! nothing is invented.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::sites::{git, one_path_per_commit, text};
use crate::support;

struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for name in ["a", "b", "home"] {
            fs::create_dir(dir.path().join(name)).expect("a folder");
        }
        Self { dir }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_foldersync"));
        command.args(args).current_dir(self.dir.path().join("a")).env_clear();
        command
            .env("FOLDERSYNC_HOME", self.dir.path().join("home"))
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) {
        let output = support::output(&mut self.command(args));
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs, and kills after `delay`. Whether it was still running.
    fn kill_after(&self, args: &[&str], delay: Duration) -> bool {
        let mut child = self.command(args).spawn().expect("the program runs");
        let until = Instant::now() + delay;
        while Instant::now() < until {
            if child.try_wait().expect("wait").is_some() {
                return false;
            }
            std::thread::yield_now();
        }
        let running = child.try_wait().expect("wait").is_none();
        drop(child.kill());
        child.wait().expect("wait");
        running
    }

    fn site(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }
}

/// Kills of one command, at ever later points, until it gets through by itself.
struct Kills {
    count: usize,
    delay: Duration,
}

impl Kills {
    fn new() -> Self {
        Self { count: 0, delay: Duration::from_micros(500) }
    }

    /// Runs the command and kills it. `false`: it got through.
    fn next(&mut self, world: &World, args: &[&str]) -> bool {
        let killed = world.kill_after(args, self.delay);
        self.count += usize::from(killed);
        self.delay += self.delay / 12 + Duration::from_micros(300);
        killed
    }

    fn were_at_least(&self, least: usize) {
        assert!(self.count >= least, "only {} kills", self.count);
    }
}

fn fill(root: &Path, files: usize, generation: usize) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for n in 0..files {
        let path = root.join(format!("folder {}/{}/file {n}.txt", n % 7, n % 3));
        fs::create_dir_all(path.parent().expect("below")).expect("folders");
        let content = format!("file {n}, generation {generation}\n").repeat(1 + n % 50);
        ids.insert(blob_id(content.as_bytes()));
        fs::write(path, content).expect("write");
    }
    ids
}

fn blob_id(content: &[u8]) -> String {
    foldersync::store::object_id(foldersync::store::ObjectKind::Blob, content).to_string()
}

fn sound(root: &Path) {
    let fsck = git(root, &["fsck", "--full", "--strict", "--no-dangling", "--no-progress"]);
    assert!(fsck.status.success() && fsck.stderr.is_empty(), "{fsck:?}");
    assert_eq!(text(git(root, &["status", "--porcelain"])), "");
    one_path_per_commit(root);
}

/// What a killed process did not finish, the next one has removed.
fn nothing_left_over(root: &Path) {
    for dir in [".git/objects/pack", ".git/foldersync", ".git/foldersync/stage"] {
        let Ok(entries) = fs::read_dir(root.join(dir)) else { continue };
        for name in entries.map(|entry| entry.expect("an entry").file_name()) {
            let name = name.to_string_lossy();
            assert!(!name.starts_with("tmp_") && !name.starts_with(".tmp-"), "{name} was left in {dir}");
        }
    }
}

fn history(root: &Path) -> BTreeSet<String> {
    let objects = text(git(root, &["rev-list", "--objects", "main"]));
    objects.lines().filter_map(|line| Some(line.split_once(' ')?.0.to_owned())).collect()
}

fn commits(root: &Path) -> usize {
    text(git(root, &["rev-list", "--count", "main"])).trim().parse().expect("a number")
}

#[test]
fn killed_in_the_middle_of_init() {
    let world = World::new();
    let a = world.site("a");
    let ids = fill(&a, 400, 0);
    let mut kills = Kills::new();
    loop {
        let killed = kills.next(&world, &["init", "."]);
        if a.join(".git").exists() {
            world.run(&["commit"]);
            sound(&a);
            nothing_left_over(&a);
            assert_eq!(commits(&a), 400);
            assert!(history(&a).is_superset(&ids));
            fs::remove_dir_all(a.join(".git")).expect("remove");
        }
        drop(fs::remove_file(world.site("home").join("config.toml")));
        if !killed {
            break;
        }
    }
    kills.were_at_least(5);
}

#[test]
fn killed_in_the_middle_of_a_capture() {
    let world = World::new();
    let a = world.site("a");
    let mut ids = fill(&a, 300, 0);
    world.run(&["init", "."]);
    let mut kills = Kills::new();
    for generation in 1.. {
        ids.extend(fill(&a, 300, generation));
        let killed = kills.next(&world, &["commit"]);
        world.run(&["commit"]);
        sound(&a);
        nothing_left_over(&a);
        assert_eq!(commits(&a), 300 * (generation + 1), "nothing twice, nothing missing");
        if !killed {
            break;
        }
    }
    assert!(history(&a).is_superset(&ids));
    kills.were_at_least(5);
}

#[test]
fn killed_in_the_middle_of_an_exchange_and_of_its_apply() {
    let world = World::new();
    let (a, b) = (world.site("a"), world.site("b"));
    let mut ids = fill(&a, 300, 0);
    world.run(&["init", "."]);
    world.run(&["init", "../b"]);
    world.run(&["peer", "add", "b", "../b"]);
    world.run(&["exchange"]);
    let mut kills = Kills::new();
    for generation in 1.. {
        ids.extend(fill(&a, 300, generation));
        let own = format!("own {generation}");
        fs::write(b.join("own.txt"), &own).expect("write");
        ids.insert(blob_id(own.as_bytes()));
        let killed = kills.next(&world, &["exchange"]);
        world.run(&["exchange"]);
        for root in [&a, &b] {
            sound(root);
            nothing_left_over(root);
            let count = text(git(root, &["rev-list", "--count", "--no-merges", "main"]));
            assert_eq!(count.trim(), (300 + 301 * generation).to_string(), "nothing twice, nothing missing");
        }
        assert_eq!(text(git(&a, &["rev-parse", "main"])), text(git(&b, &["rev-parse", "main"])));
        let same = Command::new("diff").args(["-r", "--exclude=.git"]).arg(&a).arg(&b).output().expect("diff");
        assert!(same.status.success(), "{same:?}");
        if !killed {
            break;
        }
    }
    assert!(history(&a).is_superset(&ids) && history(&b).is_superset(&ids));
    kills.were_at_least(5);
}

#[test]
fn killed_in_the_middle_of_gathering_packs() {
    let world = World::new();
    let a = world.site("a");
    let mut ids = fill(&a, 50, 0);
    world.run(&["init", "."]);
    let mut kills = Kills::new();
    for generation in 1.. {
        for part in 0..3 {
            ids.extend(fill(&a, 50, 3 * generation + part));
            world.run(&["commit"]);
        }
        let killed = kills.next(&world, &["gc"]);
        sound(&a);
        world.run(&["commit"]);
        nothing_left_over(&a);
        assert!(history(&a).is_superset(&ids));
        if !killed {
            break;
        }
    }
    kills.were_at_least(2);
}
