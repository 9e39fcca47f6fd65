//! Reading packs at the level of their entries: which they are, in which order they came, and the runs of commits.

use std::path::Path;

use crate::store::error::StoreError;

/// The number of the youngest ordered pack in `dir`; 0 if there is none.
pub(crate) fn last_sequence(dir: &Path) -> Result<u64, StoreError> {
    let mut last = 0;
    for entry in std::fs::read_dir(dir).map_err(StoreError::io("list", dir))? {
        let name = entry.map_err(StoreError::io("list", dir))?.file_name();
        last = last.max(name.to_str().and_then(marker).map_or(0, |(_, sequence)| sequence));
    }
    Ok(last)
}

/// The name of the pack, and the sequence, that a marker of this file name stands for.
fn marker(file_name: &str) -> Option<(&str, u64)> {
    let (pack, sequence) = file_name.strip_suffix(".ordered")?.rsplit_once('.')?;
    Some((pack, sequence.parse().ok()?))
}
