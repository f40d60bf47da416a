//! The plan of one file: names, order and aliases, within the limits. All decisions are made here;
//! writing follows the plan.

use super::chunks::{Job, Jobs};
use super::emit::{Contents, Emitter, Stored};
use super::file_id::PlanHash;
use super::timings::Stopwatch;
use super::{WriteOptions, Written};
use crate::buffer::Buffer;
use crate::codec::{Encoded, Encoder};
use crate::engine::{CommitError, Nonce, Upload};
use crate::error::{Error, ErrorKind, Result};
use crate::format::aliases::{self, Aliases};
use crate::format::header::Header;
use crate::format::index::{self, SECTION_ALIASES, SECTION_RECORDS, SECTION_TENSORS};
use crate::format::limits::Limits;
use crate::format::{self, Flags, crc32, extent_align};
use crate::pipeline::{self, Output, Stage};
use crate::snapshot::{NamedSource, Record, Snapshot};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A chunk below this is encoded by the saving thread: handing it to another one takes longer.
const ENCODED_HERE: usize = 16 << 10;

/// A planned file: names, order and aliases, within the limits.
pub(crate) struct Plan<'s, 'a> {
    tensors: Vec<NamedSource<'s, 'a>>,
    records: BTreeMap<&'s str, Cow<'s, Record<'a>>>,
    aliases: Aliases,
    /// Whether borrowed tensors may change.
    volatile: bool,
    file_id: [u8; 16],
    options: WriteOptions,
    /// Of a shard or a manifest.
    further: Option<Further>,
}

/// A section that a plain container does not have, and the flags that announce it.
pub(crate) struct Further {
    pub kind: u32,
    pub payload: Vec<u8>,
    pub flags: Flags,
}

/// An encoding thread's state, reused from chunk to chunk.
#[derive(Default)]
struct Worker {
    encoder: Encoder,
    /// The copy of a chunk whose source may change.
    copy: Buffer,
}

