//! Damage: every kind of file that a real repository of ours has, at every place, in every way: `verify` finds it and
//! says what it affects, or the file is derived and every answer is as before; `repair` mends it from a peer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldersync::engine::report::RepairReport;
use foldersync::engine::{ExchangeOptions, Failure, Folder, Wait};
use foldersync::transport;

use crate::sites::{Site, Sites, git, text};
use crate::support::TestEnv;

/// What is done to a file. The time of the file stays, as when a disk loses what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Flip(Where),
    CutOff(Where),
    Emptied,
    Deleted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    Start,
    Middle,
    End,
}

const CHANGES: [Change; 8] = [
    Change::Flip(Where::Start),
    Change::Flip(Where::Middle),
    Change::Flip(Where::End),
    Change::CutOff(Where::Start),
    Change::CutOff(Where::Middle),
    Change::CutOff(Where::End),
    Change::Emptied,
    Change::Deleted,
];

/// What must come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// `verify` finds damage, and names the file.
    Found,
    /// It is made anew, or nothing needs it: no damage, and every answer is as before.
    AsBefore,
}

use Expected::{AsBefore, Found};

/// Every kind of file: what it is called here, and what must come of a change, and of its loss.
const KINDS: [(&str, Expected, Expected); 27] = [
    ("HEAD", Found, Found),
    ("config", Found, Found),
    ("index", AsBefore, AsBefore),
    ("packed-refs", Found, Found),
    ("info/attributes", Found, Found),
    ("info/exclude", Found, Found),
    ("a pack", Found, Found),
    ("a gathered pack", Found, Found),
    ("the index of a pack", Found, Found),
    ("the marker of a pack", AsBefore, AsBefore),
    ("a loose object", Found, Found),
    ("git's commit graph", Found, AsBefore),
    ("main", Found, Found),
    ("a branch of chunks", Found, Found),
    ("applied", Found, AsBefore),
    ("what came in", Found, AsBefore),
    ("what is known of a peer", Found, AsBefore),
    ("what the brake remembers", AsBefore, AsBefore),
    ("a lock", AsBefore, AsBefore),
    ("empty folders", AsBefore, AsBefore),
    ("the graph", AsBefore, AsBefore),
    ("the history index", AsBefore, AsBefore),
    ("the journal of the history index", AsBefore, AsBefore),
    ("peers", AsBefore, AsBefore),
    ("a kept copy", AsBefore, AsBefore),
    ("git's own", AsBefore, AsBefore),
    ("a lock of an exchange", AsBefore, AsBefore),
];

/// The kind of a file of the repository. Whoever adds one has to say what becomes of it when it is damaged.
fn kind_of(file: &str, gathered: &BTreeSet<String>) -> &'static str {
    let ends = |end: &str| file.rsplit('.').next() == Some(end);
    match file {
        "HEAD" | "config" | "index" | "packed-refs" | "info/attributes" | "info/exclude" => {
            KINDS.iter().map(|(name, ..)| *name).find(|name| *name == file).expect("in the table")
        }
        "refs/heads/main" => "main",
        "refs/heads/foldersync/chunks" => "a branch of chunks",
        "refs/foldersync/applied" => "applied",
        "foldersync/lock" | "foldersync/under-way" | "foldersync/peers.lock" | "foldersync/mending.lock" => "a lock",
        "foldersync/empty-folders" => "empty folders",
        "foldersync/graph" => "the graph",
        "foldersync/history.sqlite" => "the history index",
        "foldersync/history.sqlite-journal" => "the journal of the history index",
        "foldersync/peers.json" => "peers",
        "foldersync/brake.json" => "what the brake remembers",
        "objects/info/commit-graph" => "git's commit graph",
        "COMMIT_EDITMSG" => "git's own",
        _ if file.starts_with("objects/pack/pack-") && ends("pack") && gathered.contains(file) => "a gathered pack",
        _ if file.starts_with("objects/pack/pack-") && ends("pack") => "a pack",
        _ if file.starts_with("objects/pack/pack-") && ends("idx") => "the index of a pack",
        _ if file.starts_with("objects/pack/pack-") && ends("ordered") => "the marker of a pack",
        _ if file.starts_with("objects/") && file.len() == 49 => "a loose object",
        _ if ["incoming", "instalment", "held"]
            .iter()
            .any(|it| file.starts_with(&format!("refs/foldersync/{it}/"))) =>
        {
            "what came in"
        }
        _ if file.starts_with("refs/remotes/") && file.ends_with("/main") => "what is known of a peer",
        _ if file.starts_with("foldersync/exchange-") && ends("lock") => "a lock of an exchange",
        _ if file.starts_with("foldersync/kept/") => "a kept copy",
        _ => panic!("`{file}` is a new kind of file: say in this table what becomes of it when it is damaged"),
    }
}

