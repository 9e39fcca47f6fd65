use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use rstest::rstest;

use super::wire::{self, Message, Reader};
use super::*;
use crate::clock::Timestamp;
use crate::id::{DeviceId, FolderId};
use crate::protocol::Party;

const NOW: Timestamp = Timestamp::new(1000, 0);

fn secret() -> Secret {
    Secret::new([7; 16])
}

fn channel() -> Channel {
    Channel { joiner: DeviceId::from_bytes([1; 32]), sharer: DeviceId::from_bytes([2; 32]), keying: [3; 32] }
}

fn offer(secret: &Secret) -> Offer {
    Offer::new(secret, Timestamp::new(2000, 0), FolderId::from_bytes([4; 16]), "docs".to_owned(), Grant::Receive)
}

fn joiner(secret: &Secret, channel: Channel) -> Joiner {
    Joiner::new(secret, channel, "laptop".to_owned()).unwrap()
}

/// A sharer that was knocked at, and the proof.
fn knocked(joiner: &mut Joiner, channel: Channel) -> (Sharer, Proof) {
    let mut sharer = Sharer::new(channel);
    sharer.receive(&joiner.take_output()).unwrap();
    match sharer.next_event() {
        Some(Event::Knocked(proof)) => (sharer, proof),
        other => panic!("{other:?}"),
    }
}

/// Both sides, each of which has been told of the other.
fn met() -> (Joiner, Sharer) {
    let mut joiner = joiner(&secret(), channel());
    let (mut sharer, proof) = knocked(&mut joiner, channel());
    sharer.welcome(offer(&secret()).accept(NOW, &proof).unwrap(), "nas").unwrap();
    joiner.receive(&sharer.take_output()).unwrap();
    assert!(matches!(joiner.next_event(), Some(Event::Welcomed(_))));
    sharer.receive(&joiner.take_output()).unwrap();
    assert!(matches!(sharer.next_event(), Some(Event::Named(_))));
    (joiner, sharer)
}

/// All that each side says in a pairing that goes well.
fn conversation() -> (Vec<u8>, Vec<u8>) {
    let (mut from_joiner, mut from_sharer) = (Vec::new(), Vec::new());
    let mut joiner = joiner(&secret(), channel());
    let mut sharer = Sharer::new(channel());
    let mut offers = [offer(&Secret::new([8; 16])), offer(&secret())];
    loop {
        let said = joiner.take_output();
        sharer.receive(&said).unwrap();
        from_joiner.extend_from_slice(&said);
        while let Some(event) = sharer.next_event() {
            match event {
                Event::Knocked(proof) => {
                    assert_eq!(proof.joiner(), &channel().joiner);
                    let accepted = accept(&mut offers, NOW, &proof).unwrap();
                    assert_eq!((accepted.folder(), accepted.grant()), (FolderId::from_bytes([4; 16]), Grant::Receive));
                    sharer.welcome(accepted, "nas").unwrap();
                }
                Event::Named(name) => {
                    assert_eq!(name, "laptop");
                    sharer.agree().unwrap();
                }
                Event::Agreed => sharer.done().unwrap(),
                Event::Paired => assert!(sharer.is_paired()),
                Event::Welcomed(_) => panic!("a sharer is not welcomed"),
            }
        }
        let answer = sharer.take_output();
        joiner.receive(&answer).unwrap();
        from_sharer.extend_from_slice(&answer);
        while let Some(event) = joiner.next_event() {
            match event {
                Event::Welcomed(welcome) => {
                    assert_eq!(
                        welcome,
                        Welcome {
                            folder: FolderId::from_bytes([4; 16]),
                            folder_name: "docs".to_owned(),
                            device_name: "nas".to_owned(),
                            grant: Grant::Receive,
                        }
                    );
                    joiner.agree().unwrap();
                }
                Event::Agreed => joiner.done().unwrap(),
                Event::Paired => assert!(joiner.is_paired()),
                Event::Knocked(_) | Event::Named(_) => panic!("a joiner is not knocked at"),
            }
        }
        if said.is_empty() && answer.is_empty() {
            break;
        }
    }
    assert!(joiner.is_paired() && sharer.is_paired());
    joiner.end().unwrap();
    sharer.end().unwrap();
    assert_eq!(offers.map(|offer| offer.used), [false, true]);
    (from_joiner, from_sharer)
}

