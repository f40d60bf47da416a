//! Time as a store records it. Owns: reading the two clocks, and that both stand still in a simulated run, so that equal
//! runs have equal bytes. What only decides when something is due reads [`Instant`] itself: it is recorded nowhere.

use std::time::{Duration, Instant, SystemTime};

pub(super) fn seconds_since_1970() -> u64 {
    #[cfg(feature = "testing")]
    if let Some(seconds) = crate::engine::vfs::scripted::seconds() {
        return seconds;
    }
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Measures how long something takes, by a clock that does not jump.
#[derive(Debug)]
pub(super) struct Timer(Instant);

impl Timer {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn elapsed(&self) -> Duration {
        #[cfg(feature = "testing")]
        if crate::engine::vfs::scripted::seconds().is_some() {
            return Duration::ZERO;
        }
        self.0.elapsed()
    }
}
