//! Writes containers: the only place that does. Owns: the plan of a file (names, order, ties, limits), encoding in
//! parallel within bounded memory, and the order of bytes. Knows an [`Upload`] to append to, and nothing of stores.

use crate::codec::{Codec, Encoder};
use crate::dtype::Dtype;
use crate::engine::{CommitError, Nonce, Upload, local};
use crate::error::{Error, ErrorKind, Result};
use crate::format::aliases::{self, Aliases};
use crate::format::footer::Footer;
use crate::format::header::Header;
use crate::format::index::{self, SECTION_ALIASES, SECTION_RECORDS, SECTION_TENSORS};
use crate::format::limits::Limits;
use crate::format::table::TableBuilder;
use crate::format::{self, Flags, INDEX_ALIGN, MIRROR_ALIGN, MIRROR_UP_TO, align_up, crc32, extent_align};
use crate::pipeline::{self, Output};
use crate::snapshot::{Snapshot, Source};
use crate::tensor::Tensor;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// How a container is written.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    codec: Codec,
    chunk_log2: u8,
    workers: usize,
    file_id: Option<[u8; 16]>,
}

impl Default for WriteOptions {
    fn default() -> Self {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Self { codec: Codec::Raw, chunk_log2: format::DEFAULT_CHUNK_LOG2, workers, file_id: None }
    }
}

impl WriteOptions {
    /// Raw tensors, chunks of 1 MiB, as many encoding threads as the machine has cores.
    pub fn new() -> Self {
        Self::default()
    }

    /// How tensors and records are stored.
    pub fn codec(self, codec: Codec) -> Self {
        Self { codec, ..self }
    }

    /// Raw bytes of a chunk as a power of two, 16 to 26: the unit of checksums, of compression and of partial reads.
    pub fn chunk_log2(self, chunk_log2: u8) -> Self {
        Self { chunk_log2, ..self }
    }

    /// Threads that encode. With 1, or with [`Codec::Raw`], the calling thread does it.
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
    /// Saves to one file, atomically and durably: after a crash at any moment `path` is the old file or the new one,
    /// whole, and when this returns Ok it is the new one, also after a power cut. A new file gets the mode that the
    /// umask says. What a kill can leave is a file named `.tmp-…` beside it, never a half `path`.
    ///
    /// # Errors
    /// `NoSpace`, `Io` and what deferred tensors say: then `path` is what it was. `Unknown` when the new file is there
    /// and its durability could not be had.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<Written> {
        self.save_with(path, &WriteOptions::new())
    }

    /// As [`Snapshot::save`], with options.
    ///
    /// # Errors
    /// As [`Snapshot::save`], and `Invalid` for bad options.
    pub fn save_with(&self, path: impl AsRef<Path>, options: &WriteOptions) -> Result<Written> {
        let path = path.as_ref();
        let plan = Plan::of(self, &[], options)?;
        let mut written = None;
        local::replace_file(path, Some(plan.size_bound()), |upload| {
            written = Some(plan.write(upload)?);
            Ok(())
        })
        .map_err(|error| error.in_object(path.display()))?;
        written.ok_or_else(|| Error::invalid("nothing was written"))
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Length of the file in bytes.
    pub len: u64,
    /// Tensors stored, ties counted once.
    pub tensors: usize,
}

