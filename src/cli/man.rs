//! The manual page, made from the definition of the command line, so that the two cannot differ.
//!
//! One page for all commands; what no definition knows (files, environment, exit codes, JSON) is added here.

use std::io;

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};

use super::Cli;
use super::exit::ExitCode;
use crate::config::env;

/// The page, as `man` reads it.
pub(crate) fn page() -> io::Result<Vec<u8>> {
    let mut command = Cli::command();
    command.build();
    let main = Man::new(command.clone()).source("foldersync").manual("foldersync manual");
    let mut page = Vec::new();
    main.render_title(&mut page)?;
    main.render_name_section(&mut page)?;
    let mut synopsis = Roff::new();
    synopsis.control("SH", ["SYNOPSIS"]);
    synopsis.text([bold("foldersync"), roman(" [OPTIONS] COMMAND")]);
    synopsis.to_writer(&mut page)?;
    main.render_description_section(&mut page)?;
    main.render_options_section(&mut page)?;
    let mut commands = Roff::new();
    commands.control("SH", ["COMMANDS"]);
    commands.to_writer(&mut page)?;
    subcommands(&command, &mut page)?;
    for section in [exit_status(), files(), environment(), json(), examples(&command)] {
        section.to_writer(&mut page)?;
    }
    // The options section writes trailing spaces, which editors and reviews trip over.
    let text = String::from_utf8_lossy(&page);
    Ok(text.lines().flat_map(|line| [line.trim_end(), "\n"]).collect::<String>().into_bytes())
}

fn subcommands(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        if inner.has_subcommands() {
            subcommands(inner, page)?;
            if inner.is_subcommand_required_set() {
                continue;
            }
        }
        let mut roff = Roff::new();
        let usage = inner.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ").lines().next().unwrap_or_default().replace(" [OPTIONS]", "");
        roff.control("SS", [usage.as_str()]);
        let about = inner.get_long_about().or_else(|| inner.get_about()).map(ToString::to_string).unwrap_or_default();
        paragraphs(&mut roff, &about);
        for argument in inner.get_arguments().filter(|argument| !argument.is_hide_set() && !is_everywhere(argument)) {
            roff.control("TP", []);
            roff.text([bold(argument_title(argument))]);
            let help = argument.get_long_help().or_else(|| argument.get_help()).map(ToString::to_string);
            roff.text([roman(help.unwrap_or_default().replace('\n', " "))]);
            let values: Vec<_> = argument
                .get_possible_values()
                .iter()
                .filter(|value| !value.is_hide_set() && argument.get_action().takes_values())
                .map(|value| value.get_name().to_owned())
                .collect();
            if !values.is_empty() {
                roff.text([roman(format!("(one of {})", values.join(", ")))]);
            }
        }
        roff.to_writer(page)?;
    }
    Ok(())
}

/// Whether it is told of once, under OPTIONS.
fn is_everywhere(argument: &clap::Arg) -> bool {
    argument.is_global_set() || matches!(argument.get_id().as_str(), "help" | "version")
}

fn argument_title(argument: &clap::Arg) -> String {
    let value = argument.get_value_names().and_then(|names| names.first()).map(ToString::to_string).unwrap_or_default();
    let Some(long) = argument.get_long() else { return value };
    let short = argument.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    let value = if argument.get_action().takes_values() { format!(" {value}") } else { String::new() };
    format!("{short}--{long}{value}")
}

fn paragraphs(roff: &mut Roff, text: &str) {
    for (at, paragraph) in text.split("\n\n").enumerate() {
        if at > 0 {
            roff.control("PP", []);
        }
        let end = if paragraph.ends_with(['.', ':']) { "" } else { "." };
        roff.text([roman(format!("{}{end}", paragraph.replace('\n', " ")))]);
    }
}

fn section(title: &str) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", [title]);
    roff
}

fn entry(roff: &mut Roff, term: &str, text: &str) {
    roff.control("TP", []);
    roff.text([bold(term)]);
    roff.text([roman(text)]);
}

fn exit_status() -> Roff {
    let mut roff = section("EXIT STATUS");
    let mut codes = ExitCode::ALL;
    codes.sort_by_key(|code| code.number());
    for code in codes {
        entry(&mut roff, &code.number().to_string(), code.meaning());
    }
    roff.control("PP", []);
    roff.text([roman(
        "Where several things were done (exchange), the gravest is told, in the order 0, 3, 75, 4, 1, 2, 6, 5. What is not \
         due, or paused, is no failure. wait ends with 4 when its time is over. \
         exchange without --wait passes over a folder in which another process is at work, and that is no failure. \
         verify ends with 5 where it finds damage, repair where some remains; bundle verify with 1 where the bundle is whole but builds on \
         revisions that the folder lacks.",
    )]);
    roff
}

