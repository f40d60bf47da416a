//! The totals of a run, and the report.

use crate::subject::Promise;
use crate::{Options, Result};
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

const EXAMPLES: usize = 5;

pub struct Tally {
    start: Instant,
    interrupted: Arc<AtomicBool>,
    seed: u64,
    count: u64,
    kinds: BTreeMap<&'static str, u64>,
    broken: u64,
    set_aside: u64,
    examples: Vec<Value>,
    /// Saves that returned Ok.
    pub saved: u64,
}

impl Tally {
    pub fn new(seed: u64) -> Result<Self> {
        let interrupted = Arc::default();
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
        }
        Ok(Self {
            start: Instant::now(),
            interrupted,
            seed,
            count: 0,
            kinds: BTreeMap::new(),
            broken: 0,
            set_aside: 0,
            examples: Vec::new(),
            saved: 0,
        })
    }

    /// The number of disks still to judge: none after a request to end this process. It must
    /// unmount first, because nothing serves its drive afterwards.
    pub fn left(&self, options: &Options) -> u64 {
        if self.interrupted.load(Ordering::Relaxed) { 0 } else { options.count.saturating_sub(self.count) }
    }

    /// Runs the oracle on a disk that is mounted at the folder. False when the promise is broken.
    pub fn judge(
        &mut self,
        options: &Options,
        folder: &std::path::Path,
        kind: &'static str,
        promise: Promise,
    ) -> bool {
        let outcome = options.subject.check(folder, promise);
        if let Ok(found) = &outcome {
            self.set_aside += found.set_aside;
        }
        self.record(kind, outcome.map(drop))
    }

    /// Counts a disk that was judged.
    pub fn record(&mut self, kind: &'static str, outcome: Result<(), String>) -> bool {
        let number = self.count;
        self.count += 1;
        *self.kinds.entry(kind).or_default() += 1;
        let Err(promise) = outcome else { return true };
        self.broken += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(json!({ "number": number, "kind": kind, "promise": promise }));
        }
        false
    }

    /// The report, with the counts of this kind of run only.
    pub fn report(&self, options: &Options, unit: &str, more: &[(&str, u64)]) -> Value {
        let seconds = self.start.elapsed().as_secs_f64();
        let tenths = |number: f64| (number * 10.0).round() / 10.0;
        let mut report = json!({
            "subject": options.subject.name(),
            "fs": options.fs.name(),
            "mount_options": options.mount_options,
            "seed": self.seed,
            unit: self.count,
            "kinds": self.kinds,
            "saves_acknowledged": self.saved,
            "broken": self.broken,
            "set_aside": self.set_aside,
            "examples": self.examples,
            "seconds": tenths(seconds),
            format!("{unit}_per_second"): tenths(self.count as f64 / seconds),
        });
        for (name, number) in more {
            report[*name] = (*number).into();
        }
        report
    }
}
