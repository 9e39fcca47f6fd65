//! What a run does: a list of steps, made from a seed and from nothing else.

/// Numbers that look random and are the same for the same seed (SplitMix64, by Steele, Lea and Flood).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("below a usize")
    }

    pub(crate) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// Where files may be. What ends in `.txt` is merged by lines; what ends in `.tmp` may be ignored.
pub(crate) const PATHS: [&str; 14] =
    ["a", "A", "b.txt", "c", "d/a", "d/b.txt", "d/e/a", "a/x", "c/y/z", ".h", "d/.h", "Ä", "x.tmp", "plain"];
/// Of those, the ones that neither contain another nor lie in one.
pub(crate) const SIMPLE: [&str; 2] = [".h", "plain"];
pub(crate) const IGNORED: &str = "*.tmp\n";

/// One thing that a person does, or a program for them.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    Write {
        node: usize,
        path: &'static str,
        lines: usize,
    },
    Append {
        node: usize,
        path: &'static str,
    },
    Remove {
        node: usize,
        path: &'static str,
    },
    Rename {
        node: usize,
        from: &'static str,
        to: &'static str,
    },
    Folder {
        node: usize,
        path: &'static str,
    },
    Executable {
        node: usize,
        path: &'static str,
    },
    Link {
        node: usize,
        path: &'static str,
    },
    Ignore {
        node: usize,
    },
    Capture {
        node: usize,
    },
    Exchange {
        from: usize,
        to: usize,
        way: Way,
    },
    Gather {
        node: usize,
    },
    Revert {
        node: usize,
        path: &'static str,
        back: usize,
    },
    Resolve {
        node: usize,
        how: usize,
    },
    /// A bundle of the whole history, or of what a peer is not known to have, is put on a stick.
    Bundle {
        node: usize,
        to: Option<usize>,
    },
    /// A bundle from the stick is applied, perhaps not for the first time.
    Deliver {
        node: usize,
        bundle: usize,
    },
    Part {
        a: usize,
        b: usize,
    },
    Heal,
    Wait {
        node: usize,
        seconds: u64,
    },
    /// From now on, a loss of power takes what was not synced.
    Unsynced {
        node: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Both,
    Push,
    Pull,
}

/// What goes wrong in the middle of an action, at one of the nodes that take part.
#[derive(Debug, Clone)]
pub(crate) struct Trouble {
    /// Whether it is the second of two.
    pub(crate) second: bool,
    /// Before which step that changes the disk; for [`What::Meddle`], whether power is lost, and when.
    pub(crate) at: usize,
    pub(crate) what: What,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    /// The process is killed.
    Kill,
    /// The computer loses power; the number chooses what of the unsynced is lost.
    PowerLoss(u64),
    /// So many steps find the disk full.
    Full(usize),
    /// The person edits a file.
    Edit(&'static str),
    /// The person edits the very file that is about to be replaced, if one is; soon after, power may be lost.
    Meddle,
    /// The connection is cut after so many bytes.
    Cut(u64),
    /// A bit flips on the wire.
    Flip(u64),
}

#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) action: Action,
    pub(crate) trouble: Option<Trouble>,
}

/// A whole run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// By how many seconds each node's clock is wrong.
    pub(crate) clocks: Vec<i64>,
    /// Whether every file is kept in chunks, as large files are.
    pub(crate) in_chunks: bool,
    pub(crate) steps: Vec<Step>,
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        // The first numbers of neighbouring seeds are alike.
        random.next();
        let count = random.pick(&[2, 2, 2, 3, 3, 4, 5]);
        let clocks = (0..count).map(|_| random.pick(&[0, 0, 1, -3, 3600, -86_400 * 400])).collect();
        let in_chunks = random.one_in(4);
        let length = 8 + random.below(5 * count + 6);
        let mut steps: Vec<Step> = (0..length).map(|_| step(&mut random, count)).collect();
        if random.one_in(4) {
            let at = random.below(steps.len());
            steps.splice(at..at, meddling(&mut random, count));
        }
        // Every run has a crash and a partition in it.
        let at = random.below(steps.len());
        steps.insert(at, Step { action: Action::Part { a: 0, b: 1 + random.below(count - 1) }, trouble: None });
        let at = random.below(steps.len());
        let crash = crash(&mut random);
        let action = work(&mut random, count, true);
        let node = action.nodes()[usize::from(crash.second).min(action.nodes().len() - 1)];
        steps.insert(at, Step { action, trouble: Some(crash) });
        steps.insert(random.below(at + 1), Step { action: Action::Unsynced { node }, trouble: None });
        Self { seed, clocks, in_chunks, steps }
    }
}

