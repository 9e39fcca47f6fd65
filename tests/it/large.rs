//! Large files, kept in chunks: everything that works with small ones works with them, and costs what changed.

use std::fs;
use std::path::Path;

use foldersync::engine::revspec::FileRev;
use foldersync::path::SyncPath;

use crate::sites::{Site, Sites, git};

/// Bytes that look random, always the same, with text in between.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..len).map(|at| if at % 4096 < 3072 { b'a' + next() % 16 } else { next() }).collect()
}

/// The files of a repository's packs, in bytes.
fn packed(site: &Site) -> u64 {
    let packs = fs::read_dir(site.path(".git/objects/pack")).expect("packs");
    packs.map(|pack| pack.expect("an entry").metadata().expect("metadata").len()).sum()
}

/// What lies in the repository at a path of the head.
fn blob(site: &Site, path: &str) -> Vec<u8> {
    git(&site.root, &["cat-file", "blob", &format!("HEAD:{path}")]).stdout
}

/// All that is not reachable from a branch goes, as `git gc` would have it in some weeks.
fn collect_garbage(site: &Site) {
    let gc = git(&site.root, &["gc", "--prune=now", "--quiet"]);
    assert!(gc.status.success(), "{gc:?}");
}

fn rev(text: &str) -> FileRev {
    FileRev::parse(text.as_bytes(), b"", false).expect("a revision")
}

#[test]
fn what_changes_in_a_large_file_costs_what_changed() {
    let sites = Sites::new(2);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    let mut content = noise(24 << 20, 1);
    a.write("film", &content);
    a.write("small", "beside it\n");
    sites.exchange(0, 1);
    assert!(fs::read(b.path("film")).expect("there") == content);
    assert!(blob(a, "film").starts_with(b"foldersync-recipe 1\nsize 25165824\n"));
    sites.settle();

    // Overwritten in the middle, and then something inserted near the beginning.
    for round in 0..2 {
        let (here, there) = (packed(a), packed(b));
        match round {
            0 => content.splice(10 << 20..11 << 20, noise(1 << 20, 2)).for_each(drop),
            _ => content.splice(100_000..100_000, *b"0123456789").for_each(drop),
        }
        a.write("film", &content);
        let report = sites.exchange(0, 1);
        assert_eq!((report.captured, report.sent), (1, 1));
        assert!(fs::read(b.path("film")).expect("there") == content);
        let limit = [2_500_000, 700_000][round];
        for (what, bytes) in [("sent", report.bytes_sent), ("here", packed(a) - here), ("there", packed(b) - there)] {
            assert!(bytes < limit, "{what}: {bytes} bytes in round {round}");
        }
        sites.settle();
    }

    // Back to the first revision, which costs nothing but the revision.
    let here = packed(a);
    a.folder().revert(&[rev("film@1")]).expect("reverted");
    assert!(packed(a) - here < 4096);
    assert!(fs::read(a.path("film")).expect("there") == noise(24 << 20, 1));
    sites.settle();
    for site in [a, b] {
        collect_garbage(site);
        assert_eq!(site.folder().verify(true).expect("verified").problems, [""; 0]);
    }
    let branch = |site: &Site| site.git(&["rev-parse", "foldersync/chunks"]);
    assert_eq!(branch(a), branch(b), "the same chunks are the same branch");
}

/// A plain clone is a whole one: the branch of the chunks comes along.
#[test]
fn a_plain_clone_brings_the_chunks() {
    let sites = Sites::new(2);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    a.write("film", noise(9 << 20, 1));
    sites.exchange(0, 1);
    let (from, to) = (b.root.to_str().expect("UTF-8"), sites.dir().join("clone"));
    let clone = git(sites.dir(), &["clone", "--quiet", "--no-local", from, to.to_str().expect("UTF-8")]);
    assert!(clone.status.success(), "{clone:?}");
    let recipe = git(&to, &["cat-file", "blob", "HEAD:film"]).stdout;
    let recipe = String::from_utf8(recipe).expect("text");
    let chunks: Vec<&str> = recipe.lines().skip(3).filter_map(|line| line.split(' ').next()).collect();
    assert!(chunks.len() > 10);
    for chunk in chunks {
        assert!(git(&to, &["cat-file", "-e", chunk]).status.success(), "{chunk}");
    }
}

#[test]
fn a_large_file_is_shown_and_compared() {
    let sites = Sites::new(1);
    let site = &sites.sites[0];
    let old = noise(40 << 20, 1);
    let mut new = old.clone();
    new.truncate(39 << 20);
    new[5 << 20] ^= 1;
    for content in [&old, &new] {
        site.write("film", content);
        site.capture();
    }
    let folder = site.folder();
    let mut shown = Vec::new();
    folder.show(&rev("film@1"), &mut shown).expect("shown");
    assert!(shown == old);
    let log = folder.log(Some(&SyncPath::new("film").unwrap()), None).expect("a log");
    assert_eq!(log.iter().map(|revision| revision.size).collect::<Vec<_>>(), [Some(39 << 20), Some(40 << 20)]);
    let diff = folder.diff(&rev("film@1"), Some(&rev("film@2"))).expect("compared");
    assert_eq!((diff.text, diff.from_size, diff.to_size), (None, Some(40 << 20), Some(39 << 20)));
    let changed = diff.changed.expect("both are in chunks");
    assert!((1..2 << 20).contains(&changed), "{changed}");
}

