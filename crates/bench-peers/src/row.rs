//! The results of a run: the rows, their file, and rows of earlier runs.

use crate::Outcome;
use crate::machine::Machine;
use crate::statistics::Seconds;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// One operation by one system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// A letter of [`Workload`](crate::workloads::Workload), or the name of a curve.
    pub workload: String,
    pub op: String,
    pub system: String,
    pub seconds: Seconds,
    /// Payload bytes of operations that process them; the file's bytes for `size`; else 0.
    pub bytes: u64,
    /// Peak of resident memory during the operation, beyond the memory resident before, in bytes.
    /// Pages of a mapped file count.
    pub peak_rss: u64,
    /// On a curve: the value on its x axis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<f64>,
}

impl Row {
    fn place(&self) -> (&str, &str, &str, Option<u64>) {
        (&self.workload, &self.op, &self.system, self.x.map(f64::to_bits))
    }
}

/// All rows of a run, and its machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Found {
    pub machine: Machine,
    pub rows: Vec<Row>,
    /// Measurements that failed, and why.
    #[serde(default)]
    pub skipped: Vec<String>,
}

impl Found {
    /// The rows of an earlier run.
    pub fn read(path: &Path) -> Outcome<Self> {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?)
    }

    pub fn write(&self, path: &Path) -> Outcome<()> {
        Ok(fs::write(path, serde_json::to_string_pretty(self)? + "\n")?)
    }

    /// Adds rows; of two for the same measurement the later one stays.
    pub fn add(&mut self, rows: Vec<Row>) {
        self.rows.retain(|there| rows.iter().all(|row| row.place() != there.place()));
        self.rows.extend(rows);
    }

    pub fn row(&self, workload: &str, op: &str, system: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.workload == workload && row.op == op && row.system == system)
    }
}
