//! The cost of a tensor from 10 to 1,000,000 of them: 64 floats each.

use super::{Point, map, times};
use crate::Outcome;
use crate::row::Row;
use crate::weights::many;
use std::hint::black_box;
use std::path::Path;
use tensorkeep::Snapshot;

const COUNTS: [usize; 6] = [10, 100, 1_000, 10_000, 100_000, 1_000_000];

pub fn points(dir: &Path, quick: bool) -> Outcome<Vec<Row>> {
    let most = if quick { 10_000 } else { usize::MAX };
    let path = dir.join("tensors.tkeep");
    let mut rows = Vec::new();
    for count in COUNTS.into_iter().filter(|&count| count <= most) {
        let model = many(count);
        let bytes = 256 * count as u64;
        let at = Point { curve: "tensors", x: count as f64, bytes, times: times(bytes, 500_000_000) };
        let mut snapshot = Snapshot::new();
        for weights in &model {
            snapshot = snapshot.tensor(&weights.name, (&weights.shape[..], weights.elements.as_slice()))?;
        }
        rows.push(at.measure("save_durable", || Ok(snapshot.save(&path)?))?);
        // Opening reads the index only.
        let at = Point { times: times(100 * count as u64, 2_000_000_000), ..at };
        rows.push(at.measure("open", || map(&path))?);
        rows.push(at.measure("open + list", || {
            let checkpoint = map(&path)?;
            let listed = checkpoint.tensors().filter(|info| black_box(info).byte_len == 256).count();
            if listed == count { Ok(()) } else { Err(format!("{listed} of {count} tensors").into()) }
        })?);
    }
    Ok(rows)
}
