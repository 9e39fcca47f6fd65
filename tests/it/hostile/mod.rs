//! A malicious peer: it speaks the protocol, and lies in every field that it can. After whatever it said nothing outside
//! of the folder has changed, nor what git obeys in it; the repository is sound, its refs have moved to nothing that is
//! not a revision, and the next honest exchange works.

mod bundles;
mod liar;
mod limits;
mod messages;
mod races;

use std::fs;
use std::time::Duration;

use foldersync::engine::report::ExchangeReport;
use foldersync::engine::{EngineError, ExchangeOptions, Failure};
use foldersync::transport;

use self::liar::Liar;
use crate::bad_input::Before;
use crate::sites::{Site, Sites, git};

/// The first of two honest copies of a folder, about to be lied to; a folder of somebody else's beside it.
pub(super) struct Scene {
    sites: Sites,
    outside: Before,
    hooks: Before,
    config: String,
}

impl Scene {
    pub(super) fn new() -> Self {
        let sites = Sites::new(2);
        sites.sites[0].write("notes.txt", "one");
        sites.sites[0].write("sub/plan.md", "# plan");
        sites.exchange(0, 1);
        let outside = sites.dir().join("outside");
        fs::create_dir(&outside).expect("a folder");
        fs::write(outside.join("secret"), "of somebody else").expect("writable");
        let git_dir = sites.sites[0].root.join(".git");
        fs::create_dir_all(git_dir.join("hooks")).expect("a folder");
        let config = fs::read_to_string(git_dir.join("config")).expect("a configuration");
        Self { outside: Before::of(&outside), hooks: Before::of(&git_dir.join("hooks")), config, sites }
    }

    pub(super) fn victim(&self) -> &Site {
        &self.sites.sites[0]
    }

    /// What the victim makes of an exchange in which the other side says this.
    pub(super) fn hears(&self, script: impl FnOnce(&mut Liar) + Send) -> Result<ExchangeReport, EngineError> {
        let (here, there) = transport::pipe("mallory");
        let options = ExchangeOptions { patience: Duration::from_secs(20), ..ExchangeOptions::default() };
        std::thread::scope(|scope| {
            scope.spawn(move || script(&mut Liar::over(there)));
            self.victim().folder().serve(here, Some("mallory"), options)
        })
    }

    /// The exchange fails by the peer's fault, in these words, and changes nothing.
    #[track_caller]
    pub(super) fn refuses(&self, words: &str, script: impl FnOnce(&mut Liar) + Send) {
        let victim = self.victim();
        let refs = || victim.git(&["for-each-ref"]);
        let before = (victim.head(), victim.files(), refs());
        let error = self.hears(script).expect_err("that is no honest exchange");
        assert!(error.to_string().contains(words), "no {words:?} in: {error}");
        assert_ne!(error.failure(), Failure::Busy, "{error}");
        assert_eq!((victim.head(), victim.files(), refs()), before, "{error}");
        self.goes_on();
    }

    /// All is as it must be whatever was said, and an honest exchange works.
    #[track_caller]
    pub(super) fn goes_on(&self) {
        let [victim, honest] = &self.sites.sites[..] else { panic!("two") };
        self.outside.is_untouched();
        self.hooks.is_untouched();
        let config = fs::read_to_string(victim.path(".git/config")).expect("a configuration");
        assert_eq!(config, self.config, "nothing is set");
        for name in files_below(&victim.path(".git/foldersync")) {
            assert!(!name.contains("tmp_foldersync"), "{name} is left in quarantine");
        }
        for line in victim.git(&["for-each-ref", "--format=%(objecttype) %(refname)"]).lines() {
            assert!(line.starts_with("commit "), "{line}");
        }
        honest.write("honest", "work");
        self.sites.exchange(0, 1);
        assert_eq!((victim.head(), victim.read("honest")), (honest.head(), "work".to_owned()));
        let fsck = git(&victim.root, &["fsck", "--full", "--strict", "--no-dangling", "--no-progress"]);
        assert!(fsck.status.success() && fsck.stderr.is_empty(), "{fsck:?}");
    }
}

fn files_below(dir: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.map(|path| path.display().to_string()).collect()
}
