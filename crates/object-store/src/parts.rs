//! The parts of a large object: a few in flight, as many as the line carries, each retried until it
//! arrives; completing them, and removing uploads that were not committed.

use crate::deadline::{Deadline, Patience, Tries, is_no_answer};
use crate::error::explain;
use crate::pointer::hex;
use crate::remote::{DATA, Remote};
use bytes::{Bytes, BytesMut};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    Error as StoreError, MultipartId, MultipartUpload, ObjectStore, ObjectStoreExt, PutMultipartOptions,
    PutPayload,
};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tensorkeep::engine::fresh_nonce;
use tensorkeep::{Error, ErrorKind, Result};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Smallest part: S3 requires at least 5 MiB, and every part costs a round trip.
pub(crate) const PART: usize = 8 << 20;
/// Parts in flight at a time.
const PARTS_IN_FLIGHT: usize = 8;
/// The limit of S3.
pub(crate) const MOST_PARTS: u64 = 10_000;

/// Parts in flight at first: more as soon as the line proves fast. Eight parts that share a slow
/// line all take eight times as long, and time out together.
const FIRST_ON_THE_LINE: usize = 2;

/// A part in flight; its id, where the engine needs it.
type Sending = JoinHandle<Result<Option<PartId>, StoreError>>;

/// The parts of a large object, and the name of its own that they are uploaded to. Dropping it
/// unfinished aborts.
pub(crate) struct Parts {
    remote: Arc<Remote>,
    /// Relative to the run.
    pub target: String,
    path: Path,
    upload: Upload,
    in_flight: VecDeque<(Sending, Bytes)>,
    most_in_flight: usize,
    line: Arc<Line>,
    ids: Vec<PartId>,
    /// Memory of a part that has arrived.
    pub free: Option<BytesMut>,
    sent: u64,
    completed: bool,
    /// The commit object names it, or may name it.
    pub done: bool,
}

enum Upload {
    /// Each part can be retried.
    Parts(Arc<dyn MultipartStore>, MultipartId),
    /// A store that the caller built, which retries by itself. None while a request holds it.
    Whole(Option<Box<dyn MultipartUpload>>),
}

impl Parts {
    pub(crate) fn start(remote: &Arc<Remote>, key: &str, part_len: usize) -> Result<Self> {
        let target = format!("{DATA}/{key}/{}", hex(fresh_nonce()));
        let path = remote.path(&target);
        let (from, to, deadline) = (Remote::clone(remote), path.clone(), remote.deadline());
        let started = async move { begin(&from, &to, &deadline).await };
        let upload = remote.run("starting an upload in parts", &target, started)?;
        // Larger parts are fewer in flight: the memory is the same.
        let most_in_flight = (PARTS_IN_FLIGHT * PART / part_len.max(1)).clamp(1, PARTS_IN_FLIGHT);
        Ok(Self {
            remote: Arc::clone(remote),
            target,
            path,
            upload,
            in_flight: VecDeque::new(),
            most_in_flight,
            line: Arc::new(Line::new(most_in_flight)),
            ids: Vec::new(),
            free: None,
            sent: 0,
            completed: false,
            done: false,
        })
    }

    /// Starts to send a part; waits while too many are in flight.
    pub(crate) fn send(&mut self, part: Bytes) -> Result<()> {
        if self.sent >= MOST_PARTS {
            return Err(Error::new(ErrorKind::LimitExceeded, "stores take 10,000 parts of an object")
                .in_object(self.remote.describe(&self.target))
                .help("give the upload a size hint, so that its parts are made larger"));
        }
        if self.in_flight.len() >= self.most_in_flight {
            self.finish_oldest()?;
        }
        let payload = PutPayload::from(part.clone());
        let request = match &mut self.upload {
            Upload::Parts(store, id) => {
                let (store, id, path) = (Arc::clone(store), id.clone(), self.path.clone());
                let (line, patience) = (Arc::clone(&self.line), self.remote.patience());
                let (index, len) = (self.ids.len() + self.in_flight.len(), part.len() as u64);
                self.remote.io.handle().spawn(async move {
                    let send = || store.put_part(&path, &id, index, payload.clone());
                    line.send(len, patience, send).await.map(Some)
                })
            }
            Upload::Whole(Some(upload)) => {
                let (part, deadline) =
                    (upload.put_part(payload), self.remote.patience().whole(part.len() as u64));
                self.remote.io.handle().spawn(async move { deadline.once(0, part).await.map(|()| None) })
            }
            Upload::Whole(None) => return Err(Error::new(ErrorKind::Io, "the upload is gone")),
        };
        self.in_flight.push_back((request, part));
        self.sent += 1;
        Ok(())
    }

