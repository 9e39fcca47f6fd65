//! What the fuzz targets do with a piece of input: one function for each, which panics where a promise is broken.
//!
//! Not only that nothing panics: what is read comes out again as it was, limits hold, equal input gives equal answers.
//! The ordinary tests include this file, and give these functions all of `fixtures/fuzz`, where the inputs are kept
//! that once broke something.

mod folder;
pub mod forge;
mod history;
mod pack;
mod wire;

/// Takes one input.
pub type Target = fn(&[u8]);

/// All of them, by their names: `fixtures/fuzz/NAME` is what they have been given, `cargo fuzz run NAME` runs one.
pub const TARGETS: [(&str, Target); 13] = [
    ("bundle", history::bundle),
    ("commit", history::commit),
    ("config", folder::config),
    ("delta", history::delta),
    ("ignore", folder::ignore),
    ("link", wire::link),
    ("message", wire::message),
    ("pairing", wire::pairing),
    ("quarantine", pack::quarantine),
    ("recipe", history::recipe),
    ("revision", folder::revision),
    ("session", wire::session),
    ("ticket", wire::ticket),
];

/// The target of this name.
pub fn target(name: &str) -> Target {
    TARGETS.iter().find(|(known, _)| *known == name).expect("one of the targets").1
}
