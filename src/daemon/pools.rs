//! Memory of a process that lives long: few pools for all its threads.
//!
//! The GNU C library's allocator gives threads pools of their own, up to eight for each processor, and what was freed in
//! one stays with it. A daemon whose threads come and go keeps each of them at the largest it ever was: after half an
//! hour of edits and kills, 7 MiB were in use and 187 MiB resident. How many there are is said in the environment before
//! a process starts (mallopt(3), `MALLOC_ARENA_MAX`), so a daemon starts itself anew, once, as the same process. Nothing
//! may have been opened before.

use std::env;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

const SETTING: &str = "MALLOC_ARENA_MAX";
/// One would have the threads wait for each other.
const POOLS: &str = "2";

/// Starts this program anew where that leads to fewer pools, and else returns. What a person has set is left alone.
pub fn share() {
    if !cfg!(target_env = "gnu") || env::var_os(SETTING).is_some() {
        return;
    }
    // Where it cannot be, it works with as many pools as there are.
    let Ok(program) = env::current_exe() else { return };
    let mut words = env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = words.next() {
        command.arg0(name);
    }
    // It comes back only with an error.
    drop(command.args(words).env(SETTING, POOLS).exec());
}
