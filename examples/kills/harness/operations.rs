//! What is interrupted: for each operation, how its scene is made, what the person does then, and the command.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use super::world::{Fault, World};

/// One operation of the program that runs to its end by itself.
pub(super) struct Operation {
    pub(super) name: &'static str,
    /// How many scenes there are, from small to larger ones, or of different kinds.
    pub(super) scenes: usize,
    /// Makes the scene, once.
    pub(super) prepare: fn(&World, usize) -> Result<(), Fault>,
    /// What the person does then; no process has seen it yet.
    pub(super) edit: fn(&World, usize) -> Result<(), Fault>,
    pub(super) command: fn(&World, usize) -> Command,
    /// The folders that it is about.
    pub(super) roots: &'static [&'static str],
    /// Whether what stands in the folders before is in their history afterwards, whatever the operation puts there.
    pub(super) captures: bool,
    /// Whether the folders are the same afterwards.
    pub(super) meets: bool,
    /// Whether the files that it writes have times of their own.
    pub(super) sets_times: bool,
    /// Whether several processes take part, each of which may be the one that is killed.
    pub(super) far_end: bool,
}

const PLAIN: Operation = Operation {
    name: "",
    scenes: 3,
    prepare: |world, scene| base(world, FILES[scene]),
    edit: |_, _| Ok(()),
    command: |world, _| world.command([""; 0]),
    roots: &["a"],
    captures: true,
    meets: false,
    sets_times: false,
    far_end: false,
};

const TWO: Operation =
    Operation { prepare: |world, scene| two(world, FILES[scene]), roots: &["a", "b"], meets: true, ..PLAIN };

