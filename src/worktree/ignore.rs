//! What is left out of the history: git's ignore rules, exactly.
//!
//! `.gitignore` in every folder and one exclude file; a deeper file wins over a higher one, and in one file the later
//! line; nothing below an ignored folder comes back. The rules travel with the folder, so they are a peer's to write:
//! matching costs at most the product of the lengths of pattern and path, whatever the pattern.
//!
//! The patterns are matched here, not by a glob crate, because what git leaves out must be what we leave out: braces
//! are plain characters, `[[:alpha:]]` is known, a class that is not closed matches nothing, bytes need not be UTF-8.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::io::Errno;

use super::root::{FILE, Form, Root, status_of};
use crate::path::SyncPath;

/// The name of the files that hold rules.
pub(super) const FILE_NAME: &[u8] = b".gitignore";
/// How much of a file of rules is read.
const MAX_BYTES: u64 = 16 << 20;

/// The rules of one folder's file, and those above it.
#[derive(Debug)]
pub(super) struct Rules {
    /// The bytes of a path that lead to the folder, its closing slash among them.
    base: usize,
    patterns: Vec<Pattern>,
    above: Above,
}

/// The rules that hold in a folder; none where no file of rules is above.
pub(super) type Above = Option<Arc<Rules>>;

/// Whether the rules leave out `path`, given that they do not leave out the folder that holds it.
pub(super) fn is_ignored(rules: &Above, path: &[u8], folder: bool) -> bool {
    let mut level = rules;
    while let Some(rules) = level {
        let path = &path[rules.base..];
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
        if let Some(pattern) = rules.patterns.iter().rev().find(|pattern| pattern.matches(path, name, folder)) {
            return !pattern.negated;
        }
        level = &rules.above;
    }
    false
}

/// Whether the rules that hold in the folder `within` (empty: the root) leave out `path`, or a folder between the two.
pub(super) fn is_ignored_below(rules: &Above, within: &[u8], path: &[u8], folder: bool) -> bool {
    let from = if within.is_empty() { 0 } else { within.len() + 1 };
    let slashes = path.iter().enumerate().skip(from).filter(|&(_, &byte)| byte == b'/');
    slashes.map(|(slash, _)| &path[..slash]).any(|above| is_ignored(rules, above, true))
        || is_ignored(rules, path, folder)
}

/// Whether the text of a `.gitignore` at the top of a folder leaves out `path` of that folder, by itself or with a folder
/// above it.
pub fn leaves_out(rules: &[u8], path: &SyncPath, folder: bool) -> bool {
    is_ignored_below(&exclude(rules), b"", path.as_bytes(), folder)
}

/// The rules that stand above all others (git's `info/exclude`), given as the text of such a file.
pub(super) fn exclude(text: &[u8]) -> Above {
    with(text, b"", &None)
}

/// The rules that hold in `folder`, whose own file is read: `above`, if there is none (a symlink is none, as in git).
pub(super) fn descend(root: &Root, folder: &[u8], above: &Above) -> rustix::io::Result<Above> {
    let path = if folder.is_empty() { FILE_NAME.to_vec() } else { [folder, b"/", FILE_NAME].concat() };
    let fd = match root.open_at(&path, FILE) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::MLINK | Errno::NXIO) => return Ok(above.clone()),
        Err(errno) => return Err(errno),
    };
    if !matches!(status_of(fd.as_fd())?.form, Form::Leaf(_)) {
        return Ok(above.clone());
    }
    let mut text = Vec::new();
    let read = File::from(fd).take(MAX_BYTES).read_to_end(&mut text);
    read.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(with(&text, folder, above))
}

fn with(text: &[u8], folder: &[u8], above: &Above) -> Above {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let patterns: Vec<_> = text.split(|&byte| byte == b'\n').filter_map(Pattern::parse).collect();
    if patterns.is_empty() {
        return above.clone();
    }
    let base = if folder.is_empty() { 0 } else { folder.len() + 1 };
    Some(Arc::new(Rules { base, patterns, above: above.clone() }))
}

/// One line of a file of rules.
#[derive(Debug)]
struct Pattern {
    negated: bool,
    only_folders: bool,
    /// It has a slash within, so it is about the whole path from its folder down, not about a name.
    whole_path: bool,
    form: Shape,
}

