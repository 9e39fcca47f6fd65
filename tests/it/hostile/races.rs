//! Somebody on this computer who may write to the folder, and swaps a folder of it for a link that leads out, again and
//! again, while what came from a peer is written and what is new is read.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use foldersync::store::{ObjectKind, object_id};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::bad_input::Before;
use crate::sites::Sites;

const FILES: usize = 300;
const ROUNDS: usize = 4;

fn name(n: usize) -> String {
    format!("d/in {}/file {n}", n % 7)
}

#[test]
fn a_folder_that_is_swapped_for_a_link_all_the_time_leads_nowhere() {
    let sites = Sites::new(2);
    let [from, to] = &sites.sites[..] else { panic!("two") };
    for n in 0..FILES {
        from.write(&name(n), format!("{n}"));
    }
    sites.exchange(0, 1);
    // Outside stands all that the folder has, of somebody else, and more.
    let outside = sites.dir().join("outside");
    for n in 0..FILES {
        let path = outside.join(name(n).strip_prefix("d/").expect("in d"));
        fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        fs::write(&path, format!("a secret {n}")).expect("writable");
    }
    let untouched = Before::of(&outside);
    // What it is swapped with lies in the folder, and is not versioned.
    fs::write(to.path(".git/info/exclude"), "/decoy\n").expect("writable");
    let (folder, decoy) = (to.path("d"), to.path("decoy"));
    let (stop, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    for round in 1..=ROUNDS {
        symlink(&outside, &decoy).expect("a link");
        stop.store(false, Ordering::Relaxed);
        // Every kind of step: changes, new files, removals, a folder in place of a file.
        for n in 0..FILES {
            match (n + round) % 4 {
                0 | 1 => from.write(&name(n), format!("{n} in round {round}")),
                2 if from.path(&name(n)).exists() => from.remove(&name(n)),
                _ => from.write(&format!("d/new {round}/{n}"), format!("new {n}")),
            }
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // Whichever of them is written to meanwhile.
                    if renameat_with(CWD, &folder, CWD, &decoy, RenameFlags::EXCHANGE).is_ok() {
                        swaps.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            for _ in 0..3 {
                // It may be that nothing can be done while that goes on.
                drop(sites.try_exchange(0, 1));
                drop(to.folder().capture(&[]));
            }
            stop.store(true, Ordering::Relaxed);
        });
        untouched.is_untouched();
        // The attacker goes, and takes the link along.
        let is_link = |path: &Path| fs::symlink_metadata(path).is_ok_and(|data| data.is_symlink());
        if is_link(&folder) && !is_link(&decoy) {
            renameat_with(CWD, &folder, CWD, &decoy, RenameFlags::EXCHANGE).expect("the other way round");
        }
        if is_link(&decoy) { fs::remove_file(&decoy) } else { fs::remove_dir_all(&decoy) }.expect("removable");
        for _ in 0..4 {
            sites.exchange(0, 1);
        }
        untouched.is_untouched();
    }
    assert!(swaps.load(Ordering::Relaxed) > 100, "{swaps:?} swaps");
    // What could not be written for all the swapping is left out; what stands is what it should be.
    assert_eq!(from.head(), to.head());
    let (here, there) = (from.files(), to.files());
    assert!(there.len() > FILES / 2, "{} files", there.len());
    for (path, standing) in &there {
        assert_eq!(here.get(path), Some(standing), "{}", path.display());
    }
    let history = to.history();
    for n in 0..FILES {
        let id = object_id(ObjectKind::Blob, format!("a secret {n}").as_bytes());
        assert!(!history.contains(&id.to_string()), "what is outside was read");
    }
    from.check();
    crate::sites::one_path_per_commit(&to.root);
}
