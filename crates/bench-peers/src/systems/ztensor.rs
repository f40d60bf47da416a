//! The `ztensor` crate: aligned tensors with digests, which are verified on request.

use crate::Outcome;
use crate::ops::{Call, Found, Op};
use crate::system::{System, Work, cannot, cold, one_after_opening, save_and_publish};
use crate::workloads::{State, mix, sum};
use std::hint::black_box;
use std::path::Path;
use ztensor::{DType, Source, Tensor, Writer};

#[derive(Clone, Copy)]
struct Ztensor {
    verify: bool,
}

pub fn all() -> Vec<Box<dyn System>> {
    vec![Box::new(Ztensor { verify: false }), Box::new(Ztensor { verify: true })]
}

/// With its default alignment of 64 KiB for each tensor, 100,000 small ones would be a file of 6.5
/// GB; 4 KiB is its minimum.
const SMALL_PLACEMENT_FROM: usize = 10_000;

fn save(state: &State, path: &Path) -> Outcome<()> {
    let options = if state.tensors.len() < SMALL_PLACEMENT_FROM {
        Writer::options()
    } else {
        Writer::options().canonical(false).align(4096)
    };
    let mut writer = options.create(path)?;
    for entry in &state.tensors {
        let shape: Vec<u64> = entry.shape.iter().map(|&dim| dim as u64).collect();
        writer.add(&entry.name, shape, DType::F32, state.bytes(entry))?;
    }
    // Fsyncs, too; doing so twice costs nothing the second time.
    writer.finish()?;
    Ok(())
}

fn open(path: &Path) -> Outcome<Found> {
    let source = Source::open(path)?;
    let shapes = source.tensors().map(|tensor| black_box((tensor.name(), tensor.shape())).1);
    Ok(Found::Elements(shapes.map(|shape| shape.iter().product::<u64>()).sum()))
}

impl Ztensor {
    fn check(self, tensor: &Tensor<'_>) -> Outcome<()> {
        if self.verify && !tensor.verify()?.is_checked() {
            return Err("a tensor without a digest".into());
        }
        Ok(())
    }

    fn touch(self, path: &Path) -> Outcome<Found> {
        let source = Source::open(path)?;
        let total = source.tensors().try_fold(0, |total, tensor| {
            self.check(&tensor)?;
            Outcome::Ok(mix(total, tensor.data()?.map()?))
        });
        Ok(Found::Sum(total?))
    }

    fn verify_all(self, path: &Path) -> Outcome<Found> {
        Source::open(path)?.tensors().try_for_each(|tensor| self.check(&tensor))?;
        Ok(Found::Nothing)
    }

    fn load_fresh(self, path: &Path) -> Outcome<Found> {
        let one = |tensor: Tensor<'_>| {
            self.check(&tensor)?;
            Ok(tensor.data()?.bytes()?.into_owned())
        };
        let load = || Source::open(path)?.tensors().map(one).collect();
        Found::loaded(load, |owned: &Vec<Vec<u8>>| sum(owned))
    }
}

impl System for Ztensor {
    fn name(&self) -> &'static str {
        if self.verify { "ztensor, verified" } else { "ztensor" }
    }

    fn extension(&self) -> &'static str {
        "zt"
    }

    fn ops(&self) -> &'static [Op] {
        use Op::*;
        if self.verify {
            &[TouchAll, TouchOnce, LoadFresh, LoadCold, OneTensor]
        } else {
            &[SaveDurable, SaveAsCalled, Open, TouchAll, LoadFresh, LoadCold, OneTensor]
        }
    }

    fn call(&self, op: Op, work: &Work) -> Outcome<Call> {
        let (Work { state, file }, this) = (work.clone(), *self);
        Ok(match op {
            Op::SaveDurable => save_and_publish(work, save),
            Op::SaveAsCalled => Call::new(move || save(&state, &file).map(|()| Found::Nothing)),
            Op::Open => Call::new(move || open(&file)),
            Op::TouchAll => Call::new(move || this.touch(&file)),
            Op::TouchOnce => Call::new(move || this.verify_all(&file)),
            Op::LoadCold => cold(work, Call::new(move || this.touch(&file))),
            Op::LoadFresh => Call::new(move || this.load_fresh(&file)),
            Op::OneTensor => {
                let (work, middle) = (work.clone(), work.middle());
                let look = move |source: &Source| {
                    let tensor = source.tensor(&middle)?;
                    this.check(&tensor)?;
                    work.is_middle(tensor.data()?.map()?)
                };
                one_after_opening(move || Ok(Source::open(&file)?), look)
            }
            _ => return cannot(self, op),
        })
    }
}
