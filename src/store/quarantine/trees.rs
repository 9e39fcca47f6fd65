//! What is checked of a tree alone: names, modes, order.

use crate::entry::Kind;
use crate::id::ObjectId;
use crate::path::{check_name, quote};
use crate::store::objects::ObjectKind;
use crate::store::pack::delta::{common_prefix, common_suffix, first_entry};
use crate::store::tree::name_order;

/// The longest name in a tree.
const MAX_NAME: usize = 4096;

/// Checks a tree, and tells what it refers to; what it shares with `base`, a tree that was checked, is passed over.
pub(super) fn check_tree(
    base: &[u8],
    content: &[u8],
    tell: &mut dyn FnMut(ObjectKind, ObjectId),
) -> Result<(), String> {
    let (shared, alike) = (common_prefix(base, content), content.len() - common_suffix(base, content));
    let (mut rest, mut old) = (content, base);
    let mut last: Option<(&[u8], bool)> = None;
    // Files whose names the names since begin with: a folder of the same name may still come.
    let mut files: Vec<&[u8]> = Vec::new();
    while let Some((entry, len)) = first_entry(rest) {
        let at = content.len() - rest.len();
        while files.last().is_some_and(|file| !entry.name.starts_with(file)) {
            files.pop();
        }
        // The same entries to the end, and no file that a folder in them could collide with.
        let ends_alike = |old: &[u8]| at >= alike && rest.len() == old.len() && files.is_empty();
        let in_order = |last: Option<(&[u8], bool)>| {
            last.is_none_or(|(name, is_tree)| name_order(name, is_tree, entry.name, entry.is_tree()).is_lt())
        };
        let same = if at + len <= shared {
            // Nothing before was different, so the base has the same entry at the same place.
            old = &old[len..];
            true
        } else {
            if ends_alike(old) && in_order(last) {
                return Ok(());
            }
            while let Some((there, len)) = first_entry(old)
                && name_order(there.name, there.is_tree(), entry.name, entry.is_tree()).is_lt()
            {
                old = &old[len..];
            }
            let same = len <= old.len()
                && first_entry(old).is_some_and(|(_, there)| there == len)
                && old[..len] == rest[..len];
            if same {
                old = &old[len..];
            }
            same
        };
        if at + len > shared && !in_order(last) {
            return Err(format!("{} stands at the wrong place in it, or twice", quote(entry.name)));
        }
        if entry.is_tree() && files.contains(&entry.name) {
            return Err(format!("{} is in it as a file and as a folder", quote(entry.name)));
        }
        if !same {
            check_name(entry.name).map_err(|error| format!("{}: {error}", quote(entry.name)))?;
            if entry.name.len() > MAX_NAME {
                return Err("a name in it is too long".to_owned());
            }
            if Kind::from_mode(entry.mode).is_none() || rest.starts_with(b"0") {
                return Err(format!(
                    "{} has the mode {:o}, which foldersync does not keep",
                    quote(entry.name),
                    entry.mode
                ));
            }
            tell(if entry.is_tree() { ObjectKind::Tree } else { ObjectKind::Blob }, entry.id);
        }
        if !entry.is_tree() {
            files.push(entry.name);
        }
        last = Some((entry.name, entry.is_tree()));
        rest = &rest[len..];
    }
    if rest.is_empty() { Ok(()) } else { Err("its entries cannot be read".to_owned()) }
}
