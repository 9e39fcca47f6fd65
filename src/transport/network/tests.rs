//! Networks on loopback, one per side.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread;
use std::time::Instant;

use super::*;

pub(in crate::transport) const PATIENCE: Duration = Duration::from_secs(20);

/// A gate that is told whom to admit.
#[derive(Default)]
pub(in crate::transport) struct Doorkeeper {
    known: Mutex<HashSet<DeviceId>>,
    pairs: AtomicBool,
}

impl Doorkeeper {
    pub(in crate::transport) fn know(&self, device: DeviceId) {
        self.known.lock().unwrap().insert(device);
    }

    pub(in crate::transport) fn pair(&self, pairs: bool) {
        self.pairs.store(pairs, Ordering::Relaxed);
    }

    fn forget(&self, device: DeviceId) {
        self.known.lock().unwrap().remove(&device);
    }
}

impl Gate for Doorkeeper {
    fn admits(&self, device: DeviceId) -> bool {
        self.known.lock().unwrap().contains(&device)
    }

    fn pairs(&self) -> bool {
        self.pairs.load(Ordering::Relaxed)
    }
}

pub(in crate::transport) fn options() -> NetworkOptions {
    static COUNT: AtomicU8 = AtomicU8::new(1);
    NetworkOptions {
        secret: [COUNT.fetch_add(1, Ordering::Relaxed); 32],
        port: 0,
        loopback_only: true,
        relay: RelayChoice::None,
        local_discovery: false,
    }
}

pub(in crate::transport) struct Side {
    pub(in crate::transport) network: Network,
    pub(in crate::transport) gate: Arc<Doorkeeper>,
}

impl Side {
    fn open() -> Self {
        Self::open_with(options())
    }

    pub(in crate::transport) fn open_with(options: NetworkOptions) -> Self {
        let gate = Arc::<Doorkeeper>::default();
        let network = Network::open(options, Arc::clone(&gate) as Arc<dyn Gate>).unwrap();
        Self { network, gate }
    }

    fn hints(&self) -> Hints {
        let addresses = self.network.addresses().iter().map(ToString::to_string).collect();
        Hints { addresses, ..Hints::default() }
    }

    fn dial(&self, other: &Self) -> Result<Link, TransportError> {
        self.network.dial(other.network.device(), &other.hints(), PATIENCE)
    }

    fn accept(&self) -> Link {
        match self.network.accept() {
            Some(Accepted::Link(link)) => link,
            other => panic!("no link: {other:?}"),
        }
    }
}

/// Two sides that know each other.
fn sides() -> (Side, Side) {
    let (a, b) = (Side::open(), Side::open());
    a.gate.know(b.network.device());
    b.gate.know(a.network.device());
    (a, b)
}

/// Two sides and the two ends of their link.
fn linked() -> (Side, Side, Link, Link) {
    let (a, b) = sides();
    let ours = a.dial(&b).unwrap();
    let theirs = b.accept();
    (a, b, ours, theirs)
}

/// A stream over a link, with both ends; the dialer has said one byte.
fn stream(ours: &Link, theirs: &Link) -> (Connection, Connection) {
    let mut near = ours.open().unwrap();
    near.writer.write_all(b"!").unwrap();
    let mut far = theirs.accept().unwrap();
    far.reader.read_exact(&mut [0]).unwrap();
    (near, far)
}

/// A stream to a thread that copies, for the contract; the networks live as long as its control does.
pub(in crate::transport) fn echo() -> Connection {
    struct Kept {
        control: Arc<dyn super::super::Control>,
        _sides: (Side, Side, Link),
    }
    impl super::super::Control for Kept {
        fn abort(&self) {
            self.control.abort();
        }

        fn finish(&self) -> Result<(), TransportError> {
            self.control.finish()
        }
    }
    let (a, b, ours, theirs) = linked();
    let near = ours.open().unwrap();
    thread::spawn(move || {
        // Until the other end is gone: the stream shows with its first byte, or with its end.
        while let Some(far) = theirs.accept() {
            let (mut reader, mut writer, _) = far.split();
            drop(io::copy(&mut reader, &mut writer));
        }
    });
    let control = Arc::clone(&near.control);
    Connection { control: Arc::new(Kept { control, _sides: (a, b, ours) }), ..near }
}

