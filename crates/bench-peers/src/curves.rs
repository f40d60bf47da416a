//! The costs of one byte, one tensor and one checkpoint as their number grows: costs that must stay
//! flat. The points of each curve are measured one after the other in this process. A row's `x` is
//! the number.

mod bytes;
mod checkpoints;
mod sparse;
mod tensors;

use crate::row::Row;
use crate::statistics::Seconds;
use crate::{Outcome, memory};
use std::path::Path;
use std::time::Instant;

/// All curves; `quick` ends each early.
///
/// # Errors
/// Those of tensorkeep.
pub fn run(dir: &Path, quick: bool) -> Outcome<Vec<Row>> {
    let dir = dir.join("curves");
    // Remains of a killed run.
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir)?;
    let mut rows = Vec::new();
    rows.extend(sparse::points(&dir, quick)?);
    rows.extend(bytes::points(&dir, quick)?);
    rows.extend(tensors::points(&dir, quick)?);
    rows.extend(checkpoints::points(&dir, quick)?);
    std::fs::remove_dir_all(&dir)?;
    Ok(rows)
}

/// One point of a curve.
struct Point {
    curve: &'static str,
    x: f64,
    bytes: u64,
    times: usize,
}

impl Point {
    /// Times an operation, after one untimed call.
    fn measure<T>(&self, op: &str, mut once: impl FnMut() -> Outcome<T>) -> Outcome<Row> {
        let resident = memory::reset_peak()?;
        let mut seconds = Vec::new();
        for _ in 0..=self.times {
            let start = Instant::now();
            let made = once()?;
            seconds.push(start.elapsed().as_secs_f64());
            drop(made);
        }
        seconds.remove(0);
        Ok(Row {
            workload: self.curve.to_owned(),
            op: op.to_owned(),
            system: "tensorkeep".to_owned(),
            seconds: Seconds::of(seconds).ok_or("measured no time")?,
            bytes: self.bytes,
            peak_rss: memory::peak()?.saturating_sub(resident),
            x: Some(self.x),
        })
    }
}

/// Repeats short operations more often: about `in_all` bytes in total.
fn times(bytes: u64, in_all: u64) -> usize {
    (in_all / bytes.max(1)).clamp(3, 31) as usize
}

/// Maps a file of this program's own.
#[expect(unsafe_code, reason = "mapping rests on a promise")]
fn map(path: &Path) -> Outcome<tensorkeep::Checkpoint> {
    // SAFETY: the file is in this program's own folder, and is replaced by rename, never written to
    // or truncated.
    Ok(unsafe { tensorkeep::Checkpoint::map(path) }?)
}
