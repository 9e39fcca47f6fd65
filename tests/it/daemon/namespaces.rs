//! Daemons in networks of all kinds: a local one, behind routers that translate, with loss, with cuts.

use std::time::Duration;

use super::nodes::{Node, Settings, converge, noise, tell, wait_for};
use super::spaces::Spaces;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_mins(1);
/// Within what time a lost connection is noticed.
const NOTICED: Duration = Duration::from_secs(15);

fn quiet(addresses: &[(&'static str, &'static str)]) -> Settings {
    Settings { device: "local_discovery = false".to_owned(), addresses: addresses.to_vec() }
}

/// Two computers in one network.
fn local(spaces: &Spaces) {
    spaces.network("lan");
    spaces.computer("a", "lan", "10.0.0.1/24", Some("10.0.0.254"));
    spaces.computer("b", "lan", "10.0.0.2/24", Some("10.0.0.254"));
}

fn start(spaces: &Spaces, nodes: [&mut Node; 2]) {
    for node in nodes {
        node.start(spaces, &[]);
    }
}

/// Two in a local network that know each other's addresses, and are in step.
fn neighbours(spaces: &Spaces) -> (Node, Node) {
    local(spaces);
    let known = [("a", quiet(&[("b", "10.0.0.2")])), ("b", quiet(&[("a", "10.0.0.1")]))];
    let [mut a, mut b] = Node::peers(&known);
    start(spaces, [&mut a, &mut b]);
    converge(&a, &b, "before");
    (a, b)
}

#[test]
fn in_a_local_network_they_find_each_other() {
    let Some(spaces) = Spaces::new("in_a_local_network_they_find_each_other") else { return };
    local(&spaces);
    let [mut a, mut b] = Node::peers(&[("a", Settings::default()), ("b", Settings::default())]);
    start(&spaces, [&mut a, &mut b]);
    let (link, took) = wait_for("a link", PATIENCE, || a.link("b"));
    assert_eq!(link.kind, "local", "{link:?}");
    let edit = converge(&a, &b, "lan");
    tell(&format!("local network: found after {took:?}, an edit in {edit:?}"));
}

#[test]
fn a_cut_is_noticed_and_mended_when_the_cable_is_back() {
    let Some(spaces) = Spaces::new("a_cut_is_noticed_and_mended_when_the_cable_is_back") else { return };
    let (a, b) = neighbours(&spaces);

    spaces.ip("lan", "link set dev b down");
    a.write("cut at a", "one");
    b.write("cut at b", "two");
    let ((), lost_a) = wait_for("a notices", NOTICED, || a.link("b").is_none().then_some(()));
    let ((), lost_b) = wait_for("b notices", NOTICED, || b.link("a").is_none().then_some(()));
    assert!(!a.has("cut at b", "two") && !b.has("cut at a", "one"));

    spaces.ip("lan", "link set dev b up");
    let both = || (a.has("cut at b", "two") && b.has("cut at a", "one")).then_some(());
    let ((), back) = wait_for("both edits on both sides", PATIENCE, both);
    tell(&format!("a cut: noticed after {lost_a:?} (and {lost_b:?} more), mended {back:?} after the return"));
    converge(&a, &b, "after");
}

#[test]
fn an_address_that_changes_is_followed() {
    let Some(spaces) = Spaces::new("an_address_that_changes_is_followed") else { return };
    let (a, b) = neighbours(&spaces);

    spaces.ip("b", "address flush dev eth0");
    spaces.ip("b", "address add 10.0.0.22/24 dev eth0");
    spaces.ip("b", "route add default via 10.0.0.254");
    let edit = converge(&a, &b, "after");
    let moved = || a.link("b").filter(|link| link.remote.starts_with("10.0.0.22:"));
    let (_, seen) = wait_for("the new address is seen", PATIENCE, moved);
    tell(&format!("a new address: an edit in {edit:?}, shown {seen:?} later"));
}

#[test]
fn with_every_twentieth_packet_lost_megabytes_arrive() {
    let Some(spaces) = Spaces::new("with_every_twentieth_packet_lost_megabytes_arrive") else { return };
    local(&spaces);
    for computer in ["a", "b"] {
        let rules = "table ip loss { chain in { type filter hook input priority 0; \
            meta l4proto udp numgen random mod 100 < 5 counter drop; }; }";
        spaces.nft(computer, rules);
    }
    let known = [("a", quiet(&[("b", "10.0.0.2")])), ("b", quiet(&[("a", "10.0.0.1")]))];
    let [mut a, mut b] = Node::peers(&known);
    start(&spaces, [&mut a, &mut b]);
    converge(&a, &b, "small");
    let content = noise(4 << 20);
    a.write("big", &content);
    let ((), took) = wait_for("4 MiB", PATIENCE, || b.has("big", &content).then_some(()));
    let lost = spaces.counted("a", "loss in") + spaces.counted("b", "loss in");
    assert!(lost > 50, "{lost} packets lost: it was no loss to speak of");
    tell(&format!("5 % loss: 4 MiB in {took:?}, {lost} packets lost"));
}
