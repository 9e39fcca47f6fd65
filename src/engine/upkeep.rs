//! Upkeep: gathering packs.

use crate::engine::error::EngineError;
use crate::engine::folder::{Folder, Work};
use crate::engine::report::GcReport;
use crate::store::Wait;
use crate::store::consolidate;
use crate::store::pack::reader::{Pack, Packs};

/// So many packs that are too small to stand alone, or loose objects, are gathered without being asked.
const DUE: usize = 24;
const LOOSE_DUE: usize = 2000;
/// Of packs with this many bytes, it takes so many times as many: what a pack costs whoever looks for an object is the
/// same for all, what it costs to copy it is not. A first exchange of a GiB leaves two hundred of them.
const MIDDLING: u64 = 4 << 20;
const MIDDLING_DUE: usize = 8;

/// Whether these packs are worth gathering.
fn is_due(small: &[&Pack]) -> bool {
    let middling = small.iter().filter(|pack| pack.bytes() >= MIDDLING).count();
    small.len() - middling + middling / MIDDLING_DUE >= DUE
}

impl Work<'_> {
    /// Gathers small packs when they have piled up.
    pub(crate) fn gather_if_due(&mut self) -> Result<(), EngineError> {
        self.gather(LOOSE_DUE, &is_due)
    }

    fn gather(&mut self, loose: usize, is_due: &dyn Fn(&[&Pack]) -> bool) -> Result<(), EngineError> {
        let (store, monitor) = (&self.folder.store, &*self.folder.cx.monitor);
        let made = consolidate::gather_loose(&store.git_dir().join("objects"), loose, monitor)?.after
            + consolidate::gather_packs(&self.objects, &store.pack_dir(), is_due, monitor)?.after;
        if made > 0 {
            self.objects = store.objects();
        }
        Ok(())
    }
}

impl Folder {
    /// Gathers packs and loose objects into few packs.
    pub fn gc(&self) -> Result<GcReport, EngineError> {
        let mut work = self.begin("gc", Wait::No)?;
        let (packs_before, bytes_before) = self.packs()?;
        work.gather(1, &|_| true)?;
        work.finish()?;
        let (packs_after, bytes_after) = self.packs()?;
        Ok(GcReport { packs_before, packs_after, bytes_before, bytes_after })
    }

    /// How many packs there are, and their bytes.
    fn packs(&self) -> Result<(u64, u64), EngineError> {
        let packs = Packs::open(&self.store.pack_dir())?;
        Ok((packs.all().len() as u64, packs.all().iter().map(Pack::bytes).sum()))
    }
}
