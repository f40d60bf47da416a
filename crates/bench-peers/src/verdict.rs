//! What the figures must say. Owns: the targets, and the words for a target that was met or missed.

use crate::measure::Row;
use crate::weights::payload;
use std::fmt;

/// One target.
pub struct Verdict {
    what: String,
    found: f64,
    target: f64,
    /// Whether the figure must be at least the target, or at most.
    at_least: bool,
    unit: &'static str,
}

impl Verdict {
    /// Whether the target was met.
    pub fn is_met(&self) -> bool {
        if self.at_least { self.found >= self.target } else { self.found <= self.target }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verdict, bound) = (
            if self.is_met() { "met   " } else { "MISSED" },
            if self.at_least { "at least" } else { "at most" },
        );
        write!(
            f,
            "{verdict}  {}: {:.2}{unit}, target {bound} {}{unit}",
            self.what,
            self.found,
            self.target,
            unit = self.unit
        )
    }
}

/// The verdicts on the workloads that were run.
pub fn on(rows: &[Row]) -> Vec<Verdict> {
    let row = |workload: &str, op: &str, system: &str| {
        rows.iter().find(|row| row.workload == workload && row.op == op && row.system == system)
    };
    let median =
        |workload: &str, op: &str, system: &str| row(workload, op, system).map(|row| row.seconds.median);
    let ours = "tensorkeep, verified";
    let faster = |workload: &str, op: &str, peer: &str| {
        Some(median(workload, op, peer)? / median(workload, op, ours)?)
    };
    let mut verdicts = Vec::new();
    for peer in ["safetensors", "ztensor"] {
        verdicts.extend(faster("n", "open + list", peer).map(|found| Verdict {
            what: format!("opening and listing 100,000 tensors, times as fast as {peer}"),
            found,
            target: 20.0,
            at_least: true,
            unit: "×",
        }));
    }
    verdicts.extend(faster("m", "touch mapped", "safetensors").map(|found| Verdict {
        what: "touching 200 MB mapped and verified, times as fast as safetensors unverified".to_owned(),
        found,
        target: 0.8,
        at_least: true,
        unit: "×",
    }));
    verdicts.extend(row("s", "size", ours).map(|row| Verdict {
        what: "file of a LeNet with Adam beyond its payload".to_owned(),
        found: overhead(row, payload(&crate::weights::lenet())),
        target: 3.0,
        at_least: false,
        unit: " %",
    }));
    verdicts
}

/// The file's bytes beyond the payload, in per cent of the payload.
pub fn overhead(row: &Row, payload: u64) -> f64 {
    (row.bytes as f64 / payload as f64 - 1.0) * 100.0
}
