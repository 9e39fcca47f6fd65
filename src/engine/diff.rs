//! What differs between two revisions of a file, as a unified diff.
//!
//! The text is what git prints and what `git apply` and `patch -p1` take: the names are plain, and which revisions they
//! stand for follows behind a tab, where those programs expect a date (`--- a/notes.txt<TAB>(@2)`). Lines end in a line
//! feed and nowhere else, so that lone carriage returns come back as they were. Symlinks are compared by their targets.
//! Binary contents (a NUL among the first 8000 bytes, git's rule) and very large ones have no text. Pure but for
//! [`between`], which reads the contents.

use std::collections::HashMap;
use std::ops::Range;

use similar::{Algorithm, DiffOp, capture_diff_slices};

use super::history::HistoryError;
use super::report::Revision;
use crate::entry::Kind;
use crate::id::ObjectId;
use crate::path::{SyncPath, quote};
use crate::store::large::{self, Recipe};
use crate::store::{ObjectKind, Objects};

/// The largest content that is compared by lines; beyond it memory and patience end.
pub const LARGEST: u64 = 32 << 20;
/// The most lines, for the same reason.
const MOST_LINES: usize = 1 << 20;
/// The most lines between the first and the last that differ: finding out what became of each takes time.
const MOST_DIFFERING: usize = 1 << 18;
/// Lines of context.
const CONTEXT: usize = 3;
/// A NUL among so many first bytes makes a content binary, as for git.
const BINARY_LOOK: usize = 8000;

/// One side of a comparison.
#[derive(Debug, Clone)]
pub struct Side {
    /// Its path.
    pub path: SyncPath,
    /// What it is, for people: `@2`, `in the folder`.
    pub label: String,
    /// What stands there; none where nothing does.
    pub kind: Option<Kind>,
    /// Its content.
    pub content: Content,
}

/// The content of one side.
#[derive(Debug, Clone)]
pub enum Content {
    /// All of it; empty where nothing, or an empty folder, stands there.
    Bytes(Vec<u8>),
    /// Too large to be compared.
    Large {
        /// Its bytes.
        size: u64,
        /// What it is made of, where that is known.
        recipe: Option<Recipe>,
    },
}

impl Content {
    /// How many bytes it has.
    pub fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Large { size, .. } => *size,
        }
    }
}

/// Why there is no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoText {
    /// One of them is binary.
    Binary,
    /// One of them is larger than [`LARGEST`], or has too many lines.
    TooLarge,
}

/// What differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDiff {
    /// The unified diff, empty where nothing differs; or why there is none (then the contents do differ).
    pub text: Result<Vec<u8>, NoText>,
    /// What stood there before.
    pub old_kind: Option<Kind>,
    /// Bytes of it.
    pub old_size: u64,
    /// What stands there after.
    pub new_kind: Option<Kind>,
    /// Bytes of it.
    pub new_size: u64,
    /// How many of those bytes lie in chunks that were not there before, where both are large files.
    pub changed: Option<u64>,
}

/// Compares two revisions, of one file or of two.
pub fn between(objects: &Objects, old: &Revision, new: &Revision) -> Result<FileDiff, HistoryError> {
    let (old_side, new_side) = (side(objects, old)?, side(objects, new)?);
    let mut diff = compare(&old_side, &new_side);
    if diff.text.is_err() && old.content == new.content && old.kind == new.kind {
        diff.text = Ok(Vec::new());
    }
    Ok(diff)
}

/// Reads the side that a revision is.
pub fn side(objects: &Objects, revision: &Revision) -> Result<Side, HistoryError> {
    let label = match revision.number {
        Some(number) => format!("@{number}"),
        None => format!("@{}", revision.commit.short()),
    };
    let content = match (revision.kind, revision.content) {
        (Some(Kind::EmptyFolder), _) | (_, None) => Content::Bytes(Vec::new()),
        (Some(Kind::Symlink), Some(id)) => {
            let mut target = Vec::new();
            objects.read(ObjectKind::Blob, &id, &mut target)?;
            Content::Bytes(target)
        }
        (_, Some(id)) => content(objects, &id)?,
    };
    Ok(Side { path: revision.path.clone(), label, kind: revision.kind, content })
}

/// Reads a content, unless it is too large to be compared.
pub fn content(objects: &Objects, id: &ObjectId) -> Result<Content, HistoryError> {
    match large::content(objects, id)? {
        large::Content::Whole(size) if size > LARGEST => return Ok(Content::Large { size, recipe: None }),
        large::Content::Chunks(recipe) if recipe.size() > LARGEST => {
            return Ok(Content::Large { size: recipe.size(), recipe: Some(recipe) });
        }
        large::Content::Whole(_) | large::Content::Chunks(_) => {}
    }
    let mut bytes = Vec::new();
    objects.copy_file(id, &mut bytes)?;
    Ok(Content::Bytes(bytes))
}