#[derive(Debug)]
enum Shape {
    /// Without anything special in it.
    Literal(Vec<u8>),
    /// A `*`, then nothing special; for names only.
    Suffix(Vec<u8>),
    /// A literal beginning, then a glob.
    Glob(Vec<u8>, Vec<Token>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// `?`: one byte, no slash.
    One,
    /// A class, as the set of bytes it takes; no slash among them.
    Class(Box<[u64; 4]>),
    /// `*`: any bytes but slashes.
    Star,
    /// `**` between slashes: any bytes.
    StarStar,
    /// `**/`: nothing, or any bytes and a slash.
    Folders,
}

fn is_special(byte: u8) -> bool {
    matches!(byte, b'*' | b'?' | b'[' | b'\\')
}

impl Pattern {
    fn parse(line: &[u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = line.split(|&byte| byte == 0).next().unwrap_or(line);
        if line.is_empty() || line[0] == b'#' {
            return None;
        }
        let line = without_trailing_spaces(line);
        let (negated, line) = line.strip_prefix(b"!").map_or((false, line), |rest| (true, rest));
        let (only_folders, line) = line.strip_suffix(b"/").map_or((false, line), |rest| (true, rest));
        let whole_path = line.contains(&b'/');
        let line = line.strip_prefix(b"/").unwrap_or(line);
        let plain = line.iter().position(|&byte| is_special(byte)).unwrap_or(line.len());
        let form = if line.is_empty() {
            return None;
        } else if plain == line.len() {
            Shape::Literal(line.to_vec())
        } else if !whole_path && line[0] == b'*' && !line[1..].iter().any(|&byte| is_special(byte)) {
            Shape::Suffix(line[1..].to_vec())
        } else {
            // As in git, what follows the literal beginning is a glob of its own: a `**` there counts as if it
            // stood behind a slash.
            Shape::Glob(line[..plain].to_vec(), tokens(&line[plain..])?)
        };
        Some(Self { negated, only_folders, whole_path, form })
    }

    fn matches(&self, path: &[u8], name: &[u8], folder: bool) -> bool {
        if self.only_folders && !folder {
            return false;
        }
        let text = if self.whole_path { path } else { name };
        match &self.form {
            Shape::Literal(literal) => text == literal,
            Shape::Suffix(suffix) => text.ends_with(suffix),
            Shape::Glob(start, tokens) => text.strip_prefix(&start[..]).is_some_and(|rest| glob(tokens, rest)),
        }
    }
}

/// Spaces at the end go, unless a backslash keeps them.
fn without_trailing_spaces(line: &[u8]) -> &[u8] {
    let mut end = 0;
    let mut at = 0;
    while at < line.len() {
        match line[at] {
            b' ' => {}
            b'\\' => {
                at += 1;
                end = at + 1;
            }
            _ => end = at + 1,
        }
        at += 1;
    }
    &line[..end.min(line.len())]
}

/// The tokens of a glob; `None` for one that can match nothing.
fn tokens(glob: &[u8]) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&byte) = glob.get(at) {
        let start = at;
        at += 1;
        tokens.push(match byte {
            b'?' => Token::One,
            b'\\' => {
                at += 1;
                Token::Byte(*glob.get(start + 1)?)
            }
            b'[' => {
                let (class, len) = class(&glob[at..])?;
                at += len;
                class
            }
            b'*' => {
                at += glob[at..].iter().take_while(|&&byte| byte == b'*').count();
                let opens = start == 0 || glob[start - 1] == b'/';
                let closes = matches!(glob[at..], [] | [b'/', ..] | [b'\\', b'/', ..]);
                if at - start == 1 || !opens || !closes {
                    Token::Star
                } else if glob.get(at) == Some(&b'/') {
                    at += 1;
                    Token::Folders
                } else {
                    Token::StarStar
                }
            }
            _ => Token::Byte(byte),
        });
    }
    Some(tokens)
}

/// The class whose text begins behind the `[`, and how long that text is; `None` if it is no class.
fn class(text: &[u8]) -> Option<(Token, usize)> {
    let mut set = [false; 256];
    let negated = matches!(text.first(), Some(b'!' | b'^'));
    let mut at = usize::from(negated);
    let first = at;
    let mut previous = None;
    loop {
        let mut byte = *text.get(at)?;
        match byte {
            b']' if at > first => break,
            b'[' if text.get(at + 1) == Some(&b':') => {
                if let Some(len) = text[at + 2..].iter().position(|&byte| byte == b']') {
                    let inner = &text[at + 2..at + 2 + len];
                    if let Some(name) = inner.strip_suffix(b":") {
                        let member = posix_class(name)?;
                        (0..=255u8).filter(member).for_each(|byte| set[usize::from(byte)] = true);
                        at += 2 + len + 1;
                        previous = None;
                        continue;
                    }
                } else {
                    return None;
                }
                set[usize::from(byte)] = true;
            }
            b'-' if previous.is_some() && text.get(at + 1).is_some_and(|&next| next != b']') => {
                at += 1;
                byte = text[at];
                if byte == b'\\' {
                    at += 1;
                    byte = *text.get(at)?;
                }
                for member in previous.unwrap_or(byte)..=byte {
                    set[usize::from(member)] = true;
                }
                at += 1;
                previous = None;
                continue;
            }
            b'\\' => {
                at += 1;
                byte = *text.get(at)?;
                set[usize::from(byte)] = true;
            }
            _ => set[usize::from(byte)] = true,
        }
        previous = Some(byte);
        at += 1;
    }
    let mut bits = [0u64; 4];
    for (byte, _) in set.iter().enumerate().filter(|&(byte, &member)| member != negated && byte != usize::from(b'/')) {
        bits[byte / 64] |= 1 << (byte % 64);
    }
    Some((Token::Class(Box::new(bits)), at + 1))
}

