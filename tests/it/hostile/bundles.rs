//! Bundles that lie. What packs alone can have wrong is tried on the quarantine itself; here is what it means to a folder.

use std::fs;

use foldersync::id::{CommitId, ObjectId};
use foldersync::protocol::BundleBegin;
use foldersync::store::pack::delta;
use foldersync::store::pack::entry::EntryKind;
use foldersync::store::{ObjectKind, object_id, tree};
use rstest::rstest;

use super::Scene;
use super::liar::{Liar, bundle};
use crate::fuzzed::targets::forge::{Forge, commit_text};

const FILE: u32 = 0o100_644;
const FOLDER: u32 = 0o40_000;

pub(super) fn tree_of(forge: &mut Forge, entries: &[(u32, &str, ObjectId)]) -> ObjectId {
    let mut content = Vec::new();
    for (mode, name, id) in entries {
        tree::write_entry(&mut content, *mode, name.as_bytes(), id);
    }
    forge.whole(ObjectKind::Tree, &content)
}

pub(super) fn commit(forge: &mut Forge, tree: ObjectId, parents: &[CommitId], message: &[u8]) -> CommitId {
    forge.whole(ObjectKind::Commit, &commit_text(tree, parents, message)).as_commit()
}

/// Says that it has one revision more than the victim, and sends what was forged as that.
fn brings(liar: &mut Liar, forge: &Forge, head: CommitId, tip: CommitId) {
    liar.offers(1);
    let begin = liar.begin(tip);
    liar.bundle(begin, &bundle(&[head], tip, forge));
    liar.ends(tip);
}

type Lie = fn(BundleBegin) -> BundleBegin;
type Make = fn(&mut Forge, CommitId) -> CommitId;

/// A revision whose folder has one entry, of a file.
fn with_entry(forge: &mut Forge, head: CommitId, mode: u32, name: &str) -> CommitId {
    let blob = forge.whole(ObjectKind::Blob, b"evil");
    let id = if mode == FOLDER { tree_of(forge, &[(FILE, "config", blob)]) } else { blob };
    let root = tree_of(forge, &[(mode, name, id)]);
    commit(forge, root, &[head], b"x\n")
}

/// A revision with `text` for its author and its committer.
fn with_author(forge: &mut Forge, head: CommitId, author: &str) -> CommitId {
    let root = forge.whole(ObjectKind::Tree, b"");
    let text = format!("tree {root}\nparent {head}\nauthor {author}\ncommitter {author}\n\nx\n");
    forge.whole(ObjectKind::Commit, text.as_bytes()).as_commit()
}

