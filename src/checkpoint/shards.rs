//! The shards of a manifest: opened when they are first touched, each compared with what the
//! manifest knows it by, and looked up for the pieces of a tensor.

use super::entry::Entry;
use super::{Checkpoint, SHORTEST, cut_short};
use crate::dtype::Dtype;
use crate::engine::{Blob, MmapPromise, local};
use crate::error::{Error, ErrorKind, Result};
use crate::format::footer::{self, Footer};
use crate::format::header;
use crate::format::pieces::{Pieces, ShardRef, StoredBox};
use crate::format::shard::Shard;
use crate::layout::TensorBox;
use crate::names::hex;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// The objects beside a manifest.
pub(crate) trait Siblings: Send + Sync {
    /// Opens one.
    ///
    /// # Errors
    /// `NotFound`, and errors of the storage.
    fn open(&self, key: &str) -> Result<Arc<dyn Blob>>;

    /// Its name for people.
    fn describe(&self, key: &str) -> String;
}

/// The folder of a manifest, read or mapped.
pub(crate) struct Folder {
    pub path: PathBuf,
    pub map: Option<MmapPromise>,
}

impl Siblings for Folder {
    fn open(&self, key: &str) -> Result<Arc<dyn Blob>> {
        let path = self.path.join(key);
        self.map.map_or_else(|| local::open_file(&path), |promise| local::map_file(&path, promise))
    }

    fn describe(&self, key: &str) -> String {
        self.path.join(key).display().to_string()
    }
}

/// The shards of a manifest, by their number in its table.
pub(super) struct Shards {
    siblings: Option<Arc<dyn Siblings>>,
    open: Vec<OnceLock<Box<Checkpoint>>>,
}

impl Shards {
    pub(super) fn new(count: usize, siblings: Option<Arc<dyn Siblings>>) -> Self {
        Self { siblings, open: std::iter::repeat_with(OnceLock::new).take(count).collect() }
    }
}

impl fmt::Debug for Shards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} shards", self.open.len())
    }
}

/// Where a piece lies: an entry of a container, and its box.
pub(super) struct Source<'c> {
    pub container: &'c Checkpoint,
    pub entry: Entry<'c>,
    pub tensor_box: TensorBox,
}

impl Checkpoint {
    /// The table of tensors in shards, if this is a manifest.
    pub(super) fn pieces(&self) -> Option<&Pieces<super::IndexBytes>> {
        self.index.pieces.as_ref()
    }

    /// What the names of a manifest's shards begin with, and what each is known by.
    pub(crate) fn shard_refs(&self) -> Option<(&str, Vec<ShardRef>)> {
        let pieces = self.pieces()?;
        Some((pieces.save(), (0..pieces.shard_count()).map(|number| pieces.shard(number)).collect()))
    }

    /// Which parts of which tensors this file holds and what it is known by, if it is a shard.
    pub(crate) fn as_shard(&self) -> Option<(&Shard, ShardRef)> {
        let shard = self.index.shard.as_ref()?;
        let (file_id, len, index_crc) = (self.header.file_id, self.footer.file_len, self.footer.index_crc);
        Some((shard, ShardRef { rank: shard.rank, file_id, len, index_crc }))
    }

    /// The dtype of a shard's part, or the number of one that this version does not know.
    pub(crate) fn part_dtype(&self, number: usize) -> Result<Dtype, u16> {
        self.tensor_entry(number).table.dtype(number)
    }

    /// The pieces of the tensor with this number among those in shards that share elements with a
    /// box.
    pub(super) fn pieces_within(&self, number: usize, wanted: &TensorBox) -> Vec<StoredBox> {
        self.pieces().map(|pieces| pieces.pieces_within(number, wanted)).unwrap_or_default()
    }

    /// A shard, which is opened now if it was not before.
    ///
    /// # Errors
    /// `Damaged` when it is lost, another file, or does not open; `Unsupported` when the manifest
    /// was opened without its folder; errors of the storage.
    pub(super) fn shard(&self, number: usize) -> Result<&Self> {
        let slot = self.shards.open.get(number).ok_or_else(|| Error::invalid("number of a shard"))?;
        if let Some(open) = slot.get() {
            return Ok(open);
        }
        let opened = Box::new(self.open_shard(number)?);
        Ok(slot.get_or_init(|| opened))
    }

    fn open_shard(&self, number: usize) -> Result<Self> {
        let as_damage = |error: Error, kind| {
            if error.kind() == kind { error.with_kind(ErrorKind::Damaged) } else { error }
        };
        let (blob, name, expected) =
            self.shard_file(number).map_err(|error| as_damage(error, ErrorKind::NotFound))?;
        let of_shard = |error: Error| error.in_object(&name);
        let shard = Self::parse(blob, &name, self.options, None)
            .map_err(|error| of_shard(as_damage(error, ErrorKind::Foreign)))?;
        check_known(&expected, &shard.footer, shard.index.shard.is_some()).map_err(of_shard)?;
        Ok(shard)
    }

