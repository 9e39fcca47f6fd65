//! Messages for tests: one of each kind, the largest of each kind, and any at all.

use proptest::option;
use proptest::prelude::*;

use super::message::{
    BundleBegin, BundleEnd, Fault, FaultCode, HAVE_LIMIT, Hello, Locate, Merged, Message, Offer, PREREQUISITE_LIMIT,
    RejectCode, Rejected, Stored, TEXT_LIMIT, WANTED_LIMIT,
};
use crate::id::{CommitId, DeviceId, FolderId, ReplicaId};

pub(super) fn commit(byte: u8) -> CommitId {
    CommitId::from_bytes([byte; 20])
}

pub(super) fn hello() -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        software: "foldersync 0.1.0".to_owned(),
        device: DeviceId::from_bytes([0xd1; 32]),
        device_name: "laptop".to_owned(),
        replica: ReplicaId::from_bytes([0xe1; 16]),
        folder: Some(FolderId::from_bytes([0xf0; 16])),
        joinable: false,
        has_history: true,
        head: Some(commit(3)),
        have: vec![commit(3), commit(2), commit(1)],
        sends: true,
        receives: true,
        bundle_limit: 1 << 30,
        wanted: Vec::new(),
    }
}

/// One of each kind, under the name of its fixture.
pub(super) fn each() -> Vec<(&'static str, Message)> {
    let new = Hello {
        folder: None,
        joinable: true,
        has_history: false,
        head: None,
        have: Vec::new(),
        device_name: "Büro".to_owned(),
        ..hello()
    };
    let repairing = Hello { head: None, have: Vec::new(), sends: false, wanted: vec![commit(1), commit(3)], ..hello() };
    let begin = BundleBegin {
        number: 1,
        prerequisites: vec![commit(1), commit(2)],
        tip: commit(3),
        revisions: 1000,
        bytes_hint: Some(70_000),
    };
    vec![
        ("hello", Message::Hello(Box::new(hello()))),
        ("hello-new", Message::Hello(Box::new(new))),
        ("hello-repairing", Message::Hello(Box::new(repairing))),
        ("locate", Message::Locate(Locate { newer: commit(9), older: Some(commit(1)) })),
        ("locate-from-the-beginning", Message::Locate(Locate { newer: commit(9), older: None })),
        ("located", Message::Located(vec![commit(8), commit(7)])),
        ("common", Message::Common(vec![commit(7)])),
        ("common-nothing", Message::Common(Vec::new())),
        (
            "offer",
            Message::Offer(Offer {
                bundles: Some(2),
                revisions: 1300,
                bytes: Some(1 << 33),
                head: Some(commit(3)),
                restored: None,
            }),
        ),
        (
            "offer-nothing",
            Message::Offer(Offer { bundles: None, revisions: 0, bytes: None, head: None, restored: None }),
        ),
        (
            "offer-restored",
            Message::Offer(Offer {
                bundles: None,
                revisions: 7,
                bytes: None,
                head: Some(commit(3)),
                restored: Some(commit(2)),
            }),
        ),
        ("bundle-begin", Message::BundleBegin(begin)),
        ("bundle-data", Message::BundleData(b"the bytes of a bundle\0\xff".to_vec())),
        ("bundle-end", Message::BundleEnd(BundleEnd { bytes: 70_000, sha256: [0x5a; 32] })),
        ("stored", Message::Stored(Stored { number: 1, tip: commit(3) })),
        ("rejected", Message::Rejected(Rejected::new(2, RejectCode::Unsafe, "a tree names `.git`"))),
        ("sent-all", Message::SentAll(Some(commit(3)))),
        ("sent-all-nothing", Message::SentAll(None)),
        ("merged", Message::Merged(Merged { head: Some(commit(4)), applied: 300, conflicts: 1, left_out: 2 })),
        ("bye", Message::Bye),
        ("fault", Message::Fault(Fault::new(FaultCode::Busy, "`foldersync serve` holds the folder", true))),
        ("notice", Message::Notice("nearly full: 1 GB free".to_owned())),
        ("working", Message::Working),
    ]
}

