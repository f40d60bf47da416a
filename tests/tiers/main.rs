//! Two tiers: which checkpoints are promoted and when; neither tier ever loses its newest, no error
//! is lost, a new machine and a dead network are survived, and one writer at a time is the newest
//! in both.

mod fencing;
mod keeping;
mod promoting;
mod resuming;
mod silence;
mod wire;

use std::path::Path;
use std::sync::Arc;
use tensorkeep::engine::{Engine, Local, Memory};
use tensorkeep::{Checkpoint, Progress, Result, Saved, Snapshot, Store, StoreOptions};
use test_support::flip_on_disk;
use wire::Wire;

fn open(local: &(impl Shared + ?Sized), remote: &Wire, settings: StoreOptions) -> Store {
    Store::open_tiered(local.shared(), remote.clone(), settings).unwrap()
}

/// A run in two tiers.
fn run(settings: StoreOptions) -> (Memory, Wire, Store) {
    let (local, remote) = (Memory::new(), Wire::default());
    let store = open(&local, &remote, settings);
    (local, remote, store)
}

/// An engine that another store may open again.
trait Shared {
    fn shared(&self) -> Arc<dyn Engine>;
}

impl Shared for Memory {
    fn shared(&self) -> Arc<dyn Engine> {
        Arc::new(self.clone())
    }
}

impl Shared for Path {
    fn shared(&self) -> Arc<dyn Engine> {
        Arc::new(Local::create(self).unwrap())
    }
}

fn save(store: &Store, step: u64) -> Result<Saved> {
    let weights = vec![step as f32; 5000];
    let mut snapshot = Snapshot::new().tensor("weights", &weights)?.metric("loss", 1.0 / step as f64)?;
    snapshot = snapshot.progress(Progress::new(step));
    store.save(&snapshot)
}

/// Flips a bit of a checkpoint of the first attempt on disk.
fn damage(folder: &Path, step: u64) {
    flip_on_disk(&folder.join(format!("0001-{step:010}.tkeep")));
}

fn weight(checkpoint: &Checkpoint) -> f32 {
    checkpoint.tensor("weights").unwrap().elements::<f32>().unwrap()[4999]
}