#[rstest]
#[case::parent_folder("was refused", |forge: &mut Forge, head| with_entry(forge, head, FOLDER, ".."))]
#[case::dot_git("was refused", |forge: &mut Forge, head| with_entry(forge, head, FOLDER, ".git"))]
#[case::dot_git_in_capitals("was refused", |forge: &mut Forge, head| with_entry(forge, head, FOLDER, ".GIT"))]
#[case::dot_git_in_short("was refused", |forge: &mut Forge, head| with_entry(forge, head, FOLDER, "git~1"))]
#[case::slash("was refused", |forge: &mut Forge, head| with_entry(forge, head, FILE, "../outside/secret"))]
#[case::module("was refused", |forge: &mut Forge, head| with_entry(forge, head, 0o160_000, "module"))]
#[case::mode("was refused", |forge: &mut Forge, head| with_entry(forge, head, 0o104_755, "set-user-id"))]
#[case::a_chunk_that_is_nowhere("is missing", |forge: &mut Forge, head| {
    let recipe = format!("foldersync-recipe 1\nsize 7\nsha256 {}\n{} 7\n", "00".repeat(32), "ab".repeat(20));
    let recipe = forge.whole(ObjectKind::Blob, recipe.as_bytes());
    let root = tree_of(forge, &[(FILE, "large", recipe)]);
    commit(forge, root, &[head], b"x\n")
})]
#[case::a_delta_on_nothing("lacks", |forge: &mut Forge, head| {
    forge.entry(EntryKind::IdDelta(ObjectId::from_bytes([7; 20])), 4, &[1, 1, 0x90, 1]);
    let root = forge.whole(ObjectKind::Tree, b"");
    commit(forge, root, &[head], b"x\n")
})]
#[case::a_delta_that_makes_what_it_stands_on("whose deltas stand on it", |forge: &mut Forge, head| {
    let notes = object_id(ObjectKind::Blob, b"one");
    let delta = delta::splice(3, 3, 0, b"");
    forge.entry(EntryKind::IdDelta(notes), delta.len() as u64, &delta);
    let root = tree_of(forge, &[(FILE, "notes.txt", notes)]);
    commit(forge, root, &[head], b"x\n")
})]
#[case::two_deltas_that_make_each_other("whose deltas stand on it", |forge: &mut Forge, head| {
    let (notes, more) = (object_id(ObjectKind::Blob, b"one"), object_id(ObjectKind::Blob, b"one more"));
    let there = delta::splice(3, 3, 0, b" more");
    forge.entry(EntryKind::IdDelta(notes), there.len() as u64, &there);
    let back = delta::splice(8, 3, 5, b"");
    forge.entry(EntryKind::IdDelta(more), back.len() as u64, &back);
    let root = tree_of(forge, &[(FILE, "a", more), (FILE, "b", notes)]);
    commit(forge, root, &[head], b"x\n")
})]
#[case::a_parent_that_is_nowhere("lacks", |forge: &mut Forge, head| {
    let root = forge.whole(ObjectKind::Tree, b"");
    commit(forge, root, &[head, CommitId::from_bytes([7; 20])], b"x\n")
})]
#[case::a_parent_that_is_a_tree("was refused", |forge: &mut Forge, head| {
    let root = forge.whole(ObjectKind::Tree, b"");
    commit(forge, root, &[head, root.as_commit()], b"x\n")
})]
#[case::folders_beyond_all_depth("too deep", |forge: &mut Forge, head| {
    let blob = forge.whole(ObjectKind::Blob, b"deep");
    let mut inner = tree_of(forge, &[(FILE, "f", blob)]);
    for _ in 0..3000 {
        inner = tree_of(forge, &[(FOLDER, "d", inner)]);
    }
    commit(forge, inner, &[head], b"x\n")
})]
#[case::the_same_the_outermost_first("too deep", |forge: &mut Forge, head| {
    let blob = forge.whole(ObjectKind::Blob, b"deep");
    let mut inner = tree_of(forge, &[(FILE, "f", blob)]);
    for _ in 0..3000 {
        inner = tree_of(forge, &[(FOLDER, "d", inner)]);
    }
    let tip = commit(forge, inner, &[head], b"x\n");
    forge.reverse();
    tip
})]
#[case::a_date_beyond_all_time("was refused", |forge: &mut Forge, head| with_author(forge, head, "a <a> 99999999999999999999999 +0000"))]
#[case::a_date_that_is_none("was refused", |forge: &mut Forge, head| with_author(forge, head, "a <a> now +0000"))]
#[case::a_zone_that_is_none("was refused", |forge: &mut Forge, head| with_author(forge, head, "a <a> 1 0000"))]
#[case::nobody("was refused", |forge: &mut Forge, head| with_author(forge, head, "a> <a 1 +0000"))]
fn what_a_folder_must_not_hold_is_refused(#[case] words: &str, #[case] make: Make) {
    let scene = Scene::new();
    let head = scene.victim().head().expect("a head");
    let mut forge = Forge::default();
    let tip = make(&mut forge, head);
    scene.refuses(words, |liar| brings(liar, &forge, head, tip));
}

#[test]
fn a_bundle_is_what_was_announced() {
    let scene = Scene::new();
    let head = scene.victim().head().expect("a head");
    let mut forge = Forge::default();
    let root = forge.whole(ObjectKind::Tree, b"");
    let tip = commit(&mut forge, root, &[head], b"x\n");
    let content = bundle(&[head], tip, &forge);
    let lies: [(&str, Lie); 3] = [
        ("does not bring the revision", |begin| BundleBegin { tip: CommitId::from_bytes([7; 20]), ..begin }),
        ("as many revisions", |begin| BundleBegin { revisions: 2, ..begin }),
        ("as many revisions", |begin| BundleBegin { revisions: u64::MAX, ..begin }),
    ];
    for (words, lie) in lies {
        scene.refuses(words, |liar| {
            liar.offers(u64::MAX);
            for _ in 0..2 {
                let begin = lie(liar.begin(tip));
                liar.bundle(begin, &content);
            }
            liar.ends(tip);
        });
    }
    // A header that needs more than was announced.
    scene.refuses("lacks", |liar| {
        liar.offers(1);
        let begin = liar.begin(tip);
        liar.bundle(begin, &bundle(&[head, CommitId::from_bytes([7; 20])], tip, &forge));
        liar.ends(tip);
    });
    for nonsense in [&b""[..], b"# v2 git bundle\n", b"\xff\x06\x00\x00sNaPpY", &content[..content.len() - 1]] {
        scene.refuses("damaged", |liar| {
            liar.offers(1);
            let begin = liar.begin(tip);
            liar.bundle(begin, nonsense);
            liar.ends(tip);
        });
    }
}

