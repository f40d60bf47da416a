//! The reader of containers, and the only one: it opens them (header, footer, index or its mirror),
//! verifies bytes before it returns them, and gives out tensors, slices and records. It reads from
//! a [`Blob`]; stores are above it.

mod arena;
mod batch;
mod boxes;
mod chunks;
mod copy;
mod entry;
mod info;
pub mod inspect;
mod load;
mod map_copy;
mod open;
mod rank_record;
mod read;
mod regions;
mod resave;
mod shards;
mod verify;

pub use info::TensorInfo;
pub use map_copy::MappedCopy;
pub use open::{OpenOptions, Verify};
pub(crate) use shards::{Folder, Siblings};

use crate::buffer::Buffer;
use crate::engine::Blob;
use crate::error::{Error, ErrorKind, Result};
#[cfg(feature = "convert")]
use crate::format::Flags;
use crate::format::footer::{self, Footer};
use crate::format::header::{self, Header};
use crate::format::index::Index;
use crate::format::records;
use crate::names::hex;
use crate::snapshot::{METADATA, METRICS, PROGRESS, Progress};
use serde::de::DeserializeOwned;
use shards::Shards;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// An open checkpoint: a valid header, footer and index over an immutable object.
///
/// A checkpoint of many ranks is a manifest with shards beside it, and opens as one checkpoint by
/// the manifest's path. Its shards are opened when they are first touched: one that is lost or
/// damaged costs the tensors that have pieces in it, and nothing else.
///
/// Reading and mapping give the same type. Tensors stored raw in a mapped file are borrowed; all
/// others are read or decoded into their own memory. Cheap to share: all methods take `&self`, from
/// any thread.
///
/// ```
/// # use tensorkeep::{Checkpoint, Progress, Snapshot};
/// # let path = std::env::temp_dir().join(format!("doc-checkpoint-{}.tkeep", std::process::id()));
/// # let weights = [0.5_f32, 1.5, 2.5, 3.5];
/// # Snapshot::new()
/// #     .tensor("weights", (&[2, 2][..], &weights[..]))?
/// #     .record("learning_rate", &1e-3)?
/// #     .progress(Progress::new(100))
/// #     .save(&path)?;
/// let checkpoint = Checkpoint::open(&path)?;
/// for info in checkpoint.tensors() {
///     println!("{} {:?}", info.name, info.shape);
/// }
///
/// let weights = checkpoint.tensor("weights")?; // read and verified here
/// assert_eq!(weights.shape(), [2, 2]);
/// assert_eq!(weights.elements::<f32>()?, [0.5, 1.5, 2.5, 3.5]);
///
/// let second_row = checkpoint.slice("weights", 1..2)?; // reads only what it needs
/// assert_eq!(second_row.elements::<f32>()?, [2.5, 3.5]);
///
/// assert_eq!(checkpoint.record::<f64>("learning_rate")?, 1e-3);
/// assert_eq!(checkpoint.progress()?, Some(Progress::new(100)));
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), tensorkeep::Error>(())
/// ```
pub struct Checkpoint {
    blob: Arc<dyn Blob>,
    name: String,
    header: Header,
    footer: Footer,
    index: Index<IndexBytes>,
    index_damage: Option<Error>,
    options: OpenOptions,
    /// One bit per chunk, tensors before records, where verifying once is enough because bytes in
    /// memory do not change.
    verified: Vec<AtomicU64>,
    /// Of a manifest.
    shards: Shards,
}

/// A checkpoint as tools see it: [`Checkpoint::inspect`].
#[derive(Clone, Copy, Debug)]
pub struct Inspect<'c>(pub(crate) &'c Checkpoint);

/// The bytes of the index region: in place if the file is in memory, else copied. A short region is
/// copied too.
#[derive(Clone)]
enum IndexBytes {
    InPlace { blob: Arc<dyn Blob>, start: usize, end: usize },
    Copied(Arc<Buffer>),
}

impl AsRef<[u8]> for IndexBytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::InPlace { blob, start, end } => {
                blob.as_bytes().and_then(|bytes| bytes.get(*start..*end)).unwrap_or_default()
            }
            Self::Copied(bytes) => bytes,
        }
    }
}

