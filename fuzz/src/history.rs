//! What history is kept and sent in, one piece at a time: the beginning of a bundle, a commit, a delta, a recipe.

use std::io::{Read as _, Write as _};

use foldersync::id::CommitId;
use foldersync::message::Message;
use foldersync::store::Commit;
use foldersync::store::bundle::{Bundle, BundleHeader};
use foldersync::store::large::Recipe;
use foldersync::store::large::recipe::LONGEST_CHUNK;
use foldersync::store::pack::delta::{self, DeltaError};

/// How much is made of an input at most: a hostile one may promise more.
const LIMIT: usize = 1 << 20;

/// What a bundle begins with, and how many bytes are behind it.
fn opened(bytes: &[u8]) -> Option<(BundleHeader, Vec<u8>)> {
    let (header, pack) = Bundle::open(bytes).ok()?.into_parts();
    let mut rest = Vec::new();
    pack.take(LIMIT as u64).read_to_end(&mut rest).ok()?;
    Some((header, rest))
}

/// A bundle, bare or compressed, whose pack is passed over.
pub fn bundle(data: &[u8]) {
    let Some((header, pack)) = opened(data) else { return };
    let mut text = "# v2 git bundle\n".to_owned();
    text.extend(header.prerequisites.iter().map(|id| format!("-{id}\n")));
    text.extend(header.refs.iter().map(|(name, id)| format!("{id} {name}\n")));
    text.push('\n');
    let bare = [text.as_bytes(), &pack].concat();
    let expected = Some((header, pack));
    assert_eq!(opened(&bare), expected);
    let mut frames = snap::write::FrameEncoder::new(Vec::new());
    frames.write_all(&bare).expect("in memory");
    assert_eq!(opened(&frames.into_inner().expect("in memory")), expected);
}

/// A commit, and its message.
pub fn commit(data: &[u8]) {
    let id = CommitId::from_bytes([1; 20]);
    if let Ok(commit) = Commit::parse(id, data) {
        let written = commit.to_bytes();
        let again = Commit::parse(id, &written).expect("what is written can be read");
        assert_eq!((again.tree, &again.parents, &again.message), (commit.tree, &commit.parents, &commit.message));
        assert_eq!(again.to_bytes(), written);
        assert_eq!(again.id(), commit.id());
    }
    let message = Message::parse(data);
    let again = Message::parse(&message.to_bytes());
    let subject = message.subject.trim_end_matches('\r').to_owned();
    assert_eq!(
        Message { subject: again.subject.trim_end_matches('\r').to_owned(), ..again },
        Message { subject, ..message }
    );
}

/// A base, a NUL, a delta on it.
pub fn delta(data: &[u8]) {
    let at = data.iter().position(|&byte| byte == 0).unwrap_or(data.len());
    let (base, delta) = (&data[..at], data.get(at + 1..).unwrap_or_default());
    match delta::apply(base, delta, LIMIT) {
        Ok(made) => {
            assert!(made.len() <= LIMIT);
            assert_eq!(delta::result_size(delta), Ok(made.len() as u64));
            assert_eq!(delta::apply(base, delta, made.len()), Ok(made.clone()));
            if let Some(less) = made.len().checked_sub(1) {
                assert_eq!(delta::apply(base, delta, less), Err(DeltaError::TooLarge));
            }
        }
        Err(DeltaError::TooLarge) => assert!(delta::result_size(delta).is_ok_and(|size| size > LIMIT as u64)),
        Err(_) => {}
    }
}

/// The text of a recipe.
pub fn recipe(data: &[u8]) {
    let Ok(recipe) = Recipe::parse(data) else { return };
    assert_eq!(recipe.to_bytes(), data, "there is one way to write it");
    let lengths = || recipe.chunks().iter().map(|chunk| chunk.len);
    assert!(lengths().all(|len| (1..=LONGEST_CHUNK).contains(&len)));
    assert_eq!(lengths().map(u64::from).sum::<u64>(), recipe.size());
    assert_eq!(Recipe::new(recipe.size(), *recipe.sha256(), recipe.chunks().to_vec()), Ok(recipe));
}