/// What the configuration holds: its tables, and their keys.
const SETTINGS: [(&str, &str); 4] = [
    (
        "[device]",
        "name (by default the host's); port (UDP, 44996); relay (https://HOST[:PORT], or public for those of iroh's \
         makers; by default none) and relay_certificate (its SHA-256, or the path of its file); local_discovery (true); \
         quiet (how long a file must be quiet before it is captured, 50ms); brake (beyond which share of a folder what a \
         peer deletes and rewrites is held back, at once or within an hour, 50%, or off); free_space (how much of a disk \
         stays free of what peers send, as 1%, 500MB, 2GiB or off; by default 1%, at most 512MiB).",
    ),
    (
        "[exchange]",
        "For all peers. every (as 10m or 1h30m), from and to (as 22:00 and 06:00, by the clock on the wall, over midnight \
         too), days (as [\"mon\", \"tue\"]; the day of a night is the one on which it begins): when exchanges are. \
         upload and download (as 500kB/s, 1MiB/s or unlimited): how fast bytes go with all peers together. limits (as \
         [{ from = \"08:00\", to = \"18:00\", upload = \"200kB/s\" }], with days too): the first that is open and says \
         something wins over upload and download.",
    ),
    (
        "[folder.NAME]",
        "path (absolute); paused (true, or until when, as \"2026-11-22T08:00:00Z\"); brake and free_space, which win over \
         those of [device].",
    ),
    (
        "[peer.NAME]",
        "address (a path, ssh://[USER@]HOST[:PORT]/PATH, [USER@]HOST:PATH, or foldersync://KEY[@HOST[:PORT]]); addresses \
         (where else the device may be, as [\"nas.example:44996\", \"192.168.1.5\"]); key (its device key); folders \
         (names); direction (both, send or receive) and directions (as { docs = \"send\" }, for single folders); join; \
         paused; every, from, to and days, which win over those of [exchange] (every = \"0s\": at once; from = \
         \"00:00\", to = \"24:00\": at all times); upload, download and limits, which hold for this peer alone, and \
         those of [exchange] as well.",
    ),
];

fn files() -> Roff {
    let mut roff = section("FILES");
    entry(
        &mut roff,
        "~/.config/foldersync/config.toml",
        "The configuration. It may be edited by hand; commands that change it keep comments. A key that is not known, or \
         a wrong value, is an error with its line.",
    );
    for (table, keys) in SETTINGS {
        entry(&mut roff, table, keys);
    }
    entry(
        &mut roff,
        "~/.config/foldersync/device.key",
        "The secret key of this device, made on first need, readable by its owner alone. Copy it to no other device.",
    );
    entry(
        &mut roff,
        "DIR/.git",
        "The repository of a folder, an ordinary git repository. Files above 8 MiB are kept in chunks, so that a change \
         costs what changed; the branch foldersync/chunks keeps them from git gc, and a plain checkout by git shows a \
         list of them in place of such a file. In DIR, git config foldersync.largeFileThreshold 64m sets another \
         limit, for what is captured from then on.",
    );
    entry(&mut roff, "DIR/.foldersync", "The repository of a folder that was made with init --alongside.");
    entry(&mut roff, "DIR/.gitignore", "What is left out of the folder, by the rules of git.");
    roff
}

fn environment() -> Roff {
    let mut roff = section("ENVIRONMENT");
    for variable in env::ALL {
        entry(&mut roff, variable.name, variable.what);
    }
    roff
}

