//! Lies in what is said around bundles.

use foldersync::id::{CommitId, FolderId};
use foldersync::protocol::{
    BundleBegin, BundleEnd, Hello, Kind, Locate, Merged, Message, NOTICES, RejectCode, Rejected, SEARCHES, Stored,
};
use rstest::rstest;

use super::Scene;
use super::liar::Liar;

type Script = fn(&mut Liar);

fn nowhere() -> CommitId {
    CommitId::from_bytes([0xab; 20])
}

#[rstest]
#[case::another_version("speaks versions 2-9", |liar: &mut Liar| {
    let hello = Hello { version_min: 2, version_max: 9, ..liar.hello() };
    liar.say(&Message::Hello(Box::new(hello)));
})]
#[case::hello_twice("second Hello", |liar: &mut Liar| {
    let hello = liar.hello();
    liar.say(&Message::Hello(Box::new(hello.clone())));
    liar.say(&Message::Hello(Box::new(hello)));
})]
#[case::the_same_copy("the same copy", |liar: &mut Liar| {
    let Some(Message::Hello(theirs)) = liar.until(Kind::Hello) else { panic!("hello") };
    liar.say(&Message::Hello(theirs));
})]
#[case::another_folder("another folder", |liar: &mut Liar| {
    let hello = Hello { folder: Some(FolderId::from_bytes([9; 16])), ..liar.hello() };
    liar.say(&Message::Hello(Box::new(hello)));
})]
#[case::before_hello("before Hello", |liar: &mut Liar| liar.say(&Message::Common(Vec::new())))]
#[case::merged_at_once("while looking", |liar: &mut Liar| {
    let hello = liar.hello();
    liar.say(&Message::Hello(Box::new(hello)));
    liar.say(&Message::Merged(Merged { head: None, applied: 0, conflicts: 0, left_out: 0 }));
})]
#[case::a_head_that_it_does_not_send("did not send the revision", |liar: &mut Liar| {
    liar.offers(1);
    liar.say(&Message::SentAll(Some(nowhere())));
})]
#[case::stored_what_was_not_sent("does not wait for an answer", |liar: &mut Liar| {
    liar.offers(0);
    liar.say(&Message::Stored(Stored { number: 1, tip: nowhere() }));
})]
#[case::rejected_what_was_not_sent("does not wait for an answer", |liar: &mut Liar| {
    liar.offers(0);
    liar.say(&Message::Rejected(Rejected::new(7, RejectCode::Damaged, "no")));
})]
#[case::stored_another_tip("with the tip", |liar: &mut Liar| {
    let hello = Hello { receives: true, ..liar.hello() };
    liar.say(&Message::Hello(Box::new(hello)));
    liar.agrees(0);
    liar.until(Kind::BundleEnd);
    liar.say(&Message::Stored(Stored { number: 1, tip: nowhere() }));
})]
#[case::rejected_with_a_text("no thanks", |liar: &mut Liar| {
    let hello = Hello { receives: true, ..liar.hello() };
    liar.say(&Message::Hello(Box::new(hello)));
    liar.agrees(0);
    liar.until(Kind::BundleEnd);
    liar.say(&Message::Rejected(Rejected::new(1, RejectCode::Damaged, "no thanks")));
    liar.until(Kind::SentAll);
})]
#[case::data_without_a_bundle("outside a bundle", |liar: &mut Liar| {
    liar.offers(1);
    liar.say(&Message::BundleData(vec![1]));
})]
#[case::the_second_bundle_first("where bundle 1 was due", |liar: &mut Liar| {
    liar.offers(1);
    let begin = BundleBegin { number: 2, ..liar.begin(nowhere()) };
    liar.say(&Message::BundleBegin(begin));
})]
#[case::too_large_a_bundle("is larger than", |liar: &mut Liar| {
    liar.offers(1);
    let begin = BundleBegin { bytes_hint: Some(u64::MAX), ..liar.begin(nowhere()) };
    liar.say(&Message::BundleBegin(begin));
})]
#[case::another_length("bytes long, but should be", |liar: &mut Liar| {
    liar.offers(1);
    let begin = liar.begin(nowhere());
    liar.say(&Message::BundleBegin(begin));
    liar.say(&Message::BundleData(vec![1; 10]));
    liar.say(&Message::BundleEnd(BundleEnd { bytes: u64::MAX, sha256: [0; 32] }));
})]
#[case::another_checksum("does not have the checksum", |liar: &mut Liar| {
    liar.offers(1);
    let begin = liar.begin(nowhere());
    liar.say(&Message::BundleBegin(begin));
    liar.say(&Message::BundleData(b"# v2 git bundle\n".to_vec()));
    liar.say(&Message::BundleEnd(BundleEnd { bytes: 16, sha256: [0; 32] }));
})]
#[case::all_sent_within_a_bundle("in the middle of bundle 1", |liar: &mut Liar| {
    liar.offers(1);
    let begin = liar.begin(nowhere());
    liar.say(&Message::BundleBegin(begin));
    liar.say(&Message::SentAll(None));
})]
#[case::endless_searches("searches", |liar: &mut Liar| {
    let hello = liar.hello();
    liar.say(&Message::Hello(Box::new(hello)));
    for _ in 0..=SEARCHES {
        liar.say(&Message::Locate(Locate { newer: nowhere(), older: None }));
        liar.until(Kind::Located);
    }
})]
#[case::endless_notices("notices", |liar: &mut Liar| {
    let hello = liar.hello();
    liar.say(&Message::Hello(Box::new(hello)));
    (0..=NOTICES).for_each(|_| liar.say(&Message::Notice("\x1b[2J".to_owned())));
})]
fn what_is_not_so_is_refused(#[case] words: &str, #[case] script: Script) {
    Scene::new().refuses(words, script);
}

