//! The command line as scripts and people use it: what it prints, its JSON, its exit codes, and
//! every bad input.

mod ending;
mod figures;
mod looking;
mod pieces;
mod ranks;
mod schemas;
mod scripts;
mod serving;
mod surgery;
mod telling;
mod terminal;
mod verifying;
mod writing;

use serde_json::Value as Json;
use std::path::PathBuf;
use std::process::{Command, Output};
use tensorkeep::engine::Local;
use tensorkeep::{Every, Progress, Snapshot, Store, StoreOptions};

struct Run {
    folder: PathBuf,
}

impl Run {
    /// Steps 100 and 200 with a loss that is best at 100, and a file beside them.
    fn new(name: &str) -> Self {
        let nonce = u128::from_le_bytes(tensorkeep::engine::fresh_nonce());
        let folder = std::env::temp_dir().join(format!("tensorkeep-cli-{name}-{nonce:032x}"));
        let store = Store::open(Local::create(folder.join("run")).unwrap(), StoreOptions::new()).unwrap();
        let weights = [1.5_f32; 300];
        for (step, loss) in [(100, 0.25), (200, 0.5)] {
            let mut snapshot = Snapshot::new()
                .tensor("fc.weight", (&[30, 10][..], &weights[..]))
                .unwrap()
                .alias("tied", "fc.weight")
                .unwrap();
            snapshot = snapshot.record("optimizer", &("adam", 0.001)).unwrap().metric("loss", loss).unwrap();
            snapshot = snapshot.progress(Progress::new(step).epoch(step / 100));
            store.save(&snapshot).unwrap();
            snapshot.save(folder.join("file.tkeep")).unwrap();
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Flips one bit of a file, which may be read-only.
    fn damage(&self, name: &str, byte: usize) {
        let path = self.folder.join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[byte] ^= 4;
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A run whose interval decides itself, and has measured a save.
fn auto_run(run: &Run) -> String {
    let folder = run.path("auto");
    let store = Store::open(&folder, StoreOptions::new().save(Every::auto())).unwrap();
    for step in 1..=2 {
        let progress = Progress::new(step);
        assert!(store.due(&progress).is_none(), "a minute has not passed");
        store.save(&Snapshot::new().progress(progress)).unwrap();
    }
    folder
}

fn tensorkeep(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tensorkeep")).args(args).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(args: &[&str]) -> Json {
    let output = tensorkeep(args);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// The exit code, with nothing on stdout and a message without a trace on stderr.
fn refused(args: &[&str]) -> (i32, String) {
    let output = tensorkeep(args);
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(output.stdout.is_empty(), "{args:?} printed data: {:?}", String::from_utf8_lossy(&output.stdout));
    assert!(message.starts_with("error: ") && !message.contains("panicked"), "{message}");
    (output.status.code().unwrap(), message)
}