#[test]
fn a_file_that_begins_as_a_recipe_is_kept_as_a_file() {
    let sites = Sites::new(2);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    a.write("film", noise(9 << 20, 1));
    a.capture();
    let recipe = blob(a, "film");
    let texts: [&[u8]; 3] = [&recipe, b"foldersync-recipe 1\n", b"foldersync-recipe 1\nnonsense\0"];
    for (at, text) in texts.iter().enumerate() {
        a.write(&format!("{at}"), text);
    }
    std::os::unix::fs::symlink("foldersync-recipe 1\n", a.path("link")).expect("a link");
    sites.exchange(0, 1);
    for (at, text) in texts.iter().enumerate() {
        assert_eq!(&fs::read(b.path(&format!("{at}"))).expect("there"), text);
    }
    assert_eq!(fs::read_link(b.path("link")).expect("a link"), Path::new("foldersync-recipe 1\n"));
    sites.settle();
}

/// Plain git that does not find foldersync knows nothing of recipes: what it checks out is no edit of the file.
#[test]
fn what_git_checks_out_in_place_of_a_large_file_is_no_revision() {
    let sites = Sites::new(1);
    let site = &sites.sites[0];
    for seed in [1, 2] {
        site.write("film", noise(9 << 20, seed));
        site.capture();
    }
    let head = site.head();
    for revision in ["HEAD", "HEAD~1"] {
        site.remove("film");
        let without_filter = ["-c", "filter.foldersync.process=/nonexistent"];
        site.git(&[&without_filter[..], &["checkout", "--quiet", revision, "--", "film"]].concat());
        assert!(fs::read(site.path("film")).expect("there").starts_with(b"foldersync-recipe 1\n"));
        let report = site.folder().capture(&[]).expect("captured");
        let left_out: Vec<&str> = report.left_out.iter().map(|left_out| left_out.path.as_str()).collect();
        assert_eq!((left_out, site.head()), (vec!["film"], head), "{report:?}");
    }
    site.remove("film");
    site.folder().revert(&[rev("film@1")]).expect("reverted");
    assert!(fs::read(site.path("film")).expect("there") == noise(9 << 20, 1));
}

#[test]
fn another_threshold_makes_no_revisions() {
    let sites = Sites::new(2);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    let content = noise(6 << 20, 1);
    a.write("film", &content);
    a.capture();
    assert!(blob(a, "film") == content);
    for (bytes, in_chunks) in [(1 << 20, false), (100 << 20, false), (1 << 20, true), (100 << 20, true)] {
        sites.keep_in_chunks_from(bytes);
        if in_chunks != blob(a, "film").starts_with(b"foldersync-recipe") {
            a.write("film", noise(6 << 20, 2));
            assert_eq!(a.capture(), 1);
        }
        // The same content, with another time.
        a.write("film", fs::read(a.path("film")).expect("there"));
        assert_eq!(a.capture(), 0, "with {bytes}");
    }
    sites.exchange(0, 1);
    assert!(fs::read(b.path("film")).expect("there") == fs::read(a.path("film")).expect("there"));
    for site in [a, b] {
        site.check();
    }
}

/// What somebody's git has packed anew lies in no order that helps.
#[test]
fn chunks_go_with_their_file_out_of_any_pack() {
    let sites = Sites::new(2);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    sites.keep_in_chunks_from(1 << 20);
    let mut content = noise(5 << 20, 1);
    a.write("film", &content);
    a.capture();
    content[1000] ^= 1;
    a.write("film", &content);
    a.write("other", noise(3 << 20, 2));
    a.capture();
    let repacked = git(&a.root, &["repack", "-a", "-d", "-q", "--keep-unreachable"]);
    assert!(repacked.status.success(), "{repacked:?}");
    sites.exchange(0, 1);
    assert!(a.files() == b.files());
    assert_eq!(b.folder().verify(true).expect("verified").problems, [""; 0]);
    sites.settle();
}