/// Ids of what this side has, but which are no revisions.
fn not_revisions(scene: &Scene) -> Vec<CommitId> {
    let ids = scene.victim().git(&["rev-parse", "main:notes.txt", "main:sub", "main^{tree}"]);
    ids.lines().map(|id| id.parse().expect("an id")).collect()
}

#[test]
fn a_file_that_is_said_to_be_a_revision_is_none() {
    let scene = Scene::new();
    for id in not_revisions(&scene) {
        scene.refuses("did not send the revision", |liar| {
            liar.offers(1);
            liar.say(&Message::SentAll(Some(id)));
        });
        // Wherever else it can be said, it is as if it were not known here.
        let said = scene.hears(|liar| {
            let hello = Hello { head: Some(id), have: vec![id], ..liar.hello() };
            liar.say(&Message::Hello(Box::new(hello)));
            liar.say(&Message::Locate(Locate { newer: id, older: None }));
            assert_eq!(liar.until(Kind::Located), Some(Message::Located(Vec::new())));
            liar.say(&Message::Common(vec![id]));
            liar.until(Kind::Common);
            liar.say(&Message::Offer(foldersync::protocol::Offer {
                bundles: None,
                revisions: 0,
                bytes: None,
                head: Some(id),
                restored: None,
            }));
            liar.say(&Message::SentAll(None));
            liar.leaves(Some(id));
        });
        let report = said.expect("nothing of it matters");
        assert_eq!((report.peer_head, report.in_step), (Some(id), false));
        assert_eq!(
            scene.victim().git(&["for-each-ref", "refs/remotes/mallory"]),
            "",
            "it is not known to have anything"
        );
        scene.goes_on();
    }
}

#[test]
fn what_a_peer_says_it_lacks_or_has_is_sent_and_believed_no_further() {
    let scene = Scene::new();
    // It says that it has all, and later that it has nothing.
    let head = scene.victim().head().expect("a head");
    let report = scene.hears(|liar| {
        let hello = Hello { head: Some(head), have: vec![head], receives: true, ..liar.hello() };
        liar.say(&Message::Hello(Box::new(hello)));
        liar.agrees(0);
        liar.say(&Message::SentAll(Some(head)));
        liar.takes_all();
        liar.leaves(None);
    });
    let report = report.expect("it harms itself only");
    assert_eq!((report.sent, report.peer_head), (0, None));
    assert_eq!(scene.victim().git(&["for-each-ref", "refs/remotes/mallory"]), "");
    scene.goes_on();
}

#[test]
fn messages_of_later_versions_are_passed_over_for_as_long_as_they_come() {
    let scene = Scene::new();
    let mut unknown = vec![0xfe, 0, 1, 0, 0];
    unknown.resize(5 + (64 << 10), 0xff);
    let report = scene.hears(|liar| {
        (0..1000).for_each(|_| liar.raw(&unknown));
        liar.offers(0);
        (0..1000).for_each(|_| liar.raw(&unknown));
        liar.say(&Message::SentAll(None));
        liar.leaves(None);
    });
    report.expect("they are skipped");
    scene.goes_on();
}

#[test]
fn one_byte_at_a_time_is_as_good_as_all_at_once() {
    let scene = Scene::new();
    let report = scene.hears(|liar| {
        let hello = Message::Hello(Box::new(liar.hello()));
        for message in [hello, Message::Common(Vec::new())] {
            message.encode().expect("it may be said").iter().for_each(|byte| liar.raw(&[*byte]));
        }
        liar.until(Kind::Common);
        liar.say(&Message::Offer(foldersync::protocol::Offer {
            bundles: None,
            revisions: 0,
            bytes: None,
            head: None,
            restored: None,
        }));
        liar.say(&Message::SentAll(None));
        liar.leaves(None);
        // What is said after the end is not heard.
        liar.say(&Message::Notice("more".to_owned()));
    });
    report.expect("an exchange");
    scene.goes_on();
}
