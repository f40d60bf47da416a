//! The cost of a save and a load from 1 MB to 1.8 GB: 16 tensors of growing length.

use super::{Point, map, times};
use crate::Outcome;
use crate::row::Row;
use crate::weights::Normal;
use crate::workloads::mix;
use std::path::Path;
use tensorkeep::{Checkpoint, Snapshot};

const MEGABYTES: [usize; 7] = [1, 4, 16, 64, 256, 1024, 1840];
const TENSORS: usize = 16;

pub fn points(dir: &Path, quick: bool) -> Outcome<Vec<Row>> {
    let most = if quick { 64 } else { usize::MAX };
    // Made once and reused: a raw chunk costs the same with any content but zeros.
    let values = Normal::new(1).take(4_000_000, 0.02);
    let mut rows = Vec::new();
    for megabytes in MEGABYTES.into_iter().filter(|&megabytes| megabytes <= most) {
        let count = megabytes * 1_000_000 / 4 / TENSORS;
        let tensors: Vec<Vec<f32>> = (0..TENSORS)
            .map(|i| values.iter().copied().cycle().skip(i * 1000).take(count).collect())
            .collect();
        rows.extend(point(&tensors, &dir.join("bytes.tkeep"))?);
    }
    Ok(rows)
}

fn point(tensors: &[Vec<f32>], path: &Path) -> Outcome<Vec<Row>> {
    let name = |i: usize| format!("layers.{i:02}.weight");
    let bytes = tensors.iter().map(|tensor| 4 * tensor.len() as u64).sum();
    let at = Point { curve: "bytes", x: bytes as f64, bytes, times: times(bytes, 2_000_000_000) };
    let mut snapshot = Snapshot::new();
    for (i, tensor) in tensors.iter().enumerate() {
        snapshot = snapshot.tensor(name(i), tensor)?;
    }
    let save = at.measure("save_durable", || Ok(snapshot.save(path)?))?;
    let mut existing: Vec<Vec<u8>> = tensors.iter().map(|tensor| vec![1; 4 * tensor.len()]).collect();
    let load = at.measure("load_into", || {
        let checkpoint = Checkpoint::open(path)?;
        for (i, target) in existing.iter_mut().enumerate() {
            checkpoint.load_into([(name(i).as_str(), target.as_mut_slice())])?;
        }
        Ok(())
    })?;
    let saved = tensors.iter().map(|tensor| bytemuck::cast_slice::<f32, u8>(tensor));
    if !saved.eq(existing.iter().map(Vec::as_slice)) {
        return Err("wrong values were loaded".into());
    }
    drop(existing);
    let touch = at.measure("touch_all", || {
        let checkpoint = map(path)?;
        (0..TENSORS).try_fold(0, |sum, i| Outcome::Ok(mix(sum, checkpoint.tensor(&name(i))?.bytes())))
    })?;
    Ok(vec![save, load, touch])
}
