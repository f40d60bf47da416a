//! The `safetensors` crate: a JSON header, then the tensors. It has no checksums, and leaves
//! mapping and durability to its user.

use crate::Outcome;
use crate::memory::map;
use crate::ops::{Call, Found, Op};
use crate::system::{System, Work, cannot, cold, into_existing, one_after_opening, save_and_publish};
use crate::workloads::{State, mix, sum};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use std::hint::black_box;
use std::path::Path;

pub struct Safetensors;

fn save(state: &State, path: &Path) -> Outcome<()> {
    let views = state.tensors.iter().map(|entry| {
        let view = TensorView::new(Dtype::F32, entry.shape.clone(), state.bytes(entry))?;
        Ok((&entry.name, view))
    });
    Ok(serialize_to_file(views.collect::<Outcome<Vec<_>>>()?, None, path)?)
}

/// Every tensor's bytes, looked up by name as by its users: the crate's own iterator has no order.
fn parts<'t>(tensors: &'t SafeTensors<'_>, state: &'t State) -> impl Iterator<Item = Outcome<&'t [u8]>> {
    state.tensors.iter().map(|entry| Ok(tensors.tensor(&entry.name)?.data()))
}

fn touch(state: &State, path: &Path) -> Outcome<Found> {
    let map = map(path)?;
    let tensors = SafeTensors::deserialize(&map)?;
    let total = parts(&tensors, state).try_fold(0, |total, part| Outcome::Ok(mix(total, part?)));
    Ok(Found::Sum(total?))
}

fn open(path: &Path) -> Outcome<Found> {
    let map = map(path)?;
    let tensors = SafeTensors::deserialize(&map)?;
    let shapes =
        tensors.iter().map(|(name, view)| black_box((name, view)).1.shape().iter().product::<usize>());
    Ok(Found::Elements(shapes.map(|count| count as u64).sum()))
}

fn load_fresh(state: &State, path: &Path) -> Outcome<Found> {
    let load = || {
        let map = map(path)?;
        let tensors = SafeTensors::deserialize(&map)?;
        parts(&tensors, state).map(|part| Ok(part?.to_vec())).collect()
    };
    Found::loaded(load, |owned: &Vec<Vec<u8>>| sum(owned))
}

fn load_into(state: &State, path: &Path, existing: &mut [Vec<u8>]) -> Outcome<()> {
    let map = map(path)?;
    let tensors = SafeTensors::deserialize(&map)?;
    for (part, target) in parts(&tensors, state).zip(existing) {
        target.copy_from_slice(part?);
    }
    Ok(())
}

impl System for Safetensors {
    fn name(&self) -> &'static str {
        "safetensors"
    }

    fn extension(&self) -> &'static str {
        "safetensors"
    }

    fn ops(&self) -> &'static [Op] {
        use Op::*;
        &[SaveDurable, SaveAsCalled, Open, TouchAll, LoadFresh, LoadInto, LoadCold, OneTensor]
    }

    fn call(&self, op: Op, work: &Work) -> Outcome<Call> {
        let Work { state, file } = work.clone();
        Ok(match op {
            Op::SaveDurable => save_and_publish(work, save),
            Op::SaveAsCalled => Call::new(move || save(&state, &file).map(|()| Found::Nothing)),
            Op::Open => Call::new(move || open(&file)),
            Op::TouchAll => Call::new(move || touch(&state, &file)),
            Op::LoadCold => cold(work, Call::new(move || touch(&state, &file))),
            Op::LoadFresh => Call::new(move || load_fresh(&state, &file)),
            Op::LoadInto => into_existing(work, move |existing| load_into(&state, &file, existing)),
            Op::OneTensor => {
                let (work, middle) = (work.clone(), work.middle());
                // The parsed header borrows the mapping, which therefore stays until the process
                // ends.
                let open = move || Ok(SafeTensors::deserialize(Box::leak(Box::new(map(&file)?)))?);
                one_after_opening(open, move |tensors| work.is_middle(tensors.tensor(&middle)?.data()))
            }
            _ => return cannot(self, op),
        })
    }
}
