//! tensorkeep as a subject: two checkpoints kept, every promise checked.

use super::{Found, Life, Promise, live, say, weights};
use crate::Result;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use tensorkeep::engine::Local;
use tensorkeep::{Keep, Progress, Snapshot, Store, StoreOptions};

const KEEP: usize = 2;

fn open(folder: &Path) -> tensorkeep::Result<Store> {
    Store::open(Local::create(folder.join("run"))?, StoreOptions::new().keep(Keep::last(KEEP)))
}

fn save(store: &Store, step: u64) -> tensorkeep::Result<()> {
    let weights = weights(step);
    let mut snapshot = Snapshot::new().tensor("weights", &weights)?;
    snapshot = snapshot.progress(Progress::new(step));
    store.save(&snapshot).map(drop)
}

pub fn train(folder: &Path, life: Life) -> Result<()> {
    let store = open(folder)?;
    let first = store.resume()?.next_step();
    let descriptors = descriptors();
    let mut failed = 0;
    live(life, first, |step| {
        let outcome = save(&store, step);
        if life != Life::UntilThePowerGoes {
            let left = leftovers(&folder.join("run"));
            if self::descriptors() != descriptors || (outcome.is_ok() && left > 0) {
                say(&format!("broken step {step} leaves descriptors or {left} temporary files"))?;
            }
        }
        failed += u64::from(outcome.is_err());
        Ok(outcome?)
    })?;
    drop(store);
    // One block failed, and works again. If the file system survives, so does the run, at the
    // latest when it is reopened.
    if failed > 1 && writes_work(folder) {
        let outcome = open(folder).and_then(|store| {
            let step = store.resume()?.next_step() + 1;
            save(&store, step)
        });
        if let Err(error) = outcome {
            say(&format!("broken the disk works and saving does not: {error}"))?;
        }
    }
    Ok(())
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn leftovers(run: &Path) -> usize {
    let Ok(names) = run.read_dir() else { return 0 };
    names.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(".tmp-")).count()
}

/// Whether a file can be made durable here without tensorkeep.
fn writes_work(folder: &Path) -> bool {
    let path = folder.join("probe");
    let probe = || -> std::io::Result<()> {
        let mut file = File::create(&path)?;
        file.write_all(&[1; 5000])?;
        file.sync_all()?;
        File::open(folder)?.sync_all()?;
        std::fs::remove_file(&path)
    };
    probe().is_ok()
}

/// A checkpoint verifies, and holds its own step's bytes.
fn check_one(store: &Store, name: tensorkeep::CheckpointId) -> Result<(), String> {
    let check = || -> tensorkeep::Result<bool> {
        let checkpoint = store.reader().checkpoint_by_id(name)?;
        checkpoint.verify()?;
        let tensor = checkpoint.tensor("weights")?;
        Ok(tensor.elements::<f32>()?[..] == weights(name.step))
    };
    match check() {
        Ok(true) => Ok(()),
        Ok(false) => Err("holds another step's bytes".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

pub fn check(folder: &Path, promise: Promise) -> Result<Found, String> {
    let words = |what: &str, error: tensorkeep::Error| format!("{what}: {error}");
    let store = open(folder).map_err(|error| words("cannot be opened", error))?;
    let resumed = store.resume().map_err(|error| words("cannot be resumed", error))?;
    let step = resumed.next_step();
    if step < promise.newest {
        return Err(format!(
            "step {} was saved, step {step} is resumed; skipped {:?}",
            promise.newest, resumed.skipped
        ));
    }
    let mut whole = 0;
    let mut damaged = Vec::new();
    for info in store.list().map_err(|error| words("cannot be listed", error))? {
        match check_one(&store, info.id) {
            Ok(()) => whole += 1,
            Err(error) => damaged.push(format!("{}: {error}", info.key)),
        }
    }
    if !damaged.is_empty() {
        return Err(format!(
            "{damaged:?} are visible and not whole, {whole} others are whole; {} was saved last, {step} is resumed",
            promise.newest
        ));
    }
    if whole < promise.count.min(KEEP as u64) {
        return Err(format!(
            "{whole} checkpoints are whole, {} were saved and {KEEP} are kept",
            promise.count
        ));
    }
    save(&store, step + 1).map_err(|error| words("cannot be saved to", error))?;
    match leftovers(&folder.join("run")) {
        0 => Ok(Found { set_aside: resumed.skipped.len() as u64 }),
        left => Err(format!("{left} temporary files stay after the recovery")),
    }
}