#[test]
fn a_link_carries_streams_both_ways_at_once() {
    let (a, b, ours, theirs) = linked();
    assert_eq!((ours.device(), theirs.device()), (b.network.device(), a.network.device()));
    assert!(ours.is_ours() && !theirs.is_ours());
    let said = |link: &Link, text: &str| {
        let mut stream = link.open().unwrap();
        stream.writer.write_all(text.as_bytes()).unwrap();
        stream
    };
    let heard = |stream: &mut Connection| {
        let mut text = [0; 4];
        stream.reader.read_exact(&mut text).unwrap();
        String::from_utf8(text.to_vec()).unwrap()
    };
    let (mut first, mut second, mut back) = (said(&ours, "one!"), said(&ours, "two!"), said(&theirs, "back"));
    let (mut far_first, mut far_second) = (theirs.accept().unwrap(), theirs.accept().unwrap());
    let mut far_back = ours.accept().unwrap();
    assert_eq!(heard(&mut far_first), "one!");
    assert_eq!(heard(&mut far_second), "two!");
    assert_eq!(heard(&mut far_back), "back");
    for (far, near) in [(far_first, &mut first), (far_second, &mut second), (far_back, &mut back)] {
        let mut far = far;
        far.writer.write_all(b"yes.").unwrap();
        assert_eq!(heard(near), "yes.");
    }
    let path = ours.path();
    assert_eq!(path.kind, PathKind::Local);
    assert!(path.remote.starts_with("127.0.0.1:") || path.remote.starts_with("[::1]:"), "{path:?}");
    assert!(path.rtt.is_some());
}

#[test]
fn an_unknown_key_learns_nothing() {
    let (a, b) = sides();
    b.gate.forget(a.network.device());
    let error = a.dial(&b).unwrap_err();
    assert!(matches!(error, TransportError::Refused { .. }), "{error}");
    assert!(!error.is_transient());
    let error = a.network.dial_pairing(b.network.device(), &b.hints(), PATIENCE).unwrap_err();
    assert!(matches!(error, TransportError::Refused { .. }), "{error}");
    // The next one who is let in is the first that anybody sees.
    b.gate.know(a.network.device());
    let link = a.dial(&b).unwrap();
    let theirs = b.accept();
    assert_eq!(theirs.device(), a.network.device());
    drop(stream(&link, &theirs));
}

#[test]
fn strangers_pair_while_the_gate_does() {
    let (a, b) = (Side::open(), Side::open());
    b.gate.pair(true);
    let mut ours = a.network.dial_pairing(b.network.device(), &b.hints(), PATIENCE).unwrap();
    ours.connection.writer.write_all(b"hello").unwrap();
    let Some(Accepted::Pairing(mut theirs)) = b.network.accept() else { panic!("no pairing") };
    assert_eq!((ours.device, theirs.device), (b.network.device(), a.network.device()));
    assert_eq!(ours.keying, theirs.keying);
    assert_ne!(ours.keying, [0; 32]);
    let mut text = [0; 5];
    theirs.connection.reader.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"hello");
    // Whoever speaks last may drop it all at once.
    theirs.connection.writer.write_all(b"welcome").unwrap();
    drop(theirs);
    let mut text = String::new();
    ours.connection.reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "welcome");
    // It is no link for all that.
    let error = a.dial(&b).unwrap_err();
    assert!(matches!(error, TransportError::Refused { .. }), "{error}");
}

#[test]
fn only_so_many_pair_at_once() {
    let (a, b) = (Side::open(), Side::open());
    b.gate.pair(true);
    let dial = || a.network.dial_pairing(b.network.device(), &b.hints(), PATIENCE);
    let mut pairing: Vec<_> = (0..4).map(|_| dial().unwrap()).collect();
    let error = dial().unwrap_err();
    assert!(matches!(error, TransportError::Busy { .. }), "{error}");
    drop(pairing.pop());
    // Its place is free as soon as the other side has heard of it.
    let until = Instant::now() + PATIENCE;
    while dial().is_err() {
        assert!(Instant::now() < until);
    }
}