    /// Compares a shard's footer with what the manifest knows it by, and reads nothing else of it:
    /// the footer has the checksum of the index, and the index those of everything else.
    ///
    /// # Errors
    /// `NotFound` when it is lost; `Damaged` when another file is in its place, or its footer is
    /// damaged; `Unsupported` when the manifest was opened without its folder; errors of the
    /// storage.
    pub(super) fn check_shard(&self, number: usize) -> Result<()> {
        let (blob, name, expected) = self.shard_file(number)?;
        let len = blob.len();
        let footer = || {
            let start = len.checked_sub(SHORTEST).ok_or_else(|| cut_short(len))? + header::LEN as u64;
            let mut bytes = [0; footer::LEN];
            blob.read_at(start, &mut bytes)?;
            check_known(&expected, &Footer::decode(&bytes, len)?, true)
        };
        footer().map_err(|error| error.in_object(name))
    }

    /// The file of a shard, its name for people, and what the manifest knows it by.
    ///
    /// # Errors
    /// `NotFound` when it is lost, and as [`Checkpoint::shard`].
    fn shard_file(&self, number: usize) -> Result<(Arc<dyn Blob>, String, ShardRef)> {
        let (Some(pieces), Some(siblings)) = (self.pieces(), &self.shards.siblings) else {
            return Err(Error::new(ErrorKind::Unsupported, "the manifest was opened without its folder")
                .found("bytes alone")
                .help("open it by its path, with its shards beside it"));
        };
        let (key, expected) = (pieces.shard_key(number), pieces.shard(number));
        let name = siblings.describe(&key);
        let lost = |error: Error| match error.kind() {
            ErrorKind::NotFound => Error::new(ErrorKind::NotFound, "a shard of the checkpoint is lost")
                .expected(format!("the shard of rank {}", expected.rank))
                .help("restore it, or resume from an older checkpoint")
                .because(error),
            _ => error,
        };
        match siblings.open(&key) {
            Ok(blob) => Ok((blob, name, expected)),
            Err(error) => Err(lost(error).in_object(name)),
        }
    }

    /// Where a piece of the tensor with this number lies.
    ///
    /// # Errors
    /// As [`Checkpoint::shard`]; `Damaged` when the shard has no such part of the tensor.
    pub(super) fn source(&self, number: usize, stored: StoredBox) -> Result<Source<'_>> {
        let shard = self.shard(stored.shard)?;
        let StoredBox { tensor_box, .. } = stored;
        let (Some(pieces), Some(parts)) = (self.pieces(), &shard.index.shard) else {
            return Err(Error::damaged("a shard without parts"));
        };
        let name = pieces.name(number);
        let lacks = |found: String| {
            Error::damaged("the shard has not what the manifest says")
                .expected(format!("{tensor_box} of {:?}", pieces.shape(number)))
                .found(found)
                .in_object(shard.name())
        };
        let place = parts.find(name, tensor_box.offsets()).ok_or_else(|| lacks("no such part".to_owned()))?;
        let (part, entry) = (&parts.parts[place], shard.tensor_entry(place));
        if part.tensor_box != tensor_box || part.shape != pieces.shape(number) {
            return Err(lacks(format!("{} of {:?}", part.tensor_box, part.shape)));
        }
        if entry.table.dtype(place) != pieces.dtype(number) {
            return Err(lacks("another dtype".to_owned()));
        }
        Ok(Source { container: shard, entry, tensor_box })
    }

    /// Names of tensors with a piece in this shard, the first few, and how many more.
    pub(super) fn tensors_in_shard(&self, shard: usize) -> String {
        const NAMED: usize = 5;
        let Some(pieces) = self.pieces() else { return String::new() };
        let is_in = |&number: &usize| {
            let whole = TensorBox::whole(&pieces.shape(number));
            pieces.pieces_within(number, &whole).iter().any(|stored| stored.shard == shard)
        };
        let concerned: Vec<&str> =
            (0..pieces.len()).filter(is_in).map(|number| pieces.name(number)).collect();
        let first = concerned.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
        match concerned.len().saturating_sub(NAMED) {
            0 => first,
            more => format!("{first} and {more} more"),
        }
    }
}

/// Compares a file with what the manifest knows a shard by.
fn check_known(expected: &ShardRef, footer: &Footer, is_shard: bool) -> Result<()> {
    let of = |(id, len, crc): ([u8; 16], u64, u32)| format!("{} of {len} bytes, index {crc:08x}", hex(&id));
    let known = (expected.file_id, expected.len, expected.index_crc);
    let found = (footer.file_id, footer.file_len, footer.index_crc);
    if found == known && is_shard {
        return Ok(());
    }
    Err(Error::damaged(format!("another file in place of the shard of rank {}", expected.rank))
        .expected(of(known))
        .found(of(found))
        .help("restore the shard, or resume from an older checkpoint"))
}
