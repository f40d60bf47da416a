//! Writes containers, to a file or to memory, by the caller's options: the only place that does.
//! The plan of a file is in `writer/plan.rs`, cutting into chunks in `writer/chunks.rs`, the order
//! of bytes in `writer/emit.rs`.

mod chunks;
mod emit;
mod plan;
mod rules;
mod timings;

pub(crate) use plan::Plan;
pub use timings::Timings;

use crate::codec::Codec;
use crate::engine::local::Staged;
use crate::engine::{CommitError, Nonce, Upload};
use crate::error::{Error, Result};
use crate::format;
use crate::format::limits::Limits;
use crate::pipeline;
use crate::snapshot::Snapshot;
use rules::Codecs;
use std::path::Path;
use std::time::Instant;

/// How a checkpoint is written: codecs, chunk size, threads.
///
/// ```
/// use tensorkeep::{Checkpoint, Codec, Snapshot, StoreOptions, WriteOptions};
///
/// let options = WriteOptions::new().codec(Codec::Balanced).codec_for("weights", Codec::Raw);
/// let (weights, moments) = (vec![0.5_f32; 100_000], vec![0.0_f32; 100_000]);
/// let snapshot = Snapshot::new().tensor("weights", &weights)?.tensor("moments", &moments)?;
/// let bytes = snapshot.to_bytes(&options)?; // or `snapshot.save_with(path, &options)`
/// assert!(bytes.len() < 500_000); // of 800,000: the moments are coded
/// assert_eq!(Checkpoint::from_bytes(&bytes)?.tensor("moments")?.elements::<f32>()?, moments);
///
/// let store_options = StoreOptions::new().write(options); // the same for each save of a run
/// # drop(store_options);
/// # Ok::<(), tensorkeep::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct WriteOptions {
    codecs: Codecs,
    chunk_log2: u8,
    workers: usize,
    file_id: Option<[u8; 16]>,
}

impl Default for WriteOptions {
    fn default() -> Self {
        let workers = pipeline::cores();
        let (codecs, chunk_log2) = (Codecs::default(), format::DEFAULT_CHUNK_LOG2);
        Self { codecs, chunk_log2, workers, file_id: None }
    }
}

impl WriteOptions {
    /// Raw tensors, chunks of 1 MiB, as many encoding threads as the machine has cores.
    pub fn new() -> Self {
        Self::default()
    }

    /// How tensors and records are stored for which no [`codec_for`](WriteOptions::codec_for) says
    /// otherwise. Without this it is [`Codec::Raw`] for files, in memory and on a local disk, and
    /// [`Codec::Balanced`] for stores on an engine whose bytes travel over a network
    /// ([`Caps::over_network`](crate::engine::Caps::over_network)).
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codecs.otherwise = Some(codec);
        self
    }

    /// How tensors and records are stored whose name fits `pattern`, in which `*` is any text and
    /// `?` any one character ([`name_matches`](crate::inspect::name_matches)). Where several fit,
    /// the one given last decides. A group of tensors is the part of a name before the slash
    /// ([`Snapshot::state_dict`]). Tied tensors are stored under the first of their names. A
    /// pattern that fits nothing is told by [`Written::unmatched_patterns`].
    ///
    /// ```
    /// # use tensorkeep::{Codec, Snapshot, StateDict, WriteOptions};
    /// # let elements = vec![1.0_f32; 1000];
    /// # let mut snapshot = Snapshot::new().state_dict("optimizer", StateDict::new().with("exp_avg.fc", &elements)?.with("step.fc", &[1.0_f32][..])?)?;
    /// // Weights mapped, optimizer state small, except the step counts.
    /// let options = WriteOptions::new()
    ///     .codec_for("optimizer/*", Codec::Balanced)
    ///     .codec_for("optimizer/step.*", Codec::Raw);
    /// # let file = std::env::temp_dir().join(format!("codec_for-{}.tkeep", std::process::id()));
    /// # let written = snapshot.save_with(&file, &options)?;
    /// # std::fs::remove_file(file).unwrap();
    /// assert!(written.unmatched_patterns.is_empty());
    /// # Ok::<(), tensorkeep::Error>(())
    /// ```
    pub fn codec_for(mut self, pattern: impl Into<String>, codec: Codec) -> Self {
        self.codecs.rules.push((pattern.into(), codec));
        self
    }

    /// The codec where the caller chose none.
    pub(crate) fn codec_unless_set(mut self, codec: Codec) -> Self {
        self.codecs.otherwise.get_or_insert(codec);
        self
    }

    /// Raw bytes of a chunk as a power of two, 16 to 26: the unit of checksums, of compression and
    /// of partial reads.
    pub fn chunk_log2(self, chunk_log2: u8) -> Self {
        Self { chunk_log2, ..self }
    }

    /// Threads that encode. With 1, or where everything is [`Codec::Raw`], the calling thread does
    /// it.
    pub fn workers(self, workers: usize) -> Self {
        Self { workers, ..self }
    }

    /// The file's id; without one it is derived from names, dtypes, shapes and records.
    pub(crate) fn file_id(self, file_id: [u8; 16]) -> Self {
        Self { file_id: Some(file_id), ..self }
    }

    fn check(&self) -> Result<()> {
        let limits = Limits::V1;
        let log2 = u64::from(self.chunk_log2);
        if log2 < limits.chunk_log2_min || log2 > limits.chunk_log2_max {
            return Err(Error::invalid("chunk size")
                .expected("2^16 to 2^26 bytes")
                .found(format!("2^{log2}")));
        }
        if self.workers == 0 {
            return Err(Error::invalid("number of workers").expected("at least 1").found(0));
        }
        Ok(())
    }
}

