//! The engine's own tokio runtime: two worker threads, and blocking calls for callers without
//! async, from any thread, also from inside another runtime.

use std::future::Future;
use std::sync::mpsc::{Receiver, sync_channel};
use tensorkeep::{Error, ErrorKind, Result};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::AbortHandle;

/// Requests wait for the network, not for a core; the second thread is for checksums and
/// signatures.
const WORKERS: usize = 2;

/// A runtime that lives as long as the engine, its uploads and its open objects.
#[derive(Debug)]
pub(crate) struct Io(Option<Runtime>, Handle);

impl Io {
    pub(crate) fn start() -> Result<Self> {
        let built = Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("tensorkeep-io")
            .enable_all()
            .build();
        let runtime = built.map_err(|error| Error::io("starting the threads of the object store", error))?;
        let handle = runtime.handle().clone();
        Ok(Self(Some(runtime), handle))
    }

    /// Runs a future to its end and waits for it. `block_on` would panic inside another runtime; a
    /// channel does not.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        self.spawn(future).wait()
    }

    /// Starts a future whose result is awaited later; it is aborted when its handle is dropped.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Started<T> {
        let (send, receive) = sync_channel(1);
        let task = self.1.spawn(async move {
            // The receiver may be gone.
            let _ = send.send(future.await);
        });
        Started { receive, task: task.abort_handle() }
    }

    /// For tasks without a waiting caller.
    pub(crate) fn handle(&self) -> &Handle {
        &self.1
    }
}

/// A running future. Dropping it aborts it.
pub(crate) struct Started<T> {
    receive: Receiver<T>,
    task: AbortHandle,
}

impl<T> Started<T> {
    pub(crate) fn wait(self) -> Result<T> {
        self.receive.recv().map_err(|_| {
            Error::new(ErrorKind::Io, "a task of the object store died").help("look for its panic message")
        })
    }
}

impl<T> Drop for Started<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        // A runtime that is dropped inside another runtime's task panics, unless it is told not to
        // wait.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
