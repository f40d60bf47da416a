//! One upload. Owns: cutting into parts, a few of them in flight, what is kept for the commit object, and aborting.
//! Memory: at most [`PARTS_IN_FLIGHT`] parts on their way, one being filled and one kept for its end; no temporary file.

use crate::commit::Outcome;
use crate::error::explain;
use crate::pointer::{Pointer, hex, looks_like_pointer};
use crate::remote::{DATA, Remote};
use bytes::{Bytes, BytesMut};
use object_store::path::Path;
use object_store::{Error as StoreError, MultipartUpload, ObjectStoreExt, PutMultipartOptions, PutPayload};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tensorkeep::engine::{CommitError, Nonce, Upload, fresh_nonce};
use tensorkeep::{Error, ErrorKind, Result};
use tokio::task::JoinHandle;

/// Smallest part: S3 wants 5 MiB at least, and every part costs a round trip.
pub(crate) const PART: usize = 8 << 20;
/// Parts that are on their way at a time.
pub(crate) const PARTS_IN_FLIGHT: usize = 8;
/// S3 takes no more.
const MOST_PARTS: u64 = 10_000;
/// Larger objects are stored apart, with a commit object: opening reads all that is at a key.
pub(crate) const LARGEST_PLAIN: usize = 1 << 20;
/// Copies of the object's ends in a commit object: of the beginning, and of the end when nobody says where the tail
/// begins that readers need first.
const HEAD_COPY: usize = 4096;
const SHORT_TAIL: usize = 64 << 10;
/// A longer tail, the index of a million tensors, is not copied.
const LONGEST_TAIL: usize = 64 << 20;
/// From this length on, a known checksum is combined and not computed again.
const COMBINE_FROM: usize = 64 << 10;
/// How long an abort may take before the upload is left to the store's own clean-up.
const ABORT_TIMEOUT: Duration = Duration::from_secs(20);

/// An object on its way.
pub(crate) struct ObjectUpload {
    remote: Arc<Remote>,
    key: String,
    part_len: usize,
    /// The part being filled.
    buffer: BytesMut,
    crc: crc32fast::Hasher,
    len: u64,
    head: Vec<u8>,
    /// The part sent last: a short tail may begin in it.
    last_part: Bytes,
    /// What came since the tail began.
    tail: Option<Vec<u8>>,
    parts: Option<Parts>,
    failed: bool,
}

impl ObjectUpload {
    pub(crate) fn start(remote: Arc<Remote>, key: &str, size_hint: Option<u64>) -> Self {
        let needed = size_hint.unwrap_or(0).div_ceil(MOST_PARTS - 1);
        let part_len = usize::try_from(needed).unwrap_or(usize::MAX).max(PART);
        let first = usize::try_from(size_hint.unwrap_or(0)).unwrap_or(usize::MAX).min(part_len);
        Self {
            remote,
            key: key.to_owned(),
            part_len,
            buffer: BytesMut::with_capacity(first),
            crc: crc32fast::Hasher::new(),
            len: 0,
            head: Vec::new(),
            last_part: Bytes::new(),
            tail: None,
            parts: None,
            failed: false,
        }
    }

