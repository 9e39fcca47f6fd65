//! Commits: what they hold, and their bytes.
//!
//! Writing is exact (the same commit has the same bytes everywhere); reading is lenient, since people's own commits
//! come with encodings, signatures and names of all kinds.

use super::error::StoreError;
use super::objects::{ObjectKind, object_id};
use crate::id::{CommitId, TreeId};
use crate::message::Message;

/// Who, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Name: for foldersync, the device's.
    pub name: String,
    /// Address: for foldersync, `<device id>@foldersync`.
    pub email: String,
    /// Seconds since 1970 UTC.
    pub time: i64,
}

/// A revision of the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The state of the folder.
    pub tree: TreeId,
    /// The revisions that it follows.
    pub parents: Vec<CommitId>,
    /// Whose change it is, and the file's mtime in whole seconds.
    pub author: Signature,
    /// Who captured it, and when.
    pub committer: Signature,
    /// The message.
    pub message: Vec<u8>,
}

impl Commit {
    /// The commit in these bytes, whose id is `id` (for errors).
    pub fn parse(id: CommitId, bytes: &[u8]) -> Result<Self, StoreError> {
        let damaged = |detail: &dyn ToString| StoreError::damaged(format!("commit {id}"), detail.to_string());
        let commit = gix_object::CommitRef::from_bytes(bytes, gix_hash::Kind::Sha1).map_err(|error| damaged(&error))?;
        let signature = |raw: &[u8]| -> Result<Signature, StoreError> {
            let signature = gix_object::bstr::ByteSlice::as_bstr(raw);
            let text = String::from_utf8_lossy(signature);
            let (name, rest) =
                text.rsplit_once(" <").or_else(|| text.split_once('<')).ok_or_else(|| damaged(&"no author"))?;
            let (email, time) = rest.rsplit_once('>').ok_or_else(|| damaged(&"no address"))?;
            let time = time.split_whitespace().next().and_then(|time| time.parse().ok()).unwrap_or(0);
            Ok(Signature { name: name.to_owned(), email: email.to_owned(), time })
        };
        Ok(Self {
            tree: TreeId::from_slice(commit.tree().as_bytes()).ok_or_else(|| damaged(&"no tree"))?,
            parents: commit.parents().filter_map(|parent| CommitId::from_slice(parent.as_bytes())).collect(),
            author: signature(commit.author.as_ref())?,
            committer: signature(commit.committer.as_ref())?,
            message: commit.message.to_vec(),
        })
    }

    /// The bytes of the commit, without git's header.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("tree {}\n", self.tree);
        for parent in &self.parents {
            text.push_str(&format!("parent {parent}\n"));
        }
        for (role, signature) in [("author", &self.author), ("committer", &self.committer)] {
            let (name, email) = (tame(&signature.name), tame(&signature.email));
            text.push_str(&format!("{role} {name} <{email}> {} +0000\n", signature.time.max(0)));
        }
        text.push('\n');
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.message);
        bytes
    }

    /// The id that the commit has.
    pub fn id(&self) -> CommitId {
        object_id(ObjectKind::Commit, &self.to_bytes()).as_commit()
    }

    /// Its message, taken apart.
    pub fn message(&self) -> Message {
        Message::parse(&self.message)
    }
}

/// Whether git's own check (`git fsck`) takes this for an author or a committer: `name <address> seconds +zone`.
pub(super) fn is_signature(text: &[u8]) -> bool {
    let who = |text: &[u8]| -> Option<usize> {
        let open = text.iter().position(|byte| matches!(byte, b'<' | b'>'))?;
        let close = open + 1 + text[open + 1..].iter().position(|byte| matches!(byte, b'<' | b'>'))?;
        (text[open] == b'<' && text[close] == b'>' && open > 0 && text[open - 1] == b' ').then_some(close)
    };
    let when = |text: &[u8]| -> Option<()> {
        let (time, zone) = std::str::from_utf8(text).ok()?.strip_prefix(' ')?.split_once(' ')?;
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let time_is_one = plain(time) && (time == "0" || !time.starts_with('0')) && time.parse::<i64>().is_ok();
        let zone_is_one = zone.len() == 5 && zone.strip_prefix(['+', '-']).is_some_and(plain);
        (time_is_one && zone_is_one).then_some(())
    };
    who(text).is_some_and(|close| when(&text[close + 1..]).is_some())
}

/// A name without what git does not allow in one.
fn tame(name: &str) -> String {
    let name: String = name.chars().filter(|&c| !matches!(c, '<' | '>' | '\n' | '\0')).collect();
    let name = name.trim_matches(|c: char| c.is_whitespace() || matches!(c, '.' | ',' | ';' | ':' | '"' | '\'' | '\\'));
    if name.is_empty() { "unknown".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("a <a> 1 +0000", true)]
    #[case("A. U. Thor <> 1795176000 -1130", true)]
    #[case(" <a@b> 0 +0000", true)]
    #[case("a <a> 01 +0000", false)]
    #[case("a <a> -1 +0000", false)]
    #[case("a <a> 99999999999999999999 +0000", false)]
    #[case("a <a> now +0000", false)]
    #[case("a <a> 1 0000", false)]
    #[case("a <a> 1 +000", false)]
    #[case("a <a>1 +0000", false)]
    #[case("a<a> 1 +0000", false)]
    #[case("<a> 1 +0000", false)]
    #[case("a> <a> 1 +0000", false)]
    #[case("a <<a> 1 +0000", false)]
    #[case("a <a", false)]
    #[case("", false)]
    fn signatures_are_those_that_git_takes(#[case] text: &str, #[case] good: bool) {
        assert_eq!(is_signature(text.as_bytes()), good);
        let dir = crate::store::pack::testing::repository().0;
        let commit = format!("tree {}\nauthor {text}\ncommitter {text}\n\nx\n", TreeId::EMPTY);
        std::fs::write(dir.path().join("commit"), commit).expect("writable");
        let git = |args: &[&str]| {
            let output = std::process::Command::new("git").args(args).current_dir(dir.path()).output();
            let output = output.expect("git runs");
            (output.status.success(), String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        git(&["hash-object", "-w", "-t", "tree", "/dev/null"]);
        let (_, id) = git(&["hash-object", "-w", "--literally", "-t", "commit", "commit"]);
        assert_eq!(git(&["fsck", "--strict", "--no-dangling", &id]).0, good, "git says so");
    }

    fn commit() -> Commit {
        let who = |name: &str, time| Signature { name: name.to_owned(), email: "ab@foldersync".to_owned(), time };
        Commit {
            tree: TreeId::EMPTY,
            parents: vec![CommitId::from_bytes([7; 20])],
            author: who("laptop", 1_700_000_000),
            committer: who("laptop", 1_700_000_001),
            message: b"add notes.txt\n".to_vec(),
        }
    }

    #[test]
    fn reads_what_it_writes() {
        let commit = commit();
        assert_eq!(Commit::parse(commit.id(), &commit.to_bytes()).expect("valid"), commit);
    }

    #[test]
    fn names_cannot_break_the_format() {
        let mut commit = commit();
        commit.author.name = "a <b>\nparent x".to_owned();
        let read = Commit::parse(commit.id(), &commit.to_bytes()).expect("valid");
        assert_eq!(read.author.name, "a bparent x");
        assert_eq!(read.parents, commit.parents);
    }

    #[test]
    fn garbage_is_damage() {
        let id = CommitId::from_bytes([1; 20]);
        assert!(matches!(Commit::parse(id, b"tree nonsense"), Err(StoreError::Damaged { .. })));
    }
}