impl<'s, 'a> Plan<'s, 'a> {
    /// Plans a file of a snapshot and extra reserved records, encoded as MessagePack.
    ///
    /// # Errors
    /// `Invalid` for bad options, `LimitExceeded` beyond the format's limits.
    pub(crate) fn of(
        snapshot: &'s Snapshot<'a>,
        extra: &'s [(&'s str, Vec<u8>)],
        options: &WriteOptions,
    ) -> Result<Self> {
        options.check()?;
        snapshot.check_whole()?;
        let mut records = snapshot.encoded_records()?;
        records.extend(extra.iter().map(|(name, bytes)| (*name, Cow::Owned(Record::Here(bytes.clone())))));
        let (tensors, aliases) = distinct(snapshot);
        let mut plan = Self {
            tensors,
            records,
            aliases,
            volatile: snapshot.is_volatile(),
            file_id: [0; 16],
            options: options.clone(),
            further: None,
        };
        plan.check_limits()?;
        plan.file_id = plan.options.file_id.unwrap_or_else(|| plan.derived_id());
        Ok(plan)
    }

    /// Plans a shard: every tensor is stored, also where two share memory.
    ///
    /// # Errors
    /// As [`Plan::of`].
    pub(crate) fn of_shard(
        snapshot: &'s Snapshot<'a>,
        options: &WriteOptions,
        shard: Further,
    ) -> Result<Self> {
        let plan = Self::of(snapshot, &[], options)?;
        let (tensors, aliases) = (snapshot.sorted(), Aliases::new());
        Ok(Self { tensors, aliases, further: Some(shard), ..plan })
    }

    /// The same file with a section more, and with aliases of its tensors by their numbers.
    pub(crate) fn with(self, further: Further, aliases: Aliases) -> Self {
        Self { further: Some(further), aliases, ..self }
    }

    /// The whole file in memory.
    ///
    /// # Errors
    /// Errors of lazy tensors.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
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
        let mut bytes = Vec::with_capacity(self.size_bound() as usize);
        self.write(&mut InMemory(&mut bytes))?;
        Ok(bytes)
    }

    fn check_limits(&self) -> Result<()> {
        let limits = Limits::V1;
        let within = |what: &'static str, found: usize, limit: u64| {
            if found as u64 <= limit {
                return Ok(());
            }
            let error = Error::new(ErrorKind::LimitExceeded, what);
            Err(error.expected(format!("at most {limit}")).found(found))
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

    /// A 128-bit hash of the plan: equal plans give equal ids, different plans different ones.
    fn derived_id(&self) -> [u8; 16] {
        let mut hash = PlanHash::default();
        for (name, source) in &self.tensors {
            hash.add_name(name);
            hash.add(u64::from(source.dtype().id()) << 32 | source.shape().len() as u64);
            for &dim in source.shape() {
                hash.add(dim as u64);
            }
        }
        for (name, record) in &self.records {
            hash.add_name(name);
            hash.add(u64::from(record.crc32()));
        }
        hash.finish()
    }

    /// The file's id, which differs between files.
    pub(crate) fn file_id(&self) -> [u8; 16] {
        self.file_id
    }

    /// The codec patterns that match no tensor or record of this file.
    pub(crate) fn unmatched_patterns(&self) -> Vec<String> {
        let tensors = self.tensors.iter().map(|(name, _)| *name);
        self.options.codecs.unmatched(tensors.chain(self.records.keys().copied()))
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
        let records: u64 =
            self.records.iter().map(|(name, record)| entry(name, 1, record.len() as u64)).sum();
        let aliases: usize = self.aliases.keys().map(|name| 2 * (name.len() + 8)).sum();
        let further = self.further.as_ref().map_or(0, |further| 2 * further.payload.len());
        tensors + records + (aliases + further) as u64 + 4 * format::PAGE
    }

    /// Writes the container. The upload is not committed.
    ///
    /// # Errors
    /// Errors of the upload and of lazy tensors.
    pub(crate) fn write(&self, upload: &mut dyn Upload) -> Result<Written> {
        self.write_chunks(upload, self.jobs())
    }

    fn jobs(&self) -> Jobs<'_, 'a> {
        Jobs::new(&self.tensors, &self.records, self.options.chunk_log2, self.volatile)
    }

    /// Promise G7: everything that was planned was stored, or there is no file.
    fn check_stored(&self, stored: &Contents) -> Result<()> {
        let planned = Contents { tensors: self.tensors.len(), records: self.records.len(), missing: 0 };
        if *stored == planned {
            return Ok(());
        }
        let Contents { tensors, records, missing } = stored;
        Err(Error::invalid("not everything that was planned was stored")
            .expected(format!("{} tensors, {} records", planned.tensors, planned.records))
            .found(format!("{tensors} tensors, {records} records, {missing} bytes short")))
    }

    /// Writes a container with these chunks, which must be the plan's.
    fn write_chunks<'p>(
        &self,
        upload: &mut dyn Upload,
        jobs: impl Iterator<Item = Result<Job<'p, 'p>>>,
    ) -> Result<Written> {
        let flags = self.further.as_ref().map_or_else(Flags::default, |further| further.flags);
        let mut emitter = Emitter::begin(upload, Header { flags, ..Header::new(self.file_id) })?;
        self.emit_chunks(&mut emitter, jobs)?;
        self.check_stored(&emitter.stored())?;
        let [tensor_table, record_table] = emitter.tables();
        let mut sections = vec![(SECTION_TENSORS, tensor_table), (SECTION_RECORDS, record_table)];
        sections.extend(aliases::encode(&self.aliases).map(|payload| (SECTION_ALIASES, payload)));
        sections.extend(self.further.iter().map(|further| (further.kind, further.payload.clone())));
        let region = index::encode(&sections);
        if region.len() as u64 > Limits::V1.index_bytes {
            return Err(Error::new(ErrorKind::LimitExceeded, "bytes of the index")
                .expected(format!("at most {}", Limits::V1.index_bytes))
                .found(region.len()));
        }
        let (byte_len, timings) = emitter.finish(&region)?;
        Ok(Written {
            byte_len,
            index_crc: crc32(&region),
            tensors: self.tensors.len(),
            timings,
            unmatched_patterns: self.unmatched_patterns(),
        })
    }

    fn emit_chunks<'p>(
        &self,
        emitter: &mut Emitter<'_>,
        jobs: impl Iterator<Item = Result<Job<'p, 'p>>>,
    ) -> Result<()> {
        let options = &self.options;
        let inline = options.codecs.are_raw() || options.workers == 1;
        let workers = if inline { 0 } else { options.workers };
        pipeline::ordered(workers, jobs, &Encoding(options), |job, Output { summary, bytes }| {
            emitter.emit(job, options.chunk_log2, summary, &bytes)
        })
    }
}

/// Encoding chunks, with the options of one plan.
struct Encoding<'o>(&'o WriteOptions);

impl<'p> Stage<Job<'p, 'p>> for Encoding<'_> {
    type Worker = Worker;
    type Summary = Stored;

    fn is_light(&self, job: &Job<'p, 'p>) -> bool {
        job.piece.len() < ENCODED_HERE
    }

    fn work<'e>(&self, worker: &'e mut Worker, job: &'e Job<'p, 'p>) -> Result<Output<'e, Stored>> {
        let Worker { encoder, copy } = worker;
        let mut stopwatch = Stopwatch::start(job.piece.len());
        let raw = job.piece.read(copy).map_err(|error| error.in_tensor(job.name))?;
        let Encoded { codec, filter, bytes } = encoder.encode(raw, job.dtype, self.0.codecs.of(job.name))?;
        let encode = stopwatch.lap();
        let crc = crc32(bytes);
        let summary = Stored { codec, filter, crc, encode, checksum: stopwatch.lap() };
        Ok(Output { summary, bytes: bytes.into() })
    }
}

