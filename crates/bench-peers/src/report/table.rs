//! Rows on the terminal.

use super::{duration, size, speed};
use crate::row::Row;
use crate::workloads::{Values, Workload};

/// The rows of one workload, operation by operation.
pub fn print(workload: Workload, rows: &[Row], values: &Values) {
    println!("workload {}: {} tensors, {}", workload.name(), values.tensors, size(values.payload));
    println!(
        "  {:<30} {:<26} {:>10} {:>10} {:>10} {:>7} {:>10}",
        "operation", "system", "median", "min", "max", "GB/s", "peak RSS"
    );
    let mut op = "";
    for row in rows {
        let shown = if row.op == op { "" } else { &row.op };
        op = &row.op;
        if op == "size" {
            let beyond = (row.bytes as f64 / values.payload as f64 - 1.0) * 100.0;
            println!("  {shown:<30} {:<26} {:>10} {beyond:>+9.2} %", row.system, size(row.bytes));
            continue;
        }
        println!(
            "  {shown:<30} {:<26} {:>10} {:>10} {:>10} {:>7} {:>10}",
            row.system,
            duration(row.seconds.median),
            duration(row.seconds.min),
            duration(row.seconds.max),
            speed(row.bytes, row.seconds.median),
            size(row.peak_rss)
        );
    }
    println!();
}

/// The points of all curves.
pub fn print_curves(rows: &[Row]) {
    println!(
        "  {:<12} {:<26} {:>14} {:>10} {:>10} {:>10}",
        "curve", "operation", "of", "median", "each", "peak RSS"
    );
    for row in rows {
        let x = row.x.unwrap_or(1.0);
        println!(
            "  {:<12} {:<26} {x:>14} {:>10} {:>10} {:>10}",
            row.workload,
            row.op,
            duration(row.seconds.median),
            per_one(row.seconds.median / x),
            size(row.peak_rss)
        );
    }
    println!();
}

/// With fractions of a nanosecond: the cost of one byte.
fn per_one(seconds: f64) -> String {
    if seconds < 1e-7 { format!("{:.3} ns", seconds * 1e9) } else { duration(seconds) }
}
