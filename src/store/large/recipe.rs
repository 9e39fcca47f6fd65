//! What a large file is made of, as text.
//!
//! ```text
//! foldersync-recipe 1
//! size 1073741824
//! sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
//! ce013625030ba8dba906f756967f9e9ca394464a 262144
//! ...
//! ```
//!
//! After the first line, the size of the file in bytes and its SHA-256; then a line for each chunk in the order of the
//! file: the id of the blob, and its length in bytes. Numbers are decimal, without zeros in front. There is one way of
//! writing a recipe, and only that is one: what reads otherwise is a file like any other.

use std::fmt::Write as _;
use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use crate::id::ObjectId;

/// What every recipe begins with, and nothing else in a repository does.
pub const SIGNATURE: &[u8] = b"foldersync-recipe 1\n";
/// The longest recipe, in bytes.
pub const LONGEST: usize = 4 << 20;
/// The longest chunk, in bytes.
pub const LONGEST_CHUNK: u32 = 64 << 20;

/// A piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// The blob.
    pub id: ObjectId,
    /// Its length in bytes; never 0.
    pub len: u32,
}

/// What a large file is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    size: u64,
    sha256: [u8; 32],
    chunks: Vec<Chunk>,
}

/// Why something that begins as a recipe is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecipeError {
    /// It does not begin as one.
    #[error("it does not begin as a recipe does")]
    Signature,
    /// It is longer than [`LONGEST`].
    #[error("it is longer than {LONGEST} bytes")]
    TooLong,
    /// A line is not what it should be; counted from 1.
    #[error("its line {0} makes no sense")]
    Line(usize),
    /// Its chunks are not as long together as the file.
    #[error("its chunks are not as long as the file")]
    Sum,
}

/// Whether a content is to be taken for a recipe, or kept as one because it could be.
pub fn begins_as_one(content: &[u8]) -> bool {
    content.starts_with(SIGNATURE)
}

impl Recipe {
    /// A recipe of these chunks; `None` if they are not `size` bytes together, too long, or too many.
    pub fn new(size: u64, sha256: [u8; 32], chunks: Vec<Chunk>) -> Result<Self, RecipeError> {
        let mut sum = 0_u64;
        for chunk in &chunks {
            sum = sum.checked_add(u64::from(chunk.len)).ok_or(RecipeError::Sum)?;
        }
        if sum != size {
            return Err(RecipeError::Sum);
        }
        Ok(Self { size, sha256, chunks })
    }

    /// The size of the file in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The SHA-256 of the file.
    pub const fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// The chunks, in the order of the file. One may be there more than once.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Reads a recipe.
    pub fn parse(content: &[u8]) -> Result<Self, RecipeError> {
        if content.len() > LONGEST {
            return Err(RecipeError::TooLong);
        }
        let rest = content.strip_prefix(SIGNATURE).ok_or(RecipeError::Signature)?;
        let text = std::str::from_utf8(rest).map_err(|_| RecipeError::Line(2))?;
        let mut lines = text.split_inclusive('\n').zip(2..).map(|(line, number)| (line.strip_suffix('\n'), number));
        let mut next = |word: &str| {
            let (line, number) = lines.next().unwrap_or((None, 2));
            let value = line.and_then(|line| line.strip_prefix(word));
            value.ok_or(RecipeError::Line(number)).map(|value| (value, number))
        };
        let (size, number) = next("size ")?;
        let size = decimal(size).ok_or(RecipeError::Line(number))?;
        let (sha256, number) = next("sha256 ")?;
        let sha256 = hex(sha256).ok_or(RecipeError::Line(number))?;
        let mut chunks = Vec::new();
        for (line, number) in lines {
            let chunk = line.and_then(|line| line.split_once(' ')).and_then(|(id, len)| {
                let id = ObjectId::from_bytes(hex(id)?);
                let len = u32::try_from(decimal(len)?).ok().filter(|len| (1..=LONGEST_CHUNK).contains(len))?;
                Some(Chunk { id, len })
            });
            chunks.push(chunk.ok_or(RecipeError::Line(number))?);
        }
        Self::new(size, sha256, chunks)
    }

    /// The recipe as text.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = String::with_capacity(SIGNATURE.len() + 100 + self.chunks.len() * 50);
        text.push_str(std::str::from_utf8(SIGNATURE).expect("a line of ASCII"));
        // Writing to a string does not fail.
        let _ = writeln!(text, "size {}", self.size);
        text.push_str("sha256 ");
        for byte in self.sha256 {
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
        for chunk in &self.chunks {
            let _ = writeln!(text, "{} {}", chunk.id, chunk.len);
        }
        text.into_bytes()
    }

