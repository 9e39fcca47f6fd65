//! Scenes that are made once and then copied, each with what its operation comes to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::check::{self, Reference};
use super::operations::Operation;
use super::world::{Fault, World};

/// A scene that has been made.
pub(super) struct Scene {
    template: PathBuf,
    pub(super) reference: Reference,
    /// How long the operation takes.
    pub(super) duration: Duration,
}

/// The scenes of one worker, which all take place at the same path.
pub(super) struct Scenes {
    pub(super) world: World,
    dir: PathBuf,
    made: BTreeMap<(&'static str, usize), Scene>,
}

impl Scenes {
    pub(super) fn new(program: &Path, dir: &Path) -> Result<Self, Fault> {
        let made = |error| format!("{}: {error}", dir.display());
        std::fs::create_dir_all(dir).map_err(made)?;
        let dir = dir.canonicalize().map_err(made)?;
        let world = World { dir: dir.join("world"), program: program.to_owned() };
        Ok(Self { world, dir, made: BTreeMap::new() })
    }

    /// Puts the scene up, anew: the folders as they were, and the person's edits that nobody has seen yet.
    pub(super) fn put_up(&mut self, operation: &Operation, scene: usize) -> Result<&Scene, Fault> {
        let key = (operation.name, scene);
        if !self.made.contains_key(&key) {
            let made = self
                .make(operation, scene)
                .map_err(|fault| format!("the scene {scene} of {} cannot be made: {fault}", operation.name))?;
            self.made.insert(key, made);
        }
        let made = &self.made[&key];
        put_up(&self.world, operation, scene, &made.template)?;
        Ok(made)
    }

    /// Corrects how long an operation takes, so that about as many kills as wanted come in time.
    pub(super) fn took(&mut self, operation: &Operation, scene: usize, in_time: bool) {
        if let Some(scene) = self.made.get_mut(&(operation.name, scene)) {
            scene.duration = scene.duration.mul_f64(if in_time { 1.02 } else { 0.93 });
        }
    }

    /// What was put up.
    pub(super) fn put_up_already(&self, operation: &Operation, scene: usize) -> &Scene {
        &self.made[&(operation.name, scene)]
    }

    fn make(&self, operation: &Operation, scene: usize) -> Result<Scene, Fault> {
        self.world.clear()?;
        self.world.at("", |path| std::fs::create_dir(path))?;
        (operation.prepare)(&self.world, scene)?;
        let template = self.dir.join(format!("{}-{scene}", operation.name));
        std::fs::rename(&self.world.dir, &template).map_err(|error| error.to_string())?;
        let mut took = Vec::new();
        for _ in 0..5 {
            put_up(&self.world, operation, scene, &template)?;
            let began = Instant::now();
            let mut child = self.world.start((operation.command)(&self.world, scene))?;
            child.wait().map_err(|error| error.to_string())?;
            took.push(began.elapsed());
        }
        took.sort();
        put_up(&self.world, operation, scene, &template)?;
        let reference = check::reference(&self.world, operation, scene)?;
        Ok(Scene { template, reference, duration: took[2] })
    }
}

fn put_up(world: &World, operation: &Operation, scene: usize, template: &Path) -> Result<(), Fault> {
    world.fill_from(template)?;
    check::refresh(world, operation)?;
    (operation.edit)(world, scene)
}
