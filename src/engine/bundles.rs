//! Bundles as files: for the peer that only a USB stick reaches.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;

use crate::engine::error::EngineError;
use crate::engine::folder::Folder;
use crate::engine::history::Point;
use crate::engine::report::BundleReport;
use crate::engine::revspec::RevSpec;
use crate::id::CommitId;
use crate::store::bundle::{self, Series};
use crate::store::Wait;
use crate::store::quarantine::Limits;

impl Folder {
    /// Writes a bundle of all revisions, or of those since one, or of those that a peer is not known to have.
    pub fn bundle_create(&self, file: &Path, since: Option<&RevSpec>, to_peer: Option<&str>) -> Result<BundleReport, EngineError> {
        let head = self.head()?.ok_or_else(|| EngineError::NotFound { what: "the folder has no revision yet".to_owned() })?;
        let mut hidden: Vec<CommitId> = Vec::new();
        if let Some(since) = since {
            hidden.push(self.commit_at(since)?);
        }
        if let Some(peer) = to_peer {
            let known = self.last_known(peer)?;
            hidden.push(known.ok_or_else(|| EngineError::NotFound { what: format!("nothing is known of what `{peer}` has; leave `--to` out") })?);
        }
        let commits = self.graph().range(&[head], &hidden)?;
        if commits.is_empty() {
            return Err(EngineError::NotFound { what: "there is nothing newer to put into a bundle".to_owned() });
        }
        let revisions = commits.len() as u64;
        let mut series = Series::cut(self.store.objects(), &self.store.pack_dir(), commits, u64::MAX)?;
        let bundle = series.next().expect("a range that is not empty makes a bundle")?;
        let temp = tempfile::NamedTempFile::new_in(file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))
            .map_err(EngineError::io("create", file))?;
        let mut out = BufWriter::new(temp);
        bundle.write_to(&mut out)?;
        let temp = out.into_inner().map_err(|error| EngineError::io("write", file)(error.into_error()))?;
        temp.as_file().sync_all().map_err(EngineError::io("sync", file))?;
        let bytes = temp.as_file().metadata().map_err(EngineError::io("read", file))?.len();
        temp.persist(file).map_err(|error| EngineError::io("write", file)(error.error))?;
        Ok(BundleReport {
            tip: bundle.tip(),
            prerequisites: bundle.prerequisites().to_vec(),
            missing: Vec::new(),
            revisions,
            objects: bundle.objects(),
            bytes,
            applied: 0,
            conflicts: Vec::new(),
            left_out: Vec::new(),
        })
    }

    /// The newest commit of the history that `since` names.
    fn commit_at(&self, since: &RevSpec) -> Result<CommitId, EngineError> {
        let now = self.cx.clock.now();
        match self.ask(|history| history.point(since, now, &self.cx.zone))? {
            Point::Commit(commit) => Ok(commit),
            Point::Time(time) => {
                let newest = self.ask(|history| history.newest_at(time))?;
                newest.ok_or_else(|| EngineError::NotFound { what: "the folder had no revision yet then; leave `--since` out".to_owned() })
            }
        }
    }

    /// Checks a bundle, every object of it, against what is here; changes nothing.
    pub fn bundle_verify(&self, file: &Path) -> Result<BundleReport, EngineError> {
        let input = File::open(file).map_err(EngineError::io("open", file))?;
        let bytes = input.metadata().map_err(EngineError::io("read", file))?.len();
        let objects = self.store.objects();
        let checked = bundle::verify(BufReader::new(input), &objects, &self.store, &Limits::default())?;
        Ok(report(&checked, bytes))
    }

    /// Takes what a bundle brings, as an exchange would.
    pub fn bundle_apply(&self, file: &Path) -> Result<BundleReport, EngineError> {
        let mut work = self.begin("bundle apply", Wait::No)?;
        work.capture(&[])?;
        let input = File::open(file).map_err(EngineError::io("open", file))?;
        let bytes = input.metadata().map_err(EngineError::io("read", file))?.len();
        let admitted = bundle::receive(BufReader::new(input), &work.objects, &self.store, &Limits::default())?;
        let heads: Vec<CommitId> = work.head.into_iter().chain([admitted.tip]).collect();
        let merged = work.merge(&heads)?;
        let applied = work.applied;
        work.move_refs(Some(merged), applied, Vec::new())?;
        work.settle()?;
        work.gather_if_due()?;
        let mut report = report(&admitted, bytes);
        report.applied = work.written;
        report.conflicts = std::mem::take(&mut work.conflicts);
        report.left_out = std::mem::take(&mut work.left_out);
        work.finish()?;
        Ok(report)
    }
}

fn report(checked: &bundle::Checked, bytes: u64) -> BundleReport {
    BundleReport {
        tip: checked.tip,
        prerequisites: checked.prerequisites.clone(),
        missing: Vec::new(),
        revisions: checked.commits,
        objects: checked.objects,
        bytes,
        applied: 0,
        conflicts: Vec::new(),
        left_out: Vec::new(),
    }
}