#[test]
fn a_large_transfer_arrives_whole() {
    let (_a, _b, ours, theirs) = linked();
    let (mut near, mut far) = stream(&ours, &theirs);
    let piece: Vec<u8> = (0..1_u32 << 20).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let sent = piece.clone();
    let writing = thread::spawn(move || {
        for _ in 0..64 {
            near.writer.write_all(&sent).unwrap();
        }
        drop(near.writer);
        near.reader.read_exact(&mut [0]).unwrap();
    });
    let mut received = vec![0; piece.len()];
    for _ in 0..64 {
        far.reader.read_exact(&mut received).unwrap();
        assert!(received == piece);
    }
    assert_eq!(far.reader.read(&mut received).unwrap(), 0);
    far.writer.write_all(b"!").unwrap();
    writing.join().unwrap();
}

#[test]
fn breaking_off_wakes_both_sides() {
    let (_a, _b, ours, theirs) = linked();
    let (mut near, mut far) = stream(&ours, &theirs);
    let control = Arc::clone(&near.control);
    let near_reads = thread::spawn(move || near.reader.read(&mut [0]).unwrap_err().kind());
    let far_reads = thread::spawn(move || far.reader.read(&mut [0]).unwrap_err().kind());
    control.abort();
    assert_eq!(near_reads.join().unwrap(), io::ErrorKind::ConnectionAborted);
    assert_eq!(far_reads.join().unwrap(), io::ErrorKind::ConnectionReset);
    // The link itself is as before.
    drop(stream(&ours, &theirs));
}

#[test]
fn closing_a_link_ends_what_waits_on_it_and_tells_why() {
    let (_a, _b, ours, theirs) = linked();
    let (near, mut far) = stream(&ours, &theirs);
    let waiting = {
        let theirs = theirs.clone();
        thread::spawn(move || theirs.accept().is_none())
    };
    let reads = thread::spawn(move || far.reader.read(&mut [0]).unwrap_err().to_string());
    ours.close("folder moved\n");
    assert!(waiting.join().unwrap());
    assert_eq!(reads.join().unwrap(), "the other side closed it: folder moved\\n");
    assert_eq!(theirs.wait_closed(), "the other side closed it: folder moved\\n");
    assert_eq!(ours.wait_closed(), "this side closed it");
    assert!(ours.is_closed() && theirs.is_closed());
    let error = ours.open().unwrap_err();
    assert!(matches!(error, TransportError::Closed { .. }), "{error}");
    drop(near);
}

#[test]
fn what_was_answered_is_not_lost_by_closing_the_network() {
    let (a, b, ours, theirs) = linked();
    let (mut near, mut far) = stream(&ours, &theirs);
    let serving = thread::spawn(move || {
        let mut all = Vec::new();
        far.reader.read_to_end(&mut all).unwrap();
        far.writer.write_all(&all.len().to_le_bytes()).unwrap();
        drop(far);
        // The answer arrives though all is closed at once.
        b.network.close();
    });
    near.writer.write_all(&vec![7; 1 << 20]).unwrap();
    drop(near.writer);
    let mut answer = Vec::new();
    near.reader.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, (1_usize << 20).to_le_bytes());
    serving.join().unwrap();
    assert_eq!(ours.wait_closed(), "the other side closed it: closing down");
    a.network.close();
    assert!(a.network.accept().is_none());
    assert!(matches!(ours.open(), Err(TransportError::Closed { .. })));
}

#[test]
fn closing_ends_those_who_wait() {
    let a = Side::open();
    let waiting = {
        let network = a.network.clone();
        thread::spawn(move || network.accept().is_none())
    };
    let dialing = {
        let network = a.network.clone();
        let nobody = Hints { addresses: vec!["127.0.0.1:9".to_owned()], ..Hints::default() };
        let device = Side::open().network.device();
        thread::spawn(move || network.dial(device, &nobody, PATIENCE).unwrap_err())
    };
    a.network.close();
    assert!(waiting.join().unwrap());
    assert!(matches!(dialing.join().unwrap(), TransportError::Shut));
}

