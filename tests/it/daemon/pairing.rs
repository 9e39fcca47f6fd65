//! `share` on one side and `join` on the other, and what becomes of those who should not come in.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::time::Duration;

use foldersync::config::Home;
use foldersync::daemon::control::{Answer, Ask};
use foldersync::transport::ticket::Ticket;

use super::{Running, device, name, until_file};
use crate::support::{Output, TestEnv, end_of};

/// A `foldersync share` that has printed its ticket and waits.
struct Sharing {
    child: Child,
    ticket: String,
}

impl Sharing {
    fn start(env: &TestEnv, home: &Home, arguments: &[&str]) -> Self {
        let mut command = env.foldersync("");
        command.arg("--home").arg(home.dir()).arg("share").args(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command runs");
        let mut ticket = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut ticket).expect("a line");
        if ticket.is_empty() {
            let mut said = String::new();
            child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
            panic!("no ticket: {said}");
        }
        Self { child, ticket: ticket.trim().to_owned() }
    }

    /// What it said besides, when it has ended well.
    fn ended(self) -> String {
        let output = end_of(self.child);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        said
    }
}

fn join(env: &TestEnv, home: &Home, arguments: &[&str]) -> Output {
    let mut command = env.foldersync("");
    command.arg("--home").arg(home.dir()).arg("join").args(arguments);
    env.finish(command)
}

fn foldersync(env: &TestEnv, home: &Home, arguments: &[&str]) -> Output {
    let mut command = env.foldersync("");
    command.arg("--home").arg(home.dir()).args(arguments);
    env.finish(command)
}

/// A device `nas` that shares `docs`, and a device `laptop`, both with daemons.
fn two(env: &TestEnv) -> (Running, Running) {
    env.write("docs/notes.txt", "from the nas\n");
    (Running::start(env, &device(env, "nas")), Running::start(env, &device(env, "laptop")))
}

/// The same, paired: `copy` is the laptop's copy of `docs`.
pub(super) fn paired(env: &TestEnv, options: &[&str]) -> (Running, Running) {
    let (nas, laptop) = two(env);
    let sharing = Sharing::start(env, &nas.home, &[&["docs"], options].concat());
    join(env, &laptop.home, &[&sharing.ticket, "copy"]).ended(0);
    sharing.ended();
    (nas, laptop)
}

#[test]
fn share_and_join_is_all_it_takes() {
    let env = TestEnv::new();
    let (nas, laptop) = two(&env);
    let sharing = Sharing::start(&env, &nas.home, &["docs"]);
    let ticket = sharing.ticket.clone();
    let joined = join(&env, &laptop.home, &[&ticket, "copy"]).ended(0);
    assert!(joined.stderr.starts_with("joined `docs` of nas ("), "{joined}");
    let said = sharing.ended();
    assert!(said.contains("laptop (") && said.contains(") has joined `docs`, as peer `laptop`"), "{said}");
    // The first copy is there when `join` ends.
    assert_eq!(env.read("copy/notes.txt"), "from the nas\n");

    env.write("docs/notes.txt", "edited on the nas\n");
    until_file(&env.path("copy/notes.txt"), "edited on the nas\n");
    env.write("copy/notes.txt", "edited on the laptop\n");
    until_file(&env.path("docs/notes.txt"), "edited on the laptop\n");

    for (running, peer) in [(&nas, "laptop"), (&laptop, "nas")] {
        let config = running.home.load().unwrap();
        assert!(config.peers[&name(peer)].address.to_string().starts_with("foldersync://"), "{config:?}");
        assert_eq!(config.peers[&name(peer)].folders, [name("docs")]);
        // Whoever reads the logs, or what is kept, cannot join with that.
        let secret: Ticket = ticket.parse().unwrap();
        let secret = secret.secret.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        let kept = fs::read_to_string(running.home.dir().join("state/offers.json")).unwrap_or_default();
        for text in [running.log(), kept] {
            assert!(!text.contains(&secret) && !text.contains(&ticket) && !text.contains(&ticket[..60]), "{text}");
        }
    }
}

#[test]
fn a_third_device_joins_and_an_edit_on_any_reaches_all() {
    let env = TestEnv::new();
    let (nas, _laptop) = paired(&env, &[]);
    let phone = Running::start(&env, &device(&env, "phone"));
    let sharing = Sharing::start(&env, &nas.home, &["docs"]);
    join(&env, &phone.home, &[&sharing.ticket, "third"]).ended(0);
    sharing.ended();
    let copies = ["docs", "copy", "third"];
    for from in copies {
        env.write(&format!("{from}/by {from}"), from);
        for at in copies {
            until_file(&env.path(&format!("{at}/by {from}")), from);
        }
    }
}

