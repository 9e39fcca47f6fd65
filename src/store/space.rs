//! How much room a file system has.

use std::path::Path;

use super::error::StoreError;

/// The room of a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total: u64,
    /// What who asks may still use.
    pub free: u64,
}

/// The room of the file system that has `path`.
pub fn space(path: &Path) -> Result<Space, StoreError> {
    let stat =
        rustix::fs::statvfs(path).map_err(|error| StoreError::io("ask for the free space of", path)(error.into()))?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok(Space { total: bytes(stat.f_blocks), free: bytes(stat.f_bavail) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_less_free_than_it_has_room() {
        let dir = tempfile::tempdir().unwrap();
        let Space { total, free } = space(dir.path()).unwrap();
        assert!(free > 0 && free <= total);
        assert!(space(&dir.path().join("missing")).is_err());
    }
}