/// A clone by plain git of `site`, where somebody commits this as the blob of `bad`, beside a file that is well; the
/// bundle of that.
fn bundle_with(sites: &Sites, site: &Site, name: &str, blob: &[u8]) -> std::path::PathBuf {
    let clone = sites.dir().join(name);
    let run = |dir: &Path, args: &[&str]| {
        let output = git(dir, args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    };
    let (from, to) = (site.root.to_str().expect("UTF-8"), clone.to_str().expect("UTF-8"));
    run(sites.dir(), &["clone", "--quiet", "--no-checkout", from, to]);
    fs::write(clone.join("blob"), blob).expect("written");
    let id = run(&clone, &["hash-object", "-w", "blob"]);
    let well = run(&clone, &["hash-object", "-w", "/dev/null"]);
    run(&clone, &["read-tree", "HEAD"]);
    for (path, id) in [("bad", id), ("well", well)] {
        run(&clone, &["update-index", "--add", "--cacheinfo", &format!("100644,{id},{path}")]);
    }
    let who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"];
    run(&clone, &[&who[..], &["commit", "--quiet", "--message", "by hand"]].concat());
    let bundle = clone.join("bundle");
    run(&clone, &["bundle", "create", "--quiet", "bundle", "origin/main..main"]);
    bundle
}

#[test]
fn recipes_that_lie_stop_nobody_and_write_nothing() {
    let sites = Sites::new(1);
    let site = &sites.sites[0];
    site.write("film", noise(9 << 20, 1));
    site.capture();
    let good = String::from_utf8(blob(site, "film")).expect("text");
    let sum = good.lines().nth(2).expect("a sum");
    let first = good.lines().nth(3).expect("a chunk");
    let (first_id, len) = first.split_once(' ').expect("two words");
    let longer = format!("{first_id} {}", len.parse::<u32>().expect("a number") + 1);
    // The sum of another file; a chunk that is not as long as it says.
    let lies = [
        good.replace(sum, &format!("sha256 {}", "0".repeat(64))),
        good.replace(first, &longer).replace("size 9437184", "size 9437185"),
        "foldersync-recipe 1\nsize 18446744073709551616\n".to_owned(),
    ];
    for (at, lie) in lies.iter().enumerate() {
        let bundle = bundle_with(&sites, site, &format!("lie {at}"), lie.as_bytes());
        let report = site.folder().bundle_apply(&bundle).expect("taken");
        let left_out: Vec<&str> = report.left_out.iter().map(|left_out| left_out.path.as_str()).collect();
        assert_eq!(left_out, ["bad"], "{report:?}");
        assert!(site.path("well").exists() && !site.path("bad").exists());
        site.remove("well");
        site.capture();
    }
}

#[test]
fn a_recipe_whose_chunks_nobody_has_is_refused() {
    let sites = Sites::new(1);
    let site = &sites.sites[0];
    site.write("film", noise(9 << 20, 1));
    site.capture();
    let good = String::from_utf8(blob(site, "film")).expect("text");
    let id = good.lines().nth(3).and_then(|line| line.split(' ').next()).expect("a chunk");
    // No blob at all, and something that is no blob.
    for other in ["1".repeat(40), site.head().expect("a head").to_string()] {
        let lie = good.replace(id, &other);
        let bundle = bundle_with(&sites, site, &format!("lie {}", &other[..4]), lie.as_bytes());
        let head = site.head();
        site.folder().bundle_apply(&bundle).expect_err("refused");
        assert_eq!(site.head(), head);
        site.check();
    }
}

#[test]
fn plain_git_sees_the_bytes_of_large_files() {
    let sites = Sites::new(1);
    let [a] = &sites.sites[..] else { panic!("one") };
    let (first, second) = (noise(12 << 20, 1), noise(13 << 20, 2));
    a.write("film", &first);
    a.write("notes.txt", "beside it\n");
    a.capture();
    a.write("film", &second);
    a.capture();
    a.git(&["checkout", "HEAD~1", "--", "film"]);
    assert!(fs::read(a.path("film")).expect("there") == first);
    a.git(&["checkout", "HEAD", "--", "film"]);
    assert!(fs::read(a.path("film")).expect("there") == second);
    // Git looks into files that it has not seen for sure since they were written.
    for file in ["film", "notes.txt"] {
        fs::write(a.path(file), fs::read(a.path(file)).expect("there")).expect("written again");
    }
    assert_eq!(a.git(&["status", "--porcelain"]), "");
    // What no revision has stays as it is, and becomes one as always.
    let mut edited = second.clone();
    edited[100] ^= 1;
    a.write("film", &edited);
    a.git(&["add", "film"]);
    assert!(git(&a.root, &["cat-file", "blob", ":film"]).stdout == edited);
    a.capture();
    assert!(blob(a, "film").starts_with(b"foldersync-recipe 1\n"));
    assert_eq!(a.git(&["status", "--porcelain"]), "");
    a.check();

    // A clone that git made has the chunks, and needs to be told of the filter.
    let clone = sites.sites[0].root.with_file_name("plain");
    a.git(&["clone", "-q", ".", &clone.to_string_lossy()]);
    assert!(fs::read(clone.join("film")).expect("there").starts_with(b"foldersync-recipe 1\n"));
    git(&clone, &["config", "filter.foldersync.process", "foldersync git-filter"]);
    fs::write(clone.join(".git/info/attributes"), "* -text filter=foldersync\n").expect("written");
    fs::remove_file(clone.join("film")).expect("removed");
    let checkout = git(&clone, &["checkout", "-f", "HEAD"]);
    assert!(checkout.status.success(), "{checkout:?}");
    assert!(fs::read(clone.join("film")).expect("there") == edited);
}
