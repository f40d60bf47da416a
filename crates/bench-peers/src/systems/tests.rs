//! Every system restores its saved state, and a system that does not is noticed.

use super::{all, find};
use crate::child::{self, Task};
use crate::ops::Op;
use crate::system::System;
use crate::workloads::{State, Values, Workload};
use crate::{Outcome, weights};
use std::fs;
use std::path::{Path, PathBuf};

/// A folder, values in it, and a task for each system and operation.
struct Bench {
    dir: PathBuf,
    values: Values,
}

impl Bench {
    fn new(name: &str) -> Self {
        // Beside the build, which is on a disk: a temporary folder may be memory, which cannot be
        // made cold.
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench-peers-tests");
        let dir = target.join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let mut model = Workload::Small.model(true, 0);
        // One whose bytes do not fill a word.
        model.push(weights::Weights { name: "odd".into(), shape: vec![3], elements: vec![1.5, -2.5, 3.5] });
        let values = Values::share(model, dir.join("values.json")).unwrap();
        Self { dir, values }
    }

    fn run(&self, system: &dyn System, op: Op) -> Outcome<child::Reply> {
        child::measure(&Task {
            op,
            system: system.name().to_owned(),
            values: self.values.manifest().to_owned(),
            file: self.dir.join(format!("s.{}", system.extension())),
            warm: 0,
            times: 2,
            expected_sum: self.values.sum,
        })
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Whether it is a method that this kernel or disk does not support.
fn is_refused(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| {
        matches!(error.kind(), std::io::ErrorKind::Unsupported | std::io::ErrorKind::InvalidInput)
    })
}

const LOADS: [Op; 7] =
    [Op::Open, Op::TouchAll, Op::TouchOnce, Op::LoadFresh, Op::LoadInto, Op::MapCopy, Op::LoadCold];

#[test]
fn every_system_restores_its_saved_state() {
    let bench = Bench::new("restores");
    let all = all();
    for saver in all.iter().filter(|system| system.ops().contains(&Op::SaveDurable)) {
        for op in [Op::SaveAsCalled, Op::SaveDurable].into_iter().filter(|op| saver.ops().contains(op)) {
            match bench.run(saver.as_ref(), op) {
                Err(error) if saver.extension() == "raw" && is_refused(&*error) => continue,
                saved => assert_eq!(saved.unwrap().seconds.len(), 2),
            };
            for loader in all.iter().filter(|loader| loader.extension() == saver.extension()) {
                for op in LOADS.into_iter().filter(|op| loader.ops().contains(op)) {
                    let loaded = bench.run(loader.as_ref(), op);
                    loaded.unwrap_or_else(|error| panic!("{}, {}: {error}", loader.name(), op.name()));
                }
                if loader.ops().contains(&Op::OneTensor) {
                    bench.run(loader.as_ref(), Op::OneTensor).unwrap();
                }
            }
        }
    }
}

#[test]
fn a_wrong_byte_in_a_file_gives_no_figure() {
    let bench = Bench::new("wrong");
    let state = State::open(bench.values.manifest()).unwrap();
    let largest = state.tensors.iter().max_by_key(|entry| entry.len).unwrap();
    let needle = &state.bytes(largest)[largest.len / 2..][..16];
    let all = all();
    for saver in all.iter().filter(|system| system.ops().contains(&Op::SaveDurable)) {
        if bench.run(saver.as_ref(), Op::SaveDurable).is_err() {
            continue; // Refused; another test checks that all others save.
        }
        let file = bench.dir.join(format!("s.{}", saver.extension()));
        let mut bytes = fs::read(&file).unwrap();
        // In the middle of the largest tensor; a compressed one makes up the middle of its file.
        let at = bytes.windows(16).position(|window| window == needle).unwrap_or(bytes.len() / 2);
        bytes[at] ^= 1;
        fs::write(&file, bytes).unwrap();
        for loader in all.iter().filter(|loader| loader.extension() == saver.extension()) {
            for op in LOADS.into_iter().filter(|op| *op != Op::Open && loader.ops().contains(op)) {
                assert!(bench.run(loader.as_ref(), op).is_err(), "{}, {}", loader.name(), op.name());
            }
        }
        fs::remove_file(&file).unwrap();
    }
}

#[test]
fn the_stall_is_measured_for_every_background_save() {
    let bench = Bench::new("stall");
    let ours = find("tensorkeep").unwrap();
    let stages = bench.run(ours.as_ref(), Op::SaveStages).unwrap();
    assert_eq!(stages.seconds.len(), 2 * 5, "{stages:?}");
    for op in [Op::Stage, Op::SaveAsync, Op::SaveDuring] {
        let reply = bench.run(ours.as_ref(), op).unwrap();
        assert!(reply.seconds.iter().all(|(name, seconds)| name == op.name() && *seconds > 0.0), "{reply:?}");
    }
    let steps = bench.run(ours.as_ref(), Op::StepTime).unwrap();
    for name in ["step alone, 1 busy", "step alone, 2 busy", "step beside a save, 2 busy"] {
        assert!(steps.seconds.iter().any(|(of, _)| of == name), "{name}");
    }
}

#[test]
fn names_tell_systems_apart() {
    let all = all();
    for (i, system) in all.iter().enumerate() {
        assert!(all[..i].iter().all(|other| other.name() != system.name()), "{}", system.name());
    }
}
