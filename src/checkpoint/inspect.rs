//! Inspecting a checkpoint, for tools: how it is stored, its damage, copying and salvaging it. A
//! trainer needs none of this.
//!
//! ```
//! use tensorkeep::{Checkpoint, Snapshot, WriteOptions};
//!
//! let snapshot = Snapshot::new().tensor("w", &[1.0_f32, 2.0])?;
//! let checkpoint = Checkpoint::from_bytes(&snapshot.to_bytes(&WriteOptions::new())?)?;
//! let chunks = checkpoint.inspect().chunks("w")?;
//! assert_eq!((chunks.len(), chunks[0].raw_len, chunks[0].codec), (1, 8, "raw"));
//! assert!(checkpoint.inspect().verify_all()?.damage.is_empty());
//! # Ok::<(), tensorkeep::Error>(())
//! ```

use super::entry::Tensors;
use crate::error::{Error, ErrorKind, Result};
use crate::format::pieces::Pieces;
use crate::format::value::Value;
use crate::layout::TensorBox;
use crate::tensor::Tensor;

pub use super::Inspect;
pub use super::chunks::{ChunkInfo, Scratch};
pub use super::resave::SALVAGED;
pub use super::verify::VerifyReport;
pub use crate::format::limits::Limits;
pub use crate::format::pieces::StoredBox;
pub use crate::names::{name_matches, nearest as nearest_name};
pub use crate::snapshot::RESERVED_PREFIX;

/// A shard as its manifest knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardInfo {
    /// Its key: the path of a file from the manifest's folder, as `shards/1/…`.
    pub key: String,
    /// The rank that stored it.
    pub rank: u32,
    /// Its length in bytes.
    pub byte_len: u64,
}

impl<'c> Inspect<'c> {
    /// The file's 16-byte id, which differs between files.
    pub fn file_id(&self) -> [u8; 16] {
        self.0.header.file_id
    }

    /// The version of the specification that the file's writer followed.
    pub fn write_version(&self) -> u16 {
        self.0.header.write_version
    }

    /// Length in bytes: of the file, and of all shards if it is a manifest.
    pub fn byte_len(&self) -> u64 {
        let pieces = self.0.pieces().into_iter();
        let shards =
            pieces.flat_map(|pieces| (0..pieces.shard_count()).map(|number| pieces.shard(number).len));
        shards.fold(self.0.footer.file_len, u64::saturating_add)
    }

    /// Whether tensors stored raw are borrowed from memory instead of read.
    pub fn is_mapped(&self) -> bool {
        self.0.is_mapped()
    }

    /// Number of shards of a manifest, which holds a checkpoint of many ranks with the files beside
    /// it; 0 for a checkpoint of one file.
    pub fn shards(&self) -> usize {
        self.0.pieces().map_or(0, |pieces| pieces.shard_count())
    }

    /// Keys of the shards of a manifest, beside its own: names of files in its folder.
    pub fn shard_keys(&self) -> Vec<String> {
        let keys =
            |pieces: &Pieces<_>| (0..pieces.shard_count()).map(|number| pieces.shard_key(number)).collect();
        self.0.pieces().map(keys).unwrap_or_default()
    }

    /// A shard of a manifest by its number, from 0 to [`shards`](Inspect::shards), without opening
    /// it; None for a number beyond.
    pub fn shard_info(&self, number: usize) -> Option<ShardInfo> {
        let pieces = self.0.pieces().filter(|pieces| number < pieces.shard_count())?;
        let known = pieces.shard(number);
        Some(ShardInfo { key: pieces.shard_key(number), rank: known.rank, byte_len: known.len })
    }

    /// Whether a shard of a manifest is there: its footer is compared with what the manifest knows
    /// it by. [`verify_all`](Inspect::verify_all) reads the rest.
    ///
    /// # Errors
    /// `NotFound` when it is not there; `Damaged` when another file is in its place, or its footer
    /// is damaged; `Invalid` for a number beyond; `Unsupported` when the manifest was opened
    /// without its folder; `Io`.
    pub fn check_shard(&self, number: usize) -> Result<()> {
        if number < self.shards() {
            return self.0.check_shard(number);
        }
        let beyond = Error::invalid("number of a shard").expected(format!("below {}", self.shards()));
        Err(beyond.found(number).in_object(self.0.name()))
    }

