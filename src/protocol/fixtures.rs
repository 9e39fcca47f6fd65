//! Frozen bytes of version 1, in `fixtures/wire/v1`: what is written today must be read for ever.
//!
//! `<name>.bin` is the frame of a sample; `later-<name>.bin` was made by hand, as a later version might send it, and
//! need not come out the same; `conversation-<side>.bin` is all that a side says in one exchange. To add a fixture, add
//! its sample and run the ignored test; it never changes a file that is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::frame::{HEADER, Kind, PREAMBLE, Reader};
use super::message::{Locate, Message};
use super::samples::{self, commit};
use super::session::tests::conversation;
use super::wire;

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fixtures/wire/v1", &format!("{name}.bin")].iter().collect()
}

fn fixture(name: &str) -> Vec<u8> {
    let path = path(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every fixture that is written and read the same, with what must be in it.
fn exact() -> Vec<(&'static str, Vec<u8>)> {
    let frames = samples::each().into_iter().map(|(name, message)| {
        let mut frame = Vec::new();
        wire::encode(&message, &mut frame).unwrap();
        (name, frame)
    });
    let (a, b, _) = conversation();
    [("preamble", PREAMBLE.to_vec()), ("conversation-a", a), ("conversation-b", b)].into_iter().chain(frames).collect()
}

/// What a later version might send, and what this one must make of it.
fn later() -> [(&'static str, Vec<Message>); 2] {
    let located = Message::Locate(Locate { newer: commit(9), older: None });
    [("later-unknown-fields", vec![located]), ("later-skippable-types", vec![Message::Working, Message::Bye])]
}

fn messages(frames: &[u8]) -> Vec<Message> {
    let mut reader = Reader::new();
    assert_eq!(reader.read(&mut &PREAMBLE[..]).unwrap(), None);
    let mut rest = frames;
    let messages = std::iter::from_fn(|| reader.read(&mut rest).unwrap()).collect();
    assert!(reader.is_between_frames());
    messages
}

#[test]
fn every_message_is_written_as_it_always_was() {
    for (name, bytes) in exact() {
        assert_eq!(fixture(name).escape_ascii().to_string(), bytes.escape_ascii().to_string(), "{name}");
    }
}

#[test]
fn every_frozen_message_is_read_as_it_was_meant() {
    for (name, message) in samples::each() {
        assert_eq!(messages(&fixture(name)), [message], "{name}");
    }
    for (name, expected) in later() {
        assert_eq!(messages(&fixture(name)), expected, "{name}");
    }
}

#[test]
fn every_kind_has_a_fixture_and_every_fixture_is_used() {
    let kinds: BTreeSet<Kind> = samples::each().iter().map(|(_, message)| message.kind()).collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), Kind::ALL);

    let used: BTreeSet<String> = exact()
        .iter()
        .map(|(name, _)| *name)
        .chain(later().map(|(name, _)| name))
        .map(|n| format!("{n}.bin"))
        .collect();
    let there: BTreeSet<String> = fs::read_dir(path("x").parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(there, used);
}

#[test]
#[ignore = "writes the fixtures of new messages"]
fn write_missing_fixtures() {
    let mut fields = minicbor::Encoder::new(Vec::new());
    fields.map(3).unwrap().u8(40).unwrap().array(2).unwrap().str("new").unwrap().begin_map().unwrap().end().unwrap();
    fields.u8(0).unwrap().bytes(commit(9).as_bytes()).unwrap().u32(70_000).unwrap().f64(0.5).unwrap();
    let fields = fields.into_writer();
    let mut unknown_fields = vec![Kind::Locate as u8, 0, 0, 0, u8::try_from(fields.len()).unwrap()];
    assert_eq!(unknown_fields.len(), HEADER);
    unknown_fields.extend(fields);

    let mut skippable = b"\x82\0\0\0\x03abc\xff\0\0\0\0".to_vec();
    wire::encode(&Message::Working, &mut skippable).unwrap();
    skippable.extend_from_slice(b"\xc0\0\0\0\x01\xff");
    wire::encode(&Message::Bye, &mut skippable).unwrap();

    let made = [("later-unknown-fields", unknown_fields), ("later-skippable-types", skippable)];
    for (name, bytes) in exact().into_iter().chain(made) {
        if !path(name).exists() {
            fs::write(path(name), bytes).unwrap();
        }
    }
}
