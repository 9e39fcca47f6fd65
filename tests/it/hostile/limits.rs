//! What a peer can claim of the machine, tried on the built command, which the system lets have little memory.

use std::io::Write as _;
use std::process::{Command, Stdio};

use foldersync::id::CommitId;
use foldersync::store::ObjectKind;
use foldersync::store::pack::delta;
use foldersync::store::pack::entry::EntryKind;

use super::Scene;
use super::bundles::commit;
use super::liar::{Liar, bundle};
use crate::fuzzed::targets::forge::{Forge, commit_text};

/// KiB that the command may have.
const MEMORY: u32 = 384 << 10;

/// What `foldersync serve --stdio` says at its end, when the other side says this; it must end by itself, and refuse.
fn served(scene: &Scene, script: impl FnOnce(&mut Liar)) -> String {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -d {MEMORY}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_foldersync")]);
    command.arg("--folder").arg(&scene.victim().root).args(["serve", "--stdio"]);
    command.env("FOLDERSYNC_HOME", scene.sites.dir().join("home"));
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let (stdout, stdin) = (child.stdout.take().expect("piped"), child.stdin.take().expect("piped"));
    script(&mut Liar::on(stdout, stdin));
    let output = crate::support::end_of(child);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(!said.contains("panicked") && !said.contains("memory allocation"), "{said}");
    said
}

fn brings(liar: &mut Liar, content: &[u8], tip: CommitId) {
    liar.offers(1);
    let begin = liar.begin(tip);
    liar.bundle(begin, content);
    liar.ends(tip);
}

#[test]
fn an_honest_exchange_fits_into_that_memory() {
    let scene = Scene::new();
    let head = scene.victim().head().expect("a head");
    let mut forge = Forge::default();
    let root = forge.whole(ObjectKind::Tree, b"");
    let tip = commit(&mut forge, root, &[head], b"x\n");
    // It has no head that this one could have: so the bundle is taken, and the exchange refused only then.
    let said = served(&scene, |liar| {
        liar.offers(1);
        let begin = liar.begin(tip);
        liar.bundle(begin, &bundle(&[head], tip, &forge));
        liar.ends(CommitId::from_bytes([7; 20]));
    });
    assert!(said.contains("did not send the revision"), "{said}");
    scene.goes_on();
}

/// So many deltas, each of a few bytes, that each make a commit of all of `text` and a number.
fn commits_like(text: &[u8], many: u32) -> (Forge, CommitId) {
    let mut forge = Forge::default();
    forge.whole(ObjectKind::Tree, b"");
    let base = forge.end();
    let mut tip = forge.whole(ObjectKind::Commit, text).as_commit();
    for number in 0..many {
        let more = format!("{number}\n");
        let delta = delta::splice(text.len(), text.len(), 0, more.as_bytes());
        forge.entry(EntryKind::OffsetDelta(forge.end() - base), delta.len() as u64, &delta);
        tip = foldersync::store::object_id(ObjectKind::Commit, &[text, more.as_bytes()].concat()).as_commit();
    }
    (forge, tip)
}

#[test]
fn commits_of_a_hundred_thousand_parents_are_refused_before_they_fill_the_memory() {
    let scene = Scene::new();
    let head = scene.victim().head().expect("a head");
    let tree = foldersync::store::object_id(ObjectKind::Tree, b"");
    for parents in [5_000, 150_000] {
        let text = commit_text(tree, &vec![head; parents], b"x\n");
        let (forge, tip) = commits_like(&text, 400);
        let said = served(&scene, |liar| brings(liar, &bundle(&[head], tip, &forge), tip));
        assert!(said.contains("parents") || said.contains("above its message"), "{said}");
    }
    scene.goes_on();
}

#[test]
fn a_commit_of_a_million_lines_above_its_message_is_refused() {
    let scene = Scene::new();
    let head = scene.victim().head().expect("a head");
    let mut forge = Forge::default();
    let root = forge.whole(ObjectKind::Tree, b"");
    let lines = "a b\n".repeat(2_000_000);
    let text = format!("tree {root}\nparent {head}\nauthor a <a> 1 +0000\ncommitter a <a> 1 +0000\n{lines}\nx\n");
    let tip = forge.whole(ObjectKind::Commit, text.as_bytes()).as_commit();
    let said = served(&scene, |liar| brings(liar, &bundle(&[head], tip, &forge), tip));
    assert!(said.contains("above its message"), "{said}");
    scene.goes_on();
}

#[test]
fn what_becomes_gigabytes_once_decompressed_is_refused() {
    let scene = Scene::new();
    let head = scene.victim().head().expect("a head");
    let tip = CommitId::from_bytes([7; 20]);
    let mut frames = snap::write::FrameEncoder::new(Vec::new());
    frames.write_all(b"# v2 git bundle\n").expect("in memory");
    for _ in 0..512 {
        frames.write_all(&vec![b'-'; 1 << 20]).expect("in memory");
    }
    let said = served_damaged(&scene, |liar| brings(liar, &frames.into_inner().expect("in memory"), tip));
    assert!(said.contains("its header is cut off"), "{said}");
    // A tree of four gigabytes, as it says; and one of as many as fit, that is more than it says.
    for declared in [4_u64 << 30, 10] {
        let mut forge = Forge::default();
        let mut zeros = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        (0..256).for_each(|_| zeros.write_all(&vec![0; 1 << 20]).expect("in memory"));
        let mut entry = Vec::new();
        foldersync::store::pack::entry::write_header(&mut entry, EntryKind::Whole(ObjectKind::Tree), declared);
        entry.extend(zeros.finish().expect("in memory"));
        forge.raw(&entry);
        let content = bundle(&[head], tip, &forge);
        let words = if declared > 10 { "larger than allowed" } else { "size that it declares" };
        scene.refuses(words, |liar| brings(liar, &content, tip));
    }
}

#[test]
fn no_more_is_written_than_was_sent_and_none_of_it_stays() {
    let scene = Scene::new();
    let head = scene.victim().head().expect("a head");
    let mut forge = Forge::default();
    for number in 0..64_u8 {
        let content: Vec<u8> = (0..128_u32 << 10).map(|at| (at % 251) as u8 ^ number).collect();
        forge.whole(ObjectKind::Blob, &content);
    }
    let root = forge.whole(ObjectKind::Tree, b"");
    let tip = commit(&mut forge, root, &[head], b"x\n");
    let mut content = bundle(&[head], tip, &forge);
    *content.last_mut().expect("a checksum") ^= 1;
    let quarantine = scene.victim().path(".git/foldersync");
    let mut peak = 0;
    scene.refuses("checksum is wrong", |liar| {
        liar.offers(1);
        let begin = liar.begin(tip);
        let said = liar.bundle_piecemeal(begin, &content, |said| {
            let files = std::fs::read_dir(&quarantine).expect("a folder").filter_map(Result::ok);
            let received = files.filter(|file| file.file_name().to_string_lossy().starts_with("tmp_foldersync"));
            let written: u64 = received.filter_map(|file| file.metadata().ok()).map(|data| data.len()).sum();
            assert!(written <= said, "{written} bytes of {said}");
            peak = peak.max(written);
        });
        assert_eq!(said, content.len() as u64);
        liar.ends(tip);
    });
    assert!(peak > 4 << 20, "{peak} bytes were seen");
}

/// As [`served`]; damage has another exit code.
fn served_damaged(scene: &Scene, script: impl FnOnce(&mut Liar) + Send) -> String {
    let error = scene.hears(script).expect_err("that is no bundle");
    scene.goes_on();
    error.to_string()
}
