//! Going back: a file, or everything below a folder, becomes again what it was. Always forward in history, as new
//! revisions, one a path; what stands on disk is captured first.

use std::io::{Read as _, Write};

use crate::change::{Change, Edit};
use crate::clock::Timestamp;
use crate::engine::diff::{self, Side};
use crate::engine::error::EngineError;
use crate::engine::folder::{Folder, Work};
use crate::engine::history::{History, HistoryError};
use crate::engine::order::{commit_order, in_the_way};
use crate::engine::report::{DiffReport, PathChange, RevertReport, Revision};
use crate::engine::revspec::{FileRev, RevSpec};
use crate::entry::{Entry, Kind};
use crate::id::CommitId;
use crate::message::Message;
use crate::path::SyncPath;
use crate::store::Signature;
use crate::store::Wait;
use crate::store::burst::{Burst, NewCommit};
use crate::store::history::HistoryIndex;
use crate::store::tree;
use crate::worktree::Root;

impl Folder {
    /// Asks the history, with its index up to date with the head.
    pub(crate) fn ask<T>(
        &self,
        question: impl FnOnce(&mut History<'_>) -> Result<T, HistoryError>,
    ) -> Result<T, EngineError> {
        let head =
            self.head()?.ok_or_else(|| EngineError::NotFound { what: "the folder has no revision yet".to_owned() })?;
        let objects = self.store.objects();
        let mut index = HistoryIndex::open(&self.store.private_dir().join("history.sqlite"))?;
        if let Some(notice) = index.notice() {
            self.cx.monitor.notice(notice);
        }
        let history = History::new(&objects, &mut index, head, &*self.cx.monitor);
        Ok(question(&mut history?)?)
    }

    /// The revisions of a file, or of the whole folder, newest first.
    pub fn log(&self, path: Option<&SyncPath>, limit: Option<usize>) -> Result<Vec<Revision>, EngineError> {
        self.ask(|history| history.log(path, limit.unwrap_or(usize::MAX)))
    }

    /// The newest revision of a path, or of the whole folder; what changed on disk is captured first.
    pub fn newest(&self, path: Option<&str>, wait: Wait) -> Result<Option<CommitId>, EngineError> {
        let Some(path) = path else {
            self.capture_when_free(&[], wait)?;
            return self.head();
        };
        let none = |why: &dyn std::fmt::Display| EngineError::NotFound { what: format!("`{path}`: {why}") };
        let path = SyncPath::new(path.as_bytes()).map_err(|error| none(&error))?;
        self.capture_when_free(std::slice::from_ref(&path), wait)?;
        Ok(self.log(Some(&path), Some(1))?.first().map(|revision| revision.commit))
    }

    /// The revision that `FILE@REV` names; the latest, where none is named.
    pub fn resolve(&self, spec: &FileRev) -> Result<Revision, EngineError> {
        self.ask(|history| history.resolve(spec, self.cx.clock.now(), &self.cx.zone))
    }

    /// Writes the content of `FILE@REV`.
    pub fn show(&self, spec: &FileRev, out: &mut dyn Write) -> Result<Revision, EngineError> {
        self.ask(|history| {
            let revision = history.resolve(spec, self.cx.clock.now(), &self.cx.zone)?;
            history.content(&revision, out)?;
            Ok(revision)
        })
    }

    /// What differs between two revisions, or between one and the file on disk.
    pub fn diff(&self, from: &FileRev, to: Option<&FileRev>) -> Result<DiffReport, EngineError> {
        let now = self.cx.clock.now();
        let from_revision = self.resolve(from)?;
        let objects = self.store.objects();
        let old = diff::side(&objects, &from_revision)?;
        let new = match to {
            Some(to) => diff::side(&objects, &self.ask(|history| history.resolve(to, now, &self.cx.zone))?)?,
            None => self.on_disk(&from_revision.path)?,
        };
        let compared = diff::compare(&old, &new);
        let label = |side: &Side| match &side.label[..] {
            at if at.starts_with('@') => format!("{}{at}", side.path),
            place => format!("{} ({place})", side.path),
        };
        Ok(DiffReport {
            from_label: label(&old),
            to_label: label(&new),
            from_size: old.kind.map(|_| compared.old_size),
            to_size: new.kind.map(|_| compared.new_size),
            changed: compared.changed,
            text: compared.text.ok(),
        })
    }

    /// The file that stands in the folder, as one side of a comparison.
    fn on_disk(&self, path: &SyncPath) -> Result<Side, EngineError> {
        let root = Root::open(self.root())?;
        let mut side = Side {
            path: path.clone(),
            label: "in the folder".to_owned(),
            kind: None,
            content: diff::Content::Bytes(Vec::new()),
        };
        if let Some(mut leaf) = root.open_leaf(path)? {
            side.kind = Some(leaf.kind);
            side.content = if leaf.size > diff::LARGEST {
                diff::Content::Large { size: leaf.size, recipe: None }
            } else {
                let mut content = Vec::new();
                leaf.read_to_end(&mut content).map_err(EngineError::io("read", &self.root().join(path.to_string())))?;
                diff::Content::Bytes(content)
            };
        }
        Ok(side)
    }

    /// Each file becomes again what it was at its revision, as a new revision; nothing else changes.
    pub fn revert(&self, specs: &[FileRev]) -> Result<RevertReport, EngineError> {
        let mut work = self.begin("revert", Wait::No)?;
        let mut report = RevertReport::default();
        // Revisions are meant as they are before what is on disk is captured: that is what the person saw.
        let now = self.cx.clock.now();
        let resolve =
            |history: &mut History<'_>| specs.iter().map(|spec| history.resolve(spec, now, &self.cx.zone)).collect();
        let revisions: Vec<Revision> = self.ask(resolve)?;
        let paths: Vec<SyncPath> = specs.iter().map(|spec| spec.path.clone()).collect();
        report.captured_first = work.capture(&paths)?.changes;
        let mut steps = Vec::new();
        for revision in revisions {
            let old = work.entry_at(&revision.path)?;
            let new = revision.kind.zip(revision.content).map(|(kind, id)| Entry { kind, id });
            let number = revision.number.map_or_else(|| revision.commit.short(), |number| number.to_string());
            let label = format!("revert {} to @{number}", revision.path);
            let change = Change { path: revision.path, old, new };
            steps.push(Step { change, label: Some(label), mtime: Some(revision.modified) });
        }
        work.go_back(steps, &mut report)?;
        work.finish()?;
        Ok(report)
    }

    /// The folder, or what is at and below `path`, becomes again what it was at a point in time.
    pub fn restore(&self, at: &RevSpec, path: Option<&SyncPath>) -> Result<RevertReport, EngineError> {
        let mut work = self.begin("restore", Wait::No)?;
        let now = self.cx.clock.now();
        let point = self.ask(|history| history.point(at, now, &self.cx.zone))?;
        let scope: Vec<SyncPath> = path.into_iter().cloned().collect();
        let mut report = RevertReport { captured_first: work.capture(&scope)?.changes, ..RevertReport::default() };
        let edits = self.ask(|history| history.restore_selection(point, path))?;
        let mut changes = Vec::new();
        for edit in edits {
            changes.push(Change { old: work.entry_at(&edit.path)?, path: edit.path, new: edit.entry });
        }
        let mut steps = Vec::new();
        for change in commit_order(changes) {
            let mtime = match change.new {
                Some(entry) if entry.kind != Kind::EmptyFolder => {
                    let spec = FileRev { path: change.path.clone(), rev: Some(at.clone()) };
                    let then = self.ask(|history| history.resolve(&spec, now, &self.cx.zone)).ok();
                    then.filter(|then| then.content == Some(entry.id)).map(|then| then.modified)
                }
                _ => None,
            };
            let label = change.new.map(|_| format!("restore {}", change.path));
            steps.push(Step { change, label, mtime });
        }
        work.go_back(steps, &mut report)?;
        work.finish()?;
        Ok(report)
    }
}

/// A change to make.
pub(crate) struct Step {
    pub(crate) change: Change,
    /// The subject of its commit, where that is not just the change.
    pub(crate) label: Option<String>,
    /// The file's time.
    pub(crate) mtime: Option<Timestamp>,
}

impl Work<'_> {
    /// What the head has at a path.
    pub(crate) fn entry_at(&self, path: &SyncPath) -> Result<Option<Entry>, EngineError> {
        Ok(tree::lookup(&self.objects, self.tree_of(self.head)?, path)?.leaf())
    }

