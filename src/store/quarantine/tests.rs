//! Packs made by hand, hostile and good.

use super::*;
use crate::id::TreeId;
use crate::store::bundle::tests::{Repo, files};
use crate::store::bundle::{Bundle, BundleOptions, TIP_REF};
use crate::store::checksum::Checksum;
use crate::store::object_id;
use crate::store::pack::blob::store;
use crate::store::pack::delta;
use crate::store::pack::entry::HEADER_LEN;
use crate::store::pack::entry::{EntryKind, pack_header, write_header};
use crate::store::tree::write_entry;
use rstest::rstest;

/// A pack made by hand.
#[derive(Default)]
struct Forge {
    entries: Vec<Vec<u8>>,
    tip: Option<CommitId>,
}

impl Forge {
    fn entry(&mut self, kind: EntryKind, size: u64, content: &[u8]) -> &mut Self {
        let mut entry = Vec::new();
        write_header(&mut entry, kind, size);
        store(content, &mut entry);
        self.entries.push(entry);
        self
    }

    fn whole(&mut self, kind: ObjectKind, content: &[u8]) -> ObjectId {
        self.entry(EntryKind::Whole(kind), content.len() as u64, content);
        object_id(kind, content)
    }

    /// Where the next entry will begin.
    fn offset(&self) -> u64 {
        HEADER_LEN + self.entries.iter().map(Vec::len).sum::<usize>() as u64
    }

    fn commit(&mut self, tree: ObjectId, parents: &[CommitId]) -> CommitId {
        let parents: Vec<_> = parents.iter().map(|parent| format!("parent {parent}\n")).collect();
        let parents = parents.concat();
        let text = format!("tree {tree}\n{parents}author a <a> 1 +0000\ncommitter a <a> 1 +0000\n\nx\n");
        let id = self.whole(ObjectKind::Commit, text.as_bytes()).as_commit();
        self.tip = Some(id);
        id
    }

    fn pack(&self) -> Vec<u8> {
        let mut pack = pack_header(u32::try_from(self.entries.len()).expect("few")).to_vec();
        pack.extend(self.entries.concat());
        pack
    }

    fn header(&self) -> BundleHeader {
        let tip = self.tip.unwrap_or(CommitId::from_bytes([9; 20]));
        BundleHeader { prerequisites: Vec::new(), refs: vec![(TIP_REF.to_owned(), tip)] }
    }
}

fn signed(mut pack: Vec<u8>) -> Vec<u8> {
    pack.extend(Checksum::of(&pack));
    pack
}

fn small() -> Limits {
    Limits { held_bytes: 64 << 10, objects: 1000, ..Limits::default() }
}

/// Tries to let a pack in; whatever comes of it, nothing is left behind but what was admitted.
fn try_in(repo: &Repo, header: BundleHeader, pack: &[u8]) -> Result<Admitted, StoreError> {
    let count = || std::fs::read_dir(&repo.packs).expect("readable").count();
    let before = count();
    let result = receive(&repo.packs, header, &mut &pack[..], &repo.objects, &small())
        .and_then(|pack| pack.verify(&repo.objects))
        .and_then(|pack| pack.admit(&repo.packs));
    if result.is_err() {
        assert_eq!(count(), before);
    }
    result
}

fn forged(forge: &Forge) -> Result<Admitted, StoreError> {
    try_in(&Repo::new(), forge.header(), &signed(forge.pack()))
}

/// A pack with a tree of these entries, which are made to refer to a blob or an empty folder that is there.
fn with_tree(entries: &[(&str, &[u8])]) -> Result<Admitted, StoreError> {
    let mut forge = Forge::default();
    let blob = forge.whole(ObjectKind::Blob, b"content");
    let empty = forge.whole(ObjectKind::Tree, b"");
    let mut tree = Vec::new();
    for (mode, name) in entries {
        tree.extend_from_slice(format!("{mode} ").as_bytes());
        tree.extend_from_slice(name);
        tree.push(0);
        tree.extend_from_slice(if mode.ends_with("40000") { empty } else { blob }.as_bytes());
    }
    let tree = forge.whole(ObjectKind::Tree, &tree);
    forge.commit(tree, &[]);
    forged(&forge)
}