    /// Whether these bytes are the file.
    pub fn makes(&self, content: &mut dyn Read) -> io::Result<bool> {
        let (mut sum, mut size) = (Sha256::new(), 0_u64);
        let mut buffer = vec![0; 256 << 10];
        loop {
            match content.read(&mut buffer) {
                Ok(0) => return Ok(size == self.size && sum.finalize().as_slice() == self.sha256),
                Ok(read) => {
                    sum.update(&buffer[..read]);
                    size += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if size > self.size {
                return Ok(false);
            }
        }
    }

    /// How many bytes of this file lie in chunks that another has not.
    pub fn bytes_not_in(&self, other: &Self) -> u64 {
        let has: std::collections::HashSet<ObjectId> = other.chunks.iter().map(|chunk| chunk.id).collect();
        self.chunks.iter().filter(|chunk| !has.contains(&chunk.id)).map(|chunk| u64::from(chunk.len)).sum()
    }
}

/// A number as this writes it.
fn decimal(text: &str) -> Option<u64> {
    let plain = text == "0" || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
    plain.then(|| text.parse().ok())?
}

/// Bytes as this writes them.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn recipe(lens: &[u32]) -> Recipe {
        let chunk =
            |(at, &len): (usize, &u32)| Chunk { id: ObjectId::from_bytes([u8::try_from(at).unwrap(); 20]), len };
        let chunks: Vec<_> = lens.iter().enumerate().map(chunk).collect();
        Recipe::new(lens.iter().map(|&len| u64::from(len)).sum(), [0xab; 32], chunks).unwrap()
    }

    #[test]
    fn the_form_is_the_one_that_is_documented() {
        let zeros = "0".repeat(40);
        let text = format!(
            "foldersync-recipe 1\nsize 300\nsha256 {}\n{zeros} 100\n{} 200\n",
            "ab".repeat(32),
            "01".repeat(20)
        );
        let made = recipe(&[100, 200]);
        assert_eq!(String::from_utf8(made.to_bytes()).unwrap(), text);
        assert_eq!(Recipe::parse(text.as_bytes()), Ok(made));
        let empty = recipe(&[]);
        assert_eq!(Recipe::parse(&empty.to_bytes()), Ok(empty));
    }

    #[test]
    fn what_a_recipe_may_not_say() {
        let good = String::from_utf8(recipe(&[100, 200]).to_bytes()).unwrap();
        let parse = |from: &str, to: &str| {
            assert!(good.contains(from), "{from}");
            Recipe::parse(good.replacen(from, to, 1).as_bytes()).unwrap_err()
        };
        assert_eq!(parse("recipe 1", "recipe 2"), RecipeError::Signature);
        assert_eq!(parse("size 300", "size 0300"), RecipeError::Line(2));
        assert_eq!(parse("size 300", "size +300"), RecipeError::Line(2));
        assert_eq!(parse("size 300", "size 18446744073709551616"), RecipeError::Line(2));
        assert_eq!(parse("size 300", "size 301"), RecipeError::Sum);
        assert_eq!(parse("sha256 ab", "sha256 AB"), RecipeError::Line(3));
        assert_eq!(parse("sha256 ab", "sha256 "), RecipeError::Line(3));
        assert_eq!(parse(" 100\n", " 0\n"), RecipeError::Line(4));
        assert_eq!(parse(" 200\n", " 4294967496\n"), RecipeError::Line(5));
        assert_eq!(parse(" 200\n", " 200"), RecipeError::Line(5));
        assert_eq!(parse(" 200\n", " 200\n\n"), RecipeError::Line(6));
        assert_eq!(parse(" 200\n", " 200\r\n"), RecipeError::Line(5));
        let long = [SIGNATURE, &vec![b'x'; LONGEST]].concat();
        assert_eq!(Recipe::parse(&long), Err(RecipeError::TooLong));
        assert_eq!(Recipe::parse(SIGNATURE), Err(RecipeError::Line(2)));
    }

    #[test]
    fn a_total_that_overflows_is_refused() {
        let chunk = Chunk { id: ObjectId::from_bytes([1; 20]), len: LONGEST_CHUNK };
        assert_eq!(Recipe::new(0, [0; 32], vec![chunk]), Err(RecipeError::Sum));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(lens in prop::collection::vec(1..=LONGEST_CHUNK, 0..50)) {
            let made = recipe(&lens);
            prop_assert_eq!(Recipe::parse(&made.to_bytes()), Ok(made));
        }

        #[test]
        fn only_what_reads_back_the_same_is_one(at in 0..400_usize, byte: u8) {
            let mut text = recipe(&[7, 70, 700]).to_bytes();
            let at = at % text.len();
            text[at] = byte;
            if let Ok(read) = Recipe::parse(&text) {
                prop_assert_eq!(read.to_bytes(), text);
            }
        }
    }
}
