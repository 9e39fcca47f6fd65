//! The calls with which a program changed files, as strace saw them, in the order in which they ended.

use std::collections::HashMap;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::world::{Fault, World, complaint, finish};

/// A call that ended.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) name: String,
    pub(super) arguments: Vec<String>,
    pub(super) result: i64,
    /// What it returned, as it was shown: with the path, for an open file.
    pub(super) shown: String,
    /// When it began: seconds and nanoseconds.
    pub(super) time: (u64, u32),
    /// How many calls had ended when it began: a sync covers no others.
    pub(super) began: usize,
}

/// All that changes files or makes changes last; and what would do that in a way that is not understood here.
const WATCHED: &str = "openat,open,creat,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,rename,renameat,\
    renameat2,link,linkat,unlink,unlinkat,rmdir,mkdir,mkdirat,symlink,symlinkat,fsync,fdatasync,sync,syncfs,fchmod,chmod,\
    fchmodat,utimensat,fallocate,copy_file_range,sendfile,mmap,lseek";

/// Runs a command to its end and takes down its calls.
pub(super) fn record(world: &World, plain: &Command, to: &Path) -> Result<Vec<Call>, Fault> {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-y", "-xx", "-s", "100000000", "-ttt", "-e", &format!("trace={WATCHED}"), "-o"]);
    command.arg(to).arg(plain.get_program()).args(plain.get_args());
    command.env_clear().envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
    command.current_dir(plain.get_current_dir().unwrap_or(&world.dir));
    let output = finish(&mut command)?;
    if !matches!(output.status.code(), Some(0 | 3)) {
        return Err(complaint(&command, &output));
    }
    let text = std::fs::read_to_string(to).map_err(|error| format!("{}: {error}", to.display()))?;
    parse(&text)
}

/// The calls of a log.
fn parse(text: &str) -> Result<Vec<Call>, Fault> {
    let mut calls: Vec<Call> = Vec::new();
    let mut begun: HashMap<&str, (String, usize)> = HashMap::new();
    for line in text.lines() {
        let strange = || format!("strace wrote what is not understood: {}", &line[..line.len().min(200)]);
        let (process, rest) = line.split_once(' ').ok_or_else(strange)?;
        let (time, rest) = rest.trim_start().split_once(' ').ok_or_else(strange)?;
        if rest.starts_with("+++") || rest.starts_with("---") {
            continue;
        }
        if let Some(first) = rest.strip_suffix("<unfinished ...>") {
            begun.insert(process, (format!("{time} {}", first.trim_end()), calls.len()));
            continue;
        }
        let (whole, began) = if let Some(resumed) = rest.strip_prefix("<... ") {
            let (_, last) = resumed.split_once(" resumed>").ok_or_else(strange)?;
            let (first, began) = begun.remove(process).ok_or_else(strange)?;
            (first + last, began)
        } else {
            (format!("{time} {rest}"), calls.len())
        };
        let (time, call) = whole.split_once(' ').ok_or_else(strange)?;
        let (name, rest) = call.split_once('(').ok_or_else(strange)?;
        let (arguments, shown) = rest.rsplit_once(") = ").or_else(|| rest.rsplit_once(" = ")).ok_or_else(strange)?;
        let number = shown.split([' ', '<']).next().unwrap_or("");
        let Ok(result) = number.parse() else {
            // An address, or a call that never ended.
            continue;
        };
        let (seconds, rest) = time.split_once('.').ok_or_else(strange)?;
        let micros: u32 = rest.parse().map_err(|_| strange())?;
        calls.push(Call {
            name: name.to_owned(),
            arguments: split(arguments.trim_end_matches([')', ' '])),
            result,
            shown: shown.to_owned(),
            time: (seconds.parse().map_err(|_| strange())?, micros * 1000),
            began,
        });
    }
    Ok(calls)
}

/// Arguments at their commas, but not those in brackets. Strings hold no commas: they are all escaped.
fn split(text: &str) -> Vec<String> {
    let mut arguments = vec![String::new()];
    let mut depth = 0;
    for letter in text.chars() {
        match letter {
            '[' | '{' => depth += 1,
            ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                arguments.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = arguments.last_mut() {
            last.push(letter);
        }
    }
    arguments.into_iter().map(|argument| argument.trim().to_owned()).collect()
}

/// The bytes of a string that strace shows all escaped.
pub(super) fn bytes(shown: &str) -> Option<Vec<u8>> {
    let inner = shown.strip_prefix('"')?.split_once('"')?.0;
    unescape(inner)
}

/// All strings of a list of buffers, put together.
pub(super) fn buffers(shown: &str) -> Option<Vec<u8>> {
    let parts = shown.split("iov_base=").skip(1).map(bytes);
    parts.collect::<Option<Vec<_>>>().map(|parts| parts.concat())
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    text.split("\\x").skip(1).map(|hex| u8::from_str_radix(hex.get(..2)?, 16).ok()).collect()
}

/// The path that is shown with a descriptor: `3<…>`, `AT_FDCWD<…>`. None for one whose name is gone.
pub(super) fn path_of(shown: &str) -> Option<PathBuf> {
    let (_, rest) = shown.split_once('<')?;
    let (inner, after) = rest.split_once('>')?;
    let path = PathBuf::from(std::ffi::OsString::from_vec(unescape(inner)?));
    (path.is_absolute() && !after.starts_with("(deleted)")).then_some(path)
}

/// The path that a call names: in `dir` (a descriptor), unless it is absolute.
pub(super) fn path_at(dir: Option<&str>, name: &str) -> Option<PathBuf> {
    let name = PathBuf::from(std::ffi::OsString::from_vec(bytes(name)?));
    Some(match dir.and_then(path_of) {
        Some(dir) => dir.join(name),
        None => name,
    })
}
