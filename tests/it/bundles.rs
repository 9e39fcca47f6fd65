//! Bundles as files, with plain git as the referee.

use std::fs;
use std::io::Read as _;

use foldersync::engine::report::BundleReport;
use foldersync::engine::revspec::RevSpec;

use crate::sites::{Site, Sites, git, text};

/// What is in a bundle once it is decompressed, as a file for git.
fn decompress(site: &Site, bundle: &std::path::Path) -> std::path::PathBuf {
    let mut plain = Vec::new();
    let compressed = fs::File::open(bundle).expect("a bundle");
    snap::read::FrameDecoder::new(compressed).read_to_end(&mut plain).expect("a Snappy frame stream");
    let path = site.root.with_extension("bundle");
    fs::write(&path, plain).expect("write");
    path
}

fn create(site: &Site, name: &str, since: Option<&str>) -> (std::path::PathBuf, BundleReport) {
    let path = site.root.parent().expect("a folder above").join(name);
    let since = since.map(|since| RevSpec::parse(since).expect("a revision"));
    let report = site.folder().bundle_create(&path, since.as_ref(), None).expect("bundle");
    (path, report)
}

#[test]
fn plain_git_verifies_and_fetches_from_a_bundle() {
    let sites = Sites::new(1);
    let site = &sites.sites[0];
    for n in 0..40 {
        site.write(&format!("folder {}/file {n}", n % 5), format!("content {n}\n"));
    }
    fs::create_dir(site.path("empty")).expect("a folder");
    site.capture();
    let (all, report) = create(site, "all.bundle.sz", None);
    assert_eq!((report.revisions, report.prerequisites.len()), (41, 0));
    let plain = decompress(site, &all);
    assert!(git(&site.root, &["bundle", "verify", "-q", plain.to_str().expect("text")]).status.success());
    let clone = sites.dir().join("clone");
    text(git(
        sites.dir(),
        &["clone", "-q", "-b", "main", plain.to_str().expect("text"), clone.to_str().expect("text")],
    ));
    let head = site.git(&["rev-parse", "main"]);
    assert_eq!(text(git(&clone, &["rev-parse", "HEAD"])), head);
    assert!(git(&clone, &["fsck", "--full", "--strict"]).status.success());

    // What came since goes into another bundle, which the plain clone fetches.
    let before = head.trim().to_owned();
    site.write("folder 0/file 0", "changed\n");
    site.remove("folder 1/file 1");
    site.capture();
    let (since, report) = create(site, "since.bundle.sz", Some(&before));
    assert_eq!(report.revisions, 2);
    assert_eq!(report.prerequisites.iter().map(ToString::to_string).collect::<Vec<_>>(), [before]);
    let plain = decompress(site, &since);
    text(git(&clone, &["fetch", "-q", plain.to_str().expect("text"), "main"]));
    assert_eq!(text(git(&clone, &["rev-parse", "FETCH_HEAD"])), site.git(&["rev-parse", "main"]));
}

#[test]
fn bundles_carry_a_folder_by_hand() {
    let sites = Sites::new(2);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    a.write("x/one", "1");
    a.capture();
    let (first, _) = create(a, "first.bundle.sz", None);
    let base = a.git(&["rev-parse", "main"]);
    a.write("x/two", "2");
    a.capture();
    let (second, _) = create(a, "second.bundle.sz", Some(base.trim()));

    let verified = b.folder().bundle_verify(&second).expect("readable");
    assert_eq!(verified.missing.len(), 1, "it needs the first");
    assert!(b.folder().bundle_apply(&second).is_err());
    assert!(b.names().is_empty() && b.head().is_none(), "and nothing has changed");

    b.folder().bundle_apply(&first).expect("apply");
    let applied = b.folder().bundle_apply(&second).expect("apply");
    assert_eq!((applied.revisions, applied.applied), (1, 1));
    assert_eq!(b.files(), a.files());
    assert_eq!(b.head(), a.head());
    assert_eq!(b.folder().bundle_apply(&second).expect("again").applied, 0);
    b.check();
}

#[test]
fn a_bundle_is_no_larger_than_gits() {
    let sites = Sites::new(1);
    let site = &sites.sites[0];
    for n in 0..400 {
        site.write(
            &format!("{}/{}/note {n}.txt", n % 7, n % 3),
            format!("some words of note {n}\n").repeat(1 + n % 90),
        );
    }
    site.capture();
    let (ours, _) = create(site, "ours.bundle.sz", None);
    let gits = sites.dir().join("gits.bundle");
    text(git(&site.root, &["bundle", "create", "-q", gits.to_str().expect("text"), "main"]));
    let size = |path: &std::path::Path| fs::metadata(path).expect("there").len();
    assert!(size(&ours) <= size(&gits), "{} bytes, git's has {}", size(&ours), size(&gits));
}

#[test]
fn plain_git_keeps_the_chunks_that_bundles_bring() {
    let sites = Sites::new(2);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    let mut film: Vec<u8> = (0..3_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    a.write("film", &film);
    a.capture();
    let (first, report) = create(a, "first.bundle.sz", None);
    assert_eq!(report.revisions, 1);
    let base = a.git(&["rev-parse", "main"]);
    film.splice(5_000_000..5_000_100, *b"another scene").for_each(drop);
    a.write("film", &film);
    a.capture();
    let (second, _) = create(a, "second.bundle.sz", Some(base.trim()));

    let plain = sites.dir().join("plain");
    text(git(sites.dir(), &["init", "-q", plain.to_str().expect("text")]));
    for bundle in [&first, &second] {
        let bundle = decompress(a, bundle);
        text(git(&plain, &["fetch", "-q", bundle.to_str().expect("text"), "refs/heads/*:refs/heads/*"]));
        text(git(&plain, &["gc", "-q", "--prune=now"]));
    }
    assert!(git(&plain, &["fsck", "--full", "--strict"]).status.success());
    for revision in ["main", "main~1"] {
        let recipe = text(git(&plain, &["cat-file", "blob", &format!("{revision}:film")]));
        let chunks = recipe.lines().skip(3).filter_map(|line| line.split(' ').next());
        let missing = chunks.filter(|chunk| !git(&plain, &["cat-file", "-e", chunk]).status.success()).count();
        assert_eq!((missing, recipe.starts_with("foldersync-recipe 1")), (0, true), "{revision}");
    }

    // To our own it is no revision.
    for bundle in [&first, &second] {
        assert_eq!(b.folder().bundle_verify(bundle).expect("whole").revisions, 1);
        assert_eq!(b.folder().bundle_apply(bundle).expect("applied").revisions, 1);
    }
    assert_eq!((b.files(), b.head()), (a.files(), a.head()));
    assert_eq!(b.git(&["for-each-ref", "refs/heads/foldersync/chunks-of-*"]), "");
    b.check();
}