impl Snapshot<'_> {
    /// Saves to one file, atomically and durably: after a crash at any moment `path` is the old
    /// file or the new one, whole, and when this returns Ok it is the new one, also after a power
    /// cut. A new file gets the mode that the umask says. What a kill can leave is a file named
    /// `.tmp-~…` beside it, never a half `path`; the next save to `path` takes it away. Two
    /// processes that save to one path at a time disturb each other's files in no way; the last
    /// rename wins.
    ///
    /// # Errors
    /// `NoSpace`, `Io` and what deferred tensors say: then `path` is what it was. `Unknown` when
    /// the new file is there and its durability could not be had.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<Written> {
        self.save_with(path, &WriteOptions::new())
    }

    /// As [`Snapshot::save`], with options.
    ///
    /// # Errors
    /// As [`Snapshot::save`], and `Invalid` for bad options.
    pub fn save_with(&self, path: impl AsRef<Path>, options: &WriteOptions) -> Result<Written> {
        self.save_checked(path.as_ref(), options, |_| Ok(()))
    }

    /// As [`Snapshot::save_with`]; the finished file gets its name only when `check` has looked at
    /// it and says Ok.
    ///
    /// # Errors
    /// As [`Snapshot::save_with`], and what `check` says: then `path` is what it was.
    pub(crate) fn save_checked(
        &self,
        path: &Path,
        options: &WriteOptions,
        check: impl FnOnce(&Staged) -> Result<()>,
    ) -> Result<Written> {
        let started = Instant::now();
        let plan = Plan::of(self, &[], options)?;
        let (mut written, mut appended) = (None, started);
        let place = |error: Error| error.in_object(path.display());
        let staged = Staged::write(path, Some(plan.size_bound()), |upload| {
            written = Some(plan.write(upload)?);
            appended = Instant::now();
            Ok(())
        });
        let staged = staged.map_err(place)?;
        check(&staged).map_err(place)?;
        staged.publish().map_err(place)?;
        let written = written.ok_or_else(|| Error::invalid("nothing was written"))?;
        Ok(written.committed(started, appended))
    }

    /// Writes the container's bytes to memory: for tests, and for sending it elsewhere.
    ///
    /// # Errors
    /// What deferred tensors say, and `Invalid` for bad options.
    pub fn to_bytes(&self, options: &WriteOptions) -> Result<Vec<u8>> {
        struct InMemory<'v>(&'v mut Vec<u8>);
        impl Upload for InMemory<'_> {
            fn append(&mut self, bytes: &[u8]) -> Result<()> {
                self.0.extend_from_slice(bytes);
                Ok(())
            }

            fn commit(self: Box<Self>, _: Nonce) -> Result<(), CommitError> {
                Ok(())
            }
        }
        let plan = Plan::of(self, &[], options)?;
        let mut bytes = Vec::with_capacity(plan.size_bound() as usize);
        plan.write(&mut InMemory(&mut bytes))?;
        Ok(bytes)
    }
}

/// What was written.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Written {
    /// Length of the file in bytes.
    pub len: u64,
    /// Tensors stored, ties counted once.
    pub tensors: usize,
    /// Where the time went.
    pub timings: Timings,
    /// Patterns of [`WriteOptions::codec_for`] that fit the name of nothing that was stored:
    /// misspelt, perhaps.
    pub unmatched_patterns: Vec<String>,
}

impl Written {
    /// With what followed the last appended byte.
    pub(crate) fn committed(mut self, started: Instant, appended: Instant) -> Self {
        self.timings.commit = appended.elapsed();
        self.timings.total = started.elapsed();
        self
    }
}
