//! Bundles as files: for the peer that only a USB stick reaches.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::engine::error::EngineError;
use crate::engine::folder::Folder;
use crate::engine::history::Point;
use crate::engine::report::BundleReport;
use crate::engine::revspec::RevSpec;
use crate::id::CommitId;
use crate::store::Wait;
use crate::store::bundle::{Bundle, BundleHeader, BundleOptions, BundleWriter};
use crate::store::pack::reader::Packs;
use crate::store::quarantine::Limits;

impl Folder {
    /// Writes a bundle of all revisions, or of those since one, or of those that a peer is not known to have.
    pub fn bundle_create(
        &self,
        file: &Path,
        since: Option<&RevSpec>,
        to_peer: Option<&str>,
    ) -> Result<BundleReport, EngineError> {
        let head =
            self.head()?.ok_or_else(|| EngineError::NotFound { what: "the folder has no revision yet".to_owned() })?;
        let mut hidden: Vec<CommitId> = Vec::new();
        if let Some(since) = since {
            hidden.push(self.commit_at(since)?);
        }
        if let Some(peer) = to_peer {
            let known = self.last_known(peer)?;
            hidden.push(known.ok_or_else(|| EngineError::NotFound {
                what: format!("nothing is known of what `{peer}` has; leave `--to` out"),
            })?);
        }
        let commits = self.graph().range(&[head], &hidden)?;
        if commits.is_empty() {
            return Err(EngineError::NotFound { what: "there is nothing newer to put into a bundle".to_owned() });
        }
        let folder = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let temp = tempfile::Builder::new()
            .permissions(std::fs::Permissions::from_mode(0o666)) // As any new file: less what the person's umask takes.
            .tempfile_in(folder)
            .map_err(EngineError::io("create", file))?;
        let mut out = BufWriter::new(temp);
        let (objects, packs) = (self.store.objects(), Packs::open(&self.store.pack_dir())?);
        let options = BundleOptions { limit: u64::MAX, ..BundleOptions::default() };
        let writer = BundleWriter::new(&objects, &packs, &commits, options);
        let written = writer.with_chunks(self.store.kept_chunks()?).write_next(&mut out)?;
        let bundle = written.expect("a range that is not empty makes a bundle");
        let temp = out.into_inner().map_err(|error| EngineError::io("write", file)(error.into_error()))?;
        temp.as_file().sync_all().map_err(EngineError::io("sync", file))?;
        let bytes = temp.as_file().metadata().map_err(EngineError::io("read", file))?.len();
        temp.persist(file).map_err(|error| EngineError::io("write", file)(error.error))?;
        Ok(BundleReport {
            tip: bundle.header.tip(),
            prerequisites: bundle.header.prerequisites,
            missing: Vec::new(),
            revisions: bundle.commits,
            objects: bundle.objects,
            bytes,
            applied: 0,
            conflicts: Vec::new(),
            left_out: Vec::new(),
            held: None,
        })
    }

    /// The newest commit of the history that `since` names.
    fn commit_at(&self, since: &RevSpec) -> Result<CommitId, EngineError> {
        let now = self.cx.clock.now();
        match self.ask(|history| history.point(since, now, &self.cx.zone))? {
            Point::Commit(commit) => Ok(commit),
            Point::Time(time) => {
                let newest = self.ask(|history| history.newest_at(time))?;
                newest.ok_or_else(|| EngineError::NotFound {
                    what: "the folder had no revision yet then; leave `--since` out".to_owned(),
                })
            }
        }
    }

    /// Checks a bundle, every object of it, against what is here; changes nothing.
    pub fn bundle_verify(&self, file: &Path) -> Result<BundleReport, EngineError> {
        let (mut report, header) = self.open_bundle(file)?;
        if report.missing.is_empty() {
            let checked = self.check(open(file)?, &self.store.objects(), &FROM_A_PERSON).map_err(about(file))?;
            report.revisions = header.revisions_among(checked.commits());
            report.objects = checked.objects();
        }
        Ok(report)
    }

    /// Takes what a bundle brings, as an exchange would.
    pub fn bundle_apply(&self, file: &Path) -> Result<BundleReport, EngineError> {
        let mut work = self.begin("bundle apply", Wait::No)?;
        work.capture(&[])?;
        let (mut report, header) = self.open_bundle(file)?;
        self.room_for(0)?;
        let checked = self.check(open(file)?, &work.objects, &FROM_A_PERSON).map_err(about(file))?;
        let admitted = self.store.admit(checked)?;
        report.revisions = header.revisions_among(&admitted.commits);
        report.objects = admitted.objects;
        report.held = work.take_in(FROM_A_FILE, header.tip(), None)?;
        work.drop_ended_holds()?;
        let joined = work.done();
        report.applied = joined.applied;
        report.conflicts = joined.conflicts;
        report.left_out = joined.left_out;
        work.finish()?;
        Ok(report)
    }

    /// What a bundle's header says.
    fn open_bundle(&self, file: &Path) -> Result<(BundleReport, BundleHeader), EngineError> {
        let (header, _) = Bundle::open(open(file)?).map_err(|error| about(file)(error.into()))?.into_parts();
        let objects = self.store.objects();
        let missing = header.prerequisites.iter().copied().filter(|id| !objects.exists(&(*id).into())).collect();
        let report = BundleReport {
            tip: header.tip(),
            prerequisites: header.prerequisites.clone(),
            missing,
            revisions: 0,
            objects: 0,
            bytes: std::fs::metadata(file).map_err(EngineError::io("read", file))?.len(),
            applied: 0,
            conflicts: Vec::new(),
            left_out: Vec::new(),
            held: None,
        };
        Ok((report, header))
    }
}

/// In whose name a mass change is held back that a file has brought: nobody knows what is in it before it is read.
const FROM_A_FILE: &str = "bundle";
/// A bundle that a person hands over may be a whole history in one.
const FROM_A_PERSON: Limits = Limits {
    pack_bytes: 1 << 42,
    objects: 50_000_000,
    held_bytes: 64 << 20,
    blob_bytes: 1 << 42,
    chain: 512,
    depth: 1024,
};

/// Names the bundle in what is wrong with it.
fn about(file: &Path) -> impl FnOnce(EngineError) -> EngineError {
    move |error| match error {
        EngineError::Store(source) => EngineError::Bundle { file: file.to_owned(), source },
        error => error,
    }
}

fn open(file: &Path) -> Result<BufReader<File>, EngineError> {
    Ok(BufReader::new(File::open(file).map_err(EngineError::io("open", file))?))
}
