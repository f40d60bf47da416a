//! The writer of containers, and the only one: to a file or to memory, by the caller's options.
//! `writer/plan.rs` plans a file, `writer/chunks.rs` cuts it into chunks, and `writer/emit.rs`
//! orders its bytes.

mod chunks;
mod emit;
mod file_id;
pub(crate) mod job;
mod plan;
mod rules;
mod timings;

pub(crate) use file_id::digest;
pub(crate) use plan::Plan;
pub use timings::Timings;

use crate::codec::Codec;
use crate::engine::local::Staged;
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
        Self {
            codecs: Codecs::default(),
            chunk_log2: format::DEFAULT_CHUNK_LOG2,
            workers: pipeline::cores(),
            file_id: None,
        }
    }
}

impl WriteOptions {
    /// Raw tensors, chunks of 1 MiB, as many encoding threads as the machine has cores.
    pub fn new() -> Self {
        Self::default()
    }

    /// The codec of tensors and records that no [`codec_for`](WriteOptions::codec_for) matches. The
    /// default is [`Codec::Raw`] for files, in memory and on a local disk, and [`Codec::Balanced`]
    /// for stores on an engine over a network
    /// ([`Caps::over_network`](crate::engine::Caps::over_network)).
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codecs.otherwise = Some(codec);
        self
    }

    /// The codec of tensors and records whose name matches `pattern`, in which `*` is any text and
    /// `?` any one character ([`name_matches`](crate::inspect::name_matches)). If several match,
    /// the last one wins. The part of a tensor's name before the slash is its group
    /// ([`Snapshot::state_dict`]). A tensor with aliases is stored under its first name.
    /// [`Written::unmatched_patterns`] lists the patterns that matched nothing.
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

    /// Sets the codec if the caller did not.
    pub(crate) fn codec_unless_set(mut self, codec: Codec) -> Self {
        self.codecs.otherwise.get_or_insert(codec);
        self
    }

    /// Raw bytes of a chunk as a power of two, 16 to 26: the unit of checksums, of compression and
    /// of partial reads.
    pub fn chunk_log2(self, chunk_log2: u8) -> Self {
        Self { chunk_log2, ..self }
    }

    /// Number of encoding threads. With 1, or if everything is [`Codec::Raw`], the calling thread
    /// encodes.
    pub fn workers(self, workers: usize) -> Self {
        Self { workers, ..self }
    }

    /// The 16 bytes that tell the file from every other. Without it they are a hash of the names,
    /// dtypes, shapes and records, by a function that may change between versions; with it, equal
    /// snapshots give equal files with every version. A store gives each save its own.
    pub fn file_id(self, file_id: [u8; 16]) -> Self {
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
    /// Saves to one file, atomically and durably. After a crash at any moment, `path` is the old
    /// file or the new one, whole. Once this returns Ok it is the new one, also after a power cut.
    /// A new file gets its mode from the umask. A kill can leave a file named `.tmp-~…` beside it,
    /// never a partial `path`; the next save to `path` removes it. Two processes that save to one
    /// path at the same time do not damage each other's files; the last rename wins.
    ///
    /// # Errors
    /// `NoSpace`, `Io` and errors of lazy tensors: then `path` is unchanged. `Unknown` when the new
    /// file is in place but may not be durable.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<Written> {
        self.save_with(path, &WriteOptions::new())
    }

    /// Like [`Snapshot::save`], with options.
    ///
    /// # Errors
    /// As [`Snapshot::save`], and `Invalid` for bad options.
    pub fn save_with(&self, path: impl AsRef<Path>, options: &WriteOptions) -> Result<Written> {
        self.save_checked(path.as_ref(), options, |_| Ok(()))
    }

    /// Like [`Snapshot::save_with`], but the finished file gets its name only if `check` returns
    /// Ok.
    ///
    /// # Errors
    /// As [`Snapshot::save_with`], and errors of `check`: then `path` is unchanged.
    pub(crate) fn save_checked(
        &self,
        path: &Path,
        options: &WriteOptions,
        check: impl FnOnce(&Staged) -> Result<()>,
    ) -> Result<Written> {
        Plan::of(self, &[], options)?.save(path, check)
    }

    /// Writes the container to memory: for tests, and to send it elsewhere.
    ///
    /// # Errors
    /// Errors of lazy tensors, and `Invalid` for bad options.
    pub fn to_bytes(&self, options: &WriteOptions) -> Result<Vec<u8>> {
        Plan::of(self, &[], options)?.to_bytes()
    }
}

impl Plan<'_, '_> {
    /// Writes the file durably; it gets its name only if `check` returns Ok.
    pub(crate) fn save(&self, path: &Path, check: impl FnOnce(&Staged) -> Result<()>) -> Result<Written> {
        let started = Instant::now();
        let mut written = None;
        let mut appended = started;
        let place = |error: Error| error.in_object(path.display());
        let staged = Staged::write(path, Some(self.size_bound()), |upload| {
            written = Some(self.write(upload)?);
            appended = Instant::now();
            Ok(())
        });
        let staged = staged.map_err(place)?;
        check(&staged).map_err(place)?;
        staged.publish().map_err(place)?;
        let written = written.ok_or_else(|| Error::invalid("nothing was written"))?;
        Ok(written.committed(started, appended))
    }
}

/// The result of writing a checkpoint.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Written {
    /// Length of the file in bytes.
    pub byte_len: u64,
    /// The checksum of its index, by which a manifest knows a shard.
    pub(crate) index_crc: u32,
    /// Tensors stored, aliases not counted.
    pub tensors: usize,
    /// The time spent in each stage.
    pub timings: Timings,
    /// Patterns of [`WriteOptions::codec_for`] that matched no stored name; perhaps misspelt.
    pub unmatched_patterns: Vec<String>,
}

impl Written {
    /// A checkpoint that another process has written.
    pub(crate) fn elsewhere(byte_len: u64, timings: Timings) -> Self {
        Self { byte_len, index_crc: 0, tensors: 0, timings, unmatched_patterns: vec![] }
    }

    /// Adds the time after the last appended byte.
    pub(crate) fn committed(mut self, started: Instant, appended: Instant) -> Self {
        self.timings.commit = appended.elapsed();
        self.timings.total = started.elapsed();
        self
    }
}
