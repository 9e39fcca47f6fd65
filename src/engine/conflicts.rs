//! Conflicts: which stand, and how one ends. A conflict is a conflict copy that still stands beside its file; it ends
//! when the copy is gone, by a command or by hand.

use crate::change::Change;
use crate::engine::error::EngineError;
use crate::engine::folder::Folder;
use crate::engine::going_back::Step;
use crate::engine::merge::parse_copy_name;
use crate::engine::report::{Conflict, Resolution, RevertReport};
use crate::entry::Entry;
use crate::path::SyncPath;
use crate::store::Wait;
use crate::table::DiskTable;
use crate::worktree::OnDisk;

/// The conflict copies among the files on disk.
pub(crate) fn in_table(table: &DiskTable) -> Vec<Conflict> {
    let marked =
        table.iter().map(|(path, _)| path).filter(|path| path.windows(11).any(|bytes| bytes == b" (conflict "));
    marked
        .filter_map(|path| {
            let copy = SyncPath::new(path).ok()?;
            let (path, device, time) = parse_copy_name(&copy)?;
            Some(Conflict { path, copy, device, time })
        })
        .collect()
}

impl Folder {
    /// The conflicts that stand.
    pub fn conflicts(&self) -> Result<Vec<Conflict>, EngineError> {
        Ok(in_table(&self.store.load_table()?.table))
    }

    /// Ends the conflict of a file, named by its own name or by its copy's.
    pub fn resolve_conflict(&self, path: &SyncPath, how: Resolution) -> Result<RevertReport, EngineError> {
        let mut work = self.begin("conflicts resolve", Wait::No)?;
        let standing = in_table(&work.table);
        let chosen: Vec<_> =
            standing.into_iter().filter(|conflict| conflict.path == *path || conflict.copy == *path).collect();
        let conflict = match &chosen[..] {
            [] => return Err(EngineError::NotFound { what: format!("`{path}` is not in conflict") }),
            [conflict] => conflict.clone(),
            several => {
                let copies: Vec<_> = several.iter().map(|conflict| format!("`{}`", conflict.copy)).collect();
                let what = format!("`{path}` has several conflict copies: name one of {}", copies.join(", "));
                return Err(EngineError::NotFound { what });
            }
        };
        let mut report = RevertReport::default();
        let captured = work.capture(&[conflict.path.clone(), conflict.copy.clone()])?;
        report.captured_first = captured.changes;
        let ours = work.entry_at(&conflict.path)?;
        let Some(theirs) = work.entry_at(&conflict.copy)? else {
            return Err(EngineError::NotFound { what: format!("`{}` is gone already", conflict.copy) });
        };
        let change = |path: &SyncPath, old: Option<Entry>, new: Option<Entry>| Change { path: path.clone(), old, new };
        let copy_goes = change(&conflict.copy, Some(theirs), None);
        let changes = match how {
            Resolution::Ours => vec![copy_goes],
            Resolution::Theirs if ours == Some(theirs) => vec![copy_goes],
            Resolution::Theirs => vec![change(&conflict.path, ours, Some(theirs)), copy_goes],
            Resolution::Both => {
                let name = work.free_name(&conflict.path, &conflict.device)?;
                vec![change(&name, None, Some(theirs)), copy_goes]
            }
        };
        // The version keeps its own time, wherever it comes to stand.
        let mtime = match work.root.look(&conflict.copy)? {
            OnDisk::Leaf { mtime, .. } => Some(mtime),
            _ => None,
        };
        let steps = changes.into_iter().map(|change| Step { change, label: None, mtime }).collect();
        work.go_back(steps, &mut report)?;
        work.finish()?;
        Ok(report)
    }
}

impl super::folder::Work<'_> {
    /// A plain name beside `path` that nothing stands at: `notes (laptop).txt`.
    fn free_name(&self, path: &SyncPath, device: &str) -> Result<SyncPath, EngineError> {
        let name = path.file_name();
        let dot = name.iter().rposition(|&byte| byte == b'.').filter(|&at| at > 0).unwrap_or(name.len());
        let folder = &path.as_bytes()[..path.as_bytes().len() - name.len()];
        for n in 1u32.. {
            let mark = if n == 1 { format!(" ({device})") } else { format!(" ({device} {n})") };
            let candidate = [folder, &name[..dot], mark.as_bytes(), &name[dot..]].concat();
            let candidate = SyncPath::new(candidate)
                .map_err(|error| EngineError::NotApplied { path: path.clone(), why: error.to_string() })?;
            if self.entry_at(&candidate)?.is_none()
                && matches!(self.root.look(&candidate)?, crate::worktree::OnDisk::Nothing)
            {
                return Ok(candidate);
            }
        }
        unreachable!("there is always a next number")
    }
}