/// All of them.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "init",
        prepare: |world, scene| {
            configure(world)?;
            fill(world, "a", FILES[scene], 0)
        },
        command: |world, _| world.command(["init", "a"]),
        ..PLAIN
    },
    Operation {
        name: "commit",
        edit: |world, scene| edit(world, "a", FILES[scene]),
        command: |world, _| world.command(["--folder", "a", "commit"]),
        ..PLAIN
    },
    Operation {
        name: "commit-one",
        edit: |world, _| world.write("a/notes.txt", "changed\n", 20),
        command: |world, _| world.command(["--folder", "a", "commit"]),
        ..PLAIN
    },
    Operation {
        name: "commit-large",
        scenes: 2,
        prepare: |world, scene| {
            base(world, 2)?;
            chunks(world, "a")?;
            large(world, "a", scene, 0)?;
            world.run(&["--folder", "a", "commit"])
        },
        edit: |world, scene| large(world, "a", scene, 1),
        command: |world, _| world.command(["--folder", "a", "commit"]),
        ..PLAIN
    },
    Operation {
        name: "exchange",
        edit: |world, scene| both_edit(world, FILES[scene]),
        command: |world, _| world.command(["--folder", "a", "exchange"]),
        ..TWO
    },
    Operation {
        name: "exchange-large",
        scenes: 2,
        prepare: |world, scene| {
            two(world, 2)?;
            for root in ["a", "b"] {
                chunks(world, root)?;
            }
            large(world, "a", scene, 0)?;
            world.run(&["--folder", "a", "exchange"])
        },
        edit: |world, scene| {
            large(world, "a", scene, 1)?;
            world.write("b/large 1", noise(9, 400_000), 77)
        },
        command: |world, _| world.command(["--folder", "a", "exchange"]),
        ..TWO
    },
    Operation {
        name: "exchange-ssh",
        prepare: |world, scene| {
            two(world, FILES[scene])?;
            let program = world.program.display();
            let text = format!(
                "#!/bin/sh\nfor last; do :; done\nfoldersync() {{ exec '{program}' \"$@\"; }}\neval \"$last\"\n"
            );
            world.write("ssh", text, 0)?;
            world.at("ssh", |path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))?;
            let address = format!("ssh://far{}", world.path("b").display());
            world.run(&["--folder", "a", "peer", "add", "far", &address])
        },
        edit: |world, scene| both_edit(world, FILES[scene]),
        command: |world, _| world.command(["--folder", "a", "exchange", "far"]),
        far_end: true,
        ..TWO
    },
    Operation {
        name: "receive",
        edit: |world, scene| {
            edit(world, "b", FILES[scene])?;
            world.run(&["--folder", "b", "commit"])
        },
        command: |world, _| world.command(["--folder", "a", "exchange"]),
        ..TWO
    },
    Operation {
        name: "clone",
        command: |world, _| world.command(["clone", "a", "b"]),
        roots: &["a", "b"],
        meets: true,
        ..PLAIN
    },
    Operation {
        name: "revert",
        prepare: |world, scene| {
            base(world, FILES[scene])?;
            fill(world, "a", FILES[scene], 1)?;
            world.run(&["--folder", "a", "commit"])
        },
        edit: |world, _| world.write("a/notes.txt", "written a moment ago\n", 99),
        command: |world, _| world.command(["--folder", "a", "revert", "notes.txt@1", "folder 0/file 0.txt@1"]),
        sets_times: true,
        ..PLAIN
    },
    Operation {
        name: "restore",
        prepare: |world, scene| {
            base(world, FILES[scene])?;
            let before = world.git("a", &["rev-parse", "main"])?;
            world.write("before", before.trim(), 0)?;
            edit(world, "a", FILES[scene])?;
            world.run(&["--folder", "a", "commit"])
        },
        edit: |world, _| world.write("a/notes.txt", "written a moment ago\n", 99),
        command: |world, _| {
            let before = world.read("before").unwrap_or_default();
            world.command(["--folder", "a", "restore", "--at", &before])
        },
        sets_times: true,
        ..PLAIN
    },
    Operation {
        name: "resolve",
        prepare: |world, scene| {
            two(world, FILES[scene])?;
            world.write("a/data.bin", "from a", 50)?;
            world.write("b/data.bin", "from b", 60)?;
            world.run(&["--folder", "a", "exchange"])
        },
        command: |world, scene| {
            let how = ["--ours", "--theirs", "--both"][scene];
            world.command(["--folder", "a", "conflicts", "resolve", "data.bin", how])
        },
        sets_times: true,
        ..PLAIN
    },
    Operation {
        name: "decide",
        scenes: 2,
        prepare: |world, _| {
            two(world, 60)?;
            for n in 0..55 {
                world.at(&format!("a/{}", file(n)), |path| fs::remove_file(path))?;
            }
            // What `a` has deleted is held back.
            let text = world.read("home/config.toml").unwrap_or_default();
            world.write("home/config.toml", text.replace("brake = \"off\"", "brake = \"50%\""), 0)?;
            world.refused(&["--folder", "b", "exchange"])
        },
        command: |world, scene| world.command(["--folder", "b", ["accept", "reject"][scene]]),
        roots: &["b"],
        ..PLAIN
    },
    Operation {
        name: "gc",
        prepare: |world, scene| {
            base(world, FILES[scene])?;
            for generation in 1..5 {
                fill(world, "a", FILES[scene], generation)?;
                world.run(&["--folder", "a", "commit"])?;
            }
            Ok(())
        },
        command: |world, _| world.command(["--folder", "a", "gc"]),
        ..PLAIN
    },
    Operation {
        name: "bundle-create",
        edit: |world, scene| edit(world, "a", FILES[scene]),
        command: |world, _| world.command(["--folder", "a", "bundle", "create", "out.bundle.sz"]),
        captures: false,
        ..PLAIN
    },
    Operation {
        name: "bundle-apply",
        prepare: |world, scene| {
            two(world, FILES[scene])?;
            edit(world, "a", FILES[scene])?;
            world.run(&["--folder", "a", "commit"])?;
            world.run(&["--folder", "a", "bundle", "create", "in.bundle.sz"])
        },
        edit: |world, _| world.write("b/own.txt", "of b alone\n", 70),
        command: |world, _| world.command(["--folder", "b", "bundle", "apply", "in.bundle.sz"]),
        roots: &["b"],
        ..PLAIN
    },
    Operation {
        name: "config",
        scenes: 6,
        prepare: |world, _| {
            two(world, 2)?;
            world.at("elsewhere", |path| fs::create_dir(path))?;
            let text = world.read("home/config.toml").unwrap_or_default();
            let text = text.replace("address =", "# where it is\naddress =") + "# the end\n";
            world.write("home/config.toml", text, 0)
        },
        command: |world, scene| {
            let address = world.path("elsewhere").display().to_string();
            let words: &[&str] = match scene {
                0 => &["peer", "add", "third", &address],
                1 => &["peer", "set", "origin", "every=10m", "upload=2MB/s", "direction=send"],
                2 => &["peer", "rename", "origin", "first"],
                3 => &["peer", "remove", "origin"],
                4 => &["pause"],
                _ => &["peer", "set", "origin", "paused=true"],
            };
            world.command([&["--folder", "b"], words].concat())
        },
        roots: &["a", "b"],
        ..PLAIN
    },
];

/// How many files the scenes have.
const FILES: [usize; 3] = [2, 9, 40];

