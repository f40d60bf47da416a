//! Attempts: one number per opening writer. Owns: the writer's lock where there is one, taking a new number by create-once,
//! and telling whether a newer one has been taken since. Where two writers meet without a lock, the older one is fenced by this.

use super::naming::{ATTEMPTS, Name, attempt_key, attempt_of_key};
use crate::engine::{CommitError, Engine, Lock, Nonce, fresh_nonce};
use crate::error::{Error, ErrorKind, Result};
use crate::format::records;
use serde::{Deserialize, Serialize};

/// Who wrote: the content of an attempt's object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Writer {
    pub host: String,
    pub pid: u32,
    /// Seconds since 1970.
    pub started_at: u64,
    /// Tells this opening of the run from every other.
    #[serde(default)]
    pub id: Nonce,
}

impl Writer {
    pub(super) fn this_process(now: u64) -> Self {
        // A simulated run has the same bytes on every machine.
        #[cfg(feature = "testing")]
        if crate::engine::vfs::scripted::seconds().is_some() {
            return Self { host: "simulated".to_owned(), pid: 1, started_at: now, id: fresh_nonce() };
        }
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = if host.trim().is_empty() { "an unnamed host" } else { host.trim() };
        Self { host: host.to_owned(), pid: std::process::id(), started_at: now, id: fresh_nonce() }
    }

    /// For the lock file.
    pub(super) fn describe(&self) -> String {
        format!("process {} on {}, since {} s after 1970", self.pid, self.host, self.started_at)
    }
}

/// A taken attempt number.
#[derive(Debug)]
pub(super) struct Attempt {
    pub number: u32,
    nonce: Nonce,
}

impl Attempt {
    /// Takes the next number after every one seen in `attempts/` and in the names of checkpoints.
    pub(super) fn take(engine: &dyn Engine, names: &[Name], writer: &Writer) -> Result<Self> {
        loop {
            let number = next(newest(engine)?, names, engine)?;
            if let Some(attempt) = Self::take_number(engine, number, writer)? {
                return Ok(attempt);
            }
        }
    }

    /// Takes exactly this number. None when somebody was faster.
    pub(super) fn take_number(engine: &dyn Engine, number: u32, writer: &Writer) -> Result<Option<Self>> {
        let content = records::encode(writer)?;
        let nonce = fresh_nonce();
        let committed =
            engine.create(&attempt_key(number), Some(content.len() as u64)).and_then(|mut upload| {
                upload.append(&content)?;
                Ok(upload.commit(nonce))
            });
        match committed {
            Ok(Ok(())) => Ok(Some(Self { number, nonce })),
            Ok(Err(CommitError::Conflict(_))) => Ok(None),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(None),
            Ok(Err(error)) => Err(error.into()),
            Err(error) => Err(error),
        }
    }

    /// Fails when a newer writer has taken over.
    pub(super) fn check_newest(&self, engine: &dyn Engine) -> Result<()> {
        let newest = newest(engine)?;
        if newest <= self.number {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Fenced, "a newer attempt has taken over this run")
            .in_object(engine.describe(""))
            .expected(format!("attempt {} to be the newest", self.number))
            .found(format!("attempt {newest}"))
            .help("this process must stop; nothing more is written or deleted by it"))
    }

    /// The file id of this attempt's checkpoint at `step`: the same for a second try, and nobody else's.
    pub(super) fn nonce(&self, step: u64) -> Nonce {
        let mut nonce = self.nonce;
        nonce[8..].iter_mut().zip(step.to_le_bytes()).for_each(|(byte, step)| *byte ^= step);
        nonce
    }
}

/// The number after `newest` and after those in the names.
pub(super) fn next(newest: u32, names: &[Name], engine: &dyn Engine) -> Result<u32> {
    let newest = names.iter().map(|name| name.attempt).fold(newest, u32::max);
    newest.checked_add(1).ok_or_else(|| {
        Error::new(ErrorKind::LimitExceeded, "no attempt number is left").in_object(engine.describe(ATTEMPTS))
    })
}

/// The newest number that was taken, 0 when none was.
pub(super) fn newest(engine: &dyn Engine) -> Result<u32> {
    let attempts = engine.list(ATTEMPTS)?;
    Ok(attempts.iter().filter_map(|entry| attempt_of_key(&entry.key)).max().unwrap_or(0))
}

/// Whether two engines have the very same attempt of a number: taken by one writer in both.
pub(super) fn is_same(number: u32, left: &dyn Engine, right: &dyn Engine) -> Result<bool> {
    /// An attempt's object is a hostname and two numbers.
    const LONGEST: u64 = 64 << 10;
    let content = |engine: &dyn Engine| {
        let blob = engine.open(&attempt_key(number))?;
        let mut bytes = vec![0; blob.len().min(LONGEST) as usize];
        blob.read_at(0, &mut bytes)?;
        Ok::<_, Error>(bytes)
    };
    match (content(left), content(right)) {
        (Ok(left), Ok(right)) => Ok(left == right),
        (Err(error), _) | (_, Err(error)) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(false),
    }
}

/// The writer's lock; None on an engine without locks, where two writers can only be told apart by the storage itself.
pub(super) fn lock_or_fence(engine: &dyn Engine, writer: &Writer) -> Result<Option<Box<dyn Lock>>> {
    match engine.lock(&writer.describe()) {
        Err(error) if error.kind() == ErrorKind::Unsupported => {}
        locked => return locked.map(Some),
    }
    if engine.caps().create_only {
        return Ok(None);
    }
    Err(Error::new(ErrorKind::Unsupported, "this engine has neither a lock nor create-only commits")
        .in_object(engine.describe(""))
        .help("two writers would overwrite each other unseen; use storage that has one of the two"))
}