#[test]
fn two_devices_come_to_know_each_other() {
    conversation();
}

#[test]
fn an_offer_serves_once_and_for_a_time() {
    let proof = || knocked(&mut joiner(&secret(), channel()), channel()).1;
    let mut late = offer(&secret());
    assert_eq!(late.accept(Timestamp::new(2000, 0), &proof()).unwrap_err(), PairingError::Expired);
    assert!(!late.used);
    let mut once = offer(&secret());
    let _accepted = once.accept(Timestamp::new(1999, 999_999_999), &proof()).unwrap();
    assert_eq!(once.accept(NOW, &proof()).unwrap_err(), PairingError::Used);
    assert_eq!(once.accept(Timestamp::new(3000, 0), &proof()).unwrap_err(), PairingError::Used);
}

#[test]
fn who_does_not_know_the_secret_is_told_the_same_whatever_there_is() {
    let stranger = || knocked(&mut joiner(&Secret::new([9; 16]), channel()), channel()).1;
    let mut used = offer(&secret());
    used.used = true;
    let mut expired = offer(&secret());
    expired.expires = Timestamp::new(0, 0);
    let mut told = Vec::new();
    for mut offers in [vec![], vec![offer(&secret())], vec![used, expired]] {
        let (mut sharer, proof) = knocked(&mut joiner(&Secret::new([9; 16]), channel()), channel());
        let error = accept(&mut offers, NOW, &proof).unwrap_err();
        sharer.refuse(error);
        told.push(sharer.take_output());
    }
    assert!(told.iter().all(|it| *it == told[0]));
    let mut joiner = joiner(&Secret::new([9; 16]), channel());
    assert_eq!(joiner.receive(&told[0]), Err(PairingError::WrongSecret));
    assert_eq!(offer(&secret()).accept(NOW, &stranger()).unwrap_err(), PairingError::WrongSecret);
}

#[test]
fn who_knows_the_secret_is_told_what_became_of_the_offer() {
    for (offer, error) in [
        (Offer { used: true, ..offer(&secret()) }, PairingError::Used),
        (Offer { expires: NOW, ..offer(&secret()) }, PairingError::Expired),
    ] {
        let mut joiner = joiner(&secret(), channel());
        let (mut sharer, proof) = knocked(&mut joiner, channel());
        sharer.refuse(accept(&mut [offer], NOW, &proof).unwrap_err());
        assert_eq!(joiner.receive(&sharer.take_output()), Err(error));
        assert_eq!(joiner.take_output(), b"", "who was refused says nothing more");
    }
}

/// A proof that was heard on one connection is worth nothing on another, nor for another device.
#[rstest]
#[case::other_connection(Channel { keying: [4; 32], ..channel() })]
#[case::other_joiner(Channel { joiner: DeviceId::from_bytes([9; 32]), ..channel() })]
#[case::other_sharer(Channel { sharer: DeviceId::from_bytes([9; 32]), ..channel() })]
#[case::roles_changed(Channel { joiner: channel().sharer, sharer: channel().joiner, ..channel() })]
fn a_proof_is_bound_to_its_channel(#[case] other: Channel) {
    let (_, proof) = knocked(&mut joiner(&secret(), channel()), other.clone());
    assert_eq!(offer(&secret()).accept(NOW, &proof).unwrap_err(), PairingError::WrongSecret);
    // Nor does the answer serve on another.
    let mut away = joiner(&secret(), other);
    let (mut sharer, proof) = knocked(&mut joiner(&secret(), channel()), channel());
    sharer.welcome(offer(&secret()).accept(NOW, &proof).unwrap(), "nas").unwrap();
    assert_eq!(away.receive(&sharer.take_output()), Err(PairingError::NotTheSharer));
}

#[test]
fn the_joiners_own_proof_is_no_answer() {
    let mut joiner = joiner(&secret(), channel());
    let mut input = &joiner.take_output()[..];
    let Ok(Some(Message::Knock { proof, .. })) = Reader::default().read(&mut input) else { panic!("a knock") };
    let mut reflected = Vec::new();
    let (folder, folder_name, device_name) = (FolderId::from_bytes([4; 16]), "docs".to_owned(), "nas".to_owned());
    let welcome = Message::Welcome { version: 1, proof, folder, folder_name, device_name, grant: Grant::Both };
    wire::encode(&welcome, &mut reflected);
    assert_eq!(joiner.receive(&reflected), Err(PairingError::NotTheSharer));
    assert!(joiner.next_event().is_none());
}