fn configure(world: &World) -> Result<(), Fault> {
    // The edits of the scenes are mass changes to the brake.
    let text = "# A comment of the person's.\n[device]\nname = \"laptop\"  # this one\nport = 44996\nbrake = \"off\"\n";
    world.write("home/config.toml", text, 0)
}

/// A folder `a` with some files, all of them captured.
fn base(world: &World, count: usize) -> Result<(), Fault> {
    configure(world)?;
    fill(world, "a", count, 0)?;
    world.run(&["init", "a"])
}

/// The same, and a copy `b`, each the peer of the other.
fn two(world: &World, count: usize) -> Result<(), Fault> {
    base(world, count)?;
    world.run(&["clone", "a", "b"])
}

fn file(n: usize) -> String {
    format!("folder {}/file {n}.txt", n % 4)
}

fn content(n: usize, generation: usize) -> String {
    format!("file {n}, generation {generation}\n").repeat(1 + n % 30)
}

/// Files of all kinds.
fn fill(world: &World, root: &str, count: usize, generation: usize) -> Result<(), Fault> {
    for n in 0..count {
        world.write(&format!("{root}/{}", file(n)), content(n, generation), generation as u64)?;
    }
    world.write(&format!("{root}/notes.txt"), format!("one\ntwo {generation}\nthree\n"), generation as u64)?;
    if generation == 0 {
        world.at(&format!("{root}/link"), |path| symlink("notes.txt", path))?;
        world.at(&format!("{root}/nothing in it"), |path| fs::create_dir(path))?;
        world.write(&format!("{root}/goes/deep/a"), "goes", 1)?;
        world.write(&format!("{root}/goes/b"), "goes too", 1)?;
    }
    Ok(())
}

/// Changes of all kinds: about half of the files change; some come, some go, some become something else.
fn edit(world: &World, root: &str, count: usize) -> Result<(), Fault> {
    let at = |path: &str| format!("{root}/{path}");
    for n in (0..count).step_by(2) {
        world.write(&at(&file(n)), content(n, 100), 20 + n as u64)?;
    }
    for n in (3..count).step_by(8) {
        world.at(&at(&file(n)), |path| fs::remove_file(path))?;
    }
    world.at(&at(&file(1)), |path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))?;
    world.write(&at("new/deep/one"), "new\n", 30)?;
    world.write(&at("empty file"), "", 31)?;
    world.at(&at("link"), |path| fs::remove_file(path).and_then(|()| symlink("elsewhere", path)))?;
    world.at(&at("nothing in it"), |path| fs::remove_dir(path))?;
    world.write(&at("nothing in it"), "a file where a folder was\n", 32)?;
    world.at(&at("goes"), |path| fs::remove_dir_all(path))?;
    world.at(&at("still nothing"), |path| fs::create_dir(path))
}

/// Both sides change: each its own, both the same text at different lines, both the same bytes.
fn both_edit(world: &World, count: usize) -> Result<(), Fault> {
    edit(world, "a", count)?;
    world.write("a/notes.txt", "one of a\ntwo 0\nthree\n", 40)?;
    world.write("b/notes.txt", "one\ntwo 0\nthree of b\n", 41)?;
    world.write("a/data.bin", "from a", 50)?;
    world.write("b/data.bin", "from b", 60)?;
    world.write("b/goes/b", "stays, for it was changed", 61)?;
    world.write("b/of b/own.txt", "of b\n", 62)
}

/// From 64 KiB on, files are kept in chunks.
fn chunks(world: &World, root: &str) -> Result<(), Fault> {
    world.git(root, &["config", "foldersync.largeFileThreshold", "65536"]).map(drop)
}

/// Bytes that do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut chance = super::chance::Chance::new(seed, 0);
    let mut bytes: Vec<u8> = (0..length / 8).flat_map(|_| chance.next().to_le_bytes()).collect();
    bytes.resize(length, 0);
    bytes
}

/// Large files; later with some bytes more in the middle, and one more file.
fn large(world: &World, root: &str, scene: usize, generation: usize) -> Result<(), Fault> {
    for n in 0..=scene {
        let mut bytes = noise(n as u64, 300_000 + 500_000 * n);
        if generation > 0 {
            let middle = bytes.len() / 2;
            bytes.splice(middle..middle, *b"inserted");
        }
        world.write(&format!("{root}/large {n}"), bytes, 10 + generation as u64)?;
    }
    if generation > 0 {
        world.write(&format!("{root}/folder/large too"), noise(50, 200_000), 12)?;
    }
    Ok(())
}