/// The tensors to store, in the order of the file, and the aliases.
fn distinct<'s, 'a>(snapshot: &'s Snapshot<'a>) -> (Vec<NamedSource<'s, 'a>>, Aliases) {
    let sorted = snapshot.sorted();
    let firsts = snapshot.firsts(&sorted);
    let mut tensors: Vec<NamedSource<'s, 'a>> = Vec::with_capacity(sorted.len());
    let mut aliases = Aliases::new();
    // The position in the file of each tensor, or of the tensor that it is an alias of.
    let mut places = Vec::with_capacity(sorted.len());
    for ((name, source), first) in sorted.into_iter().zip(firsts) {
        match places.get(first) {
            Some(&place) => {
                aliases.insert(name.to_owned(), place);
                places.push(place);
            }
            None => {
                places.push(tensors.len() as u32);
                tensors.push((name, source));
            }
        }
    }
    for (name, existing) in &snapshot.aliases {
        let target = match tensors.binary_search_by_key(&existing.as_str(), |(name, _)| name) {
            Ok(number) => Some(number as u32),
            Err(_) => aliases.get(existing).copied(),
        };
        // OK to ignore a missing target: `Snapshot::alias` checked that the tensor exists, and
        // tensors are never removed.
        if let Some(target) = target {
            aliases.insert(name.clone(), target);
        }
    }
    (tensors, aliases)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Dtype;
    use crate::engine::{CommitError, Nonce};
    use crate::tensor::SharedBytes;
    use std::sync::Arc;

    /// The addresses of the appended bytes.
    struct Places<'v>(&'v mut Vec<std::ops::Range<usize>>);

    impl Upload for Places<'_> {
        fn append(&mut self, bytes: &[u8]) -> Result<()> {
            let start = bytes.as_ptr().addr();
            self.0.push(start..start + bytes.len());
            Ok(())
        }

        fn commit(self: Box<Self>, _: Nonce) -> Result<(), CommitError> {
            Ok(())
        }
    }

    #[test]
    fn lent_bytes_are_written_from_a_copy_if_they_may_change() {
        let lent = vec![7_u8; 200_000];
        let shared: SharedBytes = Arc::new(vec![8_u8; 200_000]);
        let mut snapshot = Snapshot::new().tensor("lent", &lent).unwrap();
        snapshot = snapshot.tensor("shared", (Dtype::U8, &[200_000][..], Arc::clone(&shared))).unwrap();
        let memories = [&lent[..], (*shared).as_ref()].map(|bytes| {
            let start = bytes.as_ptr().addr();
            start..start + bytes.len()
        });
        for volatile in [false, true] {
            if volatile {
                snapshot = snapshot.volatile();
            }
            let mut places = Vec::new();
            let options = WriteOptions::new().chunk_log2(16);
            Plan::of(&snapshot, &[], &options).unwrap().write(&mut Places(&mut places)).unwrap();
            let lies_in = |place: &&std::ops::Range<usize>| {
                place.len() > 1000 && memories.iter().any(|memory| memory.contains(&place.start))
            };
            assert_eq!(places.iter().filter(lies_in).count(), if volatile { 0 } else { 8 });
        }
    }

    fn write_these<'p>(
        plan: &Plan<'_, '_>,
        jobs: impl Iterator<Item = Result<Job<'p, 'p>>>,
    ) -> Result<Written> {
        plan.write_chunks(&mut Places(&mut vec![]), jobs)
    }

    #[test]
    fn a_file_that_lacks_any_part_of_its_plan_is_refused() {
        let elements = [1_u8; (1 << 16) + 7];
        let mut snapshot =
            Snapshot::new().tensor("a", &elements[..]).unwrap().tensor("b", &elements[..40]).unwrap();
        snapshot = snapshot.tensor("empty", &elements[..0]).unwrap().record("r", &1).unwrap();
        let plan = Plan::of(&snapshot, &[], &WriteOptions::new().chunk_log2(16)).unwrap();
        let chunks = plan.jobs().count();
        assert_eq!((chunks, write_these(&plan, plan.jobs()).unwrap().tensors), (5, 3));
        for left in 0..chunks {
            let error = write_these(&plan, plan.jobs().take(left)).unwrap_err();
            assert!(error.to_string().contains("not everything"), "{left} of {chunks}: {error}");
        }
        let without = |missing: usize| {
            let jobs = plan.jobs().enumerate().filter(|(i, _)| *i != missing).map(|(_, job)| job);
            write_these(&plan, jobs).unwrap_err()
        };
        assert!(without(1).to_string().contains("tensor before"), "the second chunk of the first tensor");
        for missing in [2, 3, 4] {
            assert!(without(missing).to_string().contains("not everything"), "{missing}");
        }
    }

    #[test]
    fn each_thing_that_is_not_as_planned_is_an_error() {
        let elements = [1_u8; 40];
        let snapshot = Snapshot::new().tensor("a", &elements[..]).unwrap().record("r", &1).unwrap();
        let plan = Plan::of(&snapshot, &[], &WriteOptions::new()).unwrap();
        let stored = |tensors, records, missing| plan.check_stored(&Contents { tensors, records, missing });
        stored(1, 1, 0).unwrap();
        for (tensors, records, missing) in [(0, 1, 0), (2, 1, 0), (1, 0, 0), (1, 2, 0), (1, 1, 1)] {
            let error = stored(tensors, records, missing).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains("1 tensors, 1 records"), "{error}");
        }
    }
}