#[test]
fn a_kill_in_the_middle_of_a_pairing_leaves_both_able_to_pair() {
    for step in 0..8_u64 {
        let env = TestEnv::new();
        let (nas, laptop) = (device(&env, "nas"), device(&env, "laptop"));
        env.write("docs/notes.txt", "from the nas\n");
        let mut sharing = Sharing::start(&env, &nas, &["docs", "--loopback"]);
        let mut command = env.foldersync("");
        command.arg("--home").arg(laptop.dir()).args(["join", &sharing.ticket, "copy", "--loopback"]);
        let mut joining = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the command runs");
        // At another moment each time.
        std::thread::sleep(Duration::from_millis(15 * step));
        let (first, second) =
            if step % 2 == 0 { (&mut joining, &mut sharing.child) } else { (&mut sharing.child, &mut joining) };
        for child in [first, second] {
            child.kill().expect("killed");
            child.wait().expect("it is gone");
        }
        let sharing = Sharing::start(&env, &nas, &["docs", "--once", "--loopback"]);
        join(&env, &laptop, &[&sharing.ticket, "copy", "--once", "--loopback"]).ended(0);
        assert_eq!(env.read("copy/notes.txt"), "from the nas\n", "after {step}");
        sharing.ended();
        for home in [&nas, &laptop] {
            let config = home.load().unwrap();
            assert_eq!((config.peers.len(), config.folders.len()), (1, 1), "after {step}: {config:?}");
        }
    }
}

#[test]
fn who_has_its_copy_already_joins_again() {
    let env = TestEnv::new();
    let (nas, laptop) = (device(&env, "nas"), device(&env, "laptop"));
    env.write("docs/notes.txt", "from the nas\n");
    for _ in 0..3 {
        let sharing = Sharing::start(&env, &nas, &["docs", "--once", "--loopback"]);
        join(&env, &laptop, &[&sharing.ticket, "copy", "--once", "--loopback"]).ended(0);
        let said = sharing.ended();
        assert!(said.contains("`laptop` has its copy of `docs`"), "{said}");
    }
}

#[test]
fn without_daemons_the_commands_serve_by_themselves() {
    let env = TestEnv::new();
    let (nas, laptop) = (device(&env, "nas"), device(&env, "laptop"));
    env.write("docs/notes.txt", "from the nas\n");
    let refused = foldersync(&env, &nas, &["share", "docs", "--no-wait"]).ended(2);
    assert!(refused.stderr.contains("no daemon is running"), "{refused}");
    let sharing = Sharing::start(&env, &nas, &["docs", "--once", "--loopback"]);
    env.write("ticket", format!("{}\n", sharing.ticket));
    let mut command = env.foldersync("");
    command.arg("--home").arg(laptop.dir()).args(["join", "-", "copy", "--once", "--loopback", "--json"]);
    command.stdin(fs::File::open(env.path("ticket")).unwrap());
    let joined = env.finish(command).ended(0).json();
    assert_eq!((joined["peer"].as_str(), joined["read_only"].as_bool()), (Some("nas"), Some(false)));
    assert_eq!(env.read("copy/notes.txt"), "from the nas\n");
    let said = sharing.ended();
    assert!(said.contains("`laptop` has its copy of `docs`"), "{said}");
}

#[test]
fn a_ticket_that_has_expired_is_refused_on_both_sides() {
    let env = TestEnv::new();
    let (nas, laptop) = two(&env);
    // It ends when the ticket is over.
    let shared = foldersync(&env, &nas.home, &["share", "docs", "--expires", "1s"]).ended(6);
    assert!(shared.stderr.contains("the ticket has expired; nobody came"), "{shared}");
    let refused = join(&env, &laptop.home, &[shared.stdout.trim(), "copy"]).ended(6);
    assert!(
        refused.stderr.contains("the ticket has expired") && refused.stderr.contains("ask for a new one"),
        "{refused}"
    );
    assert!(!env.path("copy").exists());
    assert!(nas.log().contains("came to join and was refused: the ticket has expired"), "{}", nas.log());
    assert!(laptop.home.load().unwrap().peers.is_empty() && nas.home.load().unwrap().peers.is_empty());
}