/// Compares two sides.
pub fn compare(old: &Side, new: &Side) -> FileDiff {
    FileDiff {
        text: text(old, new),
        old_kind: old.kind,
        old_size: old.content.size(),
        new_kind: new.kind,
        new_size: new.content.size(),
        changed: match (&old.content, &new.content) {
            (Content::Large { recipe: Some(old), .. }, Content::Large { recipe: Some(new), .. }) => {
                Some(new.bytes_not_in(old))
            }
            _ => None,
        },
    }
}

/// What a patch can say of a kind: empty folders it cannot.
fn in_patch(kind: Option<Kind>) -> Option<Kind> {
    kind.filter(|&kind| kind != Kind::EmptyFolder)
}

fn text(old: &Side, new: &Side) -> Result<Vec<u8>, NoText> {
    let (old_kind, new_kind) = (in_patch(old.kind), in_patch(new.kind));
    if let (Some(one), Some(other)) = (old_kind, new_kind)
        && one.is_file() != other.is_file()
    {
        // As git tells it: the one goes, the other comes.
        let nothing = |side: &Side| Side { kind: None, content: Content::Bytes(Vec::new()), ..side.clone() };
        let mut both = text(old, &nothing(old))?;
        both.extend(text(&nothing(new), new)?);
        return Ok(both);
    }
    let hunks = match (&old.content, &new.content) {
        (Content::Bytes(old), Content::Bytes(new)) if old == new => Vec::new(),
        (Content::Bytes(old), Content::Bytes(new)) if is_binary(old) || is_binary(new) => return Err(NoText::Binary),
        (Content::Bytes(old), Content::Bytes(new)) => hunks(old, new)?,
        _ => return Err(NoText::TooLarge),
    };
    let name = |side: &Side, letter: &str| quote(&[letter.as_bytes(), b"/", side.path.as_bytes()].concat());
    let mut text = String::new();
    if old.path == new.path && (old_kind != new_kind || !hunks.is_empty()) {
        text += &format!("diff --git {} {}\n", name(old, "a"), name(new, "b"));
    }
    match (old_kind, new_kind) {
        (None, Some(kind)) => text += &format!("new file mode {:06o}\n", kind.mode()),
        (Some(kind), None) => text += &format!("deleted file mode {:06o}\n", kind.mode()),
        (Some(old), Some(new)) if old != new => {
            text += &format!("old mode {:06o}\nnew mode {:06o}\n", old.mode(), new.mode());
        }
        _ => {}
    }
    if !hunks.is_empty() {
        for (sign, side, letter, kind) in [("---", old, "a", old_kind), ("+++", new, "b", new_kind)] {
            let name = if kind.is_some() { name(side, letter) } else { "/dev/null".to_owned() };
            text += &format!("{sign} {name}\t({})\n", side.label);
        }
    }
    let mut text = text.into_bytes();
    text.extend(hunks);
    Ok(text)
}

fn is_binary(content: &[u8]) -> bool {
    content[..content.len().min(BINARY_LOOK)].contains(&0)
}

fn hunks(old: &[u8], new: &[u8]) -> Result<Vec<u8>, NoText> {
    let (old, new) = (lines(old)?, lines(new)?);
    let begin = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let end = old[begin..].iter().rev().zip(new[begin..].iter().rev()).take_while(|(a, b)| a == b).count();
    if old.len().max(new.len()) - begin - end > MOST_DIFFERING {
        return Err(NoText::TooLarge);
    }
    let mut numbers = HashMap::new();
    let (old_numbers, new_numbers) = (numbered(&mut numbers, &old), numbered(&mut numbers, &new));
    let ops = capture_diff_slices(Algorithm::Myers, &old_numbers, &new_numbers);
    let mut text = Vec::new();
    for group in similar::group_diff_ops(ops, CONTEXT) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        let range = |from: Range<usize>, to: Range<usize>| {
            let (start, count) = (from.start, to.end - from.start);
            match count {
                // A range without lines is named by the line before it.
                0 => format!("{start},0"),
                1 => format!("{}", start + 1),
                _ => format!("{},{count}", start + 1),
            }
        };
        let (old_range, new_range) =
            (range(first.old_range(), last.old_range()), range(first.new_range(), last.new_range()));
        text.extend_from_slice(format!("@@ -{old_range} +{new_range} @@\n").as_bytes());
        let mut put = |sign: u8, lines: &[&[u8]]| {
            for line in lines {
                text.push(sign);
                text.extend_from_slice(line);
                if !line.ends_with(b"\n") {
                    text.extend_from_slice(b"\n\\ No newline at end of file\n");
                }
            }
        };
        for op in &group {
            if matches!(op, DiffOp::Equal { .. }) {
                put(b' ', &old[op.old_range()]);
            } else {
                put(b'-', &old[op.old_range()]);
                put(b'+', &new[op.new_range()]);
            }
        }
    }
    Ok(text)
}