fn is_pack(file: &str) -> bool {
    file.rsplit('.').next() == Some("pack")
}

fn files(dir: &Path) -> Vec<String> {
    fn walk(top: &Path, dir: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(dir).expect("a folder") {
            let path = entry.expect("an entry").path();
            if fs::symlink_metadata(&path).expect("there").is_dir() {
                walk(top, &path, found);
            } else {
                found.push(path.strip_prefix(top).expect("below").to_str().expect("plain").to_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(dir, dir, &mut found);
    found.sort();
    found
}

fn change(file: &Path, change: Change) {
    let place = |at: Where, len: usize| match at {
        Where::Start => 0,
        Where::Middle => len / 2,
        Where::End => len - 1,
    };
    if change == Change::Deleted {
        return fs::remove_file(file).expect("removed");
    }
    let time = fs::metadata(file).expect("there").modified().expect("a time");
    let mut content = fs::read(file).expect("readable");
    match change {
        Change::Flip(at) => {
            let at = place(at, content.len());
            content[at] ^= 1;
        }
        Change::CutOff(at) => content.truncate(place(at, content.len()).max(1)),
        Change::Emptied => content.clear(),
        Change::Deleted => unreachable!("done above"),
    }
    // Packs are read-only, and links to others' in a copy: a file of its own takes the place.
    fs::remove_file(file).expect("removed");
    fs::write(file, content).expect("written");
    fs::File::options().write(true).open(file).and_then(|file| file.set_modified(time)).expect("a time");
}

/// A folder with all that ours can have in it, and its peer: small files and large ones, links, empty folders, a
/// conflict, packs gathered and not, refs packed and not, a commit of a person's own, something that waits for its merge.
struct World {
    sites: Sites,
    gathered: BTreeSet<String>,
    log: String,
    head: String,
}

impl World {
    fn new() -> Self {
        let sites = Sites::new(2);
        sites.keep_in_chunks_from(64 << 10);
        let (a, b) = (&sites.sites[0], &sites.sites[1]);
        let noise = |seed: u32| -> Vec<u8> {
            let mut state = u64::from(seed) << 32 | 0x9e37_79b9;
            let next = |_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()
            };
            (0..40_000).flat_map(next).collect()
        };
        // So many revisions that the graph of them is kept, of few files: each case copies all of them.
        for round in 0..9 {
            for file in 0..30 {
                a.write(&format!("many/{file}.txt"), format!("file {file}, {round}\n"));
            }
            a.folder().capture(&[]).expect("captured");
        }
        a.write("notes.txt", b"one\n");
        a.write("large.bin", noise(1));
        fs::create_dir(a.root.join("empty")).expect("a folder");
        std::os::unix::fs::symlink("notes.txt", a.root.join("link")).expect("a link");
        a.folder().capture(&[]).expect("captured");
        sites.exchange(0, 1);
        a.write("notes.txt", b"one\ntwo\n");
        a.folder().capture(&[]).expect("captured");
        a.folder().gc().expect("gathered");
        let packs = |root: &Path| -> BTreeSet<String> {
            files(&root.join(".git")).into_iter().filter(|file| is_pack(file)).collect()
        };
        let gathered = packs(&a.root);
        a.write("photo.jpg", b"mine");
        b.write("photo.jpg", b"theirs");
        a.write("large.bin", [&noise(1)[..], b"more"].concat());
        a.folder().capture(&[]).expect("captured");
        a.write("notes.txt", b"one\ntwo\nthree\n");
        sites.exchange(0, 1);
        // A person's own commit, in loose objects.
        a.write("own.txt", b"with git\n");
        text(git(&a.root, &["add", "own.txt"]));
        text(git(&a.root, &["-c", "user.name=p", "-c", "user.email=p@p", "commit", "-q", "-m", "own"]));
        sites.exchange(0, 1);
        text(git(&a.root, &["update-ref", "refs/remotes/other/main", "main"]));
        text(git(&a.root, &["pack-refs", "--all"]));
        a.write("large.bin", noise(2));
        text(git(&a.root, &["commit-graph", "write", "--reachable"]));
        a.write("last.txt", b"last\n");
        sites.exchange(0, 1);
        let old = text(git(&a.root, &["rev-parse", "main~3"]));
        for name in ["refs/foldersync/incoming/b", "refs/foldersync/instalment/b", "refs/remotes/b/main"] {
            text(git(&a.root, &["update-ref", name, old.trim()]));
        }
        let folder = a.folder();
        let log = format!("{:?}", folder.log(None, None).expect("a log"));
        // Under the lock, copies of what was packed are kept.
        folder.capture(&[]).expect("captured");
        let head = folder.head().expect("a head").expect("one").to_string();
        assert_eq!(folder.verify(true).expect("verified").findings, []);
        Self { sites, gathered, log, head }
    }

    /// The file of each kind that is looked at.
    fn kinds(&self) -> BTreeMap<&'static str, String> {
        let mut kinds = BTreeMap::new();
        for file in files(&self.sites.sites[0].root.join(".git")) {
            let kind = kind_of(&file, &self.gathered);
            let size =
                |file: &String| fs::metadata(self.sites.sites[0].root.join(".git").join(file)).expect("there").len();
            // The largest tells most; of loose objects, the smallest is the content that nothing else has.
            let known = kinds.entry(kind).or_insert_with(|| file.clone());
            let loose = kind == "a loose object";
            if (size(known) < size(&file)) != loose {
                *known = file;
            }
        }
        kinds
    }
}

/// A copy of a folder, with the times of its files.
fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(status.success());
}

fn repair(world: &World, root: &Path, from_peer: bool) -> RepairReport {
    let site = &world.sites.sites[0];
    let (folder, restored) = Folder::open_for_repair(root, site.context()).expect("opened");
    let mut repair = folder.repair(Wait::No).expect("begun");
    repair.note(restored);
    let other = &world.sites.sites[1];
    if from_peer && repair.lacks() {
        repair.ask(&Site::target(other));
    }
    repair.finish().expect("finished")
}

#[test]
fn every_file_of_a_repository_may_be_damaged() {
    let world = World::new();
    let site = &world.sites.sites[0];
    let kinds = world.kinds();
    for (kind, ..) in KINDS {
        assert!(kinds.contains_key(kind), "there is no file of the kind {kind:?}: {kinds:#?}");
    }
    let cases: Vec<(&str, &String, Change)> = kinds
        .iter()
        .flat_map(|(kind, file)| CHANGES.map(|what| (*kind, file, what)))
        .filter(|(_, file, what)| {
            let is_empty = fs::metadata(site.root.join(".git").join(file)).expect("there").len() == 0;
            !is_empty || *what == Change::Deleted
        })
        .collect();
    let (next, found, wrong) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((kind, file, what)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match try_damage(&world, kind, file, *what) {
                        Ok(as_damage) => drop(found.fetch_add(usize::from(as_damage), Ordering::Relaxed)),
                        Err(complaints) => wrong.lock().expect("whole").extend(
                            complaints.into_iter().map(|complaint| format!("{kind} ({file}), {what:?}: {complaint}")),
                        ),
                    }
                }
            });
        }
    });
    let (wrong, found) = (wrong.into_inner().expect("whole"), found.into_inner());
    assert!(wrong.is_empty(), "{} complaints in {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(found > 80 && cases.len() > 150, "{found} found of {} cases", cases.len());
}

