//! Where new files are made before they take their places.

/// How the names begin of files that are staged beside their targets.
const BESIDE: &[u8] = b".foldersync-stage-";

/// Whether a name is one of those that are staged beside their targets.
pub(super) fn is_beside(name: &[u8]) -> bool {
    name.starts_with(BESIDE)
}