/// What each command prints with `--json`: its name, and the fields of its document.
const DOCUMENTS: [(&str, &str); 24] = [
    ("init", "folder, folder_id, capture (as commit prints)"),
    (
        "clone",
        "folder, peer, captured, sent, received, bytes_sent, bytes_received, applied, conflicts, left_out, head, peer_head, in_step, held (a HOLD, or null), no_room (a text, or null), notes: an EXCHANGE",
    ),
    ("commit", "head, changes (the first 1000), added, changed, deleted, scanned, bytes, left_out"),
    (
        "status",
        "folder, folder_id, head, changes, left_out, conflicts, pending, held (each a HOLD: peer, revision, since, deleted, \
         rewritten, of, examples), peers (each name, last_known, lacks, lacks_files, last_seen, held), daemon (null where none runs; process, since, doing, trouble, and peers: for each a PAIR: connected, \
         head, in_step, exchanging, paused, last, trouble, next_try, held); with --watch a document a line: folder, head, daemon",
    ),
    ("log", "revisions (each a REVISION, newest first)"),
    (
        "show",
        "a REVISION: number, commit, verb, path, kind, content, size, modified, captured, device, subject, renamed_from",
    ),
    ("diff", "from, to, from_size, to_size, binary, changed (bytes, of large files), text (null where binary)"),
    ("revert, restore, conflicts resolve", "head, changes, captured_first, left_out"),
    (
        "accept, reject",
        "head, decided (each a HOLD), changes (what was given back), rewritten_before, captured_first, applied, conflicts, \
         left_out, held (what still is)",
    ),
    ("conflicts", "conflicts (each path, copy, device, time)"),
    (
        "share",
        "a document a line: ticket, folder, read_only, expires; then, when somebody has joined, peer, device_name, device, folder",
    ),
    ("join", "peer, device_name, device, folder, path, read_only, note"),
    (
        "peer list",
        "peers (each name, address, addresses, key, folders, direction, directions, join, every, from, to, days, upload, \
         download, limits, paused, schedule, connected, link, and known: for each folder its name, either status or \
         error, we_lack, and daemon: a PAIR)",
    ),
    ("pause, resume", "folder, peer, paused (true, false, or until when, as a text)"),
    (
        "exchange",
        "exchanges (each an EXCHANGE), failures and busy (each folder, peer, kind, message, hint), later (each \
         folder, peer, why: folder, peer or schedule, and paused or due)",
    ),
    ("wait", "folder, path, peers, safe, held (each a HOLD)"),
    (
        "bundle create, verify, apply",
        "tip, prerequisites, missing, revisions, objects, bytes, applied, conflicts, left_out, held",
    ),
    (
        "verify",
        "objects, revisions, problems (a line each), findings (each file, what, effect, affects: a list of path, number and \
         commit, and derived: whether it was, or will be, made anew by itself)",
    ),
    (
        "repair",
        "mended (a line each), asked (each peer, brought, failed), choices (what a person has to decide), after (as verify)",
    ),
    ("gc", "packs_before, packs_after, bytes_before, bytes_after"),
    (
        "watch",
        "a document a line, for as long as it runs: verb and path for each revision; trouble (a text, or null when it is over) and hint",
    ),
    ("service install, uninstall, status", "file, installed, enabled, state, said"),
    ("config", "file, device, exchange, folders, peers"),
    ("id", "device, device_name, folder_id"),
];

fn json() -> Roff {
    let mut roff = section("JSON");
    roff.text([roman(
        "With --json a command prints one document on standard output, and nothing else there. Fields are added in \
         later versions, never renamed or removed. Ids are hexadecimal. A point in time is an object of secs (since \
         1970, UTC) and nanos. Paths are relative to the folder; one that is not plain UTF-8 is quoted as git quotes \
         it. A change has a verb (add, change, delete) and a path; what was left out has a path and why. What is not \
         known is null.",
    )]);
    for (command, fields) in DOCUMENTS {
        entry(&mut roff, command, &format!("{fields}."));
    }
    roff.control("PP", []);
    roff.text([roman(
        "An error is a document on standard error: error, with kind (failed, usage, config, unreachable, damaged, \
         refused, busy), message and hint (a text or null).",
    )]);
    roff
}

fn examples(command: &Command) -> Roff {
    let mut roff = section("EXAMPLES");
    collect_examples(command, &mut roff);
    roff
}

fn collect_examples(command: &Command, roff: &mut Roff) {
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        collect_examples(inner, roff);
        let Some(text) = inner.get_after_long_help() else { continue };
        let about = inner.get_about().map(ToString::to_string).unwrap_or_default();
        roff.control("PP", []);
        roff.text([roman(format!("{about}:"))]);
        roff.control("nf", []);
        let lines = text.to_string();
        let lines = lines.lines().filter(|line| line.starts_with("  "));
        roff.text(lines.flat_map(|line| [roman(line), Inline::LineBreak]).collect::<Vec<_>>());
        roff.control("fi", []);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_every_command_code_and_variable() {
        let page = String::from_utf8(page().unwrap()).unwrap();
        for section in ["NAME", "SYNOPSIS", "COMMANDS", "\"EXIT STATUS\"", "FILES", "ENVIRONMENT", "JSON", "EXAMPLES"] {
            assert!(page.contains(&format!(".SH {section}\n")), "{section}");
        }
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            assert!(page.contains(&format!("foldersync {}", command.get_name())), "{}", command.get_name());
        }
        for variable in env::ALL {
            assert!(page.contains(variable.name), "{}", variable.name);
        }
        assert!(!page.contains("foldersync man\n"), "hidden commands stay hidden");
    }
}