/// Damages one file of a copy of the folder, verifies and repairs it. Whether it was found as damage; or what is wrong.
fn try_damage(world: &World, kind: &str, file: &str, what: Change) -> Result<bool, Vec<String>> {
    let site = &world.sites.sites[0];
    let (_, changed, lost) = *KINDS.iter().find(|(name, ..)| *name == kind).expect("in the table");
    let dir = tempfile::tempdir().expect("a folder");
    let root = dir.path().join("a");
    copy(&site.root, &root);
    change(&root.join(".git").join(file), what);
    let mut wrong = Vec::new();
    // What keeps a folder from being opened is found by that.
    let verified = Folder::open(&root, site.context()).and_then(|folder| folder.verify(false));
    let problems = match verified {
        Ok(report) => report.problems,
        Err(error) if error.failure() == Failure::Damaged => vec![error.to_string()],
        Err(error) => return Err(vec![format!("not as damage: {error}")]),
    };
    // A pack and its index are one thing to a person, and a loose object that is gone has only its id.
    let name = file.rsplit('/').next().expect("a name").trim_end_matches(".idx").trim_end_matches(".pack");
    let id = file.replacen("objects/", "", 1).replace('/', "");
    let named = problems.iter().any(|problem| problem.contains(name) || problem.contains(&id));
    match if what == Change::Deleted { lost } else { changed } {
        Found if !named => wrong.push(format!("not found: {problems:?}")),
        AsBefore if !problems.is_empty() => wrong.push(format!("taken for damage: {problems:?}")),
        _ => {}
    }
    let report = repair(world, &root, true);
    if !report.after.problems.is_empty() || !report.choices.is_empty() {
        wrong.push(format!("not mended: {report:#?}"));
        return Err(wrong);
    }
    let folder = Folder::open(&root, site.context()).expect("opened");
    let log = folder.log(None, None).map_or_else(|error| error.to_string(), |log| format!("{log:?}"));
    if log != world.log {
        wrong.push("the log is another".to_owned());
    }
    folder.capture(&[]).expect("captured");
    if folder.head().expect("a head").map(|head| head.to_string()).as_ref() != Some(&world.head) {
        wrong.push("the head is another".to_owned());
    }
    let fsck = git(&root, if kind.ends_with("pack") { &REACHABLE } else { &ALL });
    if !fsck.status.success() {
        wrong.push(format!("git fsck: {}", String::from_utf8_lossy(&[fsck.stdout, fsck.stderr].concat())));
    }
    let status = text(git(&root, &["status", "--porcelain"]));
    if !status.is_empty() {
        wrong.push(format!("git status: {status}"));
    }
    if wrong.is_empty() { Ok(named) } else { Err(wrong) }
}

