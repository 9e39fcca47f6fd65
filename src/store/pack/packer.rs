//! Contents made ready for a pack: whole, or as a delta against what they replace, where that is much smaller.
//!
//! What they replace is read with positioned reads, and only believed if it has its id; what cannot be read is no base.
//! One a thread.

use super::blob::{Deflater, PackedBlob};
use super::likeness;
use crate::id::ObjectId;
use crate::store::objects::{ObjectKind, Objects, object_id};

/// Deltas make contents from this many bytes on: a smaller one is hardly longer than the delta's own header.
const SMALLEST: usize = 64;
/// Deltas make contents of up to this many bytes, out of such: receivers hold both in memory, and allow no more.
const LARGEST: usize = 8 << 20;
/// What is replaced may be so many times as large: to look at more would cost more than it could bring.
const SHRUNK: usize = 16;
/// A delta is to have at most two thirds of the bytes that the whole would have. A reader pays for each delta, and the
/// pack of a capture has the base once more until it is gathered: a little smaller is not worth it.
const PARTS: usize = 3;
const PARTS_OF_DELTA: usize = 2;
/// What a delta's reference to its base costs.
const REFERENCE: usize = 20;
/// A delta with less than this part of the content's bytes is taken without deflating the content to compare.
const SURELY: usize = 40;

/// Makes contents ready.
pub struct Packer {
    objects: Option<Objects>,
    deflater: Deflater,
    base: Vec<u8>,
}

impl Packer {
    /// One that looks in `objects` for what contents replace; without, all are whole.
    pub fn new(objects: Option<Objects>) -> Self {
        Self { objects, deflater: Deflater::default(), base: Vec::new() }
    }

    /// Makes ready the content with the id `id`, which takes the place of `previous`. Where it is a delta against that,
    /// the commit that it is put for must have an ancestor that brought it.
    pub fn pack(&mut self, id: ObjectId, content: &[u8], previous: Option<ObjectId>) -> PackedBlob {
        let packed = previous.and_then(|previous| self.pack_change(id, content, previous));
        packed.unwrap_or_else(|| PackedBlob::whole(&mut self.deflater, id, content))
    }

    /// The same where there may be a delta; `None` if there is none that could be worth it.
    pub fn pack_change(&mut self, id: ObjectId, content: &[u8], previous: ObjectId) -> Option<PackedBlob> {
        let delta = if previous == id { None } else { self.delta(id, content, previous) };
        // What was large is rare, and the next content is most likely small.
        if self.base.capacity() > 1 << 20 {
            self.base = Vec::new();
        }
        Some(match delta? {
            delta if (delta.packed_len() + REFERENCE) * SURELY <= content.len() => delta,
            delta => {
                let whole = PackedBlob::whole(&mut self.deflater, id, content);
                if (delta.packed_len() + REFERENCE) * PARTS <= whole.packed_len() * PARTS_OF_DELTA {
                    delta
                } else {
                    whole
                }
            }
        })
    }

    fn delta(&mut self, id: ObjectId, content: &[u8], base: ObjectId) -> Option<PackedBlob> {
        let objects = self.objects.as_ref()?;
        if !(SMALLEST..=LARGEST).contains(&content.len()) {
            return None;
        }
        let (kind, size) = objects.header(&base).ok()??;
        let size = usize::try_from(size).ok().filter(|&size| size <= LARGEST)?;
        if kind != ObjectKind::Blob || size / SHRUNK > content.len() || content.len() / SHRUNK > size {
            return None;
        }
        objects.read(ObjectKind::Blob, &base, &mut self.base).ok()?;
        let delta = likeness::encode(&self.base, content, content.len() / PARTS * PARTS_OF_DELTA)?;
        // Damage must not spread.
        (object_id(ObjectKind::Blob, &self.base) == base)
            .then(|| PackedBlob::delta(&mut self.deflater, id, base, &delta))
    }
}

#[cfg(test)]
mod tests {
    use super::super::blob::tests::noise;
    use super::super::testing::repository;
    use super::super::writer::PackWriter;
    use super::*;
    use rstest::rstest;

    fn text(lines: usize) -> Vec<u8> {
        (0..lines).flat_map(|n| format!("line {n} says {:x}\n", n.wrapping_mul(0x9e37_79b9)).into_bytes()).collect()
    }

    fn edited(mut content: Vec<u8>) -> Vec<u8> {
        let middle = content.len() / 2;
        content.splice(middle..middle + 3, *b"edited");
        content
    }

    #[rstest]
    #[case::an_edit(text(100), edited(text(100)), true)]
    #[case::an_edit_of_a_photo(noise(300_000), edited(noise(300_000)), true)]
    #[case::as_large_as_may_be(noise(LARGEST), edited(noise(LARGEST))[..LARGEST].to_vec(), true)]
    #[case::too_large(noise(LARGEST), edited(noise(LARGEST)), false)]
    #[case::small(b"a little".to_vec(), b"a little more".to_vec(), false)]
    #[case::became_noise(text(10_000), noise(300_000), false)]
    #[case::another_text(text(300), b"nothing of the like ".repeat(400), false)]
    #[case::alike_but_easy_to_deflate(vec![0; 1 << 20], vec![1; 1 << 20], false)]
    #[case::cut_down(text(30_000), text(30), false)]
    fn deltas_are_taken_where_they_are_much_smaller(
        #[case] old: Vec<u8>,
        #[case] new: Vec<u8>,
        #[case] is_delta: bool,
    ) {
        let (folder, packs) = repository();
        let mut writer = PackWriter::create(&packs).expect("begun");
        let previous = writer.put(ObjectKind::Blob, &old).expect("put").id;
        writer.finish().expect("finished");
        let objects = Objects::open(&folder.path().join("objects")).expect("opened");
        let id = object_id(ObjectKind::Blob, &new);
        let packed = Packer::new(Some(objects)).pack(id, &new, Some(previous));
        assert_eq!((packed.id(), packed.base()), (id, is_delta.then_some(previous)));
        assert!(!is_delta || packed.packed_len() < new.len() / 10);
        assert_eq!(packed.made_of(&old), is_delta.then_some(new));
    }

    #[test]
    fn without_a_base_that_is_there_all_are_whole() {
        let (folder, _) = repository();
        let objects = Objects::open(&folder.path().join("objects")).expect("opened");
        let content = text(100);
        let id = object_id(ObjectKind::Blob, &content);
        for (objects, previous) in [(Some(objects), Some(ObjectId::from_bytes([7; 20]))), (None, None)] {
            assert_eq!(Packer::new(objects).pack(id, &content, previous).base(), None);
        }
    }
}
