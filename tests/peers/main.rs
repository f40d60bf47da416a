//! Failures of peers: each way in which another checkpoint library lost or mixed up a training run
//! is a test here, named after it, with the peer's behaviour and ours. Each injects the fault that
//! the peer fell to.
//!
//! P1 to P22 are a list of reproduced failures of torch, its distributed checkpoints (DCP), Orbax,
//! Lightning, Accelerate, NVRx, Hugging Face, safetensors, candle, tch, burn and rmp-serde.

mod background;
mod loading;
mod reading;
mod writing;

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use tensorkeep::engine::{Engine, Local, Memory, fresh_nonce};
use tensorkeep::{Keep, Progress, Result, Saved, Snapshot, Store, StoreOptions};

/// Two tensors that both hold their step: a mixture shows.
fn save(store: &Store, step: u64, loss: f64) -> Result<Saved> {
    let (a, b) = (vec![step as f32; 1000], vec![step as f64; 500]);
    let mut snapshot = Snapshot::new().tensor("a", &a)?.tensor("b", &b)?.metric("loss", loss)?;
    snapshot = snapshot.progress(Progress::new(step));
    store.save(&snapshot)
}

fn open(run: &Path, keep: Keep) -> Store {
    Store::open(Local::create(run).unwrap(), StoreOptions::new().keep(keep)).unwrap()
}

/// An engine in memory with these objects.
fn holding(objects: &[(&str, &[u8])]) -> Arc<dyn Engine> {
    let memory = Memory::new();
    for (key, bytes) in objects {
        let mut upload = memory.create(key, None).unwrap();
        upload.append(bytes).unwrap();
        upload.commit(fresh_nonce()).unwrap();
    }
    Arc::new(memory)
}

const CASE: &str = "TENSORKEEP_PEERS_CASE";
const FOLDER: &str = "TENSORKEEP_PEERS_FOLDER";

/// A process of its own: this test binary again, for one of the cases below. Its shell runs
/// `before`.
fn process(case: &str, folder: &Path, before: &str) -> Output {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{before}\nexec \"$0\" --exact process_of_its_own --nocapture"));
    shell.arg(std::env::current_exe().unwrap()).env(CASE, case).env(FOLDER, folder);
    shell.output().unwrap()
}

/// Returns at once when not started by a test.
#[test]
fn process_of_its_own() {
    let (Ok(case), Some(folder)) = (std::env::var(CASE), std::env::var_os(FOLDER)) else { return };
    let folder = Path::new(&folder);
    match case.as_str() {
        "dies-in-a-save" => writing::dies_in_a_save(folder),
        "saves-under-its-umask" => writing::saves_under_its_umask(folder),
        "drops-a-failed-save" => background::drops_a_failed_save(),
        places => background::saves_five_times_on_a_slow_disk(places.parse().unwrap()),
    }
}
