//! Cut after cut of a live file system: the moments and the kinds of cuts. The disk is in [`disk`].

mod disk;
mod shutdown;

use crate::mounting::Fs;
use crate::random::{self, Random};
use crate::subject::Promise;
use crate::tally::Tally;
use crate::trainer::{Trainer, Word, late_words_count};
use crate::{Options, Result};
use disk::{Cut, Disk};
use serde_json::Value;
use shutdown::Flush;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Time for a trainer to notice that its disk is gone.
const END: Duration = Duration::from_secs(5);

/// Cuts as often as requested, and reports.
pub fn run(options: &Options) -> Result<Value> {
    let seed = random::seed(options);
    let mut random = Random(seed);
    let mut disk = Disk::create(options, seed)?;
    let mut tally = Tally::new(seed)?;
    let mut promise = Promise::default();
    while tally.left(options) > 0 {
        let cut = pick(options.fs, &mut random);
        let delay = Duration::from_micros(5_000 + random.below(options.max_ms.max(6) * 1000 - 5_000));
        let saved = live_and_cut(options, &disk, cut, delay)?;
        tally.saved += saved.len() as u64;
        for step in saved {
            promise.saved(step);
        }
        disk.restart(cut)?;
        if !tally.judge(options, &disk.mount_point, cut.name(), promise) {
            promise = Promise::default();
            disk.reset()?;
        }
    }
    Ok(tally.report(options, "cuts", &[]))
}

fn pick(fs: Fs, random: &mut Random) -> Cut {
    match (fs, random.below(4)) {
        (Fs::Btrfs, _) => Cut::Clone,
        (_, 0) => Cut::Shutdown(Flush::All),
        (_, 1) => Cut::Shutdown(Flush::Journal),
        _ => Cut::Shutdown(Flush::Nothing),
    }
}

/// Starts a trainer, cuts the power after `delay`, and returns the steps acknowledged to the
/// trainer as durable.
fn live_and_cut(options: &Options, disk: &Disk, cut: Cut, delay: Duration) -> Result<Vec<u64>> {
    let saved = Arc::new(Mutex::new(Vec::new()));
    let so_far = || saved.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let hear = {
        let saved = Arc::clone(&saved);
        move |word| {
            if let Word::Saved(step) = word {
                saved.lock().unwrap_or_else(PoisonError::into_inner).push(step);
            }
        }
    };
    let mut trainer = Trainer::start(options, &disk.mount_point, None, hear)?;
    std::thread::sleep(delay);
    let before_cut = so_far();
    let outcome = disk.cut(cut);
    if cut == Cut::Clone || outcome.is_err() {
        trainer.kill()?;
    }
    trainer.end(END)?;
    outcome?;
    // A clone is another disk: later acknowledgements are not about it.
    Ok(if late_words_count(options.subject) && cut != Cut::Clone { so_far() } else { before_cut })
}