    fn finish_oldest(&mut self) -> Result<()> {
        let Some((oldest, part)) = self.in_flight.pop_front() else { return Ok(()) };
        let line = Arc::clone(&self.line);
        let answer = async move {
            let answer = oldest.await.unwrap_or_else(|died| Err(died.into()));
            // Of parts that fail together, the one that could not be sent has the cause.
            answer.map_err(|error| line.cause().unwrap_or(error))
        };
        self.ids.extend(self.remote.run("uploading a part", &self.target, answer)?);
        // Reused unless it is still referenced.
        self.free = part.try_into_mut().ok().map(|mut part| {
            part.clear();
            part
        });
        Ok(())
    }

    /// Completes the object under its own name. Until a commit names it, it is invisible.
    pub(crate) fn complete(&mut self, len: u64) -> Result<()> {
        while !self.in_flight.is_empty() {
            self.finish_oldest()?;
        }
        let (remote, path, ids) =
            (Remote::clone(&self.remote), self.path.clone(), std::mem::take(&mut self.ids));
        let patience = self.remote.patience();
        let completed = match &mut self.upload {
            Upload::Parts(store, id) => {
                let (store, id) = (Arc::clone(store), id.clone());
                self.remote.io.run(async move {
                    complete_surely(&remote, patience, &*store, &path, &id, ids, len).await
                })?
            }
            Upload::Whole(upload) => {
                let Some(mut whole) = upload.take() else { return Ok(()) };
                let (whole, completed) = self.remote.io.run(async move {
                    let deadline = patience.clone().whole(to_assemble(len));
                    let completed = match deadline.once(0, whole.complete()).await {
                        Err(_) if is_there(&*remote.store, &path, len, &patience).await => Ok(()),
                        completed => completed.map(drop),
                    };
                    (whole, completed)
                })?;
                *upload = Some(whole);
                completed
            }
        };
        self.completed = completed.is_ok();
        completed
            .map_err(|error| explain("completing the upload", &self.remote.describe(&self.target), error))
    }
}

async fn begin(remote: &Remote, path: &Path, deadline: &Deadline) -> Result<Upload, StoreError> {
    match &remote.parts {
        // Started again after a lost reply, the first one is left to the bucket's life cycle.
        Some(parts) => {
            let id = deadline.retry(0, || parts.create_multipart(path)).await?;
            Ok(Upload::Parts(Arc::clone(parts), id))
        }
        None => {
            let start = || remote.store.put_multipart_opts(path, PutMultipartOptions::default());
            Ok(Upload::Whole(Some(deadline.retry(0, start).await?)))
        }
    }
}

/// Stores need time to assemble an object, as they do to receive its bytes, at most those of two
/// parts.
fn to_assemble(len: u64) -> u64 {
    len.min(2 * PART as u64)
}

/// Completes the upload; an error counts as success if the object exists.
async fn complete_surely(
    remote: &Remote,
    patience: Patience,
    parts: &dyn MultipartStore,
    path: &Path,
    id: &MultipartId,
    ids: Vec<PartId>,
    len: u64,
) -> Result<(), StoreError> {
    let (deadline, mut tries) = (patience.begin(to_assemble(len)), Tries::default());
    loop {
        let complete = parts.complete_multipart(path, id, ids.clone());
        let Err(error) = deadline.once(to_assemble(len), complete).await else { return Ok(()) };
        if is_there(&*remote.store, path, len, &patience).await {
            return Ok(());
        }
        if !deadline.again(&mut tries, error).await {
            return Err(tries.gave_up());
        }
    }
}

/// After a lost reply: the name is ours alone, so an object of the right length there is this one.
/// Two answers must say so: one may be of another object, as long as this one, and a commit is
/// going to name the bytes.
async fn is_there(store: &dyn ObjectStore, path: &Path, len: u64, patience: &Patience) -> bool {
    for _ in 0..2 {
        let found = patience.begin(0).once(0, store.head(path)).await;
        if !found.is_ok_and(|meta| meta.size == len) {
            return false;
        }
    }
    true
}

