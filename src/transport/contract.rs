//! The contract of connections (the module's header), held against each kind of them.
//!
//! Each is tried with an echo at the other end: `cat`, or a thread that copies.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::thread;

use super::{ChildCommand, Connection, Faults, pipe, pipe_of};

fn echoing((near, far): (Connection, Connection)) -> Connection {
    thread::spawn(move || {
        let (mut reader, mut writer, _) = far.split();
        // A broken pipe is what some tests are after.
        let _copied = io::copy(&mut reader, &mut writer);
    });
    near
}

fn over_pipe() -> Connection {
    echoing(pipe("an echo"))
}

fn over_narrow_pipe() -> Connection {
    echoing(pipe_of(7, "a narrow echo"))
}

fn over_child() -> Connection {
    ChildCommand::new("cat", [""; 0]).connect().expect("every system has cat")
}

fn over_child_in_pieces() -> Connection {
    over_child().with_faults(Faults::pieces(3), Faults::pieces(5))
}

fn over_network() -> Connection {
    super::network::tests::echo()
}

/// Bytes that are different everywhere, so that a mistake in their order shows.
fn bytes(count: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state ^ (state >> 29)).to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}

/// Sends all of `sent` from one thread while another reads, ends the stream, and gives what came back.
fn echo(connection: Connection, sent: &[u8], at_once: usize) -> Vec<u8> {
    let (mut reader, mut writer, control) = connection.split();
    let received = thread::scope(|scope| {
        scope.spawn(move || {
            for piece in sent.chunks(at_once) {
                writer.write_all(piece).unwrap();
            }
            writer.flush().unwrap();
        });
        let mut received = Vec::with_capacity(sent.len());
        reader.read_to_end(&mut received).unwrap();
        received
    });
    drop(reader);
    control.finish().unwrap();
    received
}

fn bytes_come_in_order_and_then_the_end(connect: fn() -> Connection) {
    let sent = bytes(100_003);
    assert!(echo(connect(), &sent, 1009) == sent);
    assert!(echo(connect(), &sent[..1000], 1) == sent[..1000]);
    assert!(echo(connect(), &[], 1).is_empty());
}

fn both_directions_run_at_once(connect: fn() -> Connection) {
    // Far more than any pipe holds: whoever wrote all before reading would wait for ever.
    let sent = bytes(64 << 20);
    assert!(echo(connect(), &sent, 256 << 10) == sent);
}

fn an_answer_comes_while_the_stream_stays_open(connect: fn() -> Connection) {
    let mut connection = connect();
    for round in 0..100_u8 {
        connection.writer.write_all(&[round; 10]).unwrap();
        connection.writer.flush().unwrap();
        let mut answer = [0; 10];
        connection.reader.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [round; 10]);
    }
}

fn a_reader_that_leaves_makes_writes_fail(connect: fn() -> Connection) {
    let (reader, mut writer, _control) = connect().split();
    drop(reader);
    let piece = bytes(64 << 10);
    let error = loop {
        if let Err(error) = writer.write_all(&piece) {
            break error;
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

fn breaking_off_ends_a_read_that_waits(connect: fn() -> Connection) {
    let (mut reader, writer, control) = connect().split();
    let reading = thread::spawn(move || reader.read(&mut [0; 8]));
    control.abort();
    assert!(matches!(reading.join().unwrap(), Ok(0) | Err(_)));
    drop(writer);
}

fn breaking_off_ends_a_write_that_waits(connect: fn() -> Connection) {
    let (reader, mut writer, control) = connect().split();
    let aborts = Arc::clone(&control);
    let writing = thread::spawn(move || {
        let piece = bytes(64 << 10);
        while writer.write_all(&piece).is_ok() {}
    });
    aborts.abort();
    writing.join().unwrap();
    drop(reader);
}

macro_rules! contract {
    ($kind:ident: $($test:ident)*) => {
        mod $kind {
            $(
                #[test]
                fn $test() {
                    super::$test(super::$kind);
                }
            )*
        }
    };
    ($kind:ident) => {
        contract!(
            $kind: bytes_come_in_order_and_then_the_end both_directions_run_at_once
            an_answer_comes_while_the_stream_stays_open a_reader_that_leaves_makes_writes_fail
            breaking_off_ends_a_read_that_waits breaking_off_ends_a_write_that_waits
        );
    };
}

contract!(over_pipe);
contract!(over_child);
contract!(over_network);
// The same, but for the 64 MiB, which would take minutes in pieces of this size.
contract!(over_narrow_pipe: bytes_come_in_order_and_then_the_end an_answer_comes_while_the_stream_stays_open
    a_reader_that_leaves_makes_writes_fail breaking_off_ends_a_read_that_waits breaking_off_ends_a_write_that_waits);
contract!(over_child_in_pieces: bytes_come_in_order_and_then_the_end an_answer_comes_while_the_stream_stays_open
    a_reader_that_leaves_makes_writes_fail breaking_off_ends_a_read_that_waits breaking_off_ends_a_write_that_waits);