/// The entries in `mode name|mode name`.
fn specified(entries: &str) -> Vec<(&str, &[u8])> {
    entries.split('|').filter_map(|entry| entry.split_once(' ')).map(|(mode, name)| (mode, name.as_bytes())).collect()
}

#[rstest]
#[case::file("100644 a")]
#[case::all_modes("100644 a|100755 b|40000 c|120000 d|100664 e")]
#[case::folder_sorts_as_with_a_slash("100644 a-b|40000 a|100644 a0")]
fn takes_trees(#[case] entries: &str) {
    with_tree(&specified(entries)).expect("admitted");
}

#[test]
fn takes_names_that_are_not_text() {
    with_tree(&[("100644", b"\xff\xfe")]).expect("admitted");
}

#[rstest]
#[case::parent_folder("100644 ..")]
#[case::this_folder("100644 .")]
#[case::parent_folder_as_a_folder("40000 ..")]
#[case::dot_git("40000 .git")]
#[case::dot_git_link("120000 .git")]
#[case::dot_git_upper_case("40000 .GIT")]
#[case::dot_git_short("40000 git~1")]
#[case::dot_git_ignored_code_point("40000 .g\u{200c}it")]
#[case::slash("100644 a/b")]
#[case::absolute("100644 /etc")]
#[case::empty_name("100644 ")]
#[case::ours("40000 .foldersync")]
#[case::twice("100644 a|100644 a")]
#[case::as_file_and_folder("100644 a|40000 a")]
#[case::as_file_and_folder_apart("100644 a|100644 a-b|100644 a.b|40000 a")]
#[case::unsorted("100644 b|100644 a")]
#[case::folder_sorted_as_a_file("40000 a|100644 a-b")]
#[case::submodule("160000 a")]
#[case::device("60000 a")]
#[case::no_mode(" a")]
#[case::padded_mode("040000 a")]
#[case::endless_mode("100000000644 a")]
fn refuses_trees(#[case] entries: &str) {
    let error = with_tree(&specified(entries)).expect_err("refused");
    assert!(matches!(error, StoreError::Hostile { .. }), "{error}");
}

#[test]
fn refuses_names_that_are_too_long() {
    assert!(matches!(with_tree(&[("100644", &[b'a'; 5000])]), Err(StoreError::Hostile { .. })));
}

#[rstest]
#[case::no_nul(b"100644 a")]
#[case::half_an_id(b"100644 a\0\x01\x02\x03")]
#[case::no_space(b"100644")]
#[case::text(b"hello")]
fn refuses_what_is_no_tree(#[case] content: &[u8]) {
    let mut forge = Forge::default();
    let tree = forge.whole(ObjectKind::Tree, content);
    forge.commit(tree, &[]);
    assert!(matches!(forged(&forge), Err(StoreError::Hostile { .. })));
}

