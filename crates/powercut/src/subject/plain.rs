//! The minimal durable writer, a plain file for each step, and its usual mistakes: a harness that
//! does not catch them proves nothing.

use super::{Found, Life, live, weight_bytes};
use crate::Result;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

const KEEP: usize = 2;
const PREFIX: &str = "step-";

/// The mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    FileNotSynced,
    FolderNotSynced,
    /// The kernel has dropped the error and the pages: the second fsync returns Ok, and the data is
    /// lost.
    FailureIgnored,
}

pub fn train(folder: &Path, life: Life, mistake: Option<Mistake>) -> Result<()> {
    let newest = steps(folder)?.last().map_or(0, |(step, _)| *step);
    live(life, newest, |step| {
        save(folder, step, mistake)?;
        let steps = steps(folder)?;
        for (_, path) in &steps[..steps.len().saturating_sub(KEEP)] {
            std::fs::remove_file(path)?;
        }
        Ok(())
    })
}

fn save(folder: &Path, step: u64, mistake: Option<Mistake>) -> Result<()> {
    let temporary = folder.join("temporary");
    // A new file each time: a file whose fsync failed is not written again.
    let _ = std::fs::remove_file(&temporary);
    let mut file = File::create_new(&temporary)?;
    file.write_all(&weight_bytes(step))?;
    match mistake {
        Some(Mistake::FileNotSynced) => {}
        Some(Mistake::FailureIgnored) => file.sync_all().or_else(|_| file.sync_all())?,
        _ => file.sync_all()?,
    }
    std::fs::rename(&temporary, folder.join(format!("{PREFIX}{step}")))?;
    if mistake != Some(Mistake::FolderNotSynced) {
        File::open(folder)?.sync_all()?;
        // XFS reports a lost rename here, and not above.
        if mistake != Some(Mistake::FileNotSynced) {
            file.sync_all()?;
        }
    }
    Ok(())
}

fn steps(folder: &Path) -> std::io::Result<Vec<(u64, PathBuf)>> {
    let mut steps = Vec::new();
    for entry in folder.read_dir()? {
        let entry = entry?;
        let name = entry.file_name();
        let step = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse().ok());
        steps.extend(step.map(|step| (step, entry.path())));
    }
    steps.sort();
    Ok(steps)
}

pub fn check(folder: &Path, newest: u64) -> Result<Found, String> {
    let steps = steps(folder).map_err(|error| format!("cannot be listed: {error}"))?;
    for (step, path) in &steps {
        if std::fs::read(path).map_err(|error| format!("step {step} cannot be read: {error}"))?
            != weight_bytes(*step)
        {
            return Err(format!("step {step} is half"));
        }
    }
    match steps.last().map_or(0, |(step, _)| *step) {
        step if step < newest => Err(format!("step {newest} was saved, step {step} is there")),
        _ => Ok(Found::default()),
    }
}
