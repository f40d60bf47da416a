//! What a save costs. Owns: bringing together how long it took, which its writer knows, and how
//! long it held training up, which the caller knows. Both are known only when its own record is
//! written, so the next save of the attempt tells it.

use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// What a save cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct SaveCost {
    /// Which save it was.
    pub step: u64,
    /// From the plan until it was durable, rotation left out.
    #[serde(rename = "took_us", with = "microseconds")]
    pub took: Duration,
    /// How long training stood still for it: all of a [`Store::save`](super::Store::save), the copy
    /// of a [`Store::stage`](super::Store::stage), what a
    /// [`Store::save_during`](super::Store::save_during) lasted longer than the work beside it.
    /// Waiting for an earlier save is part of it.
    #[serde(rename = "stall_us", with = "microseconds")]
    pub stall: Duration,
}

/// How long a save held its caller up: told when the call returns, which may be before or after the
/// save is durable.
#[derive(Clone, Debug, Default)]
pub(super) struct Stall(Arc<OnceLock<Duration>>);

impl Stall {
    pub(super) fn was(&self, stall: Duration) {
        // The first word counts; there is no second.
        let _ = self.0.set(stall);
    }
}

/// The last save that became durable: its step, how long it took, and how long it held its caller
/// up.
#[derive(Debug, Default)]
pub(super) struct LastSave(Mutex<Option<(u64, Duration, Stall)>>);

impl LastSave {
    pub(super) fn was(&self, step: u64, took: Duration, stall: &Stall) {
        *self.lock() = Some((step, took, stall.clone()));
    }

    /// None before there was one, and while its caller is still held up: another thread saves
    /// already.
    pub(super) fn cost(&self) -> Option<SaveCost> {
        let (step, took, Stall(stall)) = self.lock().clone()?;
        // As it is recorded, so that what is remembered is what is read.
        let whole = |time: &Duration| Duration::from_micros(microseconds::of(time));
        Some(SaveCost { step, took: whole(&took), stall: whole(stall.get()?) })
    }

    fn lock(&self) -> MutexGuard<'_, Option<(u64, Duration, Stall)>> {
        // Held for one assignment or one copy.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

mod microseconds {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub(super) fn of(time: &Duration) -> u64 {
        u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
    }

    pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(of(time))
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_micros)
    }
}