#[test]
fn an_offer_accepted_on_another_channel_is_not_answered_here() {
    let (_, proof) = knocked(&mut joiner(&secret(), channel()), channel());
    let accepted = offer(&secret()).accept(NOW, &proof).unwrap();
    let other = Channel { keying: [9; 32], ..channel() };
    let (mut sharer, _) = knocked(&mut joiner(&secret(), other.clone()), other);
    assert_eq!(sharer.welcome(accepted, "nas"), Err(PairingError::Internal));
}

#[test]
fn nobody_is_paired_before_both_agree() {
    let (mut joiner, mut sharer) = met();
    assert_eq!(joiner.done(), Err(PairingError::NotDue("be done")));
    joiner.agree().unwrap();
    assert_eq!(joiner.agree(), Err(PairingError::NotDue("agree")));
    sharer.receive(&joiner.take_output()).unwrap();
    assert!(sharer.next_event().is_none() && joiner.next_event().is_none());
    assert_eq!(sharer.done(), Err(PairingError::NotDue("be done")));
    sharer.cancel();
    assert_eq!(sharer.agree(), Err(PairingError::Cancelled(Party::Us)));
    assert_eq!(joiner.receive(&sharer.take_output()), Err(PairingError::Cancelled(Party::Them)));
    assert_eq!(joiner.done(), Err(PairingError::Cancelled(Party::Them)));
}

#[test]
fn a_cut_is_told_from_an_end() {
    let (mut joiner, mut sharer) = met();
    assert_eq!(met().0.end(), Err(PairingError::Cut));
    joiner.agree().unwrap();
    sharer.agree().unwrap();
    sharer.receive(&joiner.take_output()).unwrap();
    joiner.receive(&sharer.take_output()).unwrap();
    sharer.done().unwrap();
    joiner.receive(&sharer.take_output()).unwrap();
    joiner.receive(b"and more").unwrap();
    assert_eq!(joiner.end(), Ok(()));
    assert_eq!(sharer.end(), Err(PairingError::Cut));
}

/// Each message where it has no meaning.
#[test]
fn what_comes_out_of_order_ends_it() {
    let frames = || frames().into_iter().filter(|(name, _)| *name != "refuse");
    for (name, frame) in frames().filter(|(name, _)| *name != "knock") {
        let error = Sharer::new(channel()).receive(&frame).unwrap_err();
        assert!(matches!(error, PairingError::OutOfOrder(_)), "{name}: {error}");
    }
    for (name, frame) in frames().filter(|(name, _)| *name != "welcome") {
        let mut joiner = joiner(&secret(), channel());
        drop(joiner.take_output());
        assert!(matches!(joiner.receive(&frame), Err(PairingError::OutOfOrder(_))), "{name}");
        let told = Reader::default().read(&mut &joiner.take_output()[..]).unwrap();
        assert_eq!(told, Some(Message::Refuse(Refusal::Protocol)));
    }
    for (name, frame) in frames().filter(|(name, _)| *name != "agree") {
        let (mut joiner, mut sharer) = met();
        assert!(matches!(joiner.receive(&frame), Err(PairingError::OutOfOrder(_))), "{name}");
        assert!(matches!(sharer.receive(&frame), Err(PairingError::OutOfOrder(_))), "{name}");
    }
}

#[test]
fn versions_that_do_not_meet_are_told() {
    let mut frame = Vec::new();
    wire::encode(&Message::Knock { version_min: 2, version_max: 3, proof: [0; 32] }, &mut frame);
    let mut sharer = Sharer::new(channel());
    assert_eq!(sharer.receive(&frame), Err(PairingError::Version));
    assert_eq!(joiner(&secret(), channel()).receive(&sharer.take_output()), Err(PairingError::Version));
}

