//! Scripted randomness and time for this thread, so that a simulated run repeats exactly and a
//! failure replays. Only `fresh_nonce` and the store's clock read it, and only in builds for tests.

use std::cell::Cell;

/// Where a script begins, in seconds since 1970.
const BEGINNING: u64 = 1_700_000_000;

thread_local! {
    static SCRIPT: Cell<Option<u64>> = const { Cell::new(None) };
    static CLOCK: Cell<u64> = const { Cell::new(BEGINNING) };
}

/// While this lives, this thread's nonces follow from `seed` and its clock stands still, unless it
/// is set.
#[derive(Debug)]
pub(crate) struct Script {
    before: Option<u64>,
}

impl Script {
    pub(crate) fn begin(seed: u64) -> Self {
        CLOCK.set(BEGINNING);
        Self { before: SCRIPT.replace(Some(mix(seed))) }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        SCRIPT.set(self.before);
    }
}

/// The next nonce of the script, if there is one.
pub(crate) fn nonce() -> Option<[u8; 16]> {
    let state = SCRIPT.get()?.wrapping_add(0x9e37_79b9_7f4a_7c15);
    SCRIPT.set(Some(state));
    let halves = u128::from(mix(state)) << 64 | u128::from(mix(!state));
    Some(halves.to_be_bytes())
}

/// Makes this thread, started by a scripted one, part of the script. The caller makes `seed`
/// distinct from that of every other thread.
pub(crate) fn join(seed: impl FnOnce() -> u64) {
    if SCRIPT.get().is_none() {
        SCRIPT.set(Some(mix(seed())));
    }
}

/// The script's time in seconds since 1970: constant until it is set.
pub(crate) fn seconds() -> Option<u64> {
    SCRIPT.get().map(|_| CLOCK.get())
}

/// Sets this thread's clock.
pub(crate) fn set_seconds(seconds: u64) {
    CLOCK.set(seconds);
}

/// splitmix64's finalizer: any two seeds give unrelated numbers.
pub(crate) fn mix(seed: u64) -> u64 {
    let z = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Numbers that follow from a seed.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Less than `below`, which is not 0.
    pub(crate) fn below(&mut self, below: usize) -> usize {
        (self.next() % below.max(1) as u64) as usize
    }

    pub(crate) fn flip(&mut self) -> bool {
        self.next() & 1 == 1
    }
}