/// Names, order and ties of one file, within the limits. Everything is decided here; the rest only follows.
pub(crate) struct Plan<'s, 'a> {
    tensors: Vec<(&'s str, &'s Source<'a>)>,
    records: BTreeMap<&'s str, Cow<'s, [u8]>>,
    aliases: Aliases,
    file_id: [u8; 16],
    options: WriteOptions,
}

impl<'s, 'a> Plan<'s, 'a> {
    /// Decides how a snapshot, with further reserved records of MessagePack, becomes a file.
    ///
    /// # Errors
    /// `Invalid` for bad options, `LimitExceeded` beyond the format's limits.
    pub(crate) fn of(
        snapshot: &'s Snapshot<'a>,
        extra: &'s [(&'s str, Vec<u8>)],
        options: &WriteOptions,
    ) -> Result<Self> {
        options.check()?;
        let mut records = snapshot.encoded_records()?;
        records.extend(extra.iter().map(|(name, bytes)| (*name, Cow::from(bytes))));
        let mut tensors: Vec<(&str, &Source<'a>)> = Vec::with_capacity(snapshot.tensors.len());
        let mut aliases = Aliases::new();
        let mut seen = HashMap::with_capacity(snapshot.tensors.len());
        for (name, source) in &snapshot.tensors {
            let next = tensors.len() as u32;
            match source.identity().map(|identity| *seen.entry(identity).or_insert(next)) {
                Some(first) if first != next => {
                    aliases.insert(name.clone(), first);
                }
                _ => tensors.push((name, source)),
            }
        }
        for (name, existing) in &snapshot.ties {
            let number = tensors.binary_search_by_key(&existing.as_str(), |(name, _)| name);
            let target =
                number.map(|number| number as u32).or_else(|_| aliases.get(existing).copied().ok_or(()));
            // OK to skip nothing: `Snapshot::tie` saw that the tensor exists, and tensors are never removed.
            aliases.extend(target.ok().map(|target| (name.clone(), target)));
        }
        let mut plan = Self { tensors, records, aliases, file_id: [0; 16], options: options.clone() };
        plan.check_limits()?;
        plan.file_id = options.file_id.unwrap_or_else(|| plan.derived_id());
        Ok(plan)
    }

    fn check_limits(&self) -> Result<()> {
        let limits = Limits::V1;
        let within = |what: &'static str, found: usize, limit: u64| match found as u64 <= limit {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::LimitExceeded, what)
                .expected(format!("at most {limit}"))
                .found(found)),
        };
        within("number of tensors", self.tensors.len(), limits.tensors)?;
        within("number of aliases", self.aliases.len(), limits.tensors)?;
        within("number of records", self.records.len(), limits.records)?;
        for (name, source) in &self.tensors {
            within("number of axes", source.shape().len(), limits.rank)
                .and_then(|()| within("bytes of a tensor", source.byte_len(), limits.tensor_bytes))
                .map_err(|error| error.in_tensor(name))?;
        }
        Ok(())
    }

    /// FNV-1a with 128 bits over what the plan says: the same plan gives the same bytes, another one another id.
    fn derived_id(&self) -> [u8; 16] {
        let mut hash = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
        let mut add = |bytes: &[u8]| {
            for &byte in bytes {
                hash = (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013B);
            }
        };
        for (name, source) in &self.tensors {
            add(name.as_bytes());
            add(&source.dtype().id().to_le_bytes());
            source.shape().iter().for_each(|&dim| add(&(dim as u64).to_le_bytes()));
        }
        for (name, bytes) in &self.records {
            add(name.as_bytes());
            add(&crc32(bytes).to_le_bytes());
        }
        hash.to_le_bytes()
    }

    /// Tells this file from every other.
    pub(crate) fn file_id(&self) -> [u8; 16] {
        self.file_id
    }

    /// An upper bound of the file's length in bytes.
    pub(crate) fn size_bound(&self) -> u64 {
        let entry = |name: &str, rank: usize, len: u64| {
            let index = name.len() + 8 * rank + 48;
            len + extent_align(len) + 2 * index as u64 + 2 * 16 * len.div_ceil(1 << self.options.chunk_log2)
        };
        let tensors: u64 = self
            .tensors
            .iter()
            .map(|(name, source)| entry(name, source.shape().len(), source.byte_len() as u64))
            .sum();
        let records: u64 = self.records.iter().map(|(name, bytes)| entry(name, 1, bytes.len() as u64)).sum();
        let aliases: usize = self.aliases.keys().map(|name| 2 * (name.len() + 8)).sum();
        tensors + records + aliases as u64 + 4 * format::PAGE
    }

    /// Writes the container. The upload is not committed.
    ///
    /// # Errors
    /// Whatever the upload or a deferred tensor says.
    pub(crate) fn write(&self, upload: &mut dyn Upload) -> Result<Written> {
        let mut out = Out { upload, position: 0 };
        out.append(&Header::new(self.file_id).encode())?;
        let mut emitter =
            Emitter { out, tables: [TableBuilder::default(), TableBuilder::default()], left: 0 };
        self.write_chunks(&mut emitter)?;
        let Emitter { mut out, tables: [tensors, records], left } = emitter;
        // Promise G7: what was planned was stored, all of it, or there is no file.
        if left != 0 || tensors.len() != self.tensors.len() || records.len() != self.records.len() {
            return Err(Error::invalid("not everything that was planned was stored")
                .expected(format!("{} tensors, {} records", self.tensors.len(), self.records.len()))
                .found(format!("{} tensors, {} records, {left} bytes short", tensors.len(), records.len())));
        }
        let mut sections = vec![(SECTION_TENSORS, tensors.encode()), (SECTION_RECORDS, records.encode())];
        sections.extend(aliases::encode(&self.aliases).map(|payload| (SECTION_ALIASES, payload)));
        let region = index::encode(&sections);
        if region.len() as u64 > Limits::V1.index_bytes {
            return Err(Error::new(ErrorKind::LimitExceeded, "bytes of the index")
                .expected(format!("at most {}", Limits::V1.index_bytes))
                .found(region.len()));
        }
        out.write_tail(&region, self.file_id)?;
        Ok(Written { len: out.position, tensors: self.tensors.len() })
    }

    fn write_chunks(&self, emitter: &mut Emitter<'_>) -> Result<()> {
        let options = &self.options;
        let inline = options.codec == Codec::Raw || options.workers == 1;
        let workers = if inline { 0 } else { options.workers };
        let jobs =
            Jobs { tensors: self.tensors.iter(), records: self.records.iter(), options, current: None };
        pipeline::ordered(
            workers,
            jobs,
            || Encoder::new(options.codec),
            |encoder, job: &Job<'_, '_>| {
                let encoded = encoder.encode(job.piece.bytes(), job.dtype)?;
                let summary =
                    Stored { codec: encoded.codec, filter: encoded.filter, crc: crc32(encoded.bytes) };
                Ok(Output { summary, bytes: encoded.bytes.into() })
            },
            |job, Output { summary, bytes }| emitter.emit(job, options.chunk_log2, summary, &bytes),
        )
    }
}