#[rstest]
#[case::unknown_type(b"\x06\0\x01\xa0", "the unknown type 0x06")]
#[case::too_long(b"\x01\x04\x01", "1025 bytes, at most 1024 are allowed")]
#[case::greeting(b"HTTP/1.1 400", "21588 bytes, at most 1024 are allowed")]
#[case::more(b"\x04\0\x02\xa0\0", "bytes after the end of a message")]
#[case::no_range(
    b"\x01\0\x28\xa3\0\x02\x01\x01\x02\x58\x20aaaaaaaabbbbbbbbccccccccdddddddd",
    "versions that are no range"
)]
#[case::path_as_name(b"\x03\0\x06\xa1\0\x63a/b", "a name that is none")]
fn garbage_is_named(#[case] bytes: &[u8], #[case] why: &str) {
    let mut input = bytes;
    assert_eq!(Reader::default().read(&mut input).unwrap_err(), PairingError::Garbage(why.to_owned()));
}

#[test]
fn unknown_types_from_0x80_up_are_skipped_but_not_for_ever() {
    let mut reader = Reader::default();
    for _ in 0..SKIPPED {
        assert_eq!(reader.read(&mut &b"\x80\0\x03abc"[..]), Ok(None));
    }
    assert!(matches!(reader.read(&mut &b"\xff\0\0"[..]), Err(PairingError::Garbage(_))));
}

#[test]
fn a_name_that_cannot_be_said_is_refused_before_it_is() {
    for name in ["", "a/b", "a\nb", &"x".repeat(256)] {
        assert!(
            matches!(Joiner::new(&secret(), channel(), name.to_owned()), Err(PairingError::BadName(_))),
            "{name:?}"
        );
        let (mut sharer, proof) = knocked(&mut joiner(&secret(), channel()), channel());
        let accepted = offer(&secret()).accept(NOW, &proof).unwrap();
        assert!(matches!(sharer.welcome(accepted, name), Err(PairingError::BadName(_))), "{name:?}");
    }
}

#[test]
fn no_secret_is_printed() {
    let secret = Secret::new([0xab; 16]);
    let mut joiner = joiner(&secret, Channel { keying: [0xcd; 32], ..channel() });
    let mac = secret.hash().proof(super::secret::Role::Joiner, &Channel { keying: [0xcd; 32], ..channel() });
    let before = format!("{:?}", joiner.take_output());
    assert!(before.contains(&mac.map(|byte| byte.to_string()).join(", ")), "the proof is what is sent");
    let (sharer, proof) = knocked(
        &mut self::joiner(&secret, Channel { keying: [0xcd; 32], ..channel() }),
        Channel { keying: [0xcd; 32], ..channel() },
    );
    let mut offer = offer(&secret);
    let shown = format!("{secret:?} {:?} {offer:?} {joiner:?} {sharer:?} {proof:?} ", secret.hash());
    let shown = shown + &format!("{:?}", offer.accept(NOW, &proof).unwrap());
    for bytes in [vec![0xab; 16], vec![0xcd; 32], mac.to_vec(), secret.hash().as_bytes().to_vec()] {
        let list = bytes[..8].iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
        let hex = bytes[..8].iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        assert!(!shown.contains(&list) && !shown.to_lowercase().contains(&hex), "{shown}");
    }
}

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fixtures/pairing/v1", &format!("{name}.bin")].iter().collect()
}

fn samples() -> Vec<(&'static str, Message)> {
    let (folder, folder_name, device_name) = (FolderId::from_bytes([4; 16]), "docs".to_owned(), "Böx".to_owned());
    vec![
        ("knock", Message::Knock { version_min: 1, version_max: 3, proof: [5; 32] }),
        (
            "welcome",
            Message::Welcome {
                version: 1,
                proof: [6; 32],
                folder,
                folder_name,
                device_name: device_name.clone(),
                grant: Grant::Send,
            },
        ),
        ("name", Message::Name { device_name }),
        ("agree", Message::Agree),
        ("done", Message::Done),
        ("refuse", Message::Refuse(Refusal::Used)),
    ]
}

fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let frame = |message: &Message| {
        let mut frame = Vec::new();
        wire::encode(message, &mut frame);
        frame
    };
    samples().iter().map(|(name, message)| (*name, frame(message))).collect()
}