#[test]
fn what_a_delta_brings_into_a_tree_is_checked() {
    // Each case changes a tree of many entries, so that most of it is shared with its base.
    let id = |n: u8| object_id(ObjectKind::Blob, &[n]);
    let names: Vec<_> = (0..200).map(|n| format!("f{n:03}")).collect();
    let plain: Vec<(u32, &str)> = names.iter().map(|name| (0o100_644, name.as_str())).collect();
    let tree = |entries: &[(u32, &str)]| {
        let mut content = Vec::new();
        for (mode, name) in entries {
            let id = if *mode == 0o40_000 { TreeId::EMPTY.into() } else { id(0) };
            write_entry(&mut content, *mode, name.as_bytes(), &id);
        }
        content
    };
    let attempt = |entries: &[(u32, &str)]| {
        let mut forge = Forge::default();
        forge.whole(ObjectKind::Blob, &[0]);
        forge.whole(ObjectKind::Tree, b"");
        let (base, content) = (tree(&plain), tree(entries));
        let at = forge.offset();
        let first = forge.whole(ObjectKind::Tree, &base);
        let parent = forge.commit(first, &[]);
        let delta = delta::trees(&base, &content);
        let distance = forge.offset() - at;
        forge.entry(EntryKind::OffsetDelta(distance), delta.len() as u64, &delta);
        forge.commit(object_id(ObjectKind::Tree, &content), &[parent]);
        forged(&forge)
    };
    let with = |at: usize, entry: (u32, &'static str)| {
        let mut entries = plain.clone();
        entries.insert(at, entry);
        entries
    };
    attempt(&with(101, (0o100_644, "f100a"))).expect("admitted");
    attempt(&with(101, (0o40_000, "f100a"))).expect("admitted");
    for (at, entry) in [
        (0, (0o100_644, "..")),
        (0, (0o100_644, ".git")),
        (100, (0o100_644, "f100")),
        (101, (0o100_644, "f100")),
        (101, (0o40_000, "f100")),
        (50, (0o100_644, "f100a")),
        (200, (0o100_644, "a")),
        (200, (0o160_000, "z")),
    ] {
        let error = attempt(&with(at, entry)).expect_err("refused");
        assert!(matches!(error, StoreError::Hostile { .. }), "{entry:?}: {error}");
    }
    // A file comes to stand before a folder of its name, which the base has further behind.
    let mut folder = plain.clone();
    folder[100] = (0o40_000, "f100");
    let mut forge = Forge::default();
    forge.whole(ObjectKind::Blob, &[0]);
    forge.whole(ObjectKind::Tree, b"");
    let at = forge.offset();
    forge.whole(ObjectKind::Tree, &tree(&folder));
    let mut both = folder.clone();
    both.insert(100, (0o100_644, "f100"));
    let delta = delta::trees(&tree(&folder), &tree(&both));
    let distance = forge.offset() - at;
    forge.entry(EntryKind::OffsetDelta(distance), delta.len() as u64, &delta);
    forge.commit(object_id(ObjectKind::Tree, &tree(&both)), &[]);
    assert!(matches!(forged(&forge), Err(StoreError::Hostile { .. })));
}

#[test]
fn references_must_lead_to_what_they_say() {
    // A folder that is a file, a file that is a folder, a tree that is a commit.
    for (mode, to_tree) in [(0o40_000, false), (0o100_644, true)] {
        for first in [true, false] {
            let mut forge = Forge::default();
            let mut content = Vec::new();
            let id = if to_tree { TreeId::EMPTY.into() } else { object_id(ObjectKind::Blob, b"x") };
            let target = |forge: &mut Forge| {
                if to_tree { forge.whole(ObjectKind::Tree, b"") } else { forge.whole(ObjectKind::Blob, b"x") }
            };
            if first {
                target(&mut forge);
            }
            write_entry(&mut content, mode, b"a", &id);
            let tree = forge.whole(ObjectKind::Tree, &content);
            forge.commit(tree, &[]);
            if !first {
                target(&mut forge);
            }
            assert!(matches!(forged(&forge), Err(StoreError::Hostile { .. })));
        }
    }
    let mut forge = Forge::default();
    let mut content = Vec::new();
    let missing = object_id(ObjectKind::Blob, b"nowhere");
    write_entry(&mut content, 0o100_644, b"a", &missing);
    let tree = forge.whole(ObjectKind::Tree, &content);
    forge.commit(tree, &[]);
    assert!(matches!(forged(&forge), Err(StoreError::Missing { id }) if id == missing));

    let mut forge = Forge::default();
    let tree = forge.whole(ObjectKind::Tree, b"");
    forge.commit(tree, &[CommitId::from_bytes([5; 20])]);
    assert!(
        matches!(forged(&forge), Err(StoreError::Prerequisites { missing }) if missing == [ObjectId::from_bytes([5; 20])])
    );

    let mut forge = Forge::default();
    let tree = forge.whole(ObjectKind::Tree, b"");
    forge.commit(tree, &[]);
    forge.tip = Some(CommitId::from_bytes(*tree.as_bytes()));
    assert!(matches!(forged(&forge), Err(StoreError::Hostile { .. })), "a tip that is a tree");
}

