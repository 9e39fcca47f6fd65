//! Chunks into a file again.

use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

use sha2::{Digest as _, Sha256};

use super::PASSING;
use super::recipe::{LONGEST, Recipe, SIGNATURE, begins_as_one};
use crate::id::ObjectId;
use crate::store::error::StoreError;
use crate::store::objects::{ObjectKind, Objects};

/// How many chunks may have been read and not yet written.
const AHEAD: usize = 8;

/// What the blob of a file stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The file itself, of so many bytes.
    Whole(u64),
    /// Its chunks.
    Chunks(Recipe),
}

impl Content {
    /// The size of the file in bytes.
    pub const fn size(&self) -> u64 {
        match self {
            Self::Whole(size) => *size,
            Self::Chunks(recipe) => recipe.size(),
        }
    }
}

fn nonsense(id: &ObjectId, detail: &dyn std::fmt::Display) -> StoreError {
    StoreError::Hostile { what: format!("the recipe {id} of a large file"), detail: detail.to_string() }
}

/// What the blob of a file stands for. (For the target of a link it is not to be asked.)
pub fn content(objects: &Objects, id: &ObjectId) -> Result<Content, StoreError> {
    let size = match objects.header(id)? {
        Some((ObjectKind::Blob, size)) => size,
        Some((kind, _)) => {
            let detail = format!("it is a {}, not a blob", kind.word());
            return Err(StoreError::damaged(format!("object {id}"), detail));
        }
        None => return Err(StoreError::Missing { id: *id }),
    };
    if size > LONGEST as u64 || !objects.begins_with(id, SIGNATURE)? {
        return Ok(Content::Whole(size));
    }
    let mut bytes = Vec::new();
    objects.read(ObjectKind::Blob, id, &mut bytes)?;
    of(id, &bytes)
}

/// What a blob with this content stands for.
fn of(id: &ObjectId, bytes: &[u8]) -> Result<Content, StoreError> {
    if !begins_as_one(bytes) {
        return Ok(Content::Whole(bytes.len() as u64));
    }
    Recipe::parse(bytes).map(Content::Chunks).map_err(|error| nonsense(id, &error))
}

impl Objects {
    /// Writes the file that a blob stands for to `out`: chunk by chunk, if it is a recipe. Returns its size in bytes.
    /// After an error, what was written is worth nothing.
    pub fn copy_file(&self, id: &ObjectId, out: &mut dyn Write) -> Result<u64, StoreError> {
        let size = self.header(id)?.map_or(0, |(_, size)| size);
        if size > LONGEST as u64 {
            return self.copy_blob(id, out);
        }
        let mut bytes = Vec::new();
        self.read(ObjectKind::Blob, id, &mut bytes)?;
        let wrote = |source| StoreError::Io { what: "write", path: format!("the content of blob {id}").into(), source };
        match of(id, &bytes)? {
            Content::Whole(size) => out.write_all(&bytes).map_err(wrote).map(|()| size),
            Content::Chunks(recipe) => self.assemble(id, &recipe, out),
        }
    }

    fn assemble(&self, id: &ObjectId, recipe: &Recipe, out: &mut dyn Write) -> Result<u64, StoreError> {
        let objects = self.clone();
        std::thread::scope(|scope| {
            let (sends, chunks) = sync_channel(AHEAD);
            let (gives_back, used) = channel();
            let reading = scope.spawn(move || objects.read_chunks(id, recipe, &sends, &used));
            let mut written = Ok(());
            for bytes in chunks {
                written = out.write_all(&bytes);
                if written.is_err() {
                    break;
                }
                // At the end nobody takes it.
                drop(gives_back.send(bytes));
            }
            let read = reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            written.map_err(StoreError::io("write", Path::new("the content of a large file")))?;
            read.map(|()| recipe.size())
        })
    }

    /// Reads the chunks of a large file, which whoever listens has to write, and compares what they make with its sum.
    /// Memory that was `used` serves again.
    fn read_chunks(
        &self,
        id: &ObjectId,
        recipe: &Recipe,
        sends: &SyncSender<Vec<u8>>,
        used: &Receiver<Vec<u8>>,
    ) -> Result<(), StoreError> {
        let mut sum = Sha256::new();
        for chunk in recipe.chunks() {
            let mut bytes = used.try_recv().unwrap_or_default();
            self.read(ObjectKind::Blob, &chunk.id, &mut bytes)?;
            if bytes.len() != chunk.len as usize {
                return Err(nonsense(id, &format!("chunk {} has not the length that it says", chunk.id)));
            }
            sum.update(&bytes);
            if recipe.size() > PASSING {
                self.let_go(&chunk.id, bytes.len() as u64);
            }
            if sends.send(bytes).is_err() {
                return Ok(()); // It could not be written, and whoever writes says why.
            }
        }
        if sum.finalize().as_slice() != recipe.sha256() {
            return Err(nonsense(id, &"the chunks do not make the file whose SHA-256 it says"));
        }
        Ok(())
    }
}
