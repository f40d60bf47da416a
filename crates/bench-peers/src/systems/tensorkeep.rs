//! tensorkeep itself: verified as by default, unverified where that is of interest, and with its
//! codecs. Saving and loading are here, a save's effect on the trainer is in `stall.rs`.
#![expect(unsafe_code, reason = "mapping rests on a promise; see SAFETY")]

mod stall;

use crate::Outcome;
use crate::ops::{Call, Found, Op};
use crate::system::{System, Work, cannot, cold, into_existing, one_after_opening};
use crate::workloads::{State, mix, sum};
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};
use tensorkeep::engine::MmapPromise;
use tensorkeep::{
    Checkpoint, Codec, MappedCopy, OpenOptions, Snapshot, Verify, WriteOptions, writer::Timings,
};

/// One configuration.
#[derive(Clone, Copy)]
struct Tensorkeep {
    name: &'static str,
    extension: &'static str,
    codec: Codec,
    verify: Verify,
    /// Whether it loads by mapping where both are possible.
    map: bool,
    /// Niceness of a background save's threads.
    nice: u8,
    ops: &'static [Op],
}

pub fn all() -> Vec<Box<dyn System>> {
    use Op::*;
    let plain = Tensorkeep {
        name: "tensorkeep",
        extension: "tkeep",
        codec: Codec::Raw,
        verify: Verify::OnTouch,
        map: true,
        nice: 0,
        ops: &[
            SaveDurable,
            SaveStages,
            Stage,
            SaveAsync,
            SaveDuring,
            StepTime,
            Open,
            TouchAll,
            TouchOnce,
            LoadFresh,
            LoadInto,
            MapCopy,
            LoadCold,
            OneTensor,
        ],
    };
    let unverified = Tensorkeep {
        name: "tensorkeep, unverified",
        verify: Verify::Never,
        ops: &[TouchAll, LoadFresh, LoadInto, LoadCold],
        ..plain
    };
    let read = Tensorkeep {
        name: "tensorkeep, read",
        map: false,
        ops: &[Open, LoadInto, LoadCold, OneTensor],
        ..plain
    };
    let coded = |name, extension, codec| Tensorkeep {
        name,
        extension,
        codec,
        ops: &[SaveDurable, SaveStages, LoadFresh, LoadInto],
        ..plain
    };
    let balanced = coded("tensorkeep, balanced", "tkeep-balanced", Codec::Balanced);
    let max = coded("tensorkeep, max", "tkeep-max", Codec::Max);
    let niced = Tensorkeep { name: "tensorkeep, nice'd", nice: 10, ops: &[StepTime, SaveDuring], ..plain };
    [plain, unverified, read, balanced, max, niced].map(|one| Box::new(one) as Box<dyn System>).into()
}

/// The snapshot that a trainer would build: every tensor borrowed.
fn snapshot(state: &State) -> Outcome<Snapshot<'_>> {
    let mut snapshot = Snapshot::new();
    for entry in &state.tensors {
        let elements: &[f32] = bytemuck::cast_slice(state.bytes(entry));
        snapshot = snapshot.tensor(&entry.name, (&entry.shape[..], elements))?;
    }
    Ok(snapshot)
}

fn promise() -> MmapPromise {
    // SAFETY: the file is in this program's own folder. It is replaced by rename when it is saved
    // again, and never written to or truncated while it is mapped.
    unsafe { MmapPromise::assume_unchanged() }
}

impl Tensorkeep {
    fn options(&self) -> OpenOptions {
        OpenOptions::new().verify(self.verify)
    }

    fn save(&self, state: &State, path: &Path) -> Outcome<Found> {
        snapshot(state)?.save_with(path, &WriteOptions::new().codec(self.codec))?;
        Ok(Found::Nothing)
    }

    /// The breakdown of a save's time. Stages of several threads are summed, and overlap: the rest
    /// is the difference, if it is positive.
    fn save_stages(&self, state: &State, path: &Path) -> Outcome<Found> {
        let written = snapshot(state)?.save_with(path, &WriteOptions::new().codec(self.codec))?;
        let Timings { encode, checksum, write, commit, total, .. } = written.timings;
        let other = total.saturating_sub(encode + checksum + write + commit);
        let stages = [
            ("encode", encode),
            ("checksum", checksum),
            ("write", write),
            ("commit", commit),
            ("other", other),
        ];
        let row = |(stage, time): (&str, Duration)| (format!("save: {stage}"), time.as_secs_f64());
        Ok(Found::Times(stages.map(row).into()))
    }

