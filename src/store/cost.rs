//! The cost of a save: how long it took, which its writer knows, and how long it stalled training,
//! which the caller knows. Both are known only after its own record is written, so the next save of
//! the attempt records them.

use crate::sync::lock;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// The cost of a save.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct SaveCost {
    /// The step that was saved.
    pub step: u64,
    /// From the plan until it was durable, without rotation.
    #[serde(rename = "took_us", with = "microseconds")]
    pub took: Duration,
    /// How long training stood still for it: all of a [`Store::save`](super::Store::save), the copy
    /// of a [`Store::stage`](super::Store::stage), the time by which a
    /// [`Store::save_during`](super::Store::save_during) outlasted the work beside it. Waiting for
    /// an earlier save is included.
    #[serde(rename = "stall_us", with = "microseconds")]
    pub stall: Duration,
}

/// How long a save stalled its caller: set when the call returns, which may be before or after the
/// save is durable.
#[derive(Clone, Debug, Default)]
pub(super) struct Stall(Arc<OnceLock<Duration>>);

impl Stall {
    pub(super) fn set(&self, stall: Duration) {
        // Set once.
        let _ = self.0.set(stall);
    }
}

/// The last save that became durable.
#[derive(Debug, Default)]
pub(super) struct LastSave(Mutex<Option<Durable>>);

#[derive(Clone, Debug)]
struct Durable {
    step: u64,
    took: Duration,
    stall: Stall,
}

impl LastSave {
    pub(super) fn set(&self, step: u64, took: Duration, stall: &Stall) {
        *lock(&self.0) = Some(Durable { step, took, stall: stall.clone() });
    }

    /// None before the first save, and while its caller is still stalled: another thread saves
    /// already.
    pub(super) fn cost(&self) -> Option<SaveCost> {
        let Durable { step, took, stall } = lock(&self.0).clone()?;
        // Rounded as in the record, so that remembered and read values are equal.
        let whole = |time: &Duration| Duration::from_micros(microseconds::of(time));
        Some(SaveCost { step, took: whole(&took), stall: whole(stall.0.get()?) })
    }
}

pub(super) mod microseconds {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub(super) fn of(time: &Duration) -> u64 {
        u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
    }

    pub(in crate::store) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(of(time))
    }

    pub(in crate::store) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_micros)
    }
}