    /// The first `most` of the pieces that a tensor lies in, in no particular order;
    /// [`TensorInfo::pieces`](crate::TensorInfo::pieces) says how many there are. They are not
    /// empty and tile the tensor. Empty for a tensor of this file, and for one without elements.
    ///
    /// # Errors
    /// `NotFound`, with the nearest name.
    pub fn pieces(&self, name: &str, most: usize) -> Result<Vec<StoredBox>> {
        let place = self.0.locate(name)?;
        let mut found = Vec::new();
        if let (Tensors::InShards, Some(pieces)) = (place.table, self.0.pieces()) {
            let whole = TensorBox::whole(&pieces.shape(place.number));
            pieces.visit_pieces(place.number, &whole, &mut |stored| {
                let has_room = found.len() < most;
                if has_room {
                    found.push(stored);
                }
                has_room
            });
        }
        Ok(found)
    }

    /// Whether this is a shard: what one rank stored of a checkpoint, not a checkpoint by itself.
    pub fn is_shard(&self) -> bool {
        self.0.index.shard.is_some()
    }

    /// The damage of the index, if the file was opened by the index's mirror.
    pub fn index_damage(&self) -> Option<&'c Error> {
        self.0.index_damage.as_ref()
    }

    /// A tensor borrowed from the mapped file, or an error that says why it cannot be.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`](super::Checkpoint::tensor), and `Unsupported` when the file was
    /// opened for reading or the tensor is compressed.
    pub fn require_mapped(&self, name: &str) -> Result<Tensor<'c>> {
        let refused = |what: &'static str, help: &'static str| {
            Err(Error::new(ErrorKind::Unsupported, what).help(help).in_tensor(name).in_object(self.0.name()))
        };
        let place = self.0.locate(name)?;
        if !self.is_mapped() {
            return refused("the checkpoint is opened for reading, not mapped", "open it by Checkpoint::map");
        }
        if place.table == Tensors::InShards {
            let mapped = self.0.with_context(name, || self.0.borrowed(place, self.0.dtype_of(place)?))?;
            return mapped
                .map_or_else(|| refused("the tensor lies in several pieces, or compressed", "load it"), Ok);
        }
        let entry = self.0.find_tensor(name)?.entry;
        if !entry.table.is_raw(entry.number) {
            return refused(
                "the tensor is stored compressed",
                "save it with Codec::Raw, or load a decoded copy",
            );
        }
        self.0.tensor(name)
    }

    /// A record whose type is not known.
    ///
    /// # Errors
    /// As [`Checkpoint::record`](super::Checkpoint::record); `LimitExceeded` when its values would
    /// take more memory than the budget, or than 256 MiB without one.
    pub fn record_value(&self, name: &str) -> Result<Value> {
        self.0.record_unfolded(name)
    }

    /// An error for memory beyond the budget that the checkpoint was opened with
    /// ([`OpenOptions::budget`](super::OpenOptions::budget)). Call it before an allocation whose
    /// length the file decides and that
    /// [`Checkpoint::load_into`](super::Checkpoint::load_into) is to fill. What
    /// [`Checkpoint::tensor`](super::Checkpoint::tensor) and the other calls allocate themselves,
    /// they compare by themselves.
    ///
    /// # Errors
    /// `LimitExceeded`.
    pub fn check_budget(&self, bytes: u64) -> Result<()> {
        self.0.within_budget(bytes).map(drop)
    }

    /// The length of a record in bytes, by the index, without reading it.
    ///
    /// # Errors
    /// `NotFound`, with the nearest name.
    pub fn record_len(&self, name: &str) -> Result<u64> {
        Ok(self.0.index.records.columns().byte_len(self.0.find_record(name)?))
    }
}