/// How a chunk was stored.
struct Stored {
    codec: u8,
    filter: u8,
    crc: u32,
}

/// Part of a tensor's or record's bytes.
enum Piece<'p> {
    Borrowed(&'p [u8]),
    Held(Arc<Tensor<'p>>, Range<usize>),
}

impl Piece<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Held(tensor, range) => &tensor.bytes()[range.clone()],
        }
    }
}

/// One chunk to encode, and the entry that begins with it.
struct Job<'s, 'p> {
    start: Option<Start<'s>>,
    name: &'s str,
    dtype: Dtype,
    piece: Piece<'p>,
}

struct Start<'s> {
    table: usize,
    shape: Cow<'s, [usize]>,
    byte_len: u64,
}

/// Cuts tensors, then records, into chunks; draws deferred tensors one at a time.
struct Jobs<'s, 'a> {
    tensors: std::slice::Iter<'s, (&'s str, &'s Source<'a>)>,
    records: std::collections::btree_map::Iter<'s, &'s str, Cow<'s, [u8]>>,
    options: &'s WriteOptions,
    current: Option<Current<'s, 'a>>,
}

struct Current<'s, 'a> {
    name: &'s str,
    dtype: Dtype,
    bytes: Bytes<'s, 'a>,
    len: usize,
    at: usize,
    start: Option<Start<'s>>,
}