#[test]
fn a_ticket_serves_once() {
    let env = TestEnv::new();
    let (nas, laptop) = two(&env);
    let sharing = Sharing::start(&env, &nas.home, &["docs"]);
    let ticket = sharing.ticket.clone();
    let own = join(&env, &nas.home, &[&ticket, "own"]).ended(2);
    assert!(own.stderr.contains("this device made the ticket itself"), "{own}");
    // What stands there is found out before the ticket is used up.
    env.write("full/mine.txt", "mine\n");
    let full = join(&env, &laptop.home, &[&ticket, "full"]).ended(2);
    assert!(full.stderr.contains("neither empty nor a copy of this folder"), "{full}");
    join(&env, &laptop.home, &[&ticket, "copy"]).ended(0);
    sharing.ended();

    let third = Running::start(&env, &device(&env, "phone"));
    let refused = join(&env, &third.home, &[&ticket, "other"]).ended(6);
    assert!(refused.stderr.contains("the ticket was used before; each serves once"), "{refused}");
    assert!(nas.log().contains("came to join and was refused: the ticket was used before"), "{}", nas.log());
    assert_eq!(nas.home.load().unwrap().peers.len(), 1);
    assert!(!env.path("other").exists());
}

#[test]
fn who_does_not_know_the_secret_learns_nothing() {
    let env = TestEnv::new();
    let (nas, laptop) = two(&env);
    let sharing = Sharing::start(&env, &nas.home, &["docs"]);
    let mut ticket: Ticket = sharing.ticket.parse().unwrap();
    ticket.secret[0] ^= 1;
    ticket.folder = "guess".to_owned();
    for _ in 0..5 {
        let refused = join(&env, &laptop.home, &[&ticket.to_text()]).ended(6);
        assert!(refused.stderr.contains("the ticket's secret is none that is on offer"), "{refused}");
        assert!(!refused.stderr.contains("docs"), "{refused}");
    }
    // From then on nobody is heard for a while.
    let refused = join(&env, &laptop.home, &[&ticket.to_text()]).ended(6);
    assert!(refused.stderr.contains("hears nobody new at the moment"), "{refused}");
    assert!(!env.path("guess").exists());
    let mut sharing = sharing.child;
    sharing.kill().unwrap();
    sharing.wait().unwrap();
}

#[test]
fn who_may_only_read_sends_nothing_and_both_sides_say_so() {
    let env = TestEnv::new();
    let (nas, laptop) = paired(&env, &["--read-only"]);
    env.write("docs/more.txt", "more\n");
    until_file(&env.path("copy/more.txt"), "more\n");
    env.write("copy/notes.txt", "edited on the laptop\n");
    let note = |running: &Running, peer: &str, words: &str| {
        running.until(words, |status| {
            let pair = status.peers.get(&name(peer)).and_then(|peer| peer.folders.get(&name("docs")));
            pair.and_then(|pair| pair.note.as_deref()).is_some_and(|note| note.contains(words))
        });
    };
    note(&laptop, "nas", "what is new here is not sent");
    note(&nas, "laptop", "has something new, which is not taken");
    // Not even when somebody asks for it.
    let (answers, last) = laptop.ask(&Ask::Exchange { pairs: vec![(name("docs"), name("nas"))] });
    assert_eq!(last, Answer::Done);
    let Some(Answer::Exchanged(exchanged)) = answers.first() else { panic!("{answers:?}") };
    let report = exchanged.outcome.as_ref().unwrap_or_else(|refusal| panic!("{refusal:?}"));
    assert_eq!((report.sent, report.received), (0, 0));
    assert_eq!(env.read("docs/notes.txt"), "from the nas\n");
}

#[test]
fn a_peer_that_is_removed_is_cut_off_at_once() {
    let env = TestEnv::new();
    let (nas, laptop) = paired(&env, &[]);
    nas.until("the laptop is connected", |status| status.peers[&name("laptop")].link.is_some());
    laptop.until("the nas is connected", |status| status.peers[&name("nas")].link.is_some());
    foldersync(&env, &nas.home, &["peer", "remove", "laptop"]).ended(0);
    laptop.until("the laptop is cut off", |status| status.peers[&name("nas")].link.is_none());
    env.write("copy/notes.txt", "edited on the laptop\n");
    let (answers, _) = laptop.ask(&Ask::Exchange { pairs: vec![(name("docs"), name("nas"))] });
    let Some(Answer::Exchanged(exchanged)) = answers.first() else { panic!("{answers:?}") };
    let refusal = exchanged.outcome.as_ref().expect_err("it is refused");
    assert!(refusal.message.contains("it does not know this device's key"), "{refusal:?}");
    assert_eq!(env.read("docs/notes.txt"), "from the nas\n");
    // A new ticket makes it a peer again, in the place where it was.
    let sharing = Sharing::start(&env, &nas.home, &["docs"]);
    join(&env, &laptop.home, &[&sharing.ticket, "copy"]).ended(0);
    sharing.ended();
    until_file(&env.path("docs/notes.txt"), "edited on the laptop\n");
}
