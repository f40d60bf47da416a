//! Checkpoints of runs, mapped for verbs that look at every byte, which spares a copy: the promise
//! that mapping rests on, and how this process ends when the kernel cannot read a mapped page.
#![expect(unsafe_code, reason = "mapping rests on a promise, and fails by a signal; see SAFETY")]

use crate::budget::Budget;
use crate::exit::Exit;
use crate::place::Place;
use signal_hook::consts::SIGBUS;
use signal_hook::low_level;
use std::sync::Once;
use tensorkeep::engine::MmapPromise;
use tensorkeep::{Reader, Result};

/// The checkpoints of a run: mapped in a folder, read elsewhere.
///
/// # Errors
/// As [`Place::open`].
pub fn reader(place: &Place, budget: Budget) -> Result<Reader> {
    let reader = Reader::new(place.open()?).options(budget.options());
    if place.folder().is_none() {
        return Ok(reader);
    }
    end_with_words();
    // SAFETY: what a run has published is read-only and never written to again, whatever trainer
    // goes on beside this process; what rotation deletes is unlinked, which leaves a mapping as it
    // is. Only somebody who writes into a run's files by hand breaks that. Files that are named by
    // their own paths may be anybody's, and are not mapped.
    Ok(reader.map(unsafe { MmapPromise::assume_unchanged() }))
}

const WORDS: &[u8] =
    b"error: a checkpoint cannot be read any further: its disk fails, or somebody cut the file
help: find out what of it is intact with `tensorkeep verify`
";

/// From now on, bytes of a mapping that cannot be had end this process as an error does, and not as
/// a crash.
fn end_with_words() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let end = || {
            let _ = rustix::io::write(std::io::stderr(), WORDS);
            low_level::exit(Exit::Io as i32);
        };
        // SAFETY: two system calls, on constants: whatever was interrupted is neither looked at nor
        // gone on with.
        let registered = unsafe { low_level::register(SIGBUS, end) };
        // Without it the process ends as well, without a word.
        drop(registered);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn an_unreadable_mapping_ends_in_words_and_a_code() {
        const CHILD: &str = "TENSORKEEP_TEST_ENDS_WITH_WORDS";
        if std::env::var_os(CHILD).is_some() {
            // The signal comes at a touch, as it does when a file is cut.
            let path = std::env::temp_dir().join(format!("tensorkeep-cut-{}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            let values = vec![0.5_f32; 1 << 20];
            let snapshot = tensorkeep::Snapshot::new().tensor("t", &values).unwrap();
            let name = tensorkeep::CheckpointId { attempt: 1, step: 1 };
            let file = path.join(format!("{name}.tkeep"));
            snapshot.save(&file).unwrap();
            let checkpoint = reader(&Place::new(&path), Budget::default()).unwrap().checkpoint(1).unwrap();
            std::fs::File::options().write(true).open(&file).unwrap().set_len(4096).unwrap();
            std::fs::remove_dir_all(&path).unwrap();
            let touched = checkpoint.tensor("t").map(drop);
            panic!("there was something to touch: {touched:?}");
        }
        let this = std::env::current_exe().unwrap();
        let test = "mapped::tests::an_unreadable_mapping_ends_in_words_and_a_code";
        let child =
            Command::new(this).args(["--exact", test, "--nocapture"]).env(CHILD, "").output().unwrap();
        assert_eq!(child.status.code(), Some(6), "{child:?}");
        assert!(child.stderr.ends_with(WORDS), "{child:?}");
    }
}