fn posix_class(name: &[u8]) -> Option<fn(&u8) -> bool> {
    Some(match name {
        b"alnum" => u8::is_ascii_alphanumeric,
        b"alpha" => u8::is_ascii_alphabetic,
        b"blank" => |byte| matches!(byte, b' ' | b'\t'),
        b"cntrl" => u8::is_ascii_control,
        b"digit" => u8::is_ascii_digit,
        b"graph" => u8::is_ascii_graphic,
        b"lower" => u8::is_ascii_lowercase,
        b"print" => |byte| matches!(byte, b' '..=b'~'),
        b"punct" => u8::is_ascii_punctuation,
        b"space" => |byte| matches!(byte, b' ' | b'\t'..=b'\r'),
        b"upper" => u8::is_ascii_uppercase,
        b"xdigit" => u8::is_ascii_hexdigit,
        _ => return None,
    })
}

/// Whether the tokens take the whole text: all the places in the pattern that the text so far can have led to are
/// followed at once.
fn glob(tokens: &[Token], text: &[u8]) -> bool {
    let mut places = vec![false; tokens.len() + 1];
    let mut next = vec![false; tokens.len() + 1];
    reach(tokens, &mut places, 0);
    for &byte in text {
        next.fill(false);
        let mut any = false;
        for place in (0..tokens.len()).filter(|&place| places[place]) {
            let to = match &tokens[place] {
                Token::Byte(expected) => (*expected == byte).then_some(place + 1),
                Token::One => (byte != b'/').then_some(place + 1),
                Token::Class(bits) => (bits[usize::from(byte) / 64] >> (byte % 64) & 1 == 1).then_some(place + 1),
                Token::Star => (byte != b'/').then_some(place),
                Token::StarStar => Some(place),
                Token::Folders => {
                    if byte == b'/' {
                        reach(tokens, &mut next, place + 1);
                    }
                    // Stays in the token, without the way past it that it had at its beginning.
                    next[place] = true;
                    any = true;
                    None
                }
            };
            if let Some(to) = to {
                any = true;
                reach(tokens, &mut next, to);
            }
        }
        if !any {
            return false;
        }
        std::mem::swap(&mut places, &mut next);
    }
    places[tokens.len()]
}

