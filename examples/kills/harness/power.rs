//! Power cuts: what the program did to the disk is recorded once, and every state that a cut may leave of it is put up.

use std::collections::{BTreeMap, BTreeSet};

use super::chance::Chance;
use super::check;
use super::disk::{Legal, Plant, Recording, State};
use super::operations::Operation;
use super::scenes::Scenes;
use super::trace;
use super::world::{Fault, World};

/// What is replayed by default: what a person relies on when it has ended, and what others were told.
pub(super) const OPERATIONS: [&str; 8] =
    ["init", "commit-one", "commit", "receive", "exchange", "bundle-apply", "config", "gc"];

/// An operation that was recorded, and the states that a cut may leave.
pub(super) struct Replay {
    recording: Recording,
    heads: BTreeMap<&'static str, String>,
    /// The states, and whether the operation had ended well before.
    pub(super) states: Vec<(State, bool)>,
    /// Whether these are all that are legal.
    pub(super) all: bool,
    /// How many changes the operation made.
    pub(super) writes: usize,
}

fn heads(world: &World, operation: &Operation) -> Result<BTreeMap<&'static str, String>, Fault> {
    operation.roots.iter().map(|root| Ok((*root, world.git(root, &["rev-parse", "main"])?))).collect()
}

impl Replay {
    /// Records an operation; at most `enough` states of it, chosen by chance if there are more.
    pub(super) fn record(
        scenes: &mut Scenes,
        operation: &Operation,
        scene: usize,
        enough: usize,
        plant: Option<Plant>,
        chance: &mut Chance,
    ) -> Result<Self, Fault> {
        scenes.put_up(operation, scene)?;
        let world = &scenes.world;
        let recording = Recording::begin(&world.dir)?;
        let calls = trace::record(world, &(operation.command)(world, scene), &world.dir.with_extension("strace"))?;
        let mut recording = recording.end(&calls)?;
        if let Some(plant) = plant {
            recording.forget(plant);
        }
        let heads = heads(world, operation)?;
        let moments = recording.moments();
        let last = moments.last().copied();
        let mut seen = BTreeSet::new();
        let mut states = Vec::new();
        let mut all = true;
        for &moment in &moments {
            let ended = Some(moment) == last;
            let (lasting, pending) = recording.at(moment);
            let legal = Legal::of(lasting, &pending);
            let here = legal.all(enough).unwrap_or_else(|| {
                all = false;
                let share = (enough / moments.len()).max(8);
                (0..share).map(|_| legal.one(&mut |end| chance.below(end))).collect()
            });
            for state in here {
                if seen.insert((state.fingerprint(), ended)) {
                    states.push((state, ended));
                }
            }
        }
        if states.len() > enough {
            all = false;
            // What may be lost after the end weighs more: it was promised.
            let mut chosen = Vec::new();
            while chosen.len() < enough {
                chosen.push(states.swap_remove(chance.below(states.len())));
            }
            states = chosen;
        }
        let writes = recording.changes();
        Ok(Self { recording, heads, states, all, writes })
    }

    /// Puts a state up, and checks it.
    pub(super) fn check(
        &self,
        scenes: &Scenes,
        operation: &Operation,
        scene: usize,
        number: usize,
    ) -> Result<(), Fault> {
        let (state, ended) = &self.states[number];
        let world = &scenes.world;
        world.clear()?;
        self.recording.put_up(state)?;
        let reference = &scenes.put_up_already(operation, scene).reference;
        let checked = || {
            if *ended && heads(world, operation)? != self.heads {
                return Err("the operation had ended well, and its revisions are not the head".to_owned());
            }
            if *ended && world.read("home/config.toml") != Some(reference.outcome.config.clone()) {
                return Err("the operation had ended well, and the configuration is not as it made it".to_owned());
            }
            check::after_interruption(world, operation, scene, reference, number.is_multiple_of(2))
        };
        checked().map_err(|fault| {
            let when = if *ended { "after" } else { "in the middle of" };
            format!("power lost {when} {} (scene {scene}, state {number}): {fault}", operation.name)
        })
    }
}