/// Bytes read from the end first: footer and index of most files, in one round trip.
const TAIL: u64 = 64 << 10;
/// The same if the bytes are in memory, where the rest of an index is used in place and needs no
/// second trip. Copying 64 KiB took an eighth of opening a LeNet.
const TAIL_IN_MEMORY: u64 = 16 << 10;
/// Length in bytes of the shortest file that can be a checkpoint.
const SHORTEST: u64 = (header::LEN + footer::LEN) as u64;
/// The most memory for a record decoded as a tree if the caller set no budget: the least that
/// SPEC.md requires of a reader.
const UNFOLDED: u64 = 256 << 20;

impl Checkpoint {
    fn parse(
        blob: Arc<dyn Blob>,
        name: &str,
        options: OpenOptions,
        siblings: Option<Arc<dyn Siblings>>,
    ) -> Result<Self> {
        options.check()?;
        let len = blob.len();
        let (head, tail) = read_ends(&*blob)?;
        let header = Header::decode(&head)?;
        let footer = match tail.last_chunk() {
            Some(footer) if len >= SHORTEST => Footer::decode(footer, len)?,
            _ => return Err(cut_short(len)),
        };
        if footer.file_id != header.file_id || footer.flags != header.flags {
            return Err(Error::damaged("header and footer are of different files")
                .expected(hex(&header.file_id))
                .found(hex(&footer.file_id))
                .help("resume from an older checkpoint"));
        }
        if blob.as_bytes().is_none() && footer.index_len > options.budget {
            return Err(Error::new(ErrorKind::LimitExceeded, "bytes of the index")
                .expected(format!("at most the budget of {}", options.budget))
                .found(footer.index_len));
        }
        let workers = options.workers.unwrap_or_else(crate::pipeline::cores);
        let (index, index_damage) = open_index(&blob, &footer, &tail, workers)?;
        let chunks = index.tensors.chunk_count() + index.records.chunk_count();
        let remembered = if blob.as_bytes().is_some() { chunks.div_ceil(64) } else { 0 };
        let verified = std::iter::repeat_with(|| AtomicU64::new(0)).take(remembered).collect();
        let shards = Shards::new(index.pieces.as_ref().map_or(0, |pieces| pieces.shard_count()), siblings);
        let name = name.to_owned();
        let checkpoint = Self { blob, name, header, footer, index, index_damage, options, verified, shards };
        if options.verify == Verify::AtOpen {
            checkpoint.verify()?;
        }
        Ok(checkpoint)
    }

    /// The path or URL, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the file can be written again without losing what it is.
    ///
    /// # Errors
    /// `Unsupported` for a shard, and for one with a feature that this version does not know.
    #[cfg(feature = "convert")]
    pub(crate) fn check_changeable(&self) -> Result<()> {
        let refused = |what: String, help| {
            Err(Error::new(ErrorKind::Unsupported, what).help(help).in_object(&self.name))
        };
        match self.footer.flags.ro_compat {
            0 => Ok(()),
            Flags::SHARD => refused(
                "a shard is a part of a checkpoint, and is not written again by itself".to_owned(),
                "repack the manifest: that makes one file",
            ),
            flags => refused(
                format!("the file has features that this version would lose: ro_compat flags {flags:#x}"),
                "update tensorkeep",
            ),
        }
    }

    pub(crate) fn is_mapped(&self) -> bool {
        self.blob.as_bytes().is_some()
    }

    /// Whether a record of this name exists.
    pub(crate) fn has_record(&self, name: &str) -> bool {
        self.index.records.find(name).is_some()
    }

