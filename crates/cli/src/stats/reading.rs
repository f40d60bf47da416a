//! The numbers of a file's tensors: their bytes are read chunk by chunk, in parallel, and merged.

use super::Stats;
use crate::numbers::{self, BLOCK, Kind};
use crate::opened::{Meta, Opened, is_of_one_tensor};
use crate::parallel;
use tensorkeep::{Dtype, Error, Result, inspect::Scratch};

/// Elements of the histogram's sample, about.
const SAMPLE: u64 = 8_192;

/// Takes in the bytes of some elements, of which the first has the index `start` (counted in
/// numbers).
pub(super) fn take(stats: &mut Stats, kind: Kind, table: Option<&[f32; 256]>, start: u64, bytes: &[u8]) {
    let (mut single, mut double) = ([0_f32; BLOCK], [0_f64; BLOCK]);
    let exact = extremes(kind, bytes);
    stats.merge(&Stats { exact, ..Stats::default() });
    // From the end: that is what verifying has left in the processor's nearest cache.
    for (i, bytes) in bytes.chunks(BLOCK * kind.width()).enumerate().rev() {
        let start = start + (i * BLOCK) as u64;
        match kind {
            Kind::Single(dtype) => {
                stats.block(start, numbers::single_block(dtype, table, bytes, &mut single));
            }
            Kind::Double(dtype) => stats.block(start, numbers::double_block(dtype, bytes, &mut double)),
        }
    }
}

/// The smallest and the largest of 64-bit integers.
fn extremes(kind: Kind, bytes: &[u8]) -> Option<[i128; 2]> {
    fn of<T: Copy + Ord + Into<i128>>(bytes: &[u8], number: fn([u8; 8]) -> T) -> Option<[i128; 2]> {
        let mut numbers = bytes.as_chunks().0.iter().map(|bytes| number(*bytes));
        let first = numbers.next()?;
        let (min, max) =
            numbers.fold((first, first), |(min, max), number| (min.min(number), max.max(number)));
        Some([min.into(), max.into()])
    }
    match kind {
        Kind::Double(Dtype::I64) => of(bytes, i64::from_le_bytes),
        Kind::Double(Dtype::U64) => of(bytes, u64::from_le_bytes),
        _ => None,
    }
}

/// Every `every`-th number.
pub(super) fn sample(
    into: &mut Vec<f64>,
    kind: Kind,
    table: Option<&[f32; 256]>,
    every: usize,
    bytes: &[u8],
) {
    let (mut single, mut double) = ([0_f32], [0_f64]);
    for bytes in bytes.chunks_exact(kind.width()).step_by(every) {
        match kind {
            Kind::Single(dtype) => {
                numbers::singles(dtype, table, bytes, &mut single);
                double[0] = f64::from(single[0]);
            }
            Kind::Double(dtype) => numbers::doubles(dtype, bytes, &mut double),
        }
        into.push(double[0]);
    }
}

/// The numbers of all of these tensors, in their order: None for bytes whose meaning is unknown,
/// and the error of a tensor that cannot be read. Aliases are read like tensors of their own.
/// Memory is a chunk per core.
///
/// # Errors
/// Errors of reading that do not concern a single tensor.
pub fn of(opened: &Opened, metas: &[Meta]) -> Result<Vec<Result<Option<Stats>, Error>>> {
    let kinds: Vec<Option<Kind>> = metas.iter().map(|meta| meta.dtype.ok().and_then(Kind::of)).collect();
    let mut all: Vec<Result<Option<Stats>, Error>> =
        kinds.iter().map(|kind| Ok(kind.map(|_| Stats::default()))).collect();
    let sizes = metas.iter().zip(&kinds).map(|(meta, kind)| match kind {
        Some(_) => (meta.byte_len, meta.chunks),
        None => (0, 0),
    });
    let tasks = parallel::tasks(sizes);
    let work = |task: &parallel::Task, scratch: &mut Scratch| {
        let (meta, mut stats) = (&metas[task.number], Stats::default());
        let Some(kind) = kinds[task.number] else { return Ok(Ok(stats)) };
        let table = meta.dtype.ok().and_then(|dtype: Dtype| numbers::table(dtype));
        let every = (meta.byte_len / kind.width() as u64 / SAMPLE).max(1) as usize;
        let mut taken = Vec::new();
        let read = opened.visit(meta, task.chunks.clone(), scratch, |offset, bytes| {
            take(&mut stats, kind, table.as_deref(), offset / kind.width() as u64, bytes);
            sample(&mut taken, kind, table.as_deref(), every, bytes);
            Ok(())
        });
        stats.sample = taken;
        is_of_one_tensor(read.map(|()| stats))
    };
    parallel::run("reading", &tasks, work, |task, found| match (&mut all[task.number], found) {
        (Ok(Some(all)), Ok(found)) => all.merge(&found),
        (all @ Ok(_), Err(error)) => *all = Err(error),
        _ => {}
    })?;
    Ok(all)
}
