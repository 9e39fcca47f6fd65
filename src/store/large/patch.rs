//! A version of a large file made from another.

use std::fs::File;
use std::io::{self, Seek as _};
use std::os::unix::fs::FileExt as _;

use super::PASSING;
use super::assemble::{Content, content};
use super::recipe::{Chunk, Recipe};
use crate::id::ObjectId;
use crate::page_cache;
use crate::store::error::StoreError;
use crate::store::objects::{ObjectKind, Objects};

impl Objects {
    /// Makes `file`, which is empty, the version `new` of a large file of which the version `old` is on disk: `fill`
    /// gives it the content of that, which is not to be trusted, and the chunks that differ are written over it. Only
    /// where at least half of it stays as it is; `fill` is not called otherwise. What comes of it is read, and compared
    /// with its sum.
    ///
    /// Returns its size in bytes. `None`: it was not possible, and what is in the file is worth nothing.
    pub fn patch_file(
        &self,
        old: &ObjectId,
        new: &ObjectId,
        file: &File,
        fill: &mut dyn FnMut() -> io::Result<()>,
    ) -> Option<u64> {
        let (Ok(Content::Chunks(old)), Ok(Content::Chunks(new))) = (content(self, old), content(self, new)) else {
            return None;
        };
        let different = different(&old, &new);
        let bytes: u64 = different.iter().map(|(_, chunk)| u64::from(chunk.len)).sum();
        if bytes > new.size() / 2 || fill().is_err() {
            return None;
        }
        self.write_over(file, &new, &different).ok().filter(|is_right| *is_right).map(|_| new.size())
    }

    /// Writes these chunks to their places; answers whether the file is what the recipe says then.
    fn write_over(&self, mut file: &File, recipe: &Recipe, chunks: &[(u64, Chunk)]) -> Result<bool, StoreError> {
        let failed = |source| StoreError::Io { what: "write", path: "a large file".into(), source };
        file.set_len(recipe.size()).map_err(failed)?;
        let mut bytes = Vec::new();
        for (offset, chunk) in chunks {
            self.read(ObjectKind::Blob, &chunk.id, &mut bytes)?;
            file.write_all_at(&bytes, *offset).map_err(failed)?;
        }
        file.rewind().map_err(failed)?;
        let is_right = recipe.makes(&mut file).map_err(failed)?;
        if recipe.size() > PASSING {
            page_cache::let_go(file, 0, recipe.size());
        }
        Ok(is_right)
    }
}

/// The chunks of `new` that `old` has not in the same places, with these.
fn different(old: &Recipe, new: &Recipe) -> Vec<(u64, Chunk)> {
    let placed = |recipe: &Recipe| {
        let chunks = recipe.chunks().iter().scan(0, |offset, chunk| {
            let at = *offset;
            *offset += u64::from(chunk.len);
            Some((at, *chunk))
        });
        chunks.collect::<Vec<_>>()
    };
    let old = placed(old);
    let mut new = placed(new);
    new.retain(|(at, chunk)| !old.binary_search_by_key(at, |(at, _)| *at).is_ok_and(|found| old[found].1 == *chunk));
    new
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::bundle::tests::Repo;
    use crate::store::large::cut;
    use crate::store::pack::PackWriter;
    use crate::store::pack::blob::tests::noise;

    /// Puts the versions of a large file into a repository.
    fn repository(versions: &[&[u8]]) -> (Repo, Vec<ObjectId>) {
        let repo = Repo::new();
        let mut writer = PackWriter::create(&repo.packs).expect("begun");
        let mut ids = Vec::new();
        for content in versions {
            let put = &mut |chunk: &_| writer.put_packed(chunk).map(drop);
            let recipe = cut(content.len() as u64, &mut &content[..], 1, &|_| false, put).expect("read");
            let text = recipe.expect("as long as said").to_bytes();
            ids.push(writer.put(ObjectKind::Blob, &text).expect("put").id);
        }
        writer.finish().expect("finished");
        (repo, ids)
    }

    #[test]
    fn a_version_is_made_from_another() {
        let before = noise(4 << 20);
        let mut overwritten = before.clone();
        overwritten.splice(2_000_000..2_100_000, noise(100_000)).for_each(drop);
        let mut inserted = before.clone();
        inserted.splice(1_000_000..1_000_000, *b"0123456789").for_each(drop);
        let (shorter, longer) = (&before[..3 << 20], [&before[..], &noise(500_000)].concat());
        let (repo, ids) = repository(&[&before, &overwritten, &inserted, shorter, &longer]);
        let objects = crate::store::Objects::open(&repo.packs.join("..")).expect("objects");
        let patch = |new: usize, on_disk: &[u8]| {
            let file = tempfile::tempfile().expect("a file");
            let mut filled = false;
            let done = objects.patch_file(&ids[0], &ids[new], &file, &mut || {
                filled = true;
                file.write_all_at(on_disk, 0)
            });
            let mut content = vec![0; usize::try_from(file.metadata().expect("there").len()).expect("small")];
            file.read_exact_at(&mut content, 0).expect("read");
            (done, filled, content)
        };
        for (new, content) in [(1, &overwritten[..]), (3, shorter), (4, &longer)] {
            let (done, _, made) = patch(new, &before);
            assert_eq!((done, made == content), (Some(content.len() as u64), true), "{new}");
        }
        // All behind an insertion lies elsewhere.
        assert_eq!((patch(2, &before).0, patch(2, &before).1), (None, false));
        // What is on disk is not what it should be.
        let mut other = before.clone();
        other[100] ^= 1;
        for other in [&other[..], &before[..1 << 20], b""] {
            assert_eq!((patch(1, other).0, patch(1, other).1), (None, true));
        }
    }
}