/// How git looks at a repository. Of a pack that is lost, what nothing needs any more is not fetched, and what else
/// nothing needs may refer to it: there only what is needed counts.
const ALL: [&str; 3] = ["fsck", "--full", "--strict"];
const REACHABLE: [&str; 4] = ["fsck", "--full", "--strict", "--connectivity-only"];

#[test]
fn what_no_peer_has_is_named_and_what_the_disk_has_is_taken() {
    let world = World::new();
    let site = &world.sites.sites[0];
    let dir = tempfile::tempdir().expect("a folder");
    let root: PathBuf = dir.path().join("a");
    copy(&site.root, &root);
    let gathered = world.kinds()["a gathered pack"].clone();
    change(&root.join(".git").join(gathered), Change::Deleted);
    let report = repair(&world, &root, false);
    assert!(report.mended.iter().any(|line| line.contains("found in the files on disk")), "{report:#?}");
    let affected: Vec<String> =
        report.after.findings.iter().flat_map(|finding| &finding.affects).map(ToString::to_string).collect();
    assert!(affected.contains(&"notes.txt@1".to_owned()), "{affected:?}");
    assert!(!affected.contains(&"last.txt@1".to_owned()), "{affected:?}");
    // Later, from one that has it.
    let report = repair(&world, &root, true);
    assert_eq!(report.after.problems, Vec::<String>::new(), "{report:#?}");
    let fsck = git(&root, &REACHABLE);
    assert!(fsck.status.success(), "{fsck:?}");
}

