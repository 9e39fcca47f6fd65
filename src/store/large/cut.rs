//! A file into chunks: read once, cut, hashed and deflated on the way, on several threads.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use sha2::{Digest as _, Sha256};

use super::cutter::Cutter;
use super::recipe::{Chunk, Recipe};
use crate::id::ObjectId;
use crate::store::error::StoreError;
use crate::store::objects::{ObjectKind, object_id};
use crate::store::pack::writer::fill;
use crate::store::pack::{Deflater, PackedBlob};

/// How many bytes of chunks each thread may have waiting for it.
const WAITING: usize = 4 << 20;
/// How many bytes are read ahead of the chunks, besides the longest of them.
const AHEAD: usize = 2 << 20;

/// A chunk that was looked at: what it is, and what to store where it is new.
type Made = (Chunk, Option<PackedBlob>);

/// Cuts `content`, which has `size` bytes, and hands the chunks that are not `known` to `put`, in the order of the file
/// (one may come more than once). `None` answers where there are fewer or more bytes.
pub fn cut(
    size: u64,
    content: &mut (dyn Read + Send),
    threads: usize,
    known: &(dyn Fn(&ObjectId) -> bool + Sync),
    put: &mut dyn FnMut(&PackedBlob) -> Result<(), StoreError>,
) -> Result<Option<Recipe>, StoreError> {
    let cutter = Cutter::for_size(size);
    let waiting = WAITING / cutter.longest();
    let threads = threads.max(1);
    std::thread::scope(|scope| {
        let (mut to_look, mut looked) = (Vec::new(), Vec::new());
        for _ in 0..threads {
            let (sends, takes) = sync_channel::<Arc<Vec<u8>>>(waiting);
            let (tells, hears) = sync_channel::<Made>(waiting);
            scope.spawn(move || look(&takes, &tells, known));
            to_look.push(sends);
            looked.push(hears);
        }
        let (sums, to_sum) = sync_channel::<Arc<Vec<u8>>>(threads * waiting);
        let summing = scope.spawn(move || {
            let mut sum = Sha256::new();
            for chunk in to_sum {
                sum.update(&*chunk);
            }
            <[u8; 32]>::from(sum.finalize())
        });
        let reading = scope.spawn(move || read(size, content, cutter, &to_look, &sums));
        let mut chunks = Vec::new();
        let mut taken = Ok(());
        for hears in looked.iter().cycle() {
            // Whose turn it is has the next, or there are none.
            let Ok((chunk, blob)) = hears.recv() else { break };
            chunks.push(chunk);
            if let Some(blob) = blob {
                taken = put(&blob);
                if taken.is_err() {
                    break;
                }
            }
        }
        // Whoever still works ends when nobody listens.
        drop(looked);
        let read = reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let sum = summing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        taken?;
        let read = read.map_err(StoreError::io("read", Path::new("the file's content")))?;
        // More bytes than there should be are not counted by the recipe, fewer do not add up.
        Ok(if read == size { Recipe::new(size, sum, chunks).ok() } else { None })
    })
}

/// Hashes chunks, and deflates those that are new.
fn look(takes: &Receiver<Arc<Vec<u8>>>, tells: &SyncSender<Made>, known: &dyn Fn(&ObjectId) -> bool) {
    let mut deflater = Deflater::default();
    for bytes in takes {
        let id = object_id(ObjectKind::Blob, &bytes);
        let blob = (!known(&id)).then(|| PackedBlob::chunk(id, &mut deflater, &bytes));
        let len = u32::try_from(bytes.len()).expect("a chunk is short");
        if tells.send((Chunk { id, len }, blob)).is_err() {
            return;
        }
    }
}

/// Reads and cuts; answers with how many bytes there were, up to one more than there should be.
fn read(
    size: u64,
    content: &mut dyn Read,
    cutter: Cutter,
    to_look: &[SyncSender<Arc<Vec<u8>>>],
    sums: &SyncSender<Arc<Vec<u8>>>,
) -> io::Result<u64> {
    let mut content = content.take(size + 1);
    let mut buffer = vec![0; 2 * cutter.longest() + AHEAD];
    let (mut start, mut end) = (0, 0);
    let mut total = 0;
    let mut turns = to_look.iter().cycle();
    loop {
        if end - start < cutter.longest() {
            buffer.copy_within(start..end, 0);
            (start, end) = (0, end - start);
            end += fill(&mut content, &mut buffer[end..])?;
        }
        let rest = &buffer[start..end];
        if rest.is_empty() || total > size {
            return Ok(total);
        }
        let chunk = Arc::new(rest[..cutter.cut(rest)].to_vec());
        start += chunk.len();
        total += chunk.len() as u64;
        let turn = turns.next().expect("at least one thread");
        if turn.send(Arc::clone(&chunk)).is_err() || sums.send(chunk).is_err() {
            return Ok(total); // The one who writes has failed.
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn chunks_make_up_the_file_whatever_the_threads() {
        let content: Vec<u8> = (0..5_000_000_u32).flat_map(u32::to_be_bytes).collect();
        let mut recipes = Vec::new();
        for threads in [1, 3] {
            let mut blobs = HashMap::new();
            let size = content.len() as u64;
            let recipe = cut(size, &mut &content[..], threads, &|_| false, &mut |blob| {
                blobs.insert(blob.id(), blob.packed_len());
                Ok(())
            });
            let recipe = recipe.unwrap().expect("as many bytes as were said");
            let mut rest = &content[..];
            for chunk in recipe.chunks() {
                let (bytes, after) = rest.split_at(chunk.len as usize);
                assert_eq!(object_id(ObjectKind::Blob, bytes), chunk.id);
                assert!(blobs.contains_key(&chunk.id));
                rest = after;
            }
            assert!(rest.is_empty());
            assert_eq!(recipe.sha256(), &<[u8; 32]>::from(Sha256::digest(&content)));
            recipes.push(recipe);
        }
        assert_eq!(recipes[0], recipes[1]);
    }

    #[test]
    fn what_is_known_is_not_stored_again() {
        let content = vec![7; 3 << 20];
        let count = |known: bool| {
            let mut stored = 0;
            cut(3 << 20, &mut &content[..], 2, &|_| known, &mut |_| {
                stored += 1;
                Ok(())
            })
            .unwrap()
            .unwrap();
            stored
        };
        assert!(count(false) > 0);
        assert_eq!(count(true), 0);
    }

    #[test]
    fn a_file_that_shrinks_or_grows_has_no_recipe() {
        let content = vec![7; 1 << 20];
        for size in [0, (1 << 20) - 1, (1 << 20) + 1] {
            assert_eq!(cut(size, &mut &content[..], 2, &|_| false, &mut |_| Ok(())).unwrap(), None);
        }
    }

    #[test]
    fn an_error_of_either_side_ends_it() {
        struct Breaks(u64);
        impl Read for Breaks {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                match self.0.checked_sub(buffer.len() as u64) {
                    Some(rest) => self.0 = rest,
                    None => return Err(io::Error::other("broken")),
                }
                Ok(buffer.len())
            }
        }
        let mut breaks = Breaks(20 << 20);
        assert!(cut(30 << 20, &mut breaks, 2, &|_| false, &mut |_| Ok(())).is_err());
        let mut endless = Breaks(1 << 40);
        let full = || StoreError::TooLarge { what: "all".to_owned(), limit: 0 };
        assert!(cut(1 << 39, &mut endless, 2, &|_| false, &mut |_| Err(full())).is_err());
    }
}
