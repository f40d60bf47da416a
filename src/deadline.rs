//! The deadline of a call that waits for storage, over any number of requests and engines. A call
//! of a store enters its deadline on the thread that it runs on; an engine whose requests may take
//! long asks for the current one.

use crate::error::{Error, ErrorKind};
use crate::sync::lock;
use std::cell::RefCell;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

thread_local! {
    static CURRENT: RefCell<Option<CallDeadline>> = const { RefCell::new(None) };
}

/// The deadline of a call that may make many requests. Clones are the same one: hand a clone to
/// each thread that works for the call.
///
/// [`Store`](crate::Store) enters one for each of its calls
/// ([`StoreOptions::deadline`](crate::StoreOptions::deadline)). Enter one yourself around calls of
/// a [`Reader`](crate::Reader):
///
/// ```
/// # use std::time::Duration;
/// # use tensorkeep::{Reader, engine::{CallDeadline, Memory}};
/// # let reader = Reader::new(Memory::new());
/// let latest = CallDeadline::after(Duration::from_secs(20)).enter(|| reader.latest())?;
/// # Ok::<(), tensorkeep::Error>(())
/// ```
///
/// An engine honours it by asking [`CallDeadline::current`] for the time that is
/// [left](CallDeadline::left), and [extends](CallDeadline::extend) it for the bytes that it moves,
/// so that a slow link is not mistaken for a silent one. Engines on local disks ignore it.
#[derive(Clone, Debug)]
pub struct CallDeadline(Arc<Mutex<Instant>>);

impl CallDeadline {
    /// A deadline `limit` from now, but not later than the current one.
    pub fn after(limit: Duration) -> Self {
        let outer = Self::current().map_or(limit, |outer| outer.left());
        Self::apart(limit.min(outer))
    }

    /// A deadline `limit` from now, whatever the current one is.
    pub(crate) fn apart(limit: Duration) -> Self {
        // Longer than any process lives, without overflow.
        let limit = limit.min(Duration::from_secs(1 << 32));
        Self(Arc::new(Mutex::new(Instant::now() + limit)))
    }

    /// The deadline that this thread works under.
    pub fn current() -> Option<Self> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Runs `work` under this deadline, on this thread.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        let _restored = Entered(CURRENT.replace(Some(self.clone())));
        work()
    }

    /// The time left; zero when it is up.
    pub fn left(&self) -> Duration {
        self.until().saturating_duration_since(Instant::now())
    }

    /// Adds time, for bytes that were moved.
    pub fn extend(&self, by: Duration) {
        let mut until = lock(&self.0);
        *until = until.checked_add(by).unwrap_or(*until);
    }

    fn until(&self) -> Instant {
        // Whole values are replaced: a panic elsewhere leaves nothing half done.
        *lock(&self.0)
    }

    /// The error of a call whose time is up before a request is sent.
    pub fn passed() -> Error {
        Error::new(ErrorKind::Io, "the call's time was up before this was asked of the storage")
    }
}

/// Restores the caller's deadline, also when the work panics.
struct Entered(Option<CallDeadline>);

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_deadline_within_another_is_not_later() {
        let outer = CallDeadline::after(MINUTE);
        outer.enter(|| {
            assert!(CallDeadline::after(10 * MINUTE).left() <= MINUTE);
            assert!(CallDeadline::after(MINUTE / 60).left() <= MINUTE / 60);
        });
        assert!(CallDeadline::after(10 * MINUTE).left() > 9 * MINUTE);
    }

    #[test]
    fn a_panic_leaves_no_deadline_behind() {
        let panic = std::panic::catch_unwind(|| CallDeadline::after(MINUTE).enter(|| panic!("on purpose")));
        assert!(panic.is_err() && CallDeadline::current().is_none());
    }

    #[test]
    fn moved_bytes_extend_it_and_every_clone_of_it() {
        let deadline = CallDeadline::after(Duration::ZERO);
        assert!(deadline.left().is_zero());
        deadline.clone().extend(MINUTE);
        assert!(deadline.left() > MINUTE / 2);
        deadline.extend(Duration::MAX);
        assert!(deadline.left() > MINUTE / 2);
    }
}