/// What a peer does not give is not had by asking for it as lost.
#[test]
fn a_peer_that_gives_nothing_gives_no_repair() {
    let sites = Sites::new(2);
    sites.sites[0].write("notes.txt", "one\n");
    sites.exchange(0, 1);
    let (site, other) = (&sites.sites[0], &sites.sites[1]);
    for file in files(&site.root.join(".git")).iter().filter(|file| is_pack(file)) {
        change(&site.root.join(".git").join(file), Change::Deleted);
    }
    fs::remove_file(site.path("notes.txt")).expect("removed");
    for (gives, failed) in [(false, Some("it gives nothing to this device")), (true, None)] {
        let folder = site.folder();
        let mut repair = folder.repair(Wait::No).expect("begun");
        let (here, there) = transport::pipe("b");
        std::thread::scope(|scope| {
            let served = scope.spawn(|| {
                let options = ExchangeOptions { send: gives, ..ExchangeOptions::default() };
                other.folder().serve(there, None, options)
            });
            let mut here = Some(here);
            repair.ask_over("b", None, &mut || Ok(here.take().expect("asked once")));
            drop(served.join().expect("served"));
        });
        let report = repair.finish().expect("finished");
        let told = report.asked[0].failed.as_deref();
        assert_eq!(
            told.map(|told| failed.is_some_and(|failed| told.contains(failed))),
            failed.map(|_| true),
            "{report:#?}"
        );
        assert_eq!(report.after.problems.is_empty(), gives, "{report:#?}");
    }
}

#[test]
fn the_command_says_what_is_lost_and_fetches_it() {
    let env = TestEnv::new();
    env.write("docs/notes.txt", "one\n");
    env.run(["init", "docs"]).ended(0);
    env.write("docs/notes.txt", "one\ntwo\n");
    env.run_in("docs", ["commit"]).ended(0);
    env.run(["clone", "docs", "copy"]).ended(0);
    let packs = || {
        let found = fs::read_dir(env.path("copy/.git/objects/pack")).expect("packs");
        found.map(|entry| entry.expect("one").path()).filter(|path| path.extension().is_some_and(|end| end == "pack"))
    };
    packs().for_each(|pack| change(&pack, Change::CutOff(Where::Start)));
    let verified = env.run_in("copy", ["verify"]).ended(5);
    assert!(verified.stdout.contains(".pack: "), "{verified}");
    assert!(verified.stderr.contains("foldersync repair"), "{verified}");
    // Everything else says so as well, and changes nothing.
    let failed = env.run_in("copy", ["exchange"]).ended(5);
    assert!(failed.stderr.contains("foldersync verify"), "{failed}");
    let repaired = env.run_in("copy", ["repair"]).ended(0);
    assert!(repaired.stdout.contains("origin brought"), "{repaired}");
    env.run_in("copy", ["verify", "--content"]).ended(0);
    assert_eq!(env.run_in("copy", ["show", "notes.txt@1"]).ok(), "one\n");
    assert!(fs::read_dir(env.path("copy/.git/foldersync/damaged")).expect("put aside").count() > 0);
    env.run_in("copy", ["exchange"]).ended(0);
}