/// The largest of each kind.
pub(super) fn largest() -> Vec<Message> {
    let have = vec![commit(0xff); HAVE_LIMIT];
    let text = "x".repeat(TEXT_LIMIT);
    let mut hello = hello();
    hello.version_max = u16::MAX;
    hello.version_min = u16::MAX;
    hello.software = "s".repeat(255);
    hello.device_name = "n".repeat(255);
    hello.have.clone_from(&have);
    hello.wanted = vec![commit(0xff); WANTED_LIMIT];
    hello.bundle_limit = u64::MAX;
    let begin = BundleBegin {
        number: u32::MAX,
        prerequisites: vec![commit(0xff); PREREQUISITE_LIMIT],
        tip: commit(0xff),
        revisions: u64::MAX,
        bytes_hint: Some(u64::MAX),
    };
    vec![
        Message::Hello(Box::new(hello)),
        Message::Located(have.clone()),
        Message::Common(have),
        Message::BundleBegin(begin),
        Message::BundleData(vec![0; 256 << 10]),
        Message::Rejected(Rejected::new(u32::MAX, RejectCode::Other(u16::MAX), &text)),
        Message::Fault(Fault::new(FaultCode::Other(u16::MAX), &text, true)),
        Message::Notice(text),
    ]
}

fn any_commit() -> impl Strategy<Value = CommitId> {
    any::<[u8; 20]>().prop_map(CommitId::from_bytes)
}

fn any_commits() -> impl Strategy<Value = Vec<CommitId>> {
    prop::collection::vec(any_commit(), 0..6)
}

fn any_text() -> impl Strategy<Value = String> {
    prop::collection::vec(any::<char>(), 0..40).prop_map(String::from_iter)
}

prop_compose! {
    fn any_hello()(
        versions in (1..=u16::MAX, any::<u16>()), software in any_text(), device: [u8; 32], name in "[a-zäöü ]{1,20}",
        replica: [u8; 16], folder in option::of(any::<[u8; 16]>()), flags: [bool; 4], head in option::of(any_commit()),
        have in any_commits(), bundle_limit: u64, wanted in any_commits(),
    ) -> Hello {
        Hello {
            version_min: versions.0,
            version_max: versions.0.saturating_add(versions.1),
            software,
            device: DeviceId::from_bytes(device),
            device_name: name,
            replica: ReplicaId::from_bytes(replica),
            folder: folder.map(FolderId::from_bytes),
            joinable: flags[0],
            has_history: flags[1],
            head,
            have,
            sends: flags[2],
            receives: flags[3],
            bundle_limit,
            wanted,
        }
    }
}

/// Any message that may be sent.
pub(super) fn any_message() -> impl Strategy<Value = Message> {
    let head = || option::of(any_commit());
    prop_oneof![
        any_hello().prop_map(|hello| Message::Hello(Box::new(hello))),
        (any_commit(), head()).prop_map(|(newer, older)| Message::Locate(Locate { newer, older })),
        any_commits().prop_map(Message::Located),
        any_commits().prop_map(Message::Common),
        (any::<Option<u32>>(), any::<u64>(), any::<Option<u64>>(), head(), head()).prop_map(
            |(bundles, revisions, bytes, head, restored)| Message::Offer(Offer {
                bundles,
                revisions,
                bytes,
                head,
                restored
            })
        ),
        (any::<u32>(), any_commits(), any_commit(), any::<u64>(), any::<Option<u64>>()).prop_map(
            |(number, prerequisites, tip, revisions, bytes_hint)| Message::BundleBegin(BundleBegin {
                number,
                prerequisites,
                tip,
                revisions,
                bytes_hint
            })
        ),
        prop::collection::vec(any::<u8>(), 1..200).prop_map(Message::BundleData),
        any::<(u64, [u8; 32])>().prop_map(|(bytes, sha256)| Message::BundleEnd(BundleEnd { bytes, sha256 })),
        (any::<u32>(), any_commit()).prop_map(|(number, tip)| Message::Stored(Stored { number, tip })),
        (any::<u32>(), any::<u16>(), any_text()).prop_map(|(number, code, text)| Message::Rejected(Rejected::new(
            number,
            code.into(),
            &text
        ))),
        head().prop_map(Message::SentAll),
        (head(), any::<[u64; 3]>()).prop_map(|(head, [applied, conflicts, left_out])| Message::Merged(Merged {
            head,
            applied,
            conflicts,
            left_out
        })),
        Just(Message::Bye),
        (any::<u16>(), any_text(), any::<bool>()).prop_map(|(code, text, retry)| Message::Fault(Fault::new(
            code.into(),
            &text,
            retry
        ))),
        any_text().prop_map(Message::Notice),
        Just(Message::Working),
    ]
}
