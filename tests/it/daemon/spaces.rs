//! Networks of the tests' own: network namespaces joined by bridges, with routers between them that translate
//! addresses. Nothing in them reaches any other network; all of it goes when a [`Spaces`] is dropped.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::sites::skipped;

/// How a router makes many addresses into one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Translation {
    /// As routers at home do: a port outside for each inside, whoever is talked to.
    Steady,
    /// Another port for everybody who is talked to: nobody else can use it to come in.
    Symmetric,
}

/// The namespaces of one test.
pub struct Spaces {
    prefix: String,
    made: RefCell<Vec<String>>,
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).env("LC_ALL", "C").output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

fn must(program: &str, arguments: &[&str]) {
    run(program, arguments).unwrap_or_else(|error| panic!("{error}"));
}

impl Spaces {
    /// A place for namespaces. None, and it is said, where they cannot be made.
    pub fn new(test: &str) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let spaces = Self { prefix: format!("fst{}x{number}", std::process::id()), made: RefCell::default() };
        let probe = spaces.full("probe");
        let tried = run("ip", &["netns", "add", &probe]).and_then(|()| {
            spaces.made.borrow_mut().push(probe.clone());
            run("ip", &["-n", &probe, "link", "add", "probe", "type", "bridge"])?;
            run("ip", &["netns", "exec", &probe, "nft", "add", "table", "ip", "probe"])
        });
        match tried {
            Ok(()) => Some(spaces),
            Err(why) => {
                skipped(test, &format!("no network namespaces here ({why})"));
                None
            }
        }
    }

    fn full(&self, space: &str) -> String {
        format!("{}-{space}", self.prefix)
    }

    /// `ip` about a namespace.
    pub fn ip(&self, space: &str, arguments: &str) {
        let space = self.full(space);
        let mut all = vec!["-n", &space];
        all.extend(arguments.split(' '));
        must("ip", &all);
    }

    /// Rules of nftables in a namespace.
    pub fn nft(&self, space: &str, rules: &str) {
        must("ip", &["netns", "exec", &self.full(space), "nft", rules]);
    }

    /// How many packets a rule with a counter in this chain has met.
    pub fn counted(&self, space: &str, chain: &str) -> u64 {
        let output = self.command(space, "nft").args(["list", "chain", "ip"]).args(chain.split(' ')).output();
        let text = String::from_utf8(output.expect("ip runs").stdout).expect("text");
        let count = text.split("counter packets ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
        count.unwrap_or_else(|| panic!("no counter in {text}"))
    }

    /// A program in a namespace.
    pub fn command(&self, space: &str, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.full(space)]).arg(program);
        command
    }

    fn space(&self, space: &str) {
        let full = self.full(space);
        must("ip", &["netns", "add", &full]);
        self.made.borrow_mut().push(full.clone());
        let settings = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; echo 1 > /proc/sys/net/ipv4/ip_forward";
        must("ip", &["netns", "exec", &full, "sh", "-c", settings]);
        self.ip(space, "link set lo up");
    }

    /// A network that others may join.
    pub fn network(&self, network: &str) {
        self.space(network);
        self.ip(network, "link add bridge type bridge stp_state 0 mcast_snooping 0");
        self.ip(network, "link set bridge up");
    }

    /// Joins a namespace to a network, as `device` with this address. The other end of the cable is named after it.
    pub fn join(&self, space: &str, device: &str, network: &str, address: &str) {
        let other = self.full(network);
        self.ip(space, &format!("link add {device} gso_max_segs 1 type veth peer name {space} netns {other}"));
        self.ip(network, &format!("link set dev {space} master bridge up"));
        self.ip(space, &format!("address add {address} dev {device}"));
        self.ip(space, &format!("link set dev {device} up"));
    }

    /// A computer in a network, with a way out by `router`.
    pub fn computer(&self, space: &str, network: &str, address: &str, router: Option<&str>) {
        self.space(space);
        self.join(space, "eth0", network, address);
        if let Some(router) = router {
            self.ip(space, &format!("route add default via {router}"));
        }
    }

    /// A router between the network `home`, in which it is `inside`, and the network `wan`, in which it is `outside`.
    pub fn router(&self, space: &str, home: &str, inside: &str, outside: &str, translation: Translation) {
        self.space(space);
        self.join(space, "lan", home, inside);
        self.join(space, "wan", "world", outside);
        let how = match translation {
            Translation::Steady => "masquerade",
            Translation::Symmetric => "masquerade random,fully-random",
        };
        self.nft(
            space,
            &format!(
                "table ip router {{
                    chain out {{ type nat hook postrouting priority 100; oifname \"wan\" {how}; }}
                    chain own {{ type filter hook input priority 0; iifname \"wan\" ct state new drop; }}
                    chain in {{ type filter hook forward priority 0; iifname \"wan\" ct state new drop; }}
                }}"
            ),
        );
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        for space in self.made.borrow().iter() {
            if let Err(error) = run("ip", &["netns", "delete", space]) {
                skipped("cleaning up", &error);
            }
        }
    }
}