impl Drop for Parts {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        for (request, _) in &self.in_flight {
            request.abort();
        }
        let (store, path, completed) = (Arc::clone(&self.remote.store), self.path.clone(), self.completed);
        let (deadline, upload) =
            (self.remote.deadline(), std::mem::replace(&mut self.upload, Upload::Whole(None)));
        let abort = async move {
            match upload {
                _ if completed => store.delete(&path).await,
                Upload::Parts(parts, id) => parts.abort_multipart(&path, &id).await,
                Upload::Whole(Some(mut whole)) => whole.abort().await,
                Upload::Whole(None) => Ok(()),
            }
        };
        // Parts that cannot be removed now are swept later, and do no harm.
        let _ = self.remote.io.run(async move { deadline.once(0, abort).await });
    }
}

/// The number of parts in flight at a time.
struct Line {
    places: Semaphore,
    /// All slots, taken and free.
    count: AtomicUsize,
    most: usize,
    /// The error of a part that could not be sent.
    failed: Mutex<Option<StoreError>>,
}

impl Line {
    fn new(most: usize) -> Self {
        let first = FIRST_ON_THE_LINE.min(most);
        Self { places: Semaphore::new(first), count: AtomicUsize::new(first), most, failed: Mutex::default() }
    }

    /// Sends a part until it arrives. A part that takes too long gives its slot up and waits for
    /// another's.
    async fn send<F: Future<Output = Result<PartId, StoreError>>>(
        &self,
        len: u64,
        patience: Patience,
        send: impl Fn() -> F,
    ) -> Result<PartId, StoreError> {
        let ended = || StoreError::Generic { store: "tensorkeep", source: "another part has failed".into() };
        loop {
            let place = self.places.acquire().await.map_err(|_| ended())?;
            let (deadline, mut tries) = (patience.begin(len), Tries::default());
            loop {
                let (begin, is_alone) = (Instant::now(), self.count.load(Ordering::SeqCst) == 1);
                let error = match deadline.once(len, send()).await {
                    Ok(id) => {
                        patience.moved(len);
                        if self.adapt(begin.elapsed(), patience.limits.allowance(len)) {
                            place.forget();
                        }
                        return Ok(id);
                    }
                    Err(error) => error,
                };
                // A timeout beside others is no measure of the line: the part is sent again, with
                // fewer others.
                if is_no_answer(&error) && !is_alone {
                    if self.shrink() {
                        place.forget();
                    }
                    break;
                }
                if !deadline.again(&mut tries, error).await {
                    // No caller waits for the others any more.
                    *self.lock_failed() = Some(tries.gave_up());
                    self.places.close();
                    return Err(ended());
                }
            }
        }
    }

    /// The error of a part that could not be sent, once.
    fn cause(&self) -> Option<StoreError> {
        self.lock_failed().take()
    }

    fn lock_failed(&self) -> MutexGuard<'_, Option<StoreError>> {
        // Whole values are replaced: a panic elsewhere leaves no partial update.
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One slot more after a fast part, one less after a slow one; returns whether to give up the
    /// slot.
    fn adapt(&self, took: Duration, allowance: Duration) -> bool {
        if took > allowance / 2 {
            return self.shrink();
        }
        let grow = |count: usize| (count < self.most).then_some(count + 1);
        if took < allowance / 4 && self.count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, grow).is_ok() {
            self.places.add_permits(1);
        }
        false
    }

    /// Whether a slot can be given up.
    fn shrink(&self) -> bool {
        let less = |count: usize| (count > 1).then(|| count - 1);
        self.count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_parts_are_fewer_and_fast_ones_more() {
        let (line, allowance) = (Line::new(4), Duration::from_secs(8));
        let (fast, middling, slow) = (Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(5));
        let count = || line.count.load(Ordering::SeqCst);
        assert!((0..9).all(|_| !line.adapt(fast, allowance)) && count() == 4);
        assert!(!line.adapt(middling, allowance) && count() == 4);
        // Each gives its slot up, except the last one.
        assert_eq!((0..9).filter(|_| line.adapt(slow, allowance)).count(), 3);
        assert_eq!(count(), 1);
    }
}
