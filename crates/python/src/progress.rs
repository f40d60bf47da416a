//! Work that Python is told of while it goes on: a callable gets the bytes done and those in all.

use crate::errors::{detached, exception, panicked};
use pyo3::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;
use tensorkeep::{Error, ErrorKind, Result};

/// How often it is told.
const TICK: Duration = Duration::from_millis(100);

/// Does `act` while other Python threads run. With a callable it runs on a thread of its own, so
/// that this one can call: now and then, and with all of `total` at the end.
///
/// # Errors
/// The exception of what `act` returned; else the first that the callable raised, once `act` has
/// ended, which it does not stop.
pub fn watched<T: Send>(
    py: Python<'_>,
    progress: Option<&Bound<'_, PyAny>>,
    total: u64,
    done: impl Fn() -> u64,
    act: impl FnOnce() -> Result<T> + Send,
) -> PyResult<T> {
    let Some(progress) = progress else { return detached(py, act) };
    let mut told = Ok(());
    let mut tell = |bytes: u64| {
        if told.is_ok() {
            told = progress.call1((bytes.min(total), total)).map(drop);
        }
    };
    let outcome = thread::scope(|scope| {
        let (send, mut ended) = mpsc::channel();
        let work = move || {
            // OK to ignore: it is received before the scope ends.
            let _ = send.send(catch_unwind(AssertUnwindSafe(act)));
        };
        // Without a thread the channel is closed.
        let _ = thread::Builder::new().name("tensorkeep-progress".to_owned()).spawn_scoped(scope, work);
        loop {
            let outcome = py.detach(|| {
                // By exclusive reference: a receiver may move to another thread, and not be shared.
                let ended = &mut ended;
                ended.recv_timeout(TICK)
            });
            match outcome {
                Err(RecvTimeoutError::Timeout) => tell(done()),
                outcome => return outcome,
            }
        }
    });
    let no_thread = || Err(Error::new(ErrorKind::LimitExceeded, "no thread can be started"));
    let value = match outcome.unwrap_or_else(|_| Ok(no_thread())) {
        Ok(result) => result.map_err(|error| exception(py, &error))?,
        Err(panic) => return Err(panicked(&*panic)),
    };
    tell(total);
    told.map(|()| value)
}
