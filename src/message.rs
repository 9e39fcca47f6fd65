//! What a commit's message says: a subject for people, and trailers that carry what trees cannot.
//!
//! Everything here is a hint, for people and for speed: what a commit changed is decided by its trees alone. A
//! message of a commit that a person made with git parses too, to a message without trailers.

use std::fmt::Write as _;

use crate::clock::Timestamp;
use crate::path::{SyncPath, quote, unquote};

/// What kind of commit foldersync derived, rather than recorded, it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Derived {
    /// A canonical merge.
    Merge,
    /// The addition of a conflict copy on top of a canonical merge.
    ConflictCopy,
}

/// A commit's message, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// The first line: `add notes.txt`.
    pub subject: String,
    /// The file's mtime, to the nanosecond.
    pub mtime: Option<Timestamp>,
    /// In the addition that is half of a rename: the old name.
    pub renamed_from: Option<SyncPath>,
    /// In the deletion that is half of a rename: the new name.
    pub renamed_to: Option<SyncPath>,
    /// In the addition of a conflict copy: the file that it is a copy of.
    pub conflict_of: Option<SyncPath>,
    /// In a merge: the paths that were in conflict.
    pub conflicts: Vec<SyncPath>,
    /// Whether foldersync derived the commit from others.
    pub derived: Option<Derived>,
}

const MTIME: &str = "Foldersync-Mtime";
const RENAMED_FROM: &str = "Foldersync-Renamed-From";
const RENAMED_TO: &str = "Foldersync-Renamed-To";
const CONFLICT_OF: &str = "Foldersync-Conflict-Of";
const CONFLICT: &str = "Foldersync-Conflict";
const DERIVED: &str = "Foldersync-Derived";

impl Message {
    /// The message of a revision of one path: `verb` and the path, as `add notes.txt`.
    pub fn about(verb: &str, path: &SyncPath) -> Self {
        Self { subject: format!("{verb} {path}"), ..Self::default() }
    }

    /// The path that the subject names, where it is one of foldersync's own.
    pub fn path(&self) -> Option<SyncPath> {
        let (verb, rest) = self.subject.split_once(' ')?;
        let quoted = match verb {
            "add" | "change" | "delete" | "restore" => rest,
            "revert" => rest.rsplit_once(" to @").map_or(rest, |(path, _)| path),
            _ => return None,
        };
        SyncPath::new(unquote(quoted.as_bytes())?).ok()
    }

    /// The message as it stands in the commit.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("{}\n", self.subject);
        let mut trailers = String::new();
        if let Some(mtime) = self.mtime {
            let _infallible = writeln!(trailers, "{MTIME}: {}.{:09}", mtime.secs, mtime.nanos);
        }
        let paths =
            [(RENAMED_FROM, &self.renamed_from), (RENAMED_TO, &self.renamed_to), (CONFLICT_OF, &self.conflict_of)];
        let paths = paths.into_iter().filter_map(|(key, path)| Some((key, path.as_ref()?)));
        for (key, path) in paths.chain(self.conflicts.iter().map(|path| (CONFLICT, path))) {
            let _infallible = writeln!(trailers, "{key}: {}", quote(path.as_bytes()));
        }
        if let Some(derived) = self.derived {
            let word = match derived {
                Derived::Merge => "merge",
                Derived::ConflictCopy => "conflict-copy",
            };
            let _infallible = writeln!(trailers, "{DERIVED}: {word}");
        }
        if !trailers.is_empty() {
            text.push('\n');
            text.push_str(&trailers);
        }
        text.into_bytes()
    }

    /// Takes a message apart. Trailers that make no sense are passed over.
    pub fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.lines();
        let mut message = Self { subject: lines.next().unwrap_or_default().to_owned(), ..Self::default() };
        let path = |value: &str| unquote(value.as_bytes()).and_then(|path| SyncPath::new(path).ok());
        for (key, value) in lines.filter_map(|line| line.split_once(": ")) {
            match key {
                MTIME => message.mtime = parse_timestamp(value),
                RENAMED_FROM => message.renamed_from = path(value),
                RENAMED_TO => message.renamed_to = path(value),
                CONFLICT_OF => message.conflict_of = path(value),
                CONFLICT => message.conflicts.extend(path(value)),
                DERIVED => {
                    message.derived = match value {
                        "merge" => Some(Derived::Merge),
                        "conflict-copy" => Some(Derived::ConflictCopy),
                        _ => None,
                    }
                }
                _ => {}
            }
        }
        message
    }
}

fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let (secs, nanos) = text.split_once('.')?;
    let nanos = Some(nanos).filter(|nanos| nanos.len() == 9 && nanos.bytes().all(|byte| byte.is_ascii_digit()))?;
    Some(Timestamp::new(secs.parse().ok()?, nanos.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn path(text: &str) -> SyncPath {
        SyncPath::new(text).expect("a valid path")
    }

    #[test]
    fn reads_as_git_trailers() {
        let message = Message {
            mtime: Some(Timestamp::new(-3, 7)),
            renamed_from: Some(path("old\tname")),
            ..Message::about("add", &path("new name"))
        };
        let text = "add new name\n\nFoldersync-Mtime: -3.000000007\nFoldersync-Renamed-From: \"old\\tname\"\n";
        assert_eq!(String::from_utf8(message.to_bytes()).expect("text"), text);
    }

    #[rstest]
    #[case(Message::about("delete", &path("a/b")))]
    #[case(Message { subject: "merge".to_owned(), conflicts: vec![path("a"), path("b c")], derived: Some(Derived::Merge), ..Message::default() })]
    #[case(Message { conflict_of: Some(path("é")), derived: Some(Derived::ConflictCopy), mtime: Some(Timestamp::new(1, 2)), ..Message::about("add", &path("\u{1}")) })]
    fn survives_the_way_there_and_back(#[case] message: Message) {
        assert_eq!(Message::parse(&message.to_bytes()), message);
    }

    #[rstest]
    #[case("add a b", Some("a b"))]
    #[case("revert notes.txt to @3", Some("notes.txt"))]
    #[case("revert \"a\\tb\" to @3", Some("a\tb"))]
    #[case("Fix the build", None)]
    #[case("add ../x", None)]
    fn names_its_path(#[case] subject: &str, #[case] expected: Option<&str>) {
        let message = Message { subject: subject.to_owned(), ..Message::default() };
        assert_eq!(message.path(), expected.map(path));
    }
}