#[test]
fn prerequisites_that_lack_are_told_before_anything_is_read() {
    let lacking = CommitId::from_bytes([3; 20]);
    let header = BundleHeader { prerequisites: vec![lacking], ..Forge::default().header() };
    let error = try_in(&Repo::new(), header, b"not even a pack").expect_err("refused");
    assert!(matches!(error, StoreError::Prerequisites { missing } if missing == [lacking.into()]));
}

fn number(mut size: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while size > 0x7f {
        bytes.push(0x80 | (size & 0x7f) as u8);
        size >>= 7;
    }
    bytes.push((size & 0x7f) as u8);
    bytes
}

#[test]
fn a_delta_that_declares_four_gib_is_too_large() {
    let mut forge = Forge::default();
    forge.whole(ObjectKind::Blob, b"x");
    let delta = [number(1), number(4 << 30), [0x90, 1].repeat(300)].concat();
    let distance = forge.offset() - HEADER_LEN;
    forge.entry(EntryKind::OffsetDelta(distance), delta.len() as u64, &delta);
    assert!(matches!(forged(&forge), Err(StoreError::TooLarge { .. })));
}

#[rstest]
#[case::tree(ObjectKind::Tree)]
#[case::commit(ObjectKind::Commit)]
fn an_object_that_declares_four_gib_is_too_large(#[case] kind: ObjectKind) {
    let mut forge = Forge::default();
    forge.entry(EntryKind::Whole(kind), 4 << 30, b"x");
    assert!(matches!(forged(&forge), Err(StoreError::TooLarge { .. })));
}

#[test]
fn deltas_that_make_ever_more_stay_within_the_limit() {
    let mut forge = Forge::default();
    let (mut size, mut last) = (1000u64, forge.offset());
    forge.whole(ObjectKind::Blob, &[b'x'; 1000]);
    for _ in 0..20 {
        let copy = [0xb0, (size & 0xff) as u8, (size >> 8 & 0xff) as u8];
        let delta = [number(size), number(size * 2), copy.repeat(2)].concat();
        let at = forge.offset();
        forge.entry(EntryKind::OffsetDelta(at - last), delta.len() as u64, &delta);
        (size, last) = (size * 2, at);
        if size > 0xffff {
            break;
        }
    }
    assert!(matches!(forged(&forge), Err(StoreError::TooLarge { .. })));
}

#[rstest]
#[case::itself(0)]
#[case::the_header(1)]
#[case::before_the_pack(1000)]
fn offsets_that_lead_to_no_entry_are_refused(#[case] distance: u64) {
    let mut forge = Forge::default();
    forge.entry(EntryKind::OffsetDelta(distance), 4, &[1, 1, 0x90, 1]);
    assert!(matches!(forged(&forge), Err(StoreError::Hostile { .. })));
}

#[test]
fn deltas_in_a_circle_end() {
    let mut forge = Forge::default();
    for n in [1, 2] {
        forge.entry(EntryKind::IdDelta(ObjectId::from_bytes([n; 20])), 4, &[1, 1, 0x90, 1]);
    }
    assert!(matches!(forged(&forge), Err(StoreError::Prerequisites { missing }) if missing.len() == 2));
}

