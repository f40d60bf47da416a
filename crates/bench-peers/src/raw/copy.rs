//! Copying the state into warm memory: the minimal stall of a save with a copy.

use super::EXTENSION;
use crate::Outcome;
use crate::ops::{Call, Found, Op};
use crate::system::{System, Work};

/// With this many threads.
#[derive(Clone, Copy)]
pub struct Way(usize);

impl Way {
    pub const ALL: [Self; 2] = [Self(1), Self(2)];
}

fn copy(from: &[u8], to: &mut [u8], threads: usize) {
    let share = from.len().div_ceil(threads);
    std::thread::scope(|scope| {
        let mut halves = from.chunks(share).zip(to.chunks_mut(share));
        let own = halves.next();
        for (from, to) in halves {
            scope.spawn(|| to.copy_from_slice(from));
        }
        if let Some((from, to)) = own {
            to.copy_from_slice(from);
        }
    });
}

impl System for Way {
    fn name(&self) -> &'static str {
        if self.0 == 1 { "raw: memcpy, 1 thread" } else { "raw: memcpy, 2 threads" }
    }

    fn extension(&self) -> &'static str {
        EXTENSION
    }

    fn ops(&self) -> &'static [Op] {
        &[Op::Stage]
    }

    fn call(&self, _: Op, work: &Work) -> Outcome<Call> {
        let (state, threads) = (work.state.clone(), self.0);
        // As the store's own buffers: a mapping with huge pages where there are any, and warm.
        let mut warm = memmap2::MmapMut::map_anon(state.all().len())?;
        warm.advise(memmap2::Advice::HugePage)?;
        warm.fill(1);
        Ok(Call::new(move || {
            copy(state.all(), &mut warm, threads);
            Ok(Found::Nothing)
        }))
    }
}
