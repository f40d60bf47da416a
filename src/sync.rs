//! Mutexes without poisoning. The values behind this crate's locks are whole after every single
//! change, so a panic of one thread leaves nothing for the others to refuse: it is reported where
//! that thread is joined.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Locks a mutex.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The value of a mutex that no other thread can reach.
pub(crate) fn get_mut<T>(mutex: &mut Mutex<T>) -> &mut T {
    mutex.get_mut().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the value out of a mutex.
pub(crate) fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a notification, which may be spurious: call it in a loop.
pub(crate) fn wait<'m, T>(changed: &Condvar, guard: MutexGuard<'m, T>) -> MutexGuard<'m, T> {
    changed.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// As [`wait`], at most for `limit`.
pub(crate) fn wait_timeout<'m, T>(
    changed: &Condvar,
    guard: MutexGuard<'m, T>,
    limit: Duration,
) -> MutexGuard<'m, T> {
    changed.wait_timeout(guard, limit).unwrap_or_else(PoisonError::into_inner).0
}

/// Waits at most for `limit`, as long as the condition holds.
pub(crate) fn wait_timeout_while<'m, T>(
    changed: &Condvar,
    guard: MutexGuard<'m, T>,
    limit: Duration,
    condition: impl FnMut(&mut T) -> bool,
) -> MutexGuard<'m, T> {
    changed.wait_timeout_while(guard, limit, condition).unwrap_or_else(PoisonError::into_inner).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_while_locked_poisons_nothing() {
        let mut mutex = Mutex::new(1);
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut value = lock(&mutex);
            *value = 2;
            panic!("on purpose");
        }));
        assert!(panic.is_err() && mutex.is_poisoned());
        assert_eq!(*lock(&mutex), 2);
        assert_eq!(*get_mut(&mut mutex), 2);
        assert_eq!(*wait_timeout(&Condvar::new(), lock(&mutex), Duration::ZERO), 2);
        assert_eq!(into_inner(mutex), 2);
    }
}