/// Numbers in the place of lines, the same for the same: comparing them does not read the lines again.
fn numbered<'a>(numbers: &mut HashMap<&'a [u8], usize>, lines: &[&'a [u8]]) -> Vec<usize> {
    let mut number = |&line: &&'a [u8]| {
        let next = numbers.len();
        *numbers.entry(line).or_insert(next)
    };
    lines.iter().map(&mut number).collect()
}

fn lines(content: &[u8]) -> Result<Vec<&[u8]>, NoText> {
    let lines: Vec<_> = content.split_inclusive(|&byte| byte == b'\n').take(MOST_LINES + 1).collect();
    if lines.len() > MOST_LINES { Err(NoText::TooLarge) } else { Ok(lines) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;
    use std::process::Command;

    fn path(text: &str) -> SyncPath {
        SyncPath::new(text).expect("a valid path")
    }

    fn file(name: &str, label: &str, content: &[u8]) -> Side {
        Side {
            path: path(name),
            label: label.to_owned(),
            kind: Some(Kind::File),
            content: Content::Bytes(content.to_vec()),
        }
    }

    fn nothing(name: &str) -> Side {
        Side { kind: None, ..file(name, "@1", b"") }
    }

    fn text_of(old: &Side, new: &Side) -> String {
        String::from_utf8(compare(old, new).text.expect("text")).expect("UTF-8")
    }

    #[test]
    fn prints_what_git_prints() {
        let old = file("notes.txt", "@2", b"1\n2\n3\n4\n5\n6\n7\n8\n9\n");
        let new = file("notes.txt", "@3", b"1\n2\n3\n4\nfive\n6\n7\n8\n9\nten");
        let expected = "diff --git a/notes.txt b/notes.txt\n--- a/notes.txt\t(@2)\n+++ b/notes.txt\t(@3)\n\
                        @@ -2,8 +2,9 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n 9\n+ten\n\\ No newline at end of file\n";
        assert_eq!(text_of(&old, &new), expected);
        assert_eq!(text_of(&old, &old), "");
    }

    #[test]
    fn tells_modes() {
        let old = file("run", "@1", b"x\n");
        let new = Side { kind: Some(Kind::Executable), ..old.clone() };
        assert_eq!(text_of(&old, &new), "diff --git a/run b/run\nold mode 100644\nnew mode 100755\n");
    }

    #[test]
    fn two_files_are_compared_without_a_head_that_would_call_them_one() {
        let text = text_of(&file("a", "@1", b"1\n"), &file("b", "@4", b"2\n"));
        assert_eq!(text, "--- a/a\t(@1)\n+++ b/b\t(@4)\n@@ -1 +1 @@\n-1\n+2\n");
    }

    #[test]
    fn binary_and_large_contents_have_no_text() {
        let (old, new) = (file("x", "@1", b"text\n"), file("x", "@2", b"a\0b"));
        let diff = compare(&old, &new);
        assert_eq!((diff.text, diff.old_size, diff.new_size), (Err(NoText::Binary), 5, 3));
        let late = [vec![b'x'; BINARY_LOOK], vec![0]].concat();
        assert!(compare(&old, &file("x", "@2", &late)).text.is_ok());
        let large = Side { content: Content::Large { size: 1 << 40, recipe: None }, ..new };
        assert_eq!(compare(&old, &large).text, Err(NoText::TooLarge));
        assert_eq!(compare(&old, &file("x", "@2", &vec![b'\n'; MOST_LINES + 1])).text, Err(NoText::TooLarge));
        assert_eq!(compare(&old, &file("x", "@2", &vec![b'\n'; MOST_DIFFERING + 2])).text, Err(NoText::TooLarge));
        let long = vec![b'\n'; MOST_LINES - 1];
        assert!(compare(&file("x", "@1", &long), &file("x", "@2", &[&long[..], b"more\n"].concat())).text.is_ok());
    }

    #[test]
    fn empty_folders_have_no_lines() {
        let folder = Side { kind: Some(Kind::EmptyFolder), ..nothing("d") };
        assert_eq!(text_of(&nothing("d"), &folder), "");
    }

    fn put(dir: &Path, side: &Side) {
        let path = dir.join(std::str::from_utf8(side.path.as_bytes()).expect("text"));
        fs::create_dir_all(path.parent().expect("inside")).expect("folders");
        let Content::Bytes(bytes) = &side.content else { panic!("not large") };
        match side.kind {
            None => {}
            Some(Kind::Symlink) => symlink(std::str::from_utf8(bytes).expect("text"), path).expect("links"),
            Some(kind) => {
                fs::write(&path, bytes).expect("writes");
                let mode = if kind == Kind::Executable { 0o755 } else { 0o644 };
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("sets");
            }
        }
    }

    fn get(dir: &Path, name: &SyncPath) -> (Option<Kind>, Vec<u8>) {
        let path = dir.join(std::str::from_utf8(name.as_bytes()).expect("text"));
        match fs::symlink_metadata(&path) {
            Err(_) => (None, Vec::new()),
            Ok(meta) if meta.is_symlink() => {
                (Some(Kind::Symlink), fs::read_link(path).expect("a link").into_os_string().into_encoded_bytes())
            }
            Ok(meta) => {
                let executable = meta.permissions().mode() & 0o100 != 0;
                (Some(if executable { Kind::Executable } else { Kind::File }), fs::read(path).expect("reads"))
            }
        }
    }

    /// Applies the diff from `old` to `new` with a program; returns what stands there then.
    fn applied(program: &[&str], old: &Side, new: &Side) -> (Option<Kind>, Vec<u8>) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let work = dir.path().join("work");
        fs::create_dir(&work).expect("makes");
        put(&work, old);
        let patch = dir.path().join("patch");
        fs::write(&patch, compare(old, new).text.expect("text")).expect("writes");
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).current_dir(&work).env("GIT_CEILING_DIRECTORIES", dir.path());
        let output = command.stdin(fs::File::open(&patch).expect("opens")).output().expect("runs");
        assert!(output.status.success(), "{program:?}: {output:?}\n{}", fs::read_to_string(&patch).unwrap_or_default());
        get(&work, &new.path)
    }

    const GIT: [&str; 3] = ["git", "apply", "--whitespace=nowarn"];
    const PATCH: [&str; 5] = ["patch", "-p1", "--quiet", "--binary", "--no-backup-if-mismatch"];

    fn of(side: &Side) -> (Option<Kind>, Vec<u8>) {
        let Content::Bytes(bytes) = &side.content else { panic!("not large") };
        (side.kind, bytes.clone())
    }

    #[rstest]
    #[case::changed(file("d/a b.txt", "@1", b"1\n2\n3\n"), file("d/a b.txt", "@2", b"1\n2\nthree"))]
    #[case::made(nothing("new/x"), file("new/x", "@1", b"1\n"))]
    #[case::made_empty(nothing("x"), file("x", "@1", b""))]
    #[case::emptied(file("x", "@1", b"1\n"), file("x", "@2", b""))]
    #[case::filled(file("x", "@1", b""), file("x", "@2", b"1"))]
    #[case::deleted(file("x", "@1", b"1\n"), nothing("x"))]
    #[case::carriage_returns(file("x", "@1", b"a\rb\r\nc\r"), file("x", "@2", b"a\rb\nc\r"))]
    #[case::quoted(file("t\tab \"q\" \\ \u{1}", "@1", b"1\n"), file("t\tab \"q\" \\ \u{1}", "@2", b"2\n"))]
    #[case::mode_and_text(file("x", "@1", b"1\n"), Side { kind: Some(Kind::Executable), ..file("x", "@2", b"2\n") })]
    #[case::mode(file("x", "@1", b"1\n"), Side { kind: Some(Kind::Executable), ..file("x", "@2", b"1\n") })]
    #[case::link(Side { kind: Some(Kind::Symlink), ..file("l", "@1", b"here") }, Side { kind: Some(Kind::Symlink), ..file("l", "@2", b"there") })]
    #[case::file_to_link(file("l", "@1", b"1\n"), Side { kind: Some(Kind::Symlink), ..file("l", "@2", b"there") })]
    fn git_applies_it(#[case] old: Side, #[case] new: Side) {
        assert_eq!(applied(&GIT, &old, &new), of(&new));
    }

    #[rstest]
    #[case(file("d/a b.txt", "@1", b"1\n2\n3\n"), file("d/a b.txt", "@2", b"1\n2\nthree"))]
    #[case(nothing("x"), file("x", "@1", b"1\n"))]
    #[case(file("x", "@1", b"1\n"), nothing("x"))]
    fn patch_applies_it(#[case] old: Side, #[case] new: Side) {
        if Command::new("patch").arg("--version").output().is_ok() {
            assert_eq!(applied(&PATCH, &old, &new), of(&new));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn git_applies_any_edit(old in "([ab]\n){0,12}[ab]?", new in "([abc]\r?\n){0,12}[ab]?") {
            let (old, new) = (file("x", "@1", old.as_bytes()), file("x", "@2", new.as_bytes()));
            prop_assume!(of(&old) != of(&new));
            prop_assert_eq!(applied(&GIT, &old, &new), of(&new));
        }
    }
}
