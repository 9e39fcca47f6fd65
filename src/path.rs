//! Paths inside a shared folder.
//!
//! A [`SyncPath`] is relative, `/`-separated and made of names that every git accepts. It can only be made by
//! constructors that check, so whoever holds one need not check again; nothing outside the folder, and nothing
//! inside a `.git`, can be named by it. Names are bytes, as on Unix and in git; they need not be UTF-8.
//! Sources: git's `verify_path` and `fsck` rules (HFS+ and NTFS forms of `.git` included).

use std::fmt;

/// Why a name cannot be part of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has no bytes, as between two slashes.
    #[error("a name is empty")]
    Empty,
    /// The name is `.` or `..`.
    #[error("a name is `.` or `..`")]
    Dots,
    /// The name has a NUL byte.
    #[error("a name has a NUL byte")]
    Nul,
    /// The name has a slash.
    #[error("a name has a slash")]
    Slash,
    /// The name is `.git`, or what some file system takes for it.
    #[error("a name is `.git`, or what some file systems take for it")]
    DotGit,
    /// The name is one that foldersync keeps for itself.
    #[error("a name is reserved for foldersync itself")]
    Reserved,
}

/// The folder of our own that `--alongside` puts next to somebody's `.git`.
pub const ALONGSIDE: &str = ".foldersync";

/// Whether `name` can stand between two slashes of a path that git keeps.
pub fn check_name(name: &[u8]) -> Result<(), NameError> {
    match name {
        [] => Err(NameError::Empty),
        b"." | b".." => Err(NameError::Dots),
        _ if name.contains(&0) => Err(NameError::Nul),
        _ if name.contains(&b'/') => Err(NameError::Slash),
        _ if is_dot_git(name) => Err(NameError::DotGit),
        _ if name.eq_ignore_ascii_case(ALONGSIDE.as_bytes()) => Err(NameError::Reserved),
        _ => Ok(()),
    }
}

/// `.git` in any case; with what NTFS ignores at the end (`.git. `, `.git::$INDEX_ALLOCATION`) or its short name
/// `git~1`; with code points in it that HFS+ ignores.
fn is_dot_git(name: &[u8]) -> bool {
    let ntfs = |rest: &[u8]| {
        let rest = rest.split(|&byte| byte == b':').next().unwrap_or(rest);
        rest.iter().all(|byte| matches!(byte, b' ' | b'.'))
    };
    for form in [&b".git"[..], b"git~1"] {
        if name.len() >= form.len() && name[..form.len()].eq_ignore_ascii_case(form) && ntfs(&name[form.len()..]) {
            return true;
        }
    }
    // A back-slash is a separator on Windows, so `a\.git` would reach inside there.
    if name.contains(&b'\\')
        && name.split(|&byte| byte == b'\\').any(|part| part == b".." || (part != name && is_dot_git(part)))
    {
        return true;
    }
    !name.is_ascii() && is_hfs_dot_git(name)
}

fn is_hfs_dot_git(name: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(name) else { return false };
    let ignored =
        |c: char| matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}');
    name.chars().filter(|&c| !ignored(c)).flat_map(char::to_lowercase).eq(".git".chars())
}

/// A path inside a shared folder: relative, checked, never empty.
///
/// The order is that of its bytes, which is also the order of git's index.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SyncPath(Box<[u8]>);

impl SyncPath {
    /// The path with these bytes, if each of its names is one that git accepts.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, NameError> {
        let bytes = bytes.into();
        bytes.split(|&byte| byte == b'/').try_for_each(check_name)?;
        Ok(Self(bytes.into_boxed_slice()))
    }

    /// The path below `self` with this name at its end.
    pub fn join(&self, name: &[u8]) -> Result<Self, NameError> {
        check_name(name)?;
        Ok(Self([&self.0, &b"/"[..], name].concat().into_boxed_slice()))
    }

    /// The bytes of the path.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The names of the path, outermost first.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'/')
    }

    /// The last name.
    pub fn file_name(&self) -> &[u8] {
        self.names().next_back().unwrap_or_default()
    }

    /// The bytes of the folder that holds it; empty at the top.
    pub fn parent(&self) -> &[u8] {
        self.0.iter().rposition(|&byte| byte == b'/').map_or(&[], |slash| &self.0[..slash])
    }

    /// The folders above it, outermost first, as paths.
    pub fn ancestors(&self) -> impl Iterator<Item = SyncPath> + '_ {
        self.0.iter().enumerate().filter(|&(_, &byte)| byte == b'/').map(|(slash, _)| Self(self.0[..slash].into()))
    }

    /// Whether it lies below the folder `other`.
    pub fn is_below(&self, other: &SyncPath) -> bool {
        self.0.strip_prefix(&*other.0).is_some_and(|rest| rest.first() == Some(&b'/'))
    }
}

impl TryFrom<&str> for SyncPath {
    type Error = NameError;

    fn try_from(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

/// Quoted as git quotes paths: as it is where that is plain, otherwise in `"` with `\` escapes.
impl fmt::Display for SyncPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quote(&self.0))
    }
}

