//! Running a workload: every operation by every system, round by round, each round starting with another system, so that
//! whatever the machine does meanwhile, and whatever memory the one before leaves behind, is shared by all. Owns: time, memory, and the rows. Knows formats only as [`System`]s.

use crate::systems::{Outcome, System, expected_sum};
use crate::weights::{Model, payload};
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// One operation by one system.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub workload: String,
    pub op: &'static str,
    pub system: &'static str,
    pub seconds: Seconds,
    /// Payload bytes for touching, loading and saving; the file's bytes for `size`; 0 for opening.
    pub bytes: u64,
    /// Most memory resident at once during the operation, beyond what was resident before, in bytes. Pages of a mapped
    /// file count.
    pub peak_rss: u64,
}

/// Of all rounds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Seconds {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Seconds {
    fn of(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        match all.as_slice() {
            [] => Self::default(),
            [min, .., max] => Self { median: all[all.len() / 2], min: *min, max: *max },
            [only] => Self { median: *only, min: *only, max: *only },
        }
    }
}

/// The operations, in order: saving makes the files that the others read.
const OPS: [&str; 4] = ["save (durable)", "open + list", "touch mapped", "load owned"];

/// Measures all operations of one workload.
///
/// # Errors
/// Whatever a system says, and wrong results: a figure for wrong bytes is no figure.
pub fn run(
    workload: &str,
    model: &Model,
    systems: &[Box<dyn System>],
    rounds: usize,
    dir: &Path,
) -> Outcome<Vec<Row>> {
    let payload = payload(model);
    let elements = payload / 4;
    let sum = expected_sum(model);
    let path = |system: &dyn System| dir.join(format!("{workload}.{}", system.extension()));
    let mut rows = Vec::new();
    for op in OPS {
        let mut taken: Vec<(Vec<f64>, u64)> = vec![Default::default(); systems.len()];
        for round in 0..=rounds {
            for turn in 0..systems.len() {
                let turn = (turn + round) % systems.len();
                let (system, (times, peak)) = (&systems[turn], &mut taken[turn]);
                if op == OPS[0] && !saves(system.as_ref(), systems) {
                    continue;
                }
                let path = path(system.as_ref());
                let before = reset_peak()?;
                let start = Instant::now();
                let (found, expected) = match op {
                    "save (durable)" => (system.save(model, &path).map(|()| 0)?, 0),
                    "open + list" => (system.open(&path)?, elements),
                    "touch mapped" => (system.touch(&path)?, sum),
                    _ => (system.load_owned(&path)?, payload),
                };
                let seconds = start.elapsed().as_secs_f64();
                if found != expected {
                    return Err(format!(
                        "{workload}, {op}, {}: {found} instead of {expected}",
                        system.name()
                    )
                    .into());
                }
                // The first round warms the page cache.
                if round > 0 {
                    times.push(seconds);
                    *peak = (*peak).max(status("VmHWM:")?.saturating_sub(before));
                }
            }
        }
        for (system, (times, peak_rss)) in systems.iter().zip(taken) {
            if times.is_empty() {
                continue;
            }
            let bytes = if op == "open + list" { 0 } else { payload };
            let seconds = Seconds::of(times);
            rows.push(Row {
                workload: workload.to_owned(),
                op,
                system: system.name(),
                seconds,
                bytes,
                peak_rss,
            });
        }
    }
    for system in systems.iter().filter(|system| saves(system.as_ref(), systems)) {
        let bytes = fs::metadata(path(system.as_ref()))?.len();
        let seconds = Seconds::default();
        rows.push(Row {
            workload: workload.to_owned(),
            op: "size",
            system: system.name(),
            seconds,
            bytes,
            peak_rss: 0,
        });
    }
    let files: Vec<PathBuf> = systems.iter().map(|system| path(system.as_ref())).collect();
    files.iter().filter(|file| file.exists()).try_for_each(fs::remove_file)?;
    Ok(rows)
}

/// Whether this system is the first of those that share a file.
fn saves(system: &dyn System, systems: &[Box<dyn System>]) -> bool {
    systems
        .iter()
        .find(|first| first.extension() == system.extension())
        .is_some_and(|first| first.name() == system.name())
}

/// Forgets the peak of resident memory, and returns what is resident now.
fn reset_peak() -> Outcome<u64> {
    fs::write("/proc/self/clear_refs", "5")?;
    status("VmRSS:")
}

/// A figure of this process, in bytes.
fn status(field: &str) -> Outcome<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).ok_or("no such figure")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
