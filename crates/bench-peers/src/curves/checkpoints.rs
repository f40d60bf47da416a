//! The cost of a checkpoint in a run of up to 10,000: listing them all, and saving one more with a
//! policy that deletes the oldest.

use super::Point;
use crate::Outcome;
use crate::row::Row;
use crate::weights::lenet;
use std::cell::Cell;
use std::fs;
use std::path::Path;
use tensorkeep::engine::Local;
use tensorkeep::{Keep, Progress, Reader, Snapshot, Store, StoreOptions};

const COUNTS: [u64; 3] = [100, 1_000, 10_000];

pub fn points(dir: &Path, quick: bool) -> Outcome<Vec<Row>> {
    let most = if quick { 100 } else { u64::MAX };
    let mut rows = Vec::new();
    for count in COUNTS.into_iter().filter(|&count| count <= most) {
        let run = dir.join(format!("run-{count}"));
        rows.extend(point(&run, count)?);
        fs::remove_dir_all(run)?;
    }
    Ok(rows)
}

fn point(run: &Path, count: u64) -> Outcome<Vec<Row>> {
    // Small ones: the run is measured, not the bytes.
    let bias = lenet().into_iter().find(|weights| weights.shape == [120]).ok_or("no such tensor")?;
    let snapshot = |step| {
        let mut snapshot =
            Snapshot::new().tensor("bias", &bias.elements)?.metric("val_loss", 1.0 / step as f64)?;
        snapshot = snapshot.progress(Progress::new(step));
        Outcome::Ok(snapshot)
    };
    let keep = Keep::last(count as usize);
    let store = Store::open(Local::create(run)?, StoreOptions::new().keep(keep))?;
    let first = store.save(&snapshot(1)?)?;
    let name = |step| run.join(format!("{}.tkeep", tensorkeep::CheckpointId { step, ..first.id }));
    for step in 2..=count {
        // Ten thousand saves would be ten thousand fsyncs; a copy of a checkpoint under another
        // name is listed as one.
        fs::copy(name(1), name(step))?;
    }
    let at =
        Point { curve: "checkpoints", x: count as f64, bytes: 0, times: if count < 10_000 { 11 } else { 3 } };
    let listed =
        |reader: &Reader| match reader.list()?.iter().filter(|info| info.state.is_ok()).count() as u64 {
            found if found == count => Ok(()),
            found => Err(format!("{found} of {count} checkpoints were listed").into()),
        };
    let list = at.measure("list", || listed(&Reader::new(Local::open(run)?)))?;
    let reader = Reader::new(Local::open(run)?);
    let again = at.measure("list again", || listed(&reader))?;
    let step = Cell::new(count);
    let save = at.measure("save + rotation", || {
        step.set(step.get() + 1);
        let saved = store.save(&snapshot(step.get())?)?;
        if saved.deleted.len() == 1 {
            Ok(())
        } else {
            Err(format!("rotation deleted {:?}", saved.deleted).into())
        }
    })?;
    Ok(vec![list, again, save])
}