    /// Tools' view of the file: chunks, damage, copies.
    pub fn inspect(&self) -> Inspect<'_> {
        Inspect(self)
    }

    /// Names of the records, the library's own included, sorted.
    pub fn records(&self) -> impl ExactSizeIterator<Item = &str> {
        self.index.records.columns().names()
    }

    /// A record, as the type it was saved from.
    ///
    /// # Errors
    /// `NotFound`, `Damaged`, `Mismatch` when it is not a `T`, `Io`.
    pub fn record<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let bytes = self.record_bytes(name)?;
        records::decode_owned(&bytes).map_err(|error| error.in_record(name).in_object(&self.name))
    }

    /// A record that may be missing.
    pub(crate) fn optional_record<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        if self.has_record(name) { self.record_unfolded(name).map(Some) } else { Ok(None) }
    }

    /// A record as a tree, or as one of the library's own types, which need no more memory. Its
    /// size in memory is computed before it is decoded.
    pub(crate) fn record_unfolded<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let bytes = self.record_bytes(name)?;
        self.unfold(&bytes).map_err(|error| error.in_record(name).in_object(&self.name))
    }

    fn unfold<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T> {
        let budget = if self.options.budget == u64::MAX { UNFOLDED } else { self.options.budget };
        let unfolded = records::check(bytes)?;
        if unfolded <= budget {
            return records::decode_owned(bytes);
        }
        Err(Error::new(ErrorKind::LimitExceeded, "bytes of the record's values in memory")
            .expected(format!("at most the budget of {budget}"))
            .found(unfolded)
            .help("read it as the type that it was saved from, or raise the budget"))
    }

    /// Training progress, if the snapshot had it.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn progress(&self) -> Result<Option<Progress>> {
        self.optional_record(PROGRESS)
    }

    /// Metrics by name.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn metrics(&self) -> Result<BTreeMap<String, f64>> {
        Ok(self.optional_record(METRICS)?.unwrap_or_default())
    }

    /// Metadata by key.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn metadata(&self) -> Result<BTreeMap<String, String>> {
        Ok(self.optional_record(METADATA)?.unwrap_or_default())
    }
}

/// Reads the first bytes for the header and the last for footer and index.
fn read_ends(blob: &dyn Blob) -> Result<(Vec<u8>, Vec<u8>)> {
    let len = blob.len();
    // OK to cast: both are at most 64 KiB.
    let mut head = vec![0; len.min(header::LEN as u64) as usize];
    let most = if blob.as_bytes().is_some() { TAIL_IN_MEMORY } else { TAIL };
    let mut tail = vec![0; len.min(most) as usize];
    let tail_start = len - tail.len() as u64;
    blob.read_ranges(&mut [(0, &mut head), (tail_start, &mut tail)])?;
    Ok((head, tail))
}

/// The index; or, if the index is damaged, its mirror and the damage.
fn open_index(
    blob: &Arc<dyn Blob>,
    footer: &Footer,
    tail: &[u8],
    workers: usize,
) -> Result<(Index<IndexBytes>, Option<Error>)> {
    let data = header::LEN as u64..footer.index_offset;
    let open = |offset: u64| {
        let region = index_region(blob, offset, footer.index_len, tail)?;
        let index = Index::decode(region, footer.index_crc, data.clone(), workers);
        let checked = index.and_then(|index| index.check_flags(footer.flags).map(|()| index));
        checked.map_err(|error| error.at_byte(offset))
    };
    let damage = match open(footer.index_offset) {
        Ok(index) => return Ok((index, None)),
        // An unreadable sector is damage as much as a wrong byte.
        Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Io) => error,
        Err(error) => return Err(error),
    };
    match footer.mirror_offset.map(open) {
        Some(Ok(index)) => Ok((index, Some(damage))),
        _ => Err(damage),
    }
}

fn index_region(blob: &Arc<dyn Blob>, offset: u64, len: u64, tail: &[u8]) -> Result<IndexBytes> {
    let too_large = |_| Error::new(ErrorKind::LimitExceeded, "the index does not fit this machine's memory");
    let len_here = usize::try_from(len).map_err(too_large)?;
    let tail_start = blob.len() - tail.len() as u64;
    if offset >= tail_start {
        let start = (offset - tail_start) as usize;
        return Ok(IndexBytes::Copied(Arc::new(Buffer::copy_of(&tail[start..start + len_here])?)));
    }
    if blob.as_bytes().is_some() {
        let start = usize::try_from(offset).map_err(too_large)?;
        return Ok(IndexBytes::InPlace { blob: Arc::clone(blob), start, end: start + len_here });
    }
    let mut bytes = Buffer::zeroed(len_here)?;
    blob.read_at(offset, &mut bytes)?;
    Ok(IndexBytes::Copied(Arc::new(bytes)))
}

fn cut_short(len: u64) -> Error {
    Error::damaged("the file is cut short")
        .expected(format!("at least {SHORTEST} bytes"))
        .found(len)
        .help("resume from an older checkpoint")
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint")
            .field("name", &self.name)
            .field("tensors", &self.index.tensors.len())
            .field("records", &self.index.records.len())
            .field("bytes", &self.footer.file_len)
            .finish()
    }
}
