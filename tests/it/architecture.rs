//! Holds the crate to its layers: reads `src/` and fails on an edge that the picture in `src/lib.rs` does not have,
//! and on an external crate outside of the one module that may know it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const VALUES: [&str; 10] =
    ["change", "clock", "disk", "entry", "guard", "id", "message", "page_cache", "path", "table"];
const MIDDLE: [&str; 4] = ["protocol", "store", "transport", "worktree"];
const UPPER: [&str; 5] = ["cli", "config", "daemon", "engine", "monitor"];

/// What a module may use of the crate, besides the values and itself.
fn allowed(module: &str) -> &'static [&'static str] {
    match module {
        "cli" => &["config", "daemon", "engine", "monitor"],
        "daemon" => &["config", "engine", "monitor", "protocol", "transport"],
        "engine" => &["monitor", "protocol", "store", "transport", "worktree"],
        "protocol" | "store" | "transport" | "worktree" => &["monitor"],
        // The library's root declares modules, and the command calls the library by its name.
        _ => &[],
    }
}

/// External crates that only some modules may know: below these paths in `src`.
const CONFINED: [(&str, &[&str]); 19] = [
    ("gix", &["store"]),
    ("rusqlite", &["store"]),
    ("snap", &["store"]),
    ("ignore", &["worktree"]),
    ("notify", &["worktree"]),
    ("minicbor", &["protocol"]),
    ("sd_notify", &["daemon"]),
    ("signal_hook", &["daemon"]),
    ("tracing_subscriber", &["daemon"]),
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
    ("indicatif", &["cli"]),
    ("toml", &["config"]),
    ("toml_edit", &["config"]),
    ("iroh", &["transport/network", "transport/relay.rs", "transport/ticket.rs"]),
    ("tokio", &["transport/network", "transport/relay.rs"]),
    ("rustls", &["transport/network", "transport/relay.rs"]),
    ("rcgen", &["transport/relay.rs"]),
];

/// The text without comments, and with texts and characters in quotes emptied, so that only code is searched.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(c) = rest.chars().next() {
        let raw = rest.strip_prefix('r').filter(|_| !is_word(before)).map(|after| after.trim_start_matches('#'));
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(inner) = raw.and_then(|after| after.strip_prefix('"')) {
            let hashes = rest.len() - 2 - inner.len();
            let end = format!("\"{}", "#".repeat(hashes));
            rest.len() - inner.find(&end).map_or(0, |at| inner.len() - at - end.len())
        } else if c == '"' {
            let mut escaped = false;
            let end = rest[1..].char_indices().find(|&(_, c)| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            end.map_or(rest.len(), |(at, _)| at + 2)
        } else if c == '\'' {
            let mut after = rest[1..].chars();
            match (after.next(), after.next()) {
                (Some('\\'), _) => rest[3..].find('\'').map_or(1, |at| at + 4),
                (Some(c), Some('\'')) => c.len_utf8() + 2,
                _ => 1, // a lifetime
            }
        } else {
            0
        };
        if skipped > 0 {
            code.push(' ');
            before = ' ';
            rest = &rest[skipped..];
        } else {
            code.push(c);
            before = c;
            rest = &rest[c.len_utf8()..];
        }
    }
    code
}

