//! The filter that gives plain git the bytes of large files (`foldersync git-filter`).
//!
//! Git runs it where `filter.foldersync.process` names it and an attribute says `filter=foldersync`, as the config and
//! (once there is a large file) `info/attributes` of our repositories do, and hands it each content that it writes to
//! the disk or takes from there.
//! Speaks version 2 of git's protocol for filters that stay (`gitattributes(5)`, "Long Running Filter Process").
//!
//! On the way to the disk (`smudge`), a recipe becomes the file that it stands for. On the way back (`clean`), a file of
//! which the repository has the recipe becomes that. Everything else passes as it is: new chunks are stored by a
//! capture, never here, where nothing would keep them. Must not: write to the repository.

use std::io::{self, Read, Seek as _, Write};
use std::path::Path;

use tempfile::SpooledTempFile;

use super::error::EngineError;
use crate::store::large::{self, Recipe};
use crate::store::{ObjectKind, Objects, StoreError, object_id};

/// The most bytes of a packet, beside its length (`LARGE_PACKET_DATA_MAX` of git).
const PACKET: usize = 65_516;
/// Contents with more bytes wait in a file.
const IN_MEMORY: usize = 8 << 20;

/// Answers git on `input` and `output` until it hangs up. `git_dir` is the repository.
pub fn serve(git_dir: &Path, input: &mut dyn Read, output: &mut dyn Write) -> Result<(), EngineError> {
    let objects = Objects::open(&git_dir.join("objects"))?;
    let failed = EngineError::io("talk to git on", Path::new("its input and output"));
    greet(input, output).and_then(|()| answer_all(&objects, input, output)).map_err(failed)
}

fn greet(input: &mut dyn Read, output: &mut dyn Write) -> io::Result<()> {
    let hello = read_list(input)?.unwrap_or_default();
    if hello.first().map(String::as_str) != Some("git-filter-client") || !hello.iter().any(|line| line == "version=2") {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "this is not git, or another version of its protocol"));
    }
    write_list(output, &["git-filter-server", "version=2"])?;
    let offered = read_list(input)?.unwrap_or_default();
    let known = ["capability=clean", "capability=smudge"];
    let taken: Vec<&str> = known.into_iter().filter(|known| offered.iter().any(|offer| offer == known)).collect();
    write_list(output, &taken)
}

fn answer_all(objects: &Objects, input: &mut dyn Read, output: &mut dyn Write) -> io::Result<()> {
    while let Some(asked) = read_list(input)? {
        let mut content = SpooledTempFile::new(IN_MEMORY);
        while let Some(packet) = read_packet(input)? {
            content.write_all(&packet)?;
        }
        let size = content.stream_position()?;
        content.rewind()?;
        let filtered = match asked.iter().find_map(|line| line.strip_prefix("command=")) {
            Some("smudge") => smudge(objects, &mut content, size),
            Some("clean") => clean(objects, &mut content, size),
            _ => Err(StoreError::damaged("what git asks", "it is neither to clean nor to smudge")),
        };
        match filtered {
            Ok(filtered) => {
                write_list(output, &["status=success"])?;
                let mut packets = Packets { out: output };
                match filtered {
                    Filtered::AsItIs => {
                        content.rewind()?;
                        io::copy(&mut content, &mut packets)?;
                    }
                    Filtered::Other(mut other) => drop(io::copy(&mut other, &mut packets)?),
                }
                // The end of the content, and a status that stays as it was.
                write_list(output, &[])?;
                write_list(output, &[])?;
            }
            // Git goes on with the content as it is, and says so.
            Err(_) => write_list(output, &["status=error"])?,
        }
    }
    Ok(())
}

enum Filtered {
    AsItIs,
    Other(SpooledTempFile),
}

/// The file that a recipe stands for.
fn smudge(objects: &Objects, content: &mut SpooledTempFile, size: u64) -> Result<Filtered, StoreError> {
    if size > large::recipe::LONGEST as u64 {
        return Ok(Filtered::AsItIs);
    }
    let mut bytes = Vec::new();
    content.read_to_end(&mut bytes).map_err(unreadable)?;
    if Recipe::parse(&bytes).is_err() {
        return Ok(Filtered::AsItIs);
    }
    let mut file = SpooledTempFile::new(IN_MEMORY);
    objects.copy_file(&object_id(ObjectKind::Blob, &bytes), &mut file)?;
    file.rewind().map_err(unreadable)?;
    Ok(Filtered::Other(file))
}