enum Bytes<'s, 'a> {
    Record(&'s [u8]),
    Borrowed(&'a [u8]),
    Held(Arc<Tensor<'a>>),
}

impl<'s, 'a: 's> Jobs<'s, 'a> {
    fn next_entry(&mut self) -> Result<Option<Current<'s, 'a>>> {
        if let Some(&(name, source)) = self.tensors.next() {
            let tensor = source.produce().map_err(|error| error.in_tensor(name))?;
            let (dtype, len) = (tensor.dtype(), tensor.bytes().len());
            let start = Start { table: 0, shape: Cow::Borrowed(source.shape()), byte_len: len as u64 };
            let bytes = match tensor.borrowed() {
                Some(bytes) => Bytes::Borrowed(bytes),
                None => Bytes::Held(Arc::new(tensor)),
            };
            return Ok(Some(Current { name, dtype, bytes, len, at: 0, start: Some(start) }));
        }
        Ok(self.records.next().map(|(name, bytes)| {
            let start =
                Start { table: 1, shape: Cow::Owned(vec![bytes.len()]), byte_len: bytes.len() as u64 };
            Current {
                name,
                dtype: Dtype::Opaque,
                bytes: Bytes::Record(bytes),
                len: bytes.len(),
                at: 0,
                start: Some(start),
            }
        }))
    }
}

impl<'s, 'a: 's> Iterator for Jobs<'s, 'a> {
    type Item = Result<Job<'s, 's>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(current) = &mut self.current
                && (current.start.is_some() || current.at < current.len)
            {
                let range = current.at..current.len.min(current.at + (1 << self.options.chunk_log2));
                current.at = range.end;
                let piece = match &current.bytes {
                    Bytes::Record(bytes) => Piece::Borrowed(&bytes[range]),
                    Bytes::Borrowed(bytes) => Piece::Borrowed(&bytes[range]),
                    Bytes::Held(tensor) => Piece::Held(Arc::clone(tensor), range),
                };
                return Some(Ok(Job {
                    start: current.start.take(),
                    name: current.name,
                    dtype: current.dtype,
                    piece,
                }));
            }
            self.current = None;
            match self.next_entry() {
                Ok(Some(current)) => self.current = Some(current),
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// The bytes so far.
struct Out<'u> {
    upload: &'u mut dyn Upload,
    position: u64,
}

impl Out<'_> {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.upload.append(bytes)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn pad_to(&mut self, align: u64) -> Result<()> {
        const ZEROS: [u8; format::PAGE as usize] = [0; format::PAGE as usize];
        let padding = align_up(self.position, align) - self.position;
        // OK because no alignment is larger than a page.
        self.append(&ZEROS[..padding as usize])
    }

    /// Index, mirror while it is small, footer.
    fn write_tail(&mut self, region: &[u8], file_id: [u8; 16]) -> Result<()> {
        self.pad_to(INDEX_ALIGN)?;
        let index_offset = self.position;
        self.append(region)?;
        let mirror_offset = if region.len() as u64 <= MIRROR_UP_TO {
            self.pad_to(MIRROR_ALIGN)?;
            let offset = self.position;
            self.append(region)?;
            Some(offset)
        } else {
            None
        };
        let footer = Footer {
            index_offset,
            index_len: region.len() as u64,
            index_crc: crc32(region),
            mirror_offset,
            file_len: self.position + format::footer::LEN as u64,
            flags: Flags::default(),
            file_id,
        };
        self.append(&footer.encode())
    }
}

/// Appends encoded chunks in order and keeps the tables.
struct Emitter<'u> {
    out: Out<'u>,
    tables: [TableBuilder; 2],
    /// Raw bytes of the current entry still to come.
    left: u64,
}

impl Emitter<'_> {
    fn emit(&mut self, job: &Job<'_, '_>, chunk_log2: u8, stored: Stored, bytes: &[u8]) -> Result<()> {
        if let Some(start) = &job.start {
            if self.left != 0 {
                return Err(Error::invalid(format!(
                    "{} bytes of the tensor before were not stored",
                    self.left
                ))
                .in_tensor(job.name));
            }
            let mut offset = 0;
            if start.byte_len > 0 {
                self.out.pad_to(extent_align(start.byte_len))?;
                offset = self.out.position;
            }
            self.tables[start.table].push(
                job.name,
                job.dtype,
                &start.shape,
                start.byte_len,
                offset,
                chunk_log2,
            );
            self.left = start.byte_len;
        }
        if bytes.is_empty() {
            return Ok(());
        }
        // Records follow all tensors, so the table in use is the last one that has rows.
        let table = usize::from(self.tables[1].len() > 0);
        self.tables[table].push_chunk(stored.codec, stored.filter, bytes.len() as u32, stored.crc);
        self.left = self.left.saturating_sub(job.piece.bytes().len() as u64);
        self.out.append(bytes)
    }
}
