//! What the system's watcher says, as notes of ours: which path, what happened, whether it has to be looked at.
//!
//! The notes are made on the watcher's own thread, which must not wait and must not touch the disk; they are bounded.

use std::collections::BTreeMap;
use std::path::PathBuf;

use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind, RemoveKind, RenameMode};

use super::dirty::{Last, Seen};

/// So many paths are noted; when more come before they are digested, everything is looked at.
const BOUND: usize = 20_000;

/// What is to be known of one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) seen: Seen,
    /// Whether a folder may have come or gone there.
    pub(super) look: Look,
}

/// How a path has to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Look {
    /// It is no folder.
    Not,
    /// Its attributes have changed: a folder that is watched has nothing new.
    Attributes,
    /// A folder may have come or gone.
    Folder,
}

/// What happened and has not been digested yet.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) paths: BTreeMap<PathBuf, Note>,
    /// Events were lost: anything may have happened.
    pub(super) lost: bool,
    /// Somebody wants all folders to be looked at again, under these rules of the exclude file.
    pub(super) again: Option<Vec<u8>>,
}

impl Notes {
    pub(super) fn is_empty(&self) -> bool {
        self.paths.is_empty() && !self.lost && self.again.is_none()
    }

    /// Notes an event, or that the watcher failed.
    pub(super) fn take(&mut self, event: notify::Result<notify::Event>) {
        let Ok(event) = event else { return self.lose() };
        if event.need_rescan() {
            return self.lose();
        }
        let Some(note) = note_of(event.kind) else { return };
        for path in event.paths {
            if self.lost {
                return;
            }
            self.paths
                .entry(path)
                .and_modify(|before| {
                    *before = Note { seen: before.seen.then(note.seen), look: before.look.max(note.look) };
                })
                .or_insert(note);
            if self.paths.len() > BOUND {
                self.lose();
            }
        }
    }

    fn lose(&mut self) {
        self.paths.clear();
        self.lost = true;
    }
}

/// Whether an event of this kind says that something may have changed.
pub(super) fn counts(event: &notify::Result<notify::Event>) -> bool {
    event.as_ref().map_or(true, |event| event.need_rescan() || note_of(event.kind).is_some())
}

fn note_of(kind: EventKind) -> Option<Note> {
    let note = |last, created, look| Some(Note { seen: Seen { last, created }, look });
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => note(Last::Closed, false, Look::Not),
        // The two ends of a rename are told one by one as well.
        EventKind::Access(_) | EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => None,
        EventKind::Create(CreateKind::File) => note(Last::Touched, true, Look::Not),
        EventKind::Create(_) => note(Last::Touched, true, Look::Folder),
        EventKind::Remove(RemoveKind::File) => note(Last::Gone, false, Look::Not),
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)) => {
            note(Last::Gone, false, Look::Folder)
        }
        EventKind::Modify(ModifyKind::Data(_)) => note(Last::Touched, false, Look::Not),
        EventKind::Modify(ModifyKind::Metadata(_)) => note(Last::Touched, false, Look::Attributes),
        EventKind::Modify(_) | EventKind::Any | EventKind::Other => note(Last::Touched, false, Look::Folder),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::Event;
    use notify::event::{DataChange, Flag};

    fn event(kind: EventKind, path: &str) -> Event {
        Event::new(kind).add_path(path.into())
    }

    #[test]
    fn reading_is_no_change_and_closing_after_writing_is() {
        let open = Ok(event(EventKind::Access(AccessKind::Open(AccessMode::Any)), "/a"));
        assert!(!counts(&open));
        let mut notes = Notes::default();
        notes.take(open);
        assert!(notes.is_empty());
        notes.take(Ok(event(EventKind::Modify(ModifyKind::Data(DataChange::Any)), "/a")));
        notes.take(Ok(event(EventKind::Access(AccessKind::Close(AccessMode::Write)), "/a")));
        let seen = Seen { last: Last::Closed, created: false };
        assert_eq!(notes.paths.into_values().collect::<Vec<_>>(), [Note { seen, look: Look::Not }]);
    }

    #[test]
    fn lost_events_errors_and_floods_are_never_passed_over() {
        let overflow = Ok(Event::new(EventKind::Other).set_flag(Flag::Rescan));
        assert!(counts(&overflow), "it names no path");
        let mut notes = Notes::default();
        notes.take(overflow);
        assert!(notes.lost);
        let mut notes = Notes::default();
        notes.take(Err(notify::Error::generic("broken")));
        assert!(notes.lost);
        let mut notes = Notes::default();
        for n in 0..=BOUND {
            notes.take(Ok(event(EventKind::Create(CreateKind::File), &format!("/{n}"))));
        }
        assert!(notes.lost && notes.paths.is_empty());
    }
}