/// Marks `place`, and the places behind it that need no byte to get to.
fn reach(tokens: &[Token], places: &mut [bool], mut place: usize) {
    loop {
        places[place] = true;
        match tokens.get(place) {
            Some(Token::Star | Token::StarStar | Token::Folders) => place += 1,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::io::Write;
    use std::process::{Command, Stdio};

    /// What git makes of rules in the root and in the folder `a`, for paths that need not exist. A path that ends
    /// with a slash is a folder.
    fn git_ignores(root: &[u8], inner: &[u8], paths: &[&str]) -> BTreeSet<String> {
        let dir = tempfile::tempdir().unwrap();
        let git = |args: &[&str]| {
            let mut command = Command::new("git");
            command.current_dir(dir.path()).args(args).env("GIT_CONFIG_GLOBAL", "/dev/null");
            command.env("GIT_CONFIG_NOSYSTEM", "1").env("XDG_CONFIG_HOME", dir.path().join(".git"));
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            command
        };
        assert!(git(&["init", "-q"]).output().unwrap().status.success());
        for path in paths {
            let at = dir.path().join(path);
            if path.ends_with('/') {
                std::fs::create_dir_all(at).unwrap();
            } else {
                std::fs::create_dir_all(at.parent().unwrap()).unwrap();
                std::fs::write(at, "").unwrap();
            }
        }
        std::fs::write(dir.path().join(".gitignore"), root).unwrap();
        std::fs::create_dir_all(dir.path().join("a")).unwrap();
        std::fs::write(dir.path().join("a/.gitignore"), inner).unwrap();
        let mut child = git(&["check-ignore", "--no-index", "-z", "--stdin"]).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        for path in paths {
            write!(input, "{}\0", path.trim_end_matches('/')).unwrap();
        }
        drop(input);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.code().is_some_and(|code| code <= 1), "{}", String::from_utf8_lossy(&output.stderr));
        let ignored: BTreeSet<_> = output.stdout.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect();
        let is_ignored = |path: &&&str| ignored.contains(path.trim_end_matches('/').as_bytes());
        paths.iter().filter(is_ignored).map(|&path| path.to_owned()).collect()
    }

    fn we_ignore(root: &[u8], inner: &[u8], paths: &[&str]) -> BTreeSet<String> {
        let outer = with(root, b"", &None);
        let inner = with(inner, b"a", &outer);
        let ignored = |path: &str| {
            let (path, folder) = path.strip_suffix('/').map_or((path, false), |path| (path, true));
            let path = path.as_bytes();
            if path.starts_with(b"a/") {
                is_ignored(&outer, b"a", true) || is_ignored_below(&inner, b"a", path, folder)
            } else {
                is_ignored_below(&outer, b"", path, folder)
            }
        };
        paths.iter().filter(|path| ignored(path)).map(|&path| path.to_owned()).collect()
    }

    const PATHS: &[&str] = &[
        "a/",
        "a/b/",
        "a/b/c",
        "a/b/d/",
        "a/b/d/c",
        "a/x.o",
        "a/xy",
        "a/-",
        "b/",
        "b/c/",
        "b/c/d",
        "b/a/",
        "b/a/b",
        "x.o",
        "xy",
        "x y",
        "x ",
        "a]b",
        "[ab",
        "{a,b}",
        "c",
        "!c",
        "#c",
        "\\c",
        "d/",
        "d/x.o",
        "d/b/",
        "d/b/x",
        "foo/",
        "foo/bar/",
        "foo/bar/x",
        "foobar",
        "foox/",
        "foox/bar",
        "X",
        "5",
        "-",
        "]",
        "^",
        "a/*",
        "a/?",
        "caf\u{e9}",
    ];

    #[rstest::rstest]
    fn agrees_with_git_on_chosen_patterns(
        #[values(
            "*.o",
            "x*",
            "/x*",
            "a/*",
            "a/**",
            "**/c",
            "**/b/c",
            "a/**/c",
            "foo**/bar",
            "foo**bar",
            "**bar",
            "b/",
            "/b/",
            "b/c/",
            "!c",
            "*\n!c",
            "*\n!*/",
            "*\n!a/\n!a/b/",
            "[ab",
            "a]b",
            "{a,b}",
            "\\!c",
            "\\#c",
            "#c",
            "\\\\c",
            "x\\ ",
            "x ",
            "x y  ",
            "[[:alpha:]]",
            "[[:digit:]]",
            "[[:nope:]]",
            "[!a-w]",
            "[^a-w]",
            "[]-]",
            "[a-]",
            "[]a]",
            "[\\]]",
            "[\\^x]",
            "?",
            "???",
            "c\r\nxy\r",
            "*/c",
            "a/*/c",
            "a/\\*",
            "a/[*]",
            "foo/**",
            "foo/**/",
            "foo\\",
            "**",
            "***",
            "/",
            "!",
            " ",
            "/**",
            "**/",
            "*/",
            "a/b/**/",
            "**/**/c",
            "**\\/c",
            "/*/*/c",
            "b/*",
            "[[-a]",
            "[a-c-x]",
            "[[:alpha:]-]",
            "*.[ox]",
            "caf?",
            "caf??",
            "[x-a]",
            "a//b",
            "//a",
            "a/b//",
            "[:x",
            "[[:x",
            "[[x:]y",
            "**/*.o",
            "x**",
            "**y"
        )]
        rules: &str,
    ) {
        let rules = rules.as_bytes();
        assert_eq!(we_ignore(rules, b"", PATHS), git_ignores(rules, b"", PATHS), "in the root");
        assert_eq!(we_ignore(b"*\n!*/", rules, PATHS), git_ignores(b"*\n!*/", rules, PATHS), "below");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
        #[test]
        fn agrees_with_git_on_any_pattern(root in "([!]?/?(a|b|c|x|\\*|\\*\\*|/|\\?|\\[ab\\]|\\[!a\\]|\\[|\\]|foo|bar|\\.o|-|\\\\){1,6}/?\n){1,4}",
                                          inner in "([!]?/?(b|c|d|\\*|\\*\\*|/|x|y){1,4}/?\n){0,3}") {
            let (root, inner) = (root.as_bytes(), inner.as_bytes());
            prop_assert_eq!(we_ignore(root, inner, PATHS), git_ignores(root, inner, PATHS));
        }
    }

    #[test]
    fn a_hostile_pattern_costs_no_more_than_its_length() {
        let rules =
            with(&[b"*a".repeat(2000), b"b\n/".to_vec(), b"**/a*/".repeat(500), b"b".to_vec()].concat(), b"", &None);
        let path = [b"a/".repeat(1000), b"a".repeat(2000)].concat();
        assert!(!is_ignored(&rules, &path, false));
    }
}
