//! `burn-pack`, the container of the burn framework: CBOR, then tensors at multiples of 256 bytes.
//! Saving fsyncs file and folder by itself; there are no checksums.

use crate::ops::{Call, Found, Op};
use crate::system::{System, Work, cannot, cold, one_after_opening};
use crate::workloads::{State, sum};
use crate::{Outcome, memory};
use burn_pack::{Bytes, DType, Reader, Tensor, Writer};
use cubecl_environment::bytes::AllocationProperty;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

pub struct BurnPack;

/// One tensor's values, which keep the state alive.
struct Part {
    state: Arc<State>,
    index: usize,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        self.state.bytes(&self.state.tensors[self.index])
    }
}

/// A writer over the state's own memory: nothing is copied.
fn writer(state: &Arc<State>) -> Writer {
    let tensors = state.tensors.iter().enumerate().map(|(index, entry)| {
        let part = bytes::Bytes::from_owner(Part { state: Arc::clone(state), index });
        let bytes = Bytes::from_shared(part, AllocationProperty::Other);
        Tensor::new(entry.name.clone(), DType::F32, entry.shape.clone(), None, bytes)
    });
    Writer::new(tensors.collect())
}

fn open(path: &Path) -> Outcome<Found> {
    let tensors = Reader::from_file(path)?.into_tensors()?;
    let shapes = tensors.iter().map(|tensor| black_box((&tensor.name, &tensor.shape)).1);
    Ok(Found::Elements(shapes.map(|shape| shape.iter().product::<usize>() as u64).sum()))
}

/// A reader over a mapping: its tensors are borrowed from it.
fn mapped(path: &Path) -> Outcome<Vec<Bytes>> {
    let bytes = Bytes::from_shared(bytes::Bytes::from_owner(memory::map(path)?), AllocationProperty::File);
    parts(Reader::from_bytes(bytes)?)
}

fn parts(reader: Reader) -> Outcome<Vec<Bytes>> {
    Ok(reader.into_tensors()?.into_iter().map(Tensor::into_bytes).collect::<Result<_, _>>()?)
}

fn bytes_of(parts: &[Bytes]) -> impl Iterator<Item = &[u8]> {
    parts.iter().map(|part| &**part)
}

/// Read from the file, one tensor after the other, when its bytes are first used.
fn load_fresh(path: &Path) -> Outcome<Found> {
    let load = || {
        let parts = parts(Reader::from_file(path)?)?;
        for part in &parts {
            black_box(part.first());
        }
        Ok(parts)
    };
    Found::loaded(load, |parts| sum(bytes_of(parts)))
}

impl System for BurnPack {
    fn name(&self) -> &'static str {
        "burn-pack"
    }

    fn extension(&self) -> &'static str {
        "bpk"
    }

    fn ops(&self) -> &'static [Op] {
        use Op::*;
        &[SaveDurable, SaveAsCalled, Open, TouchAll, LoadFresh, LoadCold, OneTensor]
    }

    fn call(&self, op: Op, work: &Work) -> Outcome<Call> {
        let Work { state, file } = work.clone();
        Ok(match op {
            Op::SaveDurable => Call::new(move || {
                writer(&state).write_to_file(&file)?;
                Ok(Found::Nothing)
            }),
            Op::SaveAsCalled => Call::new(move || {
                writer(&state).write_to_file_in_place(&file)?;
                Ok(Found::Nothing)
            }),
            Op::Open => Call::new(move || open(&file)),
            Op::TouchAll => Call::new(move || Ok(Found::Sum(sum(bytes_of(&mapped(&file)?))))),
            Op::LoadFresh => Call::new(move || load_fresh(&file)),
            Op::LoadCold => cold(work, Call::new(move || load_fresh(&file))),
            Op::OneTensor => {
                let (work, middle) = (work.clone(), work.middle());
                let open = move || Ok(Reader::from_file(&file)?);
                one_after_opening(open, move |reader| work.is_middle(&reader.tensor_data(&middle)?))
            }
            _ => return cannot(self, op),
        })
    }
}
