//! What becomes of one path that several sides have made something of: the rules of conflicts, on values alone.

use crate::clock::Timestamp;
use crate::entry::{Entry, Kind};
use crate::id::CommitId;

/// What one side made of a path, and the revision that speaks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Side {
    pub(super) value: Option<Entry>,
    /// The commit that brought the content about.
    pub(super) origin: CommitId,
    /// When it was written: the file's mtime.
    pub(super) mtime: Timestamp,
}

/// What becomes of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Resolved {
    /// There is nothing to choose.
    One(Option<Side>),
    /// The first keeps the name, the others are kept beside it.
    Conflict(Vec<Side>),
}

/// Merges the texts of files: of a base (the first) and of the sides, sorted. Nothing: it cannot, or may not.
pub(super) trait TextMerge<E> {
    /// The blob of the merged text.
    fn merge_text(&mut self, base: Entry, sides: &[Entry]) -> Result<Option<crate::id::ObjectId>, E>;
}

/// Applies the rules to what the sides made of `base`, which is known where the sides have one last revision in
/// common. The order of the sides does not matter.
pub(super) fn resolve<E>(sides: &[Side], base: Option<Entry>, text: &mut dyn TextMerge<E>) -> Result<Resolved, E> {
    // A change beats a deletion.
    let standing: Vec<(Side, Entry)> = sides.iter().filter_map(|side| Some((*side, side.value?))).collect();
    // One side for each content. The same content in two modes is one content, executable.
    let mut contents: Vec<(Side, Entry)> = Vec::new();
    for (side, entry) in standing {
        let content = |entry: Entry| (entry.kind.is_file(), entry.id);
        match contents.iter_mut().find(|(_, known)| content(*known) == content(entry)) {
            Some((known, value)) => {
                let kind = value.kind.max(entry.kind);
                if (side.mtime, side.origin) > (known.mtime, known.origin) {
                    *known = side;
                }
                value.kind = kind;
                known.value = Some(*value);
            }
            None => contents.push((side, entry)),
        }
    }
    if contents.len() < 2 {
        return Ok(Resolved::One(contents.first().map(|(side, _)| *side)));
    }
    if let Some(base) = base.filter(|base| base.kind.is_file())
        && contents.iter().all(|(_, entry)| entry.kind.is_file())
    {
        // Two modes only: if any side took another than the base has, that is it.
        let kind = contents.iter().map(|(_, entry)| entry.kind).find(|&kind| kind != base.kind).unwrap_or(base.kind);
        // Who changed only the mode has nothing to say of the content.
        let changed = |(_, entry): &&(Side, Entry)| entry.id != base.id || entry.kind == base.kind;
        let changed: Vec<_> = contents.iter().filter(changed).collect();
        if let [(side, entry)] = changed[..] {
            return Ok(Resolved::One(Some(Side { value: Some(Entry { kind, id: entry.id }), ..*side })));
        }
        let mut entries: Vec<_> = contents.iter().map(|(_, entry)| *entry).collect();
        entries.sort_unstable_by_key(|entry| (entry.id, entry.kind));
        if let Some(id) = text.merge_text(base, &entries)? {
            let latest = contents.iter().map(|(side, _)| *side).max_by_key(|side| (side.mtime, side.origin));
            return Ok(Resolved::One(latest.map(|side| Side { value: Some(Entry { kind, id }), ..side })));
        }
    }
    // A folder keeps its name; then the later wins; then the greater content.
    contents.sort_unstable_by_key(|(side, entry)| {
        std::cmp::Reverse((entry.kind == Kind::EmptyFolder, side.mtime, entry.id, entry.kind))
    });
    Ok(Resolved::Conflict(contents.into_iter().map(|(side, _)| side).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ObjectId;
    use rstest::rstest;
    use std::convert::Infallible;

    /// Merges into the blob 99, if it may.
    struct Text(bool);

    impl TextMerge<Infallible> for Text {
        fn merge_text(&mut self, _: Entry, sides: &[Entry]) -> Result<Option<ObjectId>, Infallible> {
            assert!(sides.is_sorted_by_key(|side| side.id));
            Ok(self.0.then(|| blob(99)))
        }
    }

    const fn blob(number: u8) -> ObjectId {
        ObjectId::from_bytes([number; 20])
    }

    const fn file(number: u8) -> Entry {
        Entry { kind: Kind::File, id: blob(number) }
    }

    const fn executable(number: u8) -> Entry {
        Entry { kind: Kind::Executable, id: blob(number) }
    }

    const fn link(number: u8) -> Entry {
        Entry { kind: Kind::Symlink, id: blob(number) }
    }

    const FOLDER: Entry = Entry::EMPTY_FOLDER;

    #[rstest]
    #[case::all_deleted(&[(None, 1), (None, 2)], None, false, &[])]
    #[case::change_beats_deletion(&[(None, 9), (Some(file(1)), 1)], Some(file(7)), false, &[file(1)])]
    #[case::folder_beats_deletion(&[(None, 9), (Some(FOLDER), 1)], None, false, &[FOLDER])]
    #[case::the_same(&[(Some(file(1)), 9), (Some(file(1)), 1)], None, false, &[file(1)])]
    #[case::executable_wins(&[(Some(file(1)), 9), (Some(executable(1)), 1)], None, false, &[executable(1)])]
    #[case::the_later_of_two_modes_speaks(&[(Some(file(1)), 1), (Some(executable(1)), 9), (Some(file(2)), 5)], None, false, &[executable(1), file(2)])]
    #[case::the_later_of_two_modes_speaks_either_way(&[(Some(file(1)), 9), (Some(executable(1)), 1), (Some(file(2)), 5)], None, false, &[executable(1), file(2)])]
    #[case::executable_wins_over_the_base(&[(Some(file(1)), 9), (Some(executable(1)), 1)], Some(executable(1)), false, &[executable(1)])]
    #[case::later_wins(&[(Some(file(1)), 9), (Some(file(2)), 1)], None, false, &[file(1), file(2)])]
    #[case::later_wins_in_any_order(&[(Some(file(1)), 1), (Some(file(2)), 9)], None, false, &[file(2), file(1)])]
    #[case::greater_wins_a_tie(&[(Some(file(1)), 5), (Some(file(2)), 5)], None, false, &[file(2), file(1)])]
    #[case::three(&[(Some(file(1)), 5), (Some(file(2)), 7), (Some(file(3)), 6)], None, false, &[file(2), file(3), file(1)])]
    #[case::folder_keeps_its_name(&[(Some(file(1)), 9), (Some(FOLDER), 1)], None, false, &[FOLDER, file(1)])]
    #[case::link_and_file_of_one_blob(&[(Some(file(1)), 9), (Some(link(1)), 1)], Some(file(0)), true, &[file(1), link(1)])]
    #[case::text(&[(Some(file(1)), 9), (Some(file(2)), 1)], Some(file(0)), true, &[file(99)])]
    #[case::no_text_without_base(&[(Some(file(1)), 9), (Some(file(2)), 1)], None, true, &[file(1), file(2)])]
    #[case::no_text_over_a_link(&[(Some(file(1)), 9), (Some(file(2)), 1)], Some(link(0)), true, &[file(1), file(2)])]
    #[case::text_keeps_a_new_mode(&[(Some(file(1)), 9), (Some(executable(2)), 1)], Some(file(0)), true, &[executable(99)])]
    #[case::text_keeps_a_dropped_mode(&[(Some(file(1)), 9), (Some(executable(2)), 1)], Some(executable(0)), true, &[file(99)])]
    #[case::mode_here_content_there(&[(Some(executable(0)), 9), (Some(file(2)), 1)], Some(file(0)), false, &[executable(2)])]
    #[case::mode_dropped_here_content_there(&[(Some(file(0)), 9), (Some(executable(2)), 1)], Some(executable(0)), false, &[file(2)])]
    #[case::back_to_the_base_is_a_change(&[(Some(file(0)), 9), (Some(file(2)), 1)], Some(file(0)), false, &[file(0), file(2)])]
    fn follows_the_rules(
        #[case] sides: &[(Option<Entry>, i64)],
        #[case] base: Option<Entry>,
        #[case] text: bool,
        #[case] expected: &[Entry],
    ) {
        let mut sides: Vec<Side> = sides
            .iter()
            .zip(1..)
            .map(|(&(value, time), number)| Side {
                value,
                origin: CommitId::from_bytes([number; 20]),
                mtime: Timestamp::new(time, 0),
            })
            .collect();
        for _ in 0..2 {
            let resolved = resolve(&sides, base, &mut Text(text)).unwrap();
            let values: Vec<_> = match resolved {
                Resolved::One(side) => side.into_iter().filter_map(|side| side.value).collect(),
                Resolved::Conflict(sides) => sides.into_iter().filter_map(|side| side.value).collect(),
            };
            assert_eq!(values, expected);
            sides.reverse();
        }
    }
}