impl Action {
    /// The nodes at which an engine works, and its disk changes step by step.
    pub(crate) fn nodes(&self) -> Vec<usize> {
        match *self {
            Self::Capture { node }
            | Self::Gather { node }
            | Self::Revert { node, .. }
            | Self::Resolve { node, .. }
            | Self::Bundle { node, .. }
            | Self::Deliver { node, .. } => vec![node],
            Self::Exchange { from, to, .. } => vec![from, to],
            _ => Vec::new(),
        }
    }
}

fn crash(random: &mut Random) -> Trouble {
    let limit = random.pick(&[12, 80]);
    let at = random.below(limit);
    let what = if random.one_in(2) { What::Kill } else { What::PowerLoss(random.next()) };
    Trouble { second: random.one_in(2), at, what }
}

/// A file that two have is changed by one, and by the other at the very moment in which the change arrives.
fn meddling(random: &mut Random, count: usize) -> Vec<Step> {
    let (from, path) = (random.below(count), random.pick(&PATHS));
    let to = (from + 1 + random.below(count - 1)) % count;
    let write = Action::Write { node: from, path, lines: 3 };
    let exchange = |way| Action::Exchange { from, to, way };
    let trouble = Trouble { second: true, at: 0, what: What::Meddle };
    let plain = [Action::Heal, write.clone(), exchange(Way::Both), write];
    let plain = plain.into_iter().map(|action| Step { action, trouble: None });
    plain.chain([Step { action: exchange(Way::Push), trouble: Some(trouble) }]).collect()
}

fn trouble(random: &mut Random, exchanges: bool) -> Trouble {
    let limit = random.pick(&[12, 80]);
    let at = random.below(limit);
    let bytes = 1 + random.next() % 4000;
    let what = match random.below(if exchanges { 8 } else { 4 }) {
        0 | 1 => return crash(random),
        2 => What::Full(1 + random.below(20)),
        3 => What::Edit(random.pick(&PATHS)),
        // Behind the first message: that bytes arrive as they were sent is the channel's matter, but for bundles.
        4 => What::Flip(700 + bytes),
        5 => What::Meddle,
        _ => What::Cut(bytes),
    };
    Trouble { second: random.one_in(2), at, what }
}

/// An action in which an engine works. Where something goes wrong in it, what travels goes one way, so that the outcome
/// does not depend on which thread was faster.
fn work(random: &mut Random, count: usize, troubled: bool) -> Action {
    let node = random.below(count);
    match random.below(14) {
        0..3 => Action::Capture { node },
        3 => Action::Gather { node },
        4 => Action::Revert { node, path: random.pick(&PATHS), back: random.below(3) },
        5 => Action::Resolve { node, how: random.below(3) },
        6 if !troubled => Action::Bundle { node, to: random.one_in(2).then(|| random.below(count)) },
        6 | 7 => Action::Deliver { node, bundle: random.below(8) },
        _ => {
            let to = (node + 1 + random.below(count - 1)) % count;
            let ways: &[Way] = if troubled { &[Way::Push, Way::Pull] } else { &[Way::Both, Way::Both, Way::Push] };
            Action::Exchange { from: node, to, way: random.pick(ways) }
        }
    }
}

fn step(random: &mut Random, count: usize) -> Step {
    let (node, path) = (random.below(count), random.pick(&PATHS));
    let action = match random.below(30) {
        0..7 => Action::Write { node, path, lines: random.pick(&[0, 1, 3, 3, 40]) },
        7..10 => Action::Append { node, path },
        10..12 => Action::Remove { node, path },
        12 => Action::Rename { node, from: path, to: random.pick(&PATHS) },
        13 => match random.below(4) {
            0 => Action::Folder { node, path },
            1 => Action::Link { node, path },
            2 => Action::Ignore { node },
            _ => Action::Executable { node, path },
        },
        14 => Action::Part { a: node, b: random.below(count) },
        15 => Action::Heal,
        16 => Action::Wait { node, seconds: 1 + random.next() % 100_000 },
        17 => Action::Unsynced { node },
        _ => {
            let troubled = random.one_in(4);
            let action = work(random, count, troubled);
            let exchanges = matches!(action, Action::Exchange { .. });
            let trouble = troubled.then(|| trouble(random, exchanges));
            return Step { action, trouble };
        }
    };
    Step { action, trouble: None }
}