#[test]
fn a_revision_of_many_paths_is_taken_as_it_is() {
    let scene = Scene::new();
    let head = scene.victim().head().expect("a head");
    let mut forge = Forge::default();
    let blob = forge.whole(ObjectKind::Blob, b"new");
    let root = tree_of(&mut forge, &[(FILE, "a", blob), (FILE, "b", blob), (FILE, "c", blob)]);
    // It says that it is about something else, at length, and in the year 292 million.
    let message = format!("change notes.txt\n\nFoldersync-Mtime: {}.0\n{}", i64::MAX, "x".repeat(4 << 20));
    let tip = commit(&mut forge, root, &[head], message.as_bytes());
    let report = scene.hears(|liar| brings(liar, &forge, head, tip)).expect("a person may make such a revision");
    assert_eq!((report.head, report.received), (Some(tip), 1));
    assert_eq!(scene.victim().names(), ["a", "b", "c"]);
    scene.goes_on();
}

#[test]
fn a_large_file_that_is_not_what_it_says_is_left_out() {
    let scene = Scene::new();
    let head = scene.victim().head().expect("a head");
    let mut forge = Forge::default();
    let chunk = forge.whole(ObjectKind::Blob, b"content");
    let recipe = |size: &str, sum: &str| format!("foldersync-recipe 1\nsize {size}\nsha256 {sum}\n{chunk} 7\n");
    // The wrong sum; and what begins as a recipe, which no file of its own does, and has a size that is none.
    let lie = forge.whole(ObjectKind::Blob, recipe("7", &"00".repeat(32)).as_bytes());
    let plain = forge.whole(ObjectKind::Blob, recipe("18446744073709551616", &"00".repeat(32)).as_bytes());
    let root = tree_of(&mut forge, &[(FILE, "fine", chunk), (FILE, "lie", lie), (FILE, "plain", plain)]);
    let tip = commit(&mut forge, root, &[head], b"x\n");
    let report = scene.hears(|liar| brings(liar, &forge, head, tip)).expect("the rest arrives");
    assert_eq!(report.left_out.iter().map(|left| left.path.as_str()).collect::<Vec<_>>(), ["lie", "plain"]);
    assert_eq!((scene.victim().names(), scene.victim().read("fine")), (vec!["fine".to_owned()], "content".to_owned()));
    scene.goes_on();
}

#[test]
fn a_link_that_leads_out_is_a_link_and_nothing_goes_through_it() {
    let scene = Scene::new();
    let victim = scene.victim();
    let head = victim.head().expect("a head");
    let mut forge = Forge::default();
    let target = forge.whole(ObjectKind::Blob, b"../outside");
    let evil = forge.whole(ObjectKind::Blob, b"evil");
    let linked = tree_of(&mut forge, &[(0o120_000, "way", target)]);
    let one = commit(&mut forge, linked, &[head], b"x\n");
    let below = tree_of(&mut forge, &[(FILE, "secret", evil)]);
    let filled = tree_of(&mut forge, &[(FOLDER, "way", below)]);
    let two = commit(&mut forge, filled, &[one], b"x\n");
    let three = commit(&mut forge, linked, &[two], b"y\n");
    for tip in [one, two, three] {
        scene.hears(|liar| brings(liar, &forge, head, tip)).expect("each is a state that a folder may have");
        assert_eq!(victim.head(), Some(tip));
        let is_link = fs::symlink_metadata(victim.path("way")).expect("there").is_symlink();
        assert_eq!(is_link, tip != two);
        scene.outside.is_untouched();
    }
    scene.goes_on();
}