#[test]
fn a_delta_may_come_before_what_it_stands_on() {
    let mut forge = Forge::default();
    let base = object_id(ObjectKind::Blob, b"hello");
    let delta = delta::splice(5, 5, 0, b" world");
    forge.entry(EntryKind::IdDelta(base), delta.len() as u64, &delta);
    forge.whole(ObjectKind::Blob, b"hello");
    let mut tree = Vec::new();
    write_entry(&mut tree, 0o100_644, b"a", &object_id(ObjectKind::Blob, b"hello world"));
    let tree = forge.whole(ObjectKind::Tree, &tree);
    let tip = forge.commit(tree, &[]);
    let repo = Repo::new();
    let received = receive(&repo.packs, forge.header(), &mut &signed(forge.pack())[..], &repo.objects, &small())
        .expect("received");
    let verified = received.verify(&repo.objects).expect("verified");
    assert_eq!(verified.unreferenced(), 1, "nothing but the delta needs the base");
    verified.admit(&repo.packs).expect("admitted");
    repo.set("refs/heads/main", tip);
    repo.fsck();
    assert_eq!(repo.git(&["show", "main:a"]), "hello world");
}

#[test]
fn sizes_that_lie_are_damage() {
    for declared in [0, 3, 5, 100] {
        for kind in [ObjectKind::Blob, ObjectKind::Tree] {
            let mut forge = Forge::default();
            forge.entry(EntryKind::Whole(kind), declared, b"1234");
            assert!(matches!(forged(&forge), Err(StoreError::Damaged { .. })), "{declared}");
        }
    }
    // Contents that are hashed as they pass.
    for declared in [99_999, 100_001] {
        let mut forge = Forge::default();
        forge.entry(EntryKind::Whole(ObjectKind::Blob), declared, &vec![b'x'; 100_000]);
        assert!(matches!(forged(&forge), Err(StoreError::Damaged { .. })), "{declared}");
    }
}

#[test]
fn large_contents_pass_without_being_held() {
    let mut forge = Forge::default();
    let large = vec![b'x'; 1 << 20];
    let mut tree = Vec::new();
    write_entry(&mut tree, 0o100_644, b"a", &forge.whole(ObjectKind::Blob, &large));
    let tree = forge.whole(ObjectKind::Tree, &tree);
    let tip = forge.commit(tree, &[]);
    let repo = Repo::new();
    assert_eq!(try_in(&repo, forge.header(), &signed(forge.pack())).expect("admitted").commits, [tip]);
    repo.set("refs/heads/main", tip);
    repo.fsck();
}

#[test]
fn packs_that_are_not_whole_are_damage() {
    let mut forge = Forge::default();
    let tree = forge.whole(ObjectKind::Tree, b"");
    forge.commit(tree, &[]);
    let plain = forge.pack();
    let good = signed(plain.clone());
    let refused = |pack: &[u8]| {
        let error = try_in(&Repo::new(), forge.header(), pack).expect_err("refused");
        assert!(matches!(error, StoreError::Damaged { .. } | StoreError::Hostile { .. }), "{error}");
    };
    try_in(&Repo::new(), forge.header(), &good).expect("admitted");
    for len in 0..good.len() {
        refused(&good[..len]);
    }
    refused(&[&good[..], b"x"].concat());
    let counted = |count: u32| signed([&pack_header(count)[..], &plain[12..]].concat());
    refused(&counted(1));
    refused(&counted(3));
    refused(&[&plain[..], &[0; 20]].concat());
    let too_many = try_in(&Repo::new(), forge.header(), &counted(1001)).expect_err("refused");
    assert!(matches!(too_many, StoreError::TooLarge { .. }));
    for at in 0..good.len() {
        let mut flipped = good.clone();
        flipped[at] ^= 0x10;
        assert!(try_in(&Repo::new(), forge.header(), &flipped).is_err(), "byte {at}");
    }
}

#[test]
fn an_object_twice_is_damage() {
    let mut forge = Forge::default();
    forge.whole(ObjectKind::Blob, b"x");
    forge.whole(ObjectKind::Blob, b"x");
    assert!(matches!(forged(&forge), Err(StoreError::Damaged { .. })));
}

