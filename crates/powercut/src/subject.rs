//! Who saves: a trainer in a process of its own, and how what it left is judged. Owns: one row of the comparison each.
//! Every step's tensor follows from the step, so that a checkpoint can be told from another's and from half of one.

use crate::Result;
use clap::ValueEnum;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize_to_file};
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use tensorkeep::engine::Local;
use tensorkeep::{Keep, Progress, Settings, Snapshot, Store};

const KEEP: usize = 2;
const FILE: &str = "model.safetensors";

/// What saves, as its users save with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Subject {
    /// `Store::save`, two checkpoints kept.
    Tensorkeep,
    /// `safetensors::serialize_to_file` over the same file.
    Safetensors,
    /// `safetensors::serialize_to_file` to a temporary file, then a rename.
    SafetensorsRename,
}

/// What was found after a cut.
#[derive(Debug, Default)]
pub struct Found {
    /// Checkpoints that were damaged and set aside, none of them needed.
    pub set_aside: u64,
}

impl Subject {
    pub fn name(self) -> &'static str {
        match self {
            Self::Tensorkeep => "tensorkeep",
            Self::Safetensors => "safetensors",
            Self::SafetensorsRename => "safetensors-rename",
        }
    }

    /// Saves until the power goes. Says `saved N` for each save that returned Ok.
    pub fn train(self, folder: &Path) -> Result<()> {
        match self {
            Self::Tensorkeep => train_tensorkeep(folder),
            Self::Safetensors => train_safetensors(folder, false),
            Self::SafetensorsRename => train_safetensors(folder, true),
        }
    }

    /// Checks the folder after a cut: `newest` was the last save that returned Ok, of `saved` in all.
    ///
    /// # Errors
    /// The broken promise, in words.
    pub fn check(self, folder: &Path, newest: u64, saved: u64) -> Result<Found, String> {
        match self {
            Self::Tensorkeep => check_tensorkeep(folder, newest, saved),
            Self::Safetensors | Self::SafetensorsRename => check_safetensors(folder, newest),
        }
    }
}

fn say(step: u64) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "saved {step}")?;
    Ok(out.flush()?)
}

/// Between 1 KiB and 1 MiB of noise that only this step has.
fn weights(step: u64) -> Vec<f32> {
    let mix = |seed: u64| {
        let z = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let count = 256 << (mix(step) % 11);
    (0..count).map(|i| (mix(step << 20 | i) >> 40) as f32).collect()
}

fn open(folder: &Path) -> tensorkeep::Result<Store> {
    Store::open(Local::create(folder.join("run"))?, Settings::new().keep(Keep::last(KEEP)))
}

fn save(store: &Store, step: u64) -> tensorkeep::Result<()> {
    let weights = weights(step);
    let mut snapshot = Snapshot::new();
    snapshot.tensor("weights", &weights)?;
    snapshot.progress(Progress::new(step));
    store.save(&snapshot).map(drop)
}

fn train_tensorkeep(folder: &Path) -> Result<()> {
    let store = open(folder)?;
    let mut step = store.resume()?.next_step();
    loop {
        step += 1;
        save(&store, step)?;
        say(step)?;
    }
}

fn check_tensorkeep(folder: &Path, newest: u64, saved: u64) -> Result<Found, String> {
    let words = |what: &str, error: tensorkeep::Error| format!("{what}: {error}");
    let store = open(folder).map_err(|error| words("cannot be opened", error))?;
    let resumed = store.resume().map_err(|error| words("cannot be resumed", error))?;
    let step = resumed.next_step();
    if step < newest {
        return Err(format!(
            "step {newest} was saved, step {step} is resumed; skipped {:?}",
            resumed.skipped
        ));
    }
    let mut whole = 0;
    for info in store.list().map_err(|error| words("cannot be listed", error))? {
        let step = info.name.step;
        let checkpoint = store.reader().open_name(info.name).map_err(|error| words("is half", error))?;
        checkpoint.verify().map_err(|error| words("does not verify", error))?;
        let tensor = checkpoint.tensor("weights").map_err(|error| words("has no tensor", error))?;
        let elements = tensor.elements::<f32>().map_err(|error| words("has another tensor", error))?;
        if elements[..] != weights(step) {
            return Err(format!("{} holds another step's bytes", info.key));
        }
        whole += 1;
    }
    if whole < saved.min(KEEP as u64) {
        return Err(format!("{whole} checkpoints are whole, {saved} were saved and {KEEP} are kept"));
    }
    save(&store, step + 1).map_err(|error| words("cannot be saved to", error))?;
    let run = folder.join("run").read_dir().map_err(|error| error.to_string())?;
    let leftovers = run.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(".tmp-"));
    match leftovers.count() {
        0 => Ok(Found { set_aside: resumed.skipped.len() as u64 }),
        left => Err(format!("{left} temporary files stay after the recovery")),
    }
}

fn train_safetensors(folder: &Path, renamed: bool) -> Result<()> {
    let path = folder.join(FILE);
    let mut step = std::fs::read(&path).ok().and_then(|bytes| step_of(&bytes)).unwrap_or(0);
    loop {
        step += 1;
        let weights = weights(step);
        let bytes: Vec<u8> = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, vec![weights.len()], &bytes)?;
        let metadata = HashMap::from([("step".to_owned(), step.to_string())]);
        if renamed {
            let temporary = folder.join("temporary");
            serialize_to_file([("weights", view)], Some(metadata), &temporary)?;
            std::fs::rename(&temporary, &path)?;
        } else {
            serialize_to_file([("weights", view)], Some(metadata), &path)?;
        }
        say(step)?;
    }
}

fn step_of(bytes: &[u8]) -> Option<u64> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).ok()?;
    metadata.metadata().as_ref()?.get("step")?.parse().ok()
}

fn check_safetensors(folder: &Path, newest: u64) -> Result<Found, String> {
    let path = folder.join(FILE);
    let bytes = match std::fs::read(&path) {
        Err(_) if newest == 0 => return Ok(Found::default()),
        bytes => bytes.map_err(|error| format!("the file is gone: {error}"))?,
    };
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| format!("the file is half: {error}"))?;
    let step = step_of(&bytes).ok_or("the file does not say its step")?;
    let tensor = tensors.tensor("weights").map_err(|error| error.to_string())?;
    let expected: Vec<u8> = weights(step).iter().flat_map(|weight| weight.to_le_bytes()).collect();
    if tensor.data() != expected {
        return Err(format!("the file of step {step} holds other bytes"));
    }
    if step < newest {
        return Err(format!("step {newest} was saved, step {step} is there"));
    }
    Ok(Found::default())
}