    fn open(&self, path: &Path) -> Outcome<Checkpoint> {
        if !self.map {
            return Ok(self.options().open(path)?);
        }
        Ok(self.options().map(path, promise())?)
    }

    /// Mapped privately, with one write to every tensor: the first step of a resume that trains on
    /// the mapping.
    fn map_copy(&self, path: &Path) -> Outcome<Found> {
        let resume = || {
            let mut copy = self.options().map_copy(path, promise())?;
            for (_, tensor) in copy.tensors_mut() {
                if let Some(first) = tensor.into_elements::<f32>()?.first_mut() {
                    *first = black_box(*first);
                }
            }
            Ok(copy)
        };
        let all = |copy: &MappedCopy| {
            copy.tensors().into_iter().fold(0, |total, (_, tensor)| mix(total, tensor.bytes()))
        };
        Found::loaded(resume, all)
    }

    fn list(&self, path: &Path) -> Outcome<Found> {
        let checkpoint = self.open(path)?;
        let shapes = checkpoint.tensors().map(|info| black_box((info.name, info.shape)).1);
        Ok(Found::Elements(shapes.map(|shape| shape.iter().product::<u64>()).sum()))
    }

    fn touch(&self, path: &Path) -> Outcome<Found> {
        let checkpoint = self.open(path)?;
        let total = checkpoint.names().try_fold(0, |total, name| {
            Outcome::Ok(mix(total, checkpoint.inspect().require_mapped(name)?.bytes()))
        });
        Ok(Found::Sum(total?))
    }

    fn verify_all(&self, path: &Path) -> Outcome<Found> {
        self.open(path)?.verify()?;
        Ok(Found::Nothing)
    }

    /// All tensors: those of a mapped file are borrowed, and verifying has read every byte.
    fn load(&self, path: &Path) -> Outcome<Found> {
        let start = Instant::now();
        let checkpoint = self.open(path)?;
        let tensors = checkpoint.load(checkpoint.names())?;
        let seconds = start.elapsed().as_secs_f64();
        Ok(Found::Loaded { seconds, sum: sum(tensors.iter().map(|tensor| tensor.bytes())) })
    }

    fn load_into(&self, path: &Path, existing: &mut [Vec<u8>]) -> Outcome<()> {
        let checkpoint = self.open(path)?;
        Ok(checkpoint.load_into(checkpoint.names().zip(existing.iter_mut().map(Vec::as_mut_slice)))?)
    }
}

impl System for Tensorkeep {
    fn name(&self) -> &'static str {
        self.name
    }

    fn extension(&self) -> &'static str {
        self.extension
    }

    fn ops(&self) -> &'static [Op] {
        self.ops
    }

    fn workloads(&self) -> &'static str {
        // zstd at level 19 writes a few megabytes a second.
        if self.codec == Codec::Max { "sn" } else { "smln" }
    }

    fn call(&self, op: Op, work: &Work) -> Outcome<Call> {
        let (Work { state, file }, this) = (work.clone(), *self);
        Ok(match op {
            Op::SaveDurable => Call::new(move || this.save(&state, &file)),
            Op::SaveStages => Call::new(move || this.save_stages(&state, &file)),
            Op::Stage => stall::stage(work)?,
            Op::SaveAsync => stall::save_async(work)?,
            Op::SaveDuring => stall::save_during(work, this.nice)?,
            Op::StepTime => stall::step_time(work, this.nice)?,
            Op::Open => Call::new(move || this.list(&file)),
            Op::TouchAll => Call::new(move || this.touch(&file)),
            Op::TouchOnce => Call::new(move || this.verify_all(&file)),
            // Opened for reading: a mapped tensor would be borrowed.
            Op::LoadFresh => Call::new(move || Self { map: false, ..this }.load(&file)),
            Op::LoadInto => into_existing(work, move |existing| this.load_into(&file, existing)),
            Op::MapCopy => Call::new(move || this.map_copy(&file)),
            Op::LoadCold if this.verify == Verify::Never => cold(work, Call::new(move || this.touch(&file))),
            Op::LoadCold => cold(work, Call::new(move || this.load(&file))),
            Op::OneTensor => {
                let (work, middle) = (work.clone(), work.middle());
                let look = move |checkpoint: &Checkpoint| work.is_middle(checkpoint.tensor(&middle)?.bytes());
                one_after_opening(move || this.open(&file), look)
            }
            _ => return cannot(self, op),
        })
    }
}