#[test]
fn tags_and_unknown_kinds_are_refused() {
    for code in [0, 4, 5] {
        let mut forge = Forge::default();
        forge.whole(ObjectKind::Blob, b"x");
        forge.entries[0][0] = code << 4 | 1;
        assert!(matches!(forged(&forge), Err(StoreError::Hostile { .. })));
    }
}

#[test]
fn folders_in_folders_without_end_are_refused() {
    let mut forge = Forge::default();
    let mut tree = forge.whole(ObjectKind::Tree, b"");
    for _ in 0..900 {
        let mut content = Vec::new();
        write_entry(&mut content, 0o40_000, b"d", &tree);
        tree = forge.whole(ObjectKind::Tree, &content);
    }
    forge.commit(tree, &[]);
    let limits = Limits { depth: 500, ..small() };
    let repo = Repo::new();
    let result = receive(&repo.packs, forge.header(), &mut &signed(forge.pack())[..], &repo.objects, &limits);
    assert!(matches!(result.err(), Some(StoreError::Hostile { .. })));
}

#[test]
fn a_long_chain_of_deltas_is_read_without_recursion() {
    let mut forge = Forge::default();
    let mut last = forge.offset();
    let mut content = b"0000".to_vec();
    forge.whole(ObjectKind::Blob, &content);
    for n in 1..600u32 {
        let delta = delta::splice(4, 0, 4, format!("{n:04}").as_bytes());
        content = format!("{n:04}").into_bytes();
        let at = forge.offset();
        forge.entry(EntryKind::OffsetDelta(at - last), delta.len() as u64, &delta);
        last = at;
    }
    let mut tree = Vec::new();
    write_entry(&mut tree, 0o100_644, b"a", &object_id(ObjectKind::Blob, &content));
    let tree = forge.whole(ObjectKind::Tree, &tree);
    forge.commit(tree, &[]);
    forged(&forge).expect("admitted");
}

#[test]
fn a_thin_pack_is_completed_and_stays_ordered() {
    let mut from = Repo::new();
    from.burst(&files(0..200, "one"));
    let had = from.head().expect("a head");
    let to = Repo::new();
    for (_, bundle) in from.send(None, BundleOptions::default()) {
        to.receive(&bundle).expect("admitted");
    }
    to.set("refs/heads/main", had);
    from.burst(&files(50..60, "two"));
    let (written, bundle) =
        from.send(Some(had), BundleOptions { thorough: true, ..BundleOptions::default() }).remove(0);
    let admitted = to.receive(&bundle).expect("admitted");
    assert!(admitted.objects > written.objects, "bases were added");
    to.set("refs/heads/main", admitted.tips[0]);
    to.fsck();
    let packs = crate::store::pack::Packs::open(&to.packs).expect("opened");
    assert_eq!(packs.all().iter().map(crate::store::pack::Pack::sequence).collect::<Vec<_>>(), [Some(1), Some(2)]);
    let without = Repo::new();
    assert!(matches!(without.receive(&bundle), Err(StoreError::Prerequisites { .. })));
}

#[test]
fn a_stream_that_breaks_off_is_damage_not_a_fault_of_the_system() {
    let mut from = Repo::new();
    from.burst(&files(0..50, "one"));
    let (_, bundle) = from.send(None, BundleOptions::default()).remove(0);
    let to = Repo::new();
    for len in (0..bundle.len()).step_by(97) {
        assert!(matches!(to.receive(&bundle[..len]), Err(StoreError::Damaged { .. })), "{len}");
    }
    assert_eq!(std::fs::read_dir(&to.packs).expect("readable").count(), 0);
    assert!(Bundle::open(&bundle[..]).is_ok());
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 64, ..Default::default() })]
    #[test]
    fn any_bytes_behind_a_header_are_survived(mut bytes: Vec<u8>, count in 0u32..5) {
        bytes.splice(0..0, pack_header(count));
        let repo = Repo::new();
        drop(try_in(&repo, Forge::default().header(), &signed(bytes)));
    }
}