/// The recipe of a file, if the repository has it.
fn clean(objects: &Objects, content: &mut SpooledTempFile, size: u64) -> Result<Filtered, StoreError> {
    let Some(recipe) = large::cut(size, content, 1, &|_| true, &mut |_| Ok(()))? else {
        return Err(StoreError::damaged("what git sent", "its length changed"));
    };
    let bytes = recipe.to_bytes();
    if !objects.exists(&object_id(ObjectKind::Blob, &bytes)) {
        return Ok(Filtered::AsItIs);
    }
    let mut file = SpooledTempFile::new(IN_MEMORY);
    file.write_all(&bytes).and_then(|()| file.rewind()).map_err(unreadable)?;
    Ok(Filtered::Other(file))
}

fn unreadable(source: io::Error) -> StoreError {
    StoreError::io("keep", Path::new("what git sent"))(source)
}

/// The next packet; `None` for a flush packet.
fn read_packet(input: &mut dyn Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let nonsense = || io::Error::new(io::ErrorKind::InvalidData, "a packet has no length");
    let length = std::str::from_utf8(&length).ok().and_then(|hex| usize::from_str_radix(hex, 16).ok());
    match length.ok_or_else(nonsense)? {
        0 => Ok(None),
        length => {
            let mut packet = vec![0; length.checked_sub(4).filter(|&length| length <= PACKET).ok_or_else(nonsense)?];
            input.read_exact(&mut packet)?;
            Ok(Some(packet))
        }
    }
}

/// The lines up to a flush packet, without what ends them; `None` if git hung up before the first.
fn read_list(input: &mut dyn Read) -> io::Result<Option<Vec<String>>> {
    let mut lines = Vec::new();
    loop {
        match read_packet(input) {
            Ok(Some(packet)) => lines.push(String::from_utf8_lossy(&packet).trim_end_matches('\n').to_owned()),
            Ok(None) => return Ok(Some(lines)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && lines.is_empty() => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

/// Writes lines, and a flush packet behind them.
fn write_list(output: &mut dyn Write, lines: &[&str]) -> io::Result<()> {
    for line in lines {
        writeln!(output, "{:04x}{line}", line.len() + 5)?;
    }
    output.write_all(b"0000")?;
    output.flush()
}

/// Makes packets of what is written.
struct Packets<'a> {
    out: &'a mut dyn Write,
}

impl Write for Packets<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(PACKET)];
        if !bytes.is_empty() {
            write!(self.out, "{:04x}", bytes.len() + 4)?;
            self.out.write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_as_they_are_written() {
        let mut out = Vec::new();
        write_list(&mut out, &["command=smudge", "pathname=a b"]).unwrap();
        Packets { out: &mut out }.write_all(&vec![7; PACKET + 1]).unwrap();
        write_list(&mut out, &[]).unwrap();
        assert!(out.starts_with(b"0013command=smudge\n0011pathname=a b\n0000fff0"));
        let mut input = &out[..];
        assert_eq!(read_list(&mut input).unwrap().unwrap(), ["command=smudge", "pathname=a b"]);
        assert_eq!(read_packet(&mut input).unwrap().unwrap().len(), PACKET);
        assert_eq!(read_packet(&mut input).unwrap().unwrap(), [7]);
        assert_eq!(read_packet(&mut input).unwrap(), None);
        assert_eq!(read_list(&mut input).unwrap(), None);
    }

    #[test]
    fn what_is_no_packet_is_an_error() {
        for input in [&b"zzzz"[..], b"0001", b"0003", b"ffff", b"0009ab", b"00"] {
            assert!(read_packet(&mut &*input).is_err(), "{input:?}");
        }
        let mut out = Vec::new();
        assert!(greet(&mut &b"0000"[..], &mut out).is_err());
        assert!(out.is_empty());
    }
}
