//! The writers under test: a trainer in a process of its own, and the check of the files it left.
//! The variants are the rows of the comparison. Every step's tensor follows from the step, so that
//! a checkpoint can be told from another's and from half of one.

mod plain;
mod single;
mod tensorkeep;

use crate::Result;
use clap::ValueEnum;
use plain::Mistake;
use single::Writer;
use std::io::Write;
use std::path::Path;

/// A writer, used as its users use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Subject {
    /// `Store::save`, two checkpoints kept.
    Tensorkeep,
    /// `safetensors::serialize_to_file` over the same file.
    Safetensors,
    /// `safetensors::serialize_to_file` to a temporary file, then a rename.
    SafetensorsRename,
    /// `object_store::local::LocalFileSystem::put` of the same object.
    ObjectStore,
    /// The same, `with_fsync(true)`.
    ObjectStoreFsync,
    /// A plain file for each step with every fsync that it needs: a correct writer must pass.
    Plain,
    /// The plain file without an fsync of it.
    NoFileSync,
    /// The plain file without an fsync of its folder.
    NoFolderSync,
    /// The plain file, its fsync repeated when it failed.
    RetrySync,
}

/// The length of a trainer's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Until the first error.
    UntilThePowerGoes,
    /// This many saves, errors included.
    Saves(u64),
}

/// The acknowledgements for one disk: its newest save that returned Ok, and their number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promise {
    pub newest: u64,
    pub count: u64,
}

impl Promise {
    pub fn saved(&mut self, step: u64) {
        self.newest = self.newest.max(step);
        self.count += 1;
    }
}

/// The state found after a cut.
#[derive(Debug, Default)]
pub struct Found {
    /// Checkpoints that were damaged and set aside, none of them needed.
    pub set_aside: u64,
}

impl Subject {
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether the writer claims that nothing is ever lost.
    pub fn must_hold(self) -> bool {
        matches!(self, Self::Tensorkeep | Self::Plain)
    }

    /// Saves, and prints `saved N` for each save that returned Ok, `failed N` for each that did
    /// not.
    pub fn train(self, folder: &Path, life: Life) -> Result<()> {
        match self {
            Self::Tensorkeep => tensorkeep::train(folder, life),
            Self::Safetensors => single::train(folder, life, Writer::Safetensors),
            Self::SafetensorsRename => single::train(folder, life, Writer::SafetensorsRename),
            Self::ObjectStore => single::train(folder, life, Writer::ObjectStore { fsync: false }),
            Self::ObjectStoreFsync => single::train(folder, life, Writer::ObjectStore { fsync: true }),
            Self::Plain => plain::train(folder, life, None),
            Self::NoFileSync => plain::train(folder, life, Some(Mistake::FileNotSynced)),
            Self::NoFolderSync => plain::train(folder, life, Some(Mistake::FolderNotSynced)),
            Self::RetrySync => plain::train(folder, life, Some(Mistake::FailureIgnored)),
        }
    }

    /// Checks the folder after a cut.
    ///
    /// # Errors
    /// The broken promise, in words.
    pub fn check(self, folder: &Path, promise: Promise) -> Result<Found, String> {
        match self {
            Self::Tensorkeep => tensorkeep::check(folder, promise),
            Self::Plain | Self::NoFileSync | Self::NoFolderSync | Self::RetrySync => {
                plain::check(folder, promise.newest)
            }
            Self::Safetensors | Self::SafetensorsRename | Self::ObjectStore | Self::ObjectStoreFsync => {
                single::check(folder, promise.newest)
            }
        }
    }
}

/// Saves step after step, as long as `life` lasts.
fn live(life: Life, mut step: u64, mut save: impl FnMut(u64) -> Result<()>) -> Result<()> {
    let mut left = if let Life::Saves(saves) = life { saves } else { u64::MAX };
    while left > 0 {
        (step, left) = (step + 1, left - 1);
        match save(step) {
            Ok(()) => say(&format!("saved {step}"))?,
            Err(error) if life == Life::UntilThePowerGoes => return Err(error),
            Err(error) => say(&format!("failed {step} {error}"))?,
        }
    }
    Ok(())
}

fn say(words: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{words}")?;
    Ok(out.flush()?)
}

/// Between 1 KiB and 1 MiB of noise, unique to this step.
fn weights(step: u64) -> Vec<f32> {
    let mix = |seed: u64| {
        let z = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let count = 256 << (mix(step) % 11);
    (0..count).map(|i| (mix(step << 20 | i) >> 40) as f32).collect()
}

fn weight_bytes(step: u64) -> Vec<u8> {
    weights(step).iter().flat_map(|weight| weight.to_le_bytes()).collect()
}