    /// Appends bytes that the checksum has.
    fn append_summed(&mut self, bytes: &[u8]) -> Result<()> {
        if self.failed {
            return Err(Error::new(ErrorKind::Io, "the upload has failed before"));
        }
        self.len += bytes.len() as u64;
        let appended = self.append_parts(bytes);
        self.failed = appended.is_err();
        // One byte more than is copied says that it is too long, and takes no more memory.
        if let Some(tail) = &mut self.tail {
            let room = (LONGEST_TAIL + 1).saturating_sub(tail.len());
            tail.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        appended
    }

    fn append_parts(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            // Sent when more comes and not when it is full: an object of exactly one part is a plain one.
            if self.buffer.len() == self.part_len {
                self.send_part()?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(self.part_len - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    fn send_part(&mut self) -> Result<()> {
        let parts = match &mut self.parts {
            Some(parts) => parts,
            None => {
                self.head = self.buffer[..HEAD_COPY.min(self.buffer.len())].to_vec();
                self.parts.insert(Parts::start(&self.remote, &self.key)?)
            }
        };
        // Memory that was used before is warm: the kernel clears every page of new memory first.
        let next = parts.free.take().unwrap_or_else(|| BytesMut::with_capacity(self.part_len));
        self.last_part = std::mem::replace(&mut self.buffer, next).freeze();
        parts.send(self.last_part.clone())
    }

    /// The object's last bytes, as many as opening it needs.
    fn tail(&mut self) -> Vec<u8> {
        if let Some(tail) = self.tail.take().filter(|tail| tail.len() <= LONGEST_TAIL) {
            return tail;
        }
        let from_buffer = self.buffer.len().min(SHORT_TAIL);
        let from_part = (SHORT_TAIL - from_buffer).min(self.last_part.len());
        let mut tail = self.last_part[self.last_part.len() - from_part..].to_vec();
        tail.extend_from_slice(&self.buffer[self.buffer.len() - from_buffer..]);
        tail
    }

    /// The bytes to create at the key: the object itself, or the commit object of what is stored apart.
    fn finish(&mut self, nonce: Nonce) -> Result<Bytes> {
        if self.failed {
            return Err(Error::new(ErrorKind::Io, "the upload had failed before its commit"));
        }
        let small = self.parts.is_none() && self.buffer.len() <= LARGEST_PLAIN;
        if small && !looks_like_pointer(&self.buffer) {
            return Ok(std::mem::take(&mut self.buffer).freeze());
        }
        let tail = self.tail();
        let crc = std::mem::take(&mut self.crc).finalize();
        self.send_part()?;
        let Some(parts) = &mut self.parts else { return Ok(Bytes::new()) };
        parts.complete(self.len)?;
        Ok(Pointer::encode(&parts.target, nonce, (self.len, crc), &self.head, &tail).into())
    }
}

impl Upload for ObjectUpload {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.crc.update(bytes);
        self.append_summed(bytes)
    }

    fn append_with_crc(&mut self, bytes: &[u8], crc32: u32) -> Result<()> {
        // Combining costs as much as reading a few KiB.
        if bytes.len() < COMBINE_FROM {
            return self.append(bytes);
        }
        self.crc.combine(&crc32fast::Hasher::new_with_initial_len(crc32, bytes.len() as u64));
        self.append_summed(bytes)
    }

    fn begin_tail(&mut self) {
        self.tail = Some(Vec::new());
    }

    fn commit(mut self: Box<Self>, nonce: Nonce) -> Result<(), CommitError> {
        let bytes = self.finish(nonce).map_err(CommitError::NotCommitted)?;
        let outcome = self.remote.create(&self.key, bytes, nonce).map_err(CommitError::Unknown)?;
        let explained = |error| explain("committing", &self.remote.describe(&self.key), error);
        let result = match outcome {
            Outcome::Committed => Ok(()),
            Outcome::Conflict => Err(CommitError::Conflict(already_there(&self.remote.describe(&self.key)))),
            Outcome::NotCommitted(error) => Err(CommitError::NotCommitted(explained(error))),
            Outcome::Unknown(error) => Err(CommitError::Unknown(explained(error).help(
                "every try to read it back failed or found nothing yet: look again when the store answers",
            ))),
        };
        if let Some(parts) = &mut self.parts {
            // What was not committed is named by nobody; what may have been must stay.
            parts.done = matches!(result, Ok(()) | Err(CommitError::Unknown(_)));
        }
        result
    }
}

pub(crate) fn already_there(object: &str) -> Error {
    Error::new(ErrorKind::AlreadyExists, "is committed already and never written again").in_object(object)
}

/// The parts of a large object, and the name of its own that they are uploaded to. Dropping it unfinished aborts.
struct Parts {
    remote: Arc<Remote>,
    /// Relative to the run.
    target: String,
    path: Path,
    /// None while a request holds it.
    upload: Option<Box<dyn MultipartUpload>>,
    in_flight: VecDeque<(JoinHandle<Result<(), StoreError>>, Bytes)>,
    /// Memory of a part that has arrived.
    free: Option<BytesMut>,
    sent: u64,
    completed: bool,
    /// The commit object names it, or may name it.
    done: bool,
}

impl Parts {
    fn start(remote: &Arc<Remote>, key: &str) -> Result<Self> {
        let target = format!("{DATA}/{key}/{}", hex(fresh_nonce()));
        let path = remote.path(&target);
        let (store, to) = (Arc::clone(&remote.store), path.clone());
        let upload = remote.run("starting an upload in parts", &target, async move {
            store.put_multipart_opts(&to, PutMultipartOptions::default()).await
        })?;
        let (remote, upload, in_flight) = (Arc::clone(remote), Some(upload), VecDeque::new());
        let (free, sent, completed, done) = (None, 0, false, false);
        Ok(Self { remote, target, path, upload, in_flight, free, sent, completed, done })
    }

    /// Puts a part on its way; waits while too many are.
    fn send(&mut self, part: Bytes) -> Result<()> {
        if self.sent >= MOST_PARTS {
            return Err(Error::new(ErrorKind::LimitExceeded, "stores take 10,000 parts of an object")
                .in_object(self.remote.describe(&self.target))
                .help("give the upload a size hint, so that its parts are made larger"));
        }
        if self.in_flight.len() >= PARTS_IN_FLIGHT {
            self.finish_oldest()?;
        }
        let Some(upload) = &mut self.upload else {
            return Err(Error::new(ErrorKind::Io, "the upload is gone"));
        };
        let request = upload.put_part(PutPayload::from(part.clone()));
        self.in_flight.push_back((self.remote.io.handle().spawn(request), part));
        self.sent += 1;
        Ok(())
    }

    fn finish_oldest(&mut self) -> Result<()> {
        let Some((oldest, part)) = self.in_flight.pop_front() else { return Ok(()) };
        let answer = async { oldest.await.unwrap_or_else(|died| Err(died.into())) };
        self.remote.run("uploading a part", &self.target, answer)?;
        // Given back unless somebody still looks at it.
        self.free = part.try_into_mut().ok().map(|mut part| {
            part.clear();
            part
        });
        Ok(())
    }

    /// Makes the parts one object, under its own name. Named by nobody, it is not visible.
    fn complete(&mut self, len: u64) -> Result<()> {
        while !self.in_flight.is_empty() {
            self.finish_oldest()?;
        }
        let Some(mut upload) = self.upload.take() else { return Ok(()) };
        let (store, path) = (Arc::clone(&self.remote.store), self.path.clone());
        let (upload, completed) = self.remote.io.run(async move {
            let completed = match upload.complete().await {
                Ok(_) => Ok(()),
                // A lost reply: the name is ours alone, so an object of the right length there is this one.
                Err(error) => match store.head(&path).await {
                    Ok(meta) if meta.size == len => Ok(()),
                    _ => Err(error),
                },
            };
            (upload, completed)
        })?;
        self.upload = Some(upload);
        self.completed = completed.is_ok();
        completed
            .map_err(|error| explain("completing the upload", &self.remote.describe(&self.target), error))
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        self.in_flight.iter().for_each(|(request, _)| request.abort());
        let (store, path, upload) = (Arc::clone(&self.remote.store), self.path.clone(), self.upload.take());
        let completed = self.completed;
        let abort = async move {
            match upload {
                _ if completed => store.delete(&path).await,
                Some(mut upload) => upload.abort().await,
                None => Ok(()),
            }
        };
        // What cannot be removed now is swept later, and in nobody's way.
        let _ = self.remote.io.run(async { tokio::time::timeout(ABORT_TIMEOUT, abort).await });
    }
}
