//! Daemons that find each other through a relay of their own.

#[cfg(not(feature = "relay"))]
#[test]
fn peers_meet_at_a_relay() {
    crate::sites::skipped("peers_meet_at_a_relay", "this build lacks the cargo feature `relay`");
}

#[cfg(feature = "relay")]
mod built {
    use std::time::Duration;

    use super::super::nodes::{Node, Settings, converge, noise, tell, wait_for};
    use super::super::spaces::{Spaces, Translation};

    /// Longer than anything here takes.
    const PATIENCE: Duration = Duration::from_mins(1);
    /// For how long a way stays as it is, before it counts as lasting.
    const SETTLED: Duration = Duration::from_secs(5);

    /// Two homes, each behind a router, and a relay in the world between them, where addresses are public ones.
    struct World {
        spaces: Spaces,
        a: Node,
        b: Node,
        relay: Node,
    }

    impl World {
        /// All is there, and the relay runs.
        fn new(test: &str, translation: Translation) -> Option<Self> {
            let spaces = Spaces::new(test)?;
            spaces.network("world");
            spaces.computer("relay", "world", "198.51.100.10/24", None);
            for (computer, number) in [("a", 1), ("b", 2)] {
                let (home, router) = (format!("home{number}"), format!("router{number}"));
                spaces.network(&home);
                let (inside, outside) = (format!("10.{number}.0.1"), format!("198.51.100.{number}/24"));
                spaces.router(&router, &home, &format!("{inside}/24"), &outside, translation);
                spaces.computer(computer, &home, &format!("10.{number}.0.2/24"), Some(&inside));
            }
            let [a, b] = Node::peers(&[("a", Settings::default()), ("b", Settings::default())]);
            let mut relay = Node::relay("relay", &[&a, &b]);
            relay.start(&spaces, &["--relay-only"]);
            // One knows the certificate by its file, the other by what the relay says of it.
            let said = relay.said("relay_certificate=").expect("it says so");
            let sum = said.split("relay_certificate=").nth(1).expect("it follows").split(' ').next().expect("a word");
            let url = "relay = \"https://198.51.100.10:3340\"\nrelay_certificate";
            a.set_device(&format!("{url} = \"{sum}\""));
            b.set_device(&format!("{url} = \"{}\"", relay.certificate().display()));
            Some(Self { spaces, a, b, relay })
        }

        /// Starts one after the other: the first is at the relay before the second begins. Returns how long it took
        /// the second from then to be at the relay, and to have a link.
        fn start(&mut self) -> (Duration, Duration) {
            self.a.start(&self.spaces, &[]);
            wait_for("the first is at the relay", PATIENCE, || self.a.status().relay);
            self.b.start(&self.spaces, &[]);
            let (_, online) = wait_for("the second is at the relay", PATIENCE, || self.b.status().relay);
            let (_, linked) = wait_for("a link", PATIENCE, || self.b.link("a").and(self.a.link("b")));
            (online, linked)
        }

        fn kinds(&self) -> Option<(String, String)> {
            Some((self.a.link("b")?.kind, self.b.link("a")?.kind))
        }

        /// Both sides have and keep no other way than the relay.
        fn stay_at_the_relay(&self) {
            let start = std::time::Instant::now();
            while start.elapsed() < SETTLED {
                let kinds = self.kinds();
                assert!(kinds.is_none_or(|(a, b)| a == "relay" && b == "relay"), "{:?}", self.kinds());
                std::thread::sleep(Duration::from_millis(100));
            }
        }

        /// How fast a big file goes from one to the other, in MiB/s.
        fn speed(&self, mebibytes: usize) -> f64 {
            let content = noise(mebibytes << 20);
            self.a.write("big", &content);
            let ((), took) = wait_for("a big file", PATIENCE * 4, || self.b.has("big", &content).then_some(()));
            f64::from(u32::try_from(mebibytes).expect("small")) / took.as_secs_f64()
        }
    }

    #[test]
    fn behind_two_routers_they_find_the_direct_way() {
        let test = "behind_two_routers_they_find_the_direct_way";
        let Some(mut world) = World::new(test, Translation::Steady) else { return };
        let (online, linked) = world.start();
        let direct = || world.kinds().filter(|(a, b)| a == "direct" && b == "direct");
        let (_, direct) = wait_for("the direct way", PATIENCE, direct);
        let edit = converge(&world.a, &world.b, "direct");
        tell(&format!(
            "two routers: at the relay after {online:?}, a link {linked:?} later, direct {direct:?} later, an edit in {edit:?}"
        ));

        // They need the relay no more.
        drop(world.relay);
        converge(&world.a, &world.b, "alone");
    }

    #[test]
    fn behind_symmetric_routers_they_stay_at_the_relay() {
        let test = "behind_symmetric_routers_they_stay_at_the_relay";
        let Some(mut world) = World::new(test, Translation::Symmetric) else { return };
        world.start();
        let edit = converge(&world.a, &world.b, "relay");
        world.stay_at_the_relay();
        tell(&format!("symmetric routers: an edit in {edit:?}"));
    }

    #[test]
    fn without_udp_they_meet_at_the_relay() {
        let Some(mut world) = World::new("without_udp_they_meet_at_the_relay", Translation::Steady) else { return };
        for router in ["router1", "router2"] {
            let rules =
                "table ip wall { chain block { type filter hook forward priority -10; meta l4proto udp drop; }; }";
            world.spaces.nft(router, rules);
        }
        let (online, linked) = world.start();
        let edit = converge(&world.a, &world.b, "tcp");
        world.stay_at_the_relay();
        tell(&format!("no UDP: at the relay after {online:?}, a link {linked:?} later, an edit in {edit:?}"));
    }

    #[test]
    #[ignore = "it measures"]
    fn speeds() {
        for (what, translation) in [("direct", Translation::Steady), ("relay", Translation::Symmetric)] {
            let Some(mut world) = World::new("speeds", translation) else { return };
            world.start();
            let way = || world.kinds().filter(|(a, b)| a == what && b == what);
            wait_for(what, PATIENCE, way);
            let speed = world.speed(64);
            assert_eq!(world.kinds().map(|(a, _)| a).as_deref(), Some(what));
            tell(&format!("64 MiB, {what}: {speed:.1} MiB/s"));
        }
    }
}