#[test]
fn both_of_two_links_are_given_to_the_caller() {
    let (a, b, ours, theirs) = linked();
    let again = a.dial(&b).unwrap();
    let theirs_again = b.accept();
    let back = b.dial(&a).unwrap();
    let back_theirs = a.accept();
    for (near, far) in [(&ours, &theirs), (&again, &theirs_again), (&back, &back_theirs)] {
        drop(stream(near, far));
    }
    assert_ne!(ours.number(), again.number());
    again.close("one too many");
    theirs_again.wait_closed();
    drop(stream(&ours, &theirs));
}

#[test]
fn whom_the_gate_no_longer_admits_is_cut_off() {
    let (a, b, ours, theirs) = linked();
    let (mut near, _far) = stream(&ours, &theirs);
    b.gate.forget(a.network.device());
    b.network.recheck();
    assert_eq!(near.reader.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(ours.wait_closed(), "the other side does not know this device's key");
    assert!(matches!(a.dial(&b), Err(TransportError::Refused { .. })));
}

#[test]
fn a_stream_is_not_taken_from_whom_the_gate_no_longer_admits() {
    let (a, b, ours, theirs) = linked();
    b.gate.forget(a.network.device());
    let mut near = ours.open().unwrap();
    near.writer.write_all(b"!").unwrap();
    assert!(theirs.accept().is_none());
    assert_eq!(near.reader.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn a_port_in_use_is_named() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = Network::open(NetworkOptions { port, ..options() }, Arc::<Doorkeeper>::default()).unwrap_err();
    assert!(matches!(error, TransportError::PortInUse { port: named } if named == port), "{error}");
    assert!(error.to_string().contains("device.port"));
}

#[test]
fn why_a_device_cannot_be_reached_is_told_apart() {
    let (a, b) = sides();
    let device = b.network.device();
    let dial = |addresses: &[&str]| {
        let hints = Hints { addresses: addresses.iter().map(|&text| text.to_owned()).collect(), ..Hints::default() };
        a.network.dial(device, &hints, Duration::from_millis(400)).unwrap_err()
    };
    assert!(matches!(dial(&[]), TransportError::NoAddress { .. }));
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    let error = dial(&[&silent]);
    assert!(matches!(&error, TransportError::Unreachable { tried, .. } if *tried == [silent.clone()]), "{error}");
    let error = dial(&["not a host"]);
    assert!(matches!(&error, TransportError::Unresolved { host, .. } if host == "not a host"), "{error}");
    let own = a.network.dial(a.network.device(), &a.hints(), PATIENCE).unwrap_err();
    assert!(matches!(own, TransportError::OwnKey), "{own}");
    let c = Side::open();
    c.gate.know(a.network.device());
    // Another device lives there.
    let error = a.network.dial(device, &c.hints(), PATIENCE).unwrap_err();
    assert!(matches!(error, TransportError::Handshake { .. } | TransportError::Unreachable { .. }), "{error}");
}

#[test]
fn names_are_looked_up() {
    let (a, b) = sides();
    let port = b.network.addresses()[0].port();
    let hints = Hints { addresses: vec![format!("localhost:{port}")], ..Hints::default() };
    let link = a.network.dial(b.network.device(), &hints, PATIENCE).unwrap();
    assert_eq!(link.device(), b.network.device());
}

#[test]
fn a_flood_of_unknown_keys_leaves_room_for_those_who_are_known() {
    let (a, b) = sides();
    let strangers: Vec<_> = (0..4).map(|_| Side::open()).collect();
    thread::scope(|scope| {
        for stranger in &strangers {
            scope.spawn(|| {
                for _ in 0..10 {
                    assert!(stranger.dial(&b).is_err());
                }
            });
        }
        let ours = a.dial(&b).unwrap();
        let theirs = b.accept();
        drop(stream(&ours, &theirs));
    });
}

#[test]
fn a_link_outlives_the_networks_handle_only_to_say_that_it_is_over() {
    let (a, _b, ours, _theirs) = linked();
    drop(a);
    assert!(ours.accept().is_none());
    assert!(ours.open().is_err());
    assert_eq!(ours.wait_closed(), "this side closed it");
}

#[test]
fn options_do_not_print_the_secret() {
    assert!(!format!("{:?}", options()).contains("secret"));
}
