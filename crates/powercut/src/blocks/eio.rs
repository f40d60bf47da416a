//! One block write fails, once, and the device works again. This file chooses which write.
//!
//! The write that fails is the first of a life in the first round, the second in the second, …
//! until a life has no more of them; then from the beginning. Linux drops the pages of a failed
//! write and reports it to one fsync only: a repeated fsync returns success.

use super::device::Device;
use crate::random;
use crate::subject::Promise;
use crate::tally::Tally;
use crate::trainer::{Trainer, Word};
use crate::{Options, Result};
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Saves of a life.
const SAVES: u64 = 5;
/// Time limit of a life: a failing disk must not be waited for without end.
const END: Duration = Duration::from_secs(20);

/// Fails the requested number of writes, and reports.
pub fn run(options: &Options) -> Result<Value> {
    let seed = random::seed(options);
    let mut device = Device::create(options, seed)?;
    let mut tally = Tally::new(seed)?;
    let formatted = device.image();
    let mut promise = Promise::default();
    let mut writes = 0;
    let mut errors = 0;
    while tally.left(options) > 0 {
        device.mount()?;
        device.fail_after(writes);
        let (words, by_itself) = live(options, &device)?;
        let hit = device.heal();
        device.unmount()?;
        // Mounted again, so that nothing is read from the page cache, which still has bytes that
        // the disk does not.
        device.mount()?;
        for word in &words {
            match word {
                Word::Saved(step) => {
                    promise.saved(*step);
                    tally.saved += 1;
                }
                Word::Failed(_) => errors += 1,
                Word::Broken(_) => {}
            }
        }
        let broken = words.iter().find_map(|word| match word {
            Word::Broken(words) => Some(words),
            _ => None,
        });
        let whole = if !by_itself {
            tally.record("hung", Err(format!("the trainer hangs, write {writes} failed")))
        } else if let Some(words) = broken {
            tally.record("seen by the trainer", Err(format!("{words}; write {writes} failed")))
        } else {
            let kind = if hit { "one write failed" } else { "no write failed: a life has no more" };
            tally.judge(options, &device.mount_point, kind, promise)
        };
        device.unmount()?;
        if !whole {
            device.load(formatted.clone());
            promise = Promise::default();
        }
        writes = if hit { writes + 1 } else { 0 };
    }
    Ok(tally.report(options, "faults", &[("saves_failed", errors)]))
}

/// A life, and whether it ended by itself.
fn live(options: &Options, device: &Device) -> Result<(Vec<Word>, bool)> {
    let words = Arc::new(Mutex::new(Vec::new()));
    let hear = {
        let words = Arc::clone(&words);
        move |word| words.lock().unwrap_or_else(PoisonError::into_inner).push(word)
    };
    let by_itself = Trainer::start(options, &device.mount_point, Some(SAVES), hear)?.end(END)?;
    let words = words.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok((words, by_itself))
}