impl fmt::Debug for SyncPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SyncPath({self})")
    }
}

impl serde::Serialize for SyncPath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for SyncPath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes =
            unquote(text.as_bytes()).ok_or_else(|| serde::de::Error::custom("a path that is not quoted well"))?;
        Self::new(bytes).map_err(serde::de::Error::custom)
    }
}

/// `path` as git prints it (`core.quotePath=false`): plain UTF-8 without control characters, `"` and `\` stands as it
/// is; otherwise it is put in double quotes, with C escapes and octal digits for bytes that are not text.
pub fn quote(path: &[u8]) -> String {
    let plain = |c: char| !c.is_control() && c != '"' && c != '\\';
    match std::str::from_utf8(path) {
        Ok(text) if text.chars().all(plain) => return text.to_owned(),
        _ => {}
    }
    let mut quoted = String::from("\"");
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => quoted.extend(['\\', c]),
                '\t' => quoted.push_str("\\t"),
                '\n' => quoted.push_str("\\n"),
                '\r' => quoted.push_str("\\r"),
                _ if c.is_control() => {
                    let mut bytes = [0; 4];
                    c.encode_utf8(&mut bytes).bytes().for_each(|byte| quoted.push_str(&format!("\\{byte:03o}")));
                }
                _ => quoted.push(c),
            }
        }
        chunk.invalid().iter().for_each(|byte| quoted.push_str(&format!("\\{byte:03o}")));
    }
    quoted.push('"');
    quoted
}

/// The bytes that [`quote`] made this text of; `None` where it is not such a text.
pub fn unquote(text: &[u8]) -> Option<Vec<u8>> {
    let Some(inner) = text.strip_prefix(b"\"") else { return Some(text.to_vec()) };
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.strip_suffix(b"\"")?.iter().copied();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'"' => return None,
            b'\\' => match rest.next()? {
                b't' => b'\t',
                b'n' => b'\n',
                b'r' => b'\r',
                escaped @ (b'"' | b'\\') => escaped,
                first @ b'0'..=b'3' => {
                    let digit = |byte: u8| matches!(byte, b'0'..=b'7').then(|| byte - b'0');
                    digit(first)? << 6 | digit(rest.next()?)? << 3 | digit(rest.next()?)?
                }
                _ => return None,
            },
            plain => plain,
        });
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case::empty("", NameError::Empty)]
    #[case::absolute("/etc/passwd", NameError::Empty)]
    #[case::double_slash("a//b", NameError::Empty)]
    #[case::trailing_slash("a/", NameError::Empty)]
    #[case::parent("a/../b", NameError::Dots)]
    #[case::here("./a", NameError::Dots)]
    #[case::nul("a\0b", NameError::Nul)]
    #[case::dot_git(".git/config", NameError::DotGit)]
    #[case::upper_case("a/.GIT/config", NameError::DotGit)]
    #[case::short_name("GIT~1", NameError::DotGit)]
    #[case::trailing_dots(".git. .", NameError::DotGit)]
    #[case::stream(".git::$INDEX_ALLOCATION", NameError::DotGit)]
    #[case::ignored_code_point(".g\u{200c}it", NameError::DotGit)]
    #[case::back_slash("a\\.git\\config", NameError::DotGit)]
    #[case::ours(".foldersync", NameError::Reserved)]
    fn refuses(#[case] path: &str, #[case] error: NameError) {
        assert_eq!(SyncPath::new(path), Err(error));
    }

    #[rstest]
    #[case(".gitignore")]
    #[case(".github/x")]
    #[case("git~2")]
    #[case("a.git")]
    #[case("...")]
    #[case("back\\slash")]
    fn accepts(#[case] path: &str) {
        assert!(SyncPath::new(path).is_ok());
    }

    #[test]
    fn knows_its_folders() {
        let path = SyncPath::new("a/b/c").expect("valid");
        assert_eq!(path.parent(), b"a/b");
        assert_eq!(path.file_name(), b"c");
        let folders: Vec<_> = path.ancestors().collect();
        assert_eq!(folders, [SyncPath::new("a").expect("valid"), SyncPath::new("a/b").expect("valid")]);
        assert!(path.is_below(&folders[0]) && !folders[0].is_below(&path) && !path.is_below(&path));
    }

    #[rstest]
    #[case(b"plain name.txt", "plain name.txt")]
    #[case("ünïcode".as_bytes(), "ünïcode")]
    #[case(b"tab\there", "\"tab\\there\"")]
    #[case(b"\xff", "\"\\377\"")]
    #[case(b"say \"hi\"", "\"say \\\"hi\\\"\"")]
    fn quotes_as_git_does(#[case] path: &[u8], #[case] quoted: &str) {
        assert_eq!(quote(path), quoted);
    }

    proptest! {
        #[test]
        fn unquotes_what_it_quotes(path: Vec<u8>) {
            prop_assert_eq!(unquote(quote(&path).as_bytes()), Some(path));
        }
    }
}
