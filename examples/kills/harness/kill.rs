//! Kills of the program: at a moment that chance chooses, and exactly before each call that changes files.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::chance::Chance;
use super::check;
use super::operations::Operation;
use super::scenes::Scenes;
use super::world::{Fault, World};

/// How a case ended.
pub(super) enum Ended {
    /// The kill came while the program ran, and all was well.
    Killed,
    /// The program had come to its end before; nothing was interrupted, and nothing is checked.
    TooLate,
    /// Not a case by itself.
    Nothing,
}

const SIGKILL: i32 = 9;

/// Kills `operation` at a random moment: anywhere, and more often towards its end, where the refs move.
pub(super) fn at_random(scenes: &mut Scenes, operation: &Operation, chance: &mut Chance) -> Result<Ended, Fault> {
    let scene = chance.below(operation.scenes);
    let part = if chance.below(3) == 0 { 0.7 + 0.4 * chance.part() } else { 1.05 * chance.part() };
    let look_first = chance.below(2) == 0;
    let all = operation.far_end && chance.below(2) == 0;
    let duration = scenes.put_up(operation, scene)?.duration;
    let world = scenes.world.clone();
    let ended = kill(&world, (operation.command)(&world, scene), duration.mul_f64(part), all)?;
    // How long it takes changes with what else the machine does.
    scenes.took(operation, scene, matches!(ended, Ended::Killed));
    if matches!(ended, Ended::TooLate) {
        return Ok(ended);
    }
    let reference = &scenes.put_up_already(operation, scene).reference;
    check::after_interruption(&world, operation, scene, reference, look_first).map_err(|fault| {
        let who = if all { "all processes" } else { "the program" };
        format!("{who} killed {:.1} % into {} (scene {scene}): {fault}", part * 100.0, operation.name)
    })?;
    Ok(ended)
}

/// Starts a command, and kills it after `delay`; with `all`, and whatever it has started.
fn kill(world: &World, command: Command, delay: Duration, all: bool) -> Result<Ended, Fault> {
    let failed = |error: std::io::Error| error.to_string();
    let mut child = world.start(command)?;
    let until = Instant::now() + delay;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        // The system wakes who sleeps too late by about this much.
        if left > Duration::from_millis(2) {
            thread::sleep(left.saturating_sub(Duration::from_millis(1)));
        } else {
            thread::yield_now();
        }
    }
    let group = Pid::from_child(&child);
    if all {
        // It may have ended.
        kill_process_group(group, Signal::KILL).ok();
    } else {
        drop(child.kill());
    }
    let status = child.wait().map_err(failed)?;
    if !all {
        wait_for_the_rest(group);
    }
    Ok(if status.signal() == Some(SIGKILL) { Ended::Killed } else { Ended::TooLate })
}

/// Waits for what the killed process had started, which notices that and ends.
fn wait_for_the_rest(group: Pid) {
    let began = Instant::now();
    while rustix::process::test_kill_process_group(group).is_ok() && began.elapsed() < Duration::from_secs(30) {
        thread::sleep(Duration::from_millis(1));
    }
}

/// The calls that change files or make changes last.
pub(super) const CALLS: [&str; 19] = [
    "openat",
    "write",
    "pwrite64",
    "writev",
    "ftruncate",
    "rename",
    "renameat",
    "renameat2",
    "linkat",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "rmdir",
    "symlinkat",
    "fsync",
    "fdatasync",
    "syncfs",
    "fchmod",
];

/// Whether the system has the programs that this needs, and lets them.
pub(crate) fn strace_works() -> Result<(), Fault> {
    for words in [&["strace", "-f", "-qq", "-o", "/dev/null", "true"][..], &["taskset", "-c", "0", "true"]] {
        let status = Command::new(words[0]).args(&words[1..]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !status.is_ok_and(|status| status.success()) {
            return Err(format!("`{}` does not run here (apt-get install strace util-linux)", words[0]));
        }
    }
    Ok(())
}

/// Kills `operation` before its `number`-th `call`. strace counts for each thread by itself, so the program is kept to
/// one processor, on which it does most with one thread.
pub(super) fn before_call(
    scenes: &mut Scenes,
    operation: &Operation,
    scene: usize,
    call: &str,
    number: usize,
) -> Result<Ended, Fault> {
    scenes.put_up(operation, scene)?;
    let world = scenes.world.clone();
    let plain = (operation.command)(&world, scene);
    let mut command = Command::new("taskset");
    command.args(["-c", "0", "strace", "-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e"]);
    command.arg(format!("inject={call}:signal=KILL:when={number}")).arg(plain.get_program()).args(plain.get_args());
    command.env_clear().envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
    if let Some(dir) = plain.get_current_dir() {
        command.current_dir(dir);
    }
    let mut child = world.start(command)?;
    let group = Pid::from_child(&child);
    let status = child.wait().map_err(|error| error.to_string())?;
    wait_for_the_rest(group);
    let killed = status.signal() == Some(SIGKILL) || status.code() == Some(128 + SIGKILL);
    let reference = &scenes.put_up_already(operation, scene).reference;
    check::after_interruption(&world, operation, scene, reference, number.is_multiple_of(2)).map_err(|fault| {
        format!("killed before the {number}. {call} of {} (scene {scene}): {fault}", operation.name)
    })?;
    Ok(if killed { Ended::Killed } else { Ended::TooLate })
}
