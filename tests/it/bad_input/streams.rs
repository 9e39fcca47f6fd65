//! Connections that are not what they should be: programs that say something else, cuts and damage at every place.

use std::thread;
use std::time::Duration;

use foldersync::engine::report::ExchangeReport;
use foldersync::engine::{Address, EngineError, ExchangeOptions, Failure, PeerTarget};
use foldersync::transport::{self, Faults};
use rstest::rstest;

use crate::sites::{Site, Sites};

fn through(program: &str, args: &[&str]) -> PeerTarget {
    let args = args.iter().map(Into::into).collect();
    let address = Address::Command(program.into(), args);
    PeerTarget { name: "p".to_owned(), address, send: true, receive: true, join: true }
}

/// The preamble, as `printf` takes it.
const PREAMBLE: &str = r"foldersync/1\r\n\377\n";

#[rstest]
#[case::text("echo hello; cat", Failure::Refused, &["does not speak foldersync", "`hello\\n"])]
#[case::greeting_then_nothing("echo Last login: today; cat >/dev/null", Failure::Refused, &["`Last login: today\\n"])]
#[case::echo("cat", Failure::Refused, &["both sides are the same copy"])]
#[case::closes_at_once("exit 0", Failure::Unreachable, &["the connection ended too early"])]
#[case::fails("echo no entry >&2; exit 7", Failure::Unreachable, &["no entry", "exit status: 7"])]
#[case::too_long("printf 'PREAMBLE\\001\\177\\377\\377\\377'; cat >/dev/null", Failure::Refused, &["2147483647 bytes"])]
#[case::unknown_type("printf 'PREAMBLE\\011\\000\\000\\000\\000'; cat >/dev/null", Failure::Refused, &["unknown type 0x09"])]
#[case::not_cbor("printf 'PREAMBLE\\001\\000\\000\\000\\001x'; cat >/dev/null", Failure::Refused, &["cannot be read"])]
#[case::lines_changed("printf 'foldersync/1\\n'; cat >/dev/null", Failure::Refused, &["the connection changes what is sent"])]
fn a_peer_that_does_not_keep_to_the_protocol(#[case] script: &str, #[case] failure: Failure, #[case] words: &[&str]) {
    let sites = Sites::new(1);
    let a = &sites.sites[0];
    a.write("f", "1");
    a.capture();
    let (head, files) = (a.head(), a.files());
    let target = through("sh", &["-c", &script.replace("PREAMBLE", PREAMBLE)]);
    let error = a.folder().exchange(&target, false).expect_err("that is no peer");
    assert_eq!(error.failure(), failure, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "no {word:?} in: {error}");
    }
    assert_eq!((a.head(), a.files()), (head, files));
    a.check();
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let sites = Sites::new(1);
    let a = &sites.sites[0];
    let program = sites.dir().join("no-such-program");
    let error = a.folder().exchange(&through(program.to_str().expect("text"), &[]), false).expect_err("nothing there");
    assert_eq!(error.failure(), Failure::Unreachable);
    assert!(error.to_string().contains("no-such-program"), "{error}");
}

#[test]
fn a_peer_that_says_nothing_is_given_up() {
    let sites = Sites::new(2);
    let (here, _there) = transport::pipe("a silent one");
    let options = ExchangeOptions { patience: Duration::from_millis(300), ..ExchangeOptions::default() };
    let error = sites.sites[0].folder().serve(here, None, options).expect_err("nobody answers");
    assert_eq!(error.failure(), Failure::Unreachable, "{error}");
    assert!(error.to_string().contains("a silent one"), "{error}");
    sites.exchange(0, 1);
}

/// An exchange over a connection whose first end has faults.
fn with_faults(sites: &Sites, reading: Faults, writing: Faults) -> [Result<ExchangeReport, EngineError>; 2] {
    let (here, there) = transport::pipe("the other");
    let here = here.with_faults(reading, writing);
    let options = ExchangeOptions { join: true, patience: Duration::from_millis(600), ..ExchangeOptions::default() };
    let [a, b] = &sites.sites[..] else { panic!("two") };
    thread::scope(|scope| {
        let other = scope.spawn(|| b.folder().serve(there, None, options));
        [a.folder().serve(here, None, options), other.join().expect("no panic")]
    })
}

/// Edits on both sides, whose contents must all be in the history in the end.
fn edit(site: &Site, round: u64) {
    site.write("shared.txt", format!("{} {round}", site.name));
    site.write(&format!("of {}/{round}", site.name), format!("{} only {round}", site.name));
}

/// How many places are tried.
const ROUNDS: u64 = 32;

/// Exchanges with a fault at ever later places, each followed by one without.
fn faults_everywhere(step: u64, fault: impl Fn(u64) -> Faults, reading: bool) -> u64 {
    let sites = Sites::new(2);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    edit(a, 0);
    sites.exchange(0, 1);
    let mut failures = 0;
    for round in 1..=ROUNDS {
        edit(a, round);
        edit(b, round);
        let (wanted_a, wanted_b) = (a.files(), b.files());
        let before = [a.head(), b.head()];
        let fault = fault(round * step);
        let (r, w) = if reading { (fault, Faults::NONE) } else { (Faults::NONE, fault) };
        let results = with_faults(&sites, r, w);
        let failed = results.iter().any(Result::is_err);
        failures += u64::from(failed);
        for (site, wanted, before) in [(a, &wanted_a, before[0]), (b, &wanted_b, before[1])] {
            if let Some(before) = before {
                site.git(&["merge-base", "--is-ancestor", &before.to_string(), "main"]);
            }
            // What this side wrote stands, here or in history.
            let history = site.history();
            for standing in wanted.values() {
                if let crate::sites::Standing::File { content, .. } = standing {
                    let id = foldersync::store::object_id(foldersync::store::ObjectKind::Blob, content).to_string();
                    assert!(history.contains(&id), "{:?} of {} is lost", content.escape_ascii().to_string(), site.name);
                }
            }
        }
        sites.exchange(1, 0);
        assert_eq!(a.head(), b.head(), "round {round}: {results:?}");
        assert_eq!(a.files(), b.files());
    }
    sites.settle();
    failures
}

#[rstest]
#[case::what_is_read(true)]
#[case::what_is_written(false)]
fn a_connection_that_is_cut_anywhere_loses_nothing(#[case] reading: bool) {
    let failures = faults_everywhere(71, Faults::cut, reading);
    assert!(failures > 15, "only {failures} cuts");
}

#[rstest]
#[case::what_is_read(true)]
#[case::what_is_written(false)]
fn a_bit_that_is_flipped_anywhere_loses_nothing(#[case] reading: bool) {
    // A flipped bit need not stop anything (a name for people): it must only not do harm.
    let failures = faults_everywhere(67, Faults::flip, reading);
    assert!(failures > 10, "only {failures} were noticed");
}
