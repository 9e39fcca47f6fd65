//! An hour of work: three daemons, edits on all sides all the time, and a kill every minute. For hand:
//!
//! ```text
//! FOLDERSYNC_SOAK_MINUTES=60 cargo test --release --test it -- --ignored --nocapture soak
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use foldersync::store::{ObjectKind, object_id};

use super::chance::Chance;
use super::devices::Devices;

/// How long a content stands at least before it is changed again: long enough to be captured, also after a kill.
const STANDS: Duration = Duration::from_secs(20);
const NAMES: usize = 400;
const KILLS: Duration = Duration::from_mins(1);
const SAMPLES: Duration = Duration::from_secs(20);

struct Soak {
    devices: Devices,
    chance: Chance,
    /// When a path was last written, on any device.
    touched: BTreeMap<String, Instant>,
    /// Every content that was written.
    contents: BTreeSet<String>,
    edits: usize,
}

impl Soak {
    fn name(&mut self) -> String {
        let n = self.chance.below(NAMES);
        let kind = ["txt", "bin", "md"][n % 3];
        format!("d{}/e{}/f{n}.{kind}", n % 7, n % 4)
    }

    fn content(&mut self) -> Vec<u8> {
        self.edits += 1;
        let head = format!("edit {}\n", self.edits);
        let len = match self.chance.below(100) {
            0 => self.chance.below(8 << 20),
            1..10 => self.chance.below(200_000),
            _ => self.chance.below(4_000),
        };
        let mut content = head.into_bytes();
        while content.len() < len {
            content.extend(self.chance.below(usize::MAX).to_le_bytes());
        }
        content
    }

    /// One change on one device. A path is left alone for a while after each.
    fn edit(&mut self) {
        let (at, name) = (self.chance.below(3), self.name());
        if self.touched.get(&name).is_some_and(|then| then.elapsed() < STANDS) {
            return;
        }
        self.touched.insert(name.clone(), Instant::now());
        let path = self.devices.folder(at).join(&name);
        let exists = path.exists();
        match self.chance.below(10) {
            0 | 1 if exists => drop(fs::remove_file(&path)),
            2 if exists => {
                let to = self.name();
                if self.touched.get(&to).is_none_or(|then| then.elapsed() >= STANDS) {
                    self.touched.insert(to.clone(), Instant::now());
                    let to = self.devices.folder(at).join(to);
                    fs::create_dir_all(to.parent().expect("a folder")).expect("folders");
                    drop(fs::rename(&path, to));
                }
            }
            choice => {
                let content = self.content();
                self.contents.insert(object_id(ObjectKind::Blob, &content).to_string());
                fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
                if choice < 6 {
                    fs::write(&path, content).expect("written");
                } else {
                    // As editors save.
                    let beside = path.with_extension("tmp~");
                    fs::write(&beside, content).expect("written");
                    fs::rename(beside, path).expect("renamed");
                }
            }
        }
    }

    /// What every repository lacks of what was ever written.
    fn lacking(&self, at: usize) -> Vec<String> {
        let ids: Vec<&str> = self.contents.iter().map(String::as_str).collect();
        let ids = ids.join("\n") + "\n";
        let mut git = Command::new("git")
            .args(["-c", "safe.directory=*", "cat-file", "--batch-check", "--buffer"])
            .current_dir(self.devices.folder(at))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("git");
        let mut input = git.stdin.take().expect("piped");
        let writing = std::thread::spawn(move || drop(input.write_all(ids.as_bytes())));
        let output = git.wait_with_output().expect("git");
        writing.join().expect("written");
        let told = String::from_utf8(output.stdout).expect("text");
        told.lines().filter(|line| line.ends_with(" missing") && line.len() > 40).map(str::to_owned).collect()
    }
}

/// Resident memory in MiB, and open descriptors, of a process.
fn uses(process: u32) -> (f64, usize) {
    let proc = PathBuf::from(format!("/proc/{process}"));
    let status = fs::read_to_string(proc.join("status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    let kib: f64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    (kib / 1024.0, fs::read_dir(proc.join("fd")).expect("descriptors").count())
}

#[test]
#[ignore = "it takes an hour"]
#[expect(clippy::print_stdout, reason = "for whoever watches it")]
fn soak() {
    let minutes = std::env::var("FOLDERSYNC_SOAK_MINUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let length = Duration::from_mins(minutes);
    let devices = Devices::new(&["a", "b", "c"]);
    devices.connect(&[(0, 1), (1, 2), (2, 0)]);
    let (touched, contents) = (BTreeMap::new(), BTreeSet::new());
    let mut soak = Soak { devices, chance: Chance::new(minutes), touched, contents, edits: 0 };
    soak.devices.start_all();
    let began = Instant::now();
    let (mut kills, mut next_kill, mut next_sample) = (0, KILLS, SAMPLES);
    let mut samples = Vec::new();
    while began.elapsed() < length {
        soak.edit();
        // The pace of the edits, some bursts among them.
        sleep(Duration::from_millis(if soak.chance.below(20) == 0 { 1500 } else { soak.chance.below(300) as u64 }));
        if began.elapsed() >= next_sample {
            next_sample += SAMPLES;
            // The first is never killed: what it uses has to stay what it is.
            let (memory, descriptors) = uses(soak.devices.process(0));
            samples.push((memory, descriptors));
            if samples.len() % 6 == 1 {
                let minute = began.elapsed().as_secs() / 60;
                println!("minute {minute}: {} edits, {memory:.0} MiB, {descriptors} descriptors", soak.edits);
            }
        }
        if began.elapsed() >= next_kill {
            next_kill += KILLS;
            kills += 1;
            let at = 1 + kills % 2;
            soak.devices.kill(at);
            soak.devices.start(at);
        }
    }
    soak.devices.wait(|trees| trees.windows(2).all(|pair| pair[0] == pair[1]));
    soak.devices.check();
    for at in 0..3 {
        let lacking = soak.lacking(at);
        assert!(lacking.is_empty(), "device {at} lacks contents: {lacking:?}");
    }
    let (early, late) = (&samples[samples.len() / 6..samples.len() / 2], &samples[samples.len() / 2..]);
    let most = |samples: &[(f64, usize)]| {
        samples.iter().fold((0.0, 0), |most: (f64, usize), &(memory, open)| (most.0.max(memory), most.1.max(open)))
    };
    let (early, late) = (most(early), most(late));
    println!(
        "{minutes} minutes, {} contents written, {kills} kills; first half: at most {:.0} MiB and {} descriptors; second: {:.0} MiB and {}",
        soak.contents.len(),
        early.0,
        early.1,
        late.0,
        late.1
    );
    assert!(late.0 < 1.25 * early.0 + 8.0, "memory grows: {samples:?}");
    assert!(late.1 <= early.1 + 12, "descriptors leak: {samples:?}");
}