/// Every fixture, with what must be in it. What begins with `later` is as a later version might send it.
fn fixtures() -> Vec<(&'static str, Vec<u8>)> {
    let (from_joiner, from_sharer) = conversation();
    let mut fixtures = frames();
    fixtures.extend([("conversation-joiner", from_joiner), ("conversation-sharer", from_sharer)]);
    fixtures.push(("later-unknown", b"\x90\0\x03abc\x03\0\x0c\xa2\x18\x4d\x82\x01\x02\x00\x64nas2\xf0\0\0".to_vec()));
    fixtures
}

#[test]
fn bytes_are_as_they_always_were() {
    for (name, bytes) in fixtures() {
        let frozen = fs::read(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(frozen.escape_ascii().to_string(), bytes.escape_ascii().to_string(), "{name}");
    }
    let used: BTreeSet<_> = fixtures().iter().map(|(name, _)| format!("{name}.bin")).collect();
    let there = fs::read_dir(path("x").parent().unwrap()).unwrap();
    let there: BTreeSet<_> = there.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(there, used);
}

#[test]
fn frozen_bytes_are_read_as_they_were_meant() {
    for (name, message) in samples() {
        let bytes = fs::read(path(name)).unwrap();
        let mut input = &bytes[..];
        assert_eq!(Reader::default().read(&mut input), Ok(Some(message)), "{name}");
        assert!(input.is_empty());
    }
    let bytes = fs::read(path("later-unknown")).unwrap();
    let (mut input, mut reader) = (&bytes[..], Reader::default());
    assert_eq!(reader.read(&mut input), Ok(Some(Message::Name { device_name: "nas2".to_owned() })));
    assert_eq!(reader.read(&mut input), Ok(None));
}

#[test]
#[ignore = "writes the fixtures of new messages"]
fn write_missing_fixtures() {
    fs::create_dir_all(path("x").parent().unwrap()).unwrap();
    for (name, bytes) in fixtures() {
        if !path(name).exists() {
            fs::write(path(name), bytes).unwrap();
        }
    }
}

proptest! {
    #[test]
    fn garbage_never_panics(garbage in prop::collection::vec(any::<u8>(), 0..2000)) {
        drop(Sharer::new(channel()).receive(&garbage));
        drop(joiner(&secret(), channel()).receive(&garbage));
        let (mut joiner, mut sharer) = met();
        drop(joiner.receive(&garbage));
        drop(sharer.receive(&garbage));
    }

    #[test]
    fn damaged_messages_never_panic_and_pair_nobody(at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let (from_joiner, from_sharer) = conversation();
        for (bytes, is_joiner) in [(from_sharer, true), (from_joiner, false)] {
            let mut bytes = bytes;
            let at = at.index(bytes.len());
            let same = bytes[at] == byte;
            bytes[at] = byte;
            bytes.truncate(cut.index(bytes.len() + 1));
            if is_joiner {
                let mut joiner = joiner(&secret(), channel());
                let heard = joiner.receive(&bytes);
                prop_assert!(same || heard.is_err() || !joiner.is_paired());
            } else {
                let mut sharer = Sharer::new(channel());
                let heard = sharer.receive(&bytes);
                prop_assert!(same || heard.is_err() || !sharer.is_paired());
            }
        }
    }

    #[test]
    fn bytes_may_come_in_any_pieces(size in 1_usize..40) {
        let frames = frames();
        let bytes: Vec<u8> = frames.iter().flat_map(|(_, frame)| frame.clone()).collect();
        let (mut reader, mut messages) = (Reader::default(), Vec::new());
        for mut piece in bytes.chunks(size) {
            while let Some(message) = reader.read(&mut piece).unwrap() {
                messages.push(message);
            }
        }
        prop_assert_eq!(messages, samples().into_iter().map(|(_, message)| message).collect::<Vec<_>>());
    }

    #[test]
    fn a_wrong_proof_is_refused(wrong: [u8; 16], keying: [u8; 32]) {
        prop_assume!(wrong != *secret().as_bytes());
        let channel = Channel { keying, ..channel() };
        let (_, proof) = knocked(&mut joiner(&Secret::new(wrong), channel.clone()), channel);
        let mut offer = offer(&secret());
        prop_assert_eq!(offer.accept(NOW, &proof).unwrap_err(), PairingError::WrongSecret);
        prop_assert!(!offer.used);
    }
}