/// Whether a name stands for a family of crates, too.
fn is_family(name: &str) -> bool {
    matches!(name, "gix" | "iroh")
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn leading_word(text: &str) -> &str {
    &text[..text.find(|c| !is_word(c)).unwrap_or(text.len())]
}

/// The first names behind a path's beginning: one, or those of a group in braces.
fn first_names(after: &str) -> Vec<&str> {
    let after = after.trim_start();
    let Some(group) = after.strip_prefix('{') else { return vec![leading_word(after)] };
    let mut names = Vec::new();
    let (mut depth, mut expecting) = (1, true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => expecting = true,
            c if expecting && is_word(c) => {
                names.push(leading_word(&group[at..]));
                expecting = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

/// The places in `code` where `word` stands as a word of its own that begins a path.
fn path_starts<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    code.match_indices(word).filter_map(move |(at, _)| {
        let before = code[..at].trim_end();
        let begins = !code[..at].ends_with(is_word) && !before.ends_with("::") && !before.ends_with(['$', '.']);
        begins.then(|| &code[at + word.len()..])
    })
}

/// Whether a name that a crate has is, in this code, that of a module of ours.
fn is_our_own(code: &str, name: &str) -> bool {
    let imports = |after: &str| {
        let statement = &after[..after.find(';').unwrap_or(after.len())];
        let path = statement.trim_start();
        path.starts_with("crate::") && path.split(|c| !is_word(c)).any(|word| word == name)
    };
    let declares = |after: &str| after.trim_start().starts_with(&format!("{name};"));
    path_starts(code, "use").any(imports) || path_starts(code, "mod").any(declares)
}

/// What is wrong in one file. `relative` is its path below `src`.
fn violations(relative: &Path, text: &str, siblings: &BTreeSet<String>) -> Vec<String> {
    let code = code_of(text);
    let file = relative.display();
    let names: Vec<_> = relative.iter().filter_map(|name| name.to_str()).collect();
    let module = names[0].trim_end_matches(".rs");
    let mut wrong = Vec::new();
    let mut use_of = |name: &str| {
        let own = name == module || VALUES.contains(&name) || allowed(module).contains(&name);
        let known = VALUES.iter().chain(&MIDDLE).chain(&UPPER).any(|known| *known == name);
        if known && !own {
            wrong.push(format!("{file}: `{module}` must not use `crate::{name}`"));
        }
    };
    if module != "lib" {
        for after in path_starts(&code, "crate").filter_map(|after| after.trim_start().strip_prefix("::")) {
            first_names(after).into_iter().for_each(&mut use_of);
        }
        // The same by way of `super`, from as deep as this file lies.
        let depth = if names.last() == Some(&"mod.rs") { names.len() - 1 } else { names.len() };
        for mut after in path_starts(&code, "super") {
            let mut ups = 1;
            while let Some(more) = after.trim_start().strip_prefix("::") {
                after = more;
                let Some(up) = more.trim_start().strip_prefix("super") else { break };
                ups += 1;
                after = up;
            }
            if ups >= depth {
                first_names(after).into_iter().filter(|name| !siblings.contains(*name)).for_each(&mut use_of);
            }
        }
    }
    for (name, homes) in CONFINED {
        if homes.iter().any(|home| relative.starts_with(home)) || is_our_own(&code, name) {
            continue;
        }
        let used = path_starts(&code, name).any(|after| {
            // `gix` and `iroh` stand for all their crates; others must be followed by what makes them a crate's name.
            let word = leading_word(after);
            let after = after[word.len()..].trim_start();
            let family = word.is_empty() || (is_family(name) && word.starts_with('_'));
            family && after.starts_with("::")
        });
        let imported = path_starts(&code, "use").any(|after| {
            let word = leading_word(after.trim_start());
            word == name || (is_family(name) && word.strip_prefix(name).is_some_and(|rest| rest.starts_with('_')))
        });
        if used || imported {
            wrong.push(format!("{file}: `{module}` must not use the crate `{name}`"));
        }
    }
    wrong
}

fn sources(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The modules that lie beside a file, which `super::` may mean in its tests.
fn siblings(file: &Path) -> BTreeSet<String> {
    let dir = file.parent().expect("a file lies in a directory");
    let names = fs::read_dir(dir).expect("it exists").map(|entry| entry.expect("an entry").path());
    names.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect()
}

#[test]
fn the_sources_keep_to_the_layers() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 30, "the sources are found");
    let wrong: Vec<_> = files
        .iter()
        .flat_map(|file| {
            let relative = file.strip_prefix(&src).expect("below src");
            let top = relative.components().count() == 1;
            let siblings = if top { BTreeSet::new() } else { siblings(file) };
            violations(relative, &fs::read_to_string(file).expect("a source"), &siblings)
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_has_its_place_in_the_layers() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).expect("the library");
    let modules: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert!(modules.len() > 10, "the modules are found");
    for module in modules {
        assert!(
            VALUES.iter().chain(&MIDDLE).chain(&UPPER).any(|known| *known == module),
            "`{module}` has no place in tests/it/architecture.rs"
        );
    }
}

#[test]
fn planted_violations_are_found() {
    let planted = [
        ("store/pack.rs", "use crate::worktree::scan;"),
        ("store/pack.rs", "use crate::{id::ObjectId, engine::{self, Folder}};"),
        ("protocol/mod.rs", "fn f() { crate::cli::main(); }"),
        ("worktree/scan.rs", "use super::super::store::Store;"),
        ("transport/mod.rs", "use super::protocol::Session;"),
        ("path.rs", "use crate::monitor::Monitor;"),
        ("path.rs", "use super::engine;"),
        ("engine/mod.rs", "use crate::config::Config;"),
        ("cli/mod.rs", "use crate :: store::Store;"),
        ("engine/merge.rs", "use gix_object::Tree;"),
        ("engine/merge.rs", "fn f() -> gix::ObjectId { todo!() }"),
        ("engine/merge.rs", "#[derive(minicbor::Encode)] struct A;"),
        ("engine/merge.rs", "use {std::fs, clap::Parser};"),
        ("cli/mod.rs", "use toml;"),
        ("engine/watching.rs", "use notify::Event;"),
        ("engine/mod.rs", "use crate::daemon::log;"),
        ("daemon/mod.rs", "use crate::worktree::watch::Watch;"),
        ("store/mod.rs", "let s = \"// no comment\"; use indicatif::ProgressBar;"),
        ("transport/mod.rs", "let c = '\"'; tokio::spawn(f);"),
        ("daemon/mod.rs", "use iroh_relay::server::Server;"),
        ("transport/ssh.rs", "fn f() -> iroh::Endpoint { todo!() }"),
    ];
    for (file, text) in planted {
        assert_eq!(violations(Path::new(file), text, &BTreeSet::new()).len(), 1, "{file}: {text}");
    }
}

#[test]
fn what_is_allowed_is_not_taken_for_a_violation() {
    let fine = [
        ("store/pack.rs", "use crate::{id::ObjectId, monitor::Monitor, path::SyncPath};"),
        ("store/pack.rs", "use crate::store::refs; use gix_pack::data; use super::refs;"),
        ("engine/mod.rs", "// crate::cli is told of this\nlet s = \"crate::cli\"; let r = r#\"use clap::Parser;\"#;"),
        ("engine/mod.rs", "/* use clap::Parser; */ fn f<'a>(x: &'a str) { self.ignore::<A>(); }"),
        ("engine/merge.rs", "let ignore = 1; let snapshot::X = y; mod my { pub use other::clap; }"),
        ("cli/ui/mod.rs", "use clap::Parser; use crate::engine::Folder; use super::super::error::E;"),
        ("transport/network/link.rs", "use iroh::Endpoint; use tokio::time; use iroh_relay::RelayMap;"),
        ("cli/commands/serve.rs", "use crate::daemon::{Daemon, notify}; fn f() { notify::ready(); }"),
        ("daemon/mod.rs", "pub mod notify; fn f() { notify::ready(); }"),
        ("config/home.rs", "macro_rules! m { () => { $crate::config::x() } }"),
    ];
    for (file, text) in fine {
        assert_eq!(violations(Path::new(file), text, &BTreeSet::new()), Vec::<String>::new(), "{file}: {text}");
    }
}