    /// Commits these changes on top of the head, one a path, and brings the disk to them.
    pub(crate) fn go_back(&mut self, steps: Vec<Step>, report: &mut RevertReport) -> Result<(), EngineError> {
        if let Some(head) = self.commit_steps(self.head, steps, report)? {
            let applied = self.applied;
            self.move_refs(Some(head), applied, Vec::new())?;
        }
        self.settle()?;
        report.head = self.head;
        report.left_out.append(&mut self.left_out);
        Ok(())
    }

    /// Makes the commits of these changes on top of `base`, after those that make way for them, safe on disk, and
    /// answers with the last; moves nothing.
    pub(crate) fn commit_steps(
        &self,
        base: Option<CommitId>,
        steps: Vec<Step>,
        report: &mut RevertReport,
    ) -> Result<Option<CommitId>, EngineError> {
        let now = self.now();
        let committer = self.folder.signature(now.secs);
        let tree = self.tree_of(base)?;
        let mut burst = Burst::begin(self.objects.clone(), &self.folder.store.pack_dir(), tree, base)?;
        let way = in_the_way(&self.objects, tree, steps.iter().map(|step| &step.change))?;
        let way = way.into_iter().map(|change| Step { change, label: None, mtime: None });
        for Step { change, label, mtime } in way.chain(steps) {
            if change.old == change.new {
                continue;
            }
            let mut message = Message::about(change.verb(), &change.path);
            message.mtime = mtime.filter(|_| change.new.is_some());
            if let Some(label) = label {
                message.subject = label;
            }
            let is_change = burst.push(NewCommit {
                edit: Edit { path: change.path.clone(), entry: change.new },
                blob: None,
                author: Signature { time: mtime.map_or(now.secs, |mtime| mtime.secs), ..committer.clone() },
                committer: committer.clone(),
                message: message.to_bytes(),
            })?;
            if is_change {
                report.changes.push(PathChange { verb: change.verb(), path: change.path });
            }
        }
        Ok(burst.finish()?.map(|done| done.head))
    }
}
