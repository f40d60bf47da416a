//! The shard of one rank: its tensors, the section that says which parts they are, and what the
//! manifest knows it by.

use super::Job;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::format::Flags;
use crate::format::index::SECTION_SHARD;
use crate::format::limits::Limits;
use crate::format::pieces::ShardRef;
#[cfg(feature = "testing")]
use crate::format::shard::shard_key;
use crate::format::shard::{Part, Shard};
use crate::layout::TensorBox;
use crate::snapshot::{IntoTensorSource, Snapshot, TensorSource};
use crate::writer::plan::{Further, Plan};
use crate::writer::{WriteOptions, Written};
use std::collections::BTreeMap;
#[cfg(feature = "testing")]
use std::path::Path;

/// A rank's shard, not written yet.
pub struct ShardContents<'a> {
    rank: u32,
    /// Its tensors, and what it has besides.
    pub snapshot: Snapshot<'a>,
    payload: Vec<u8>,
}

impl<'a> ShardContents<'a> {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.snapshot.byte_len() == 0 && self.snapshot.records.is_empty()
    }

    /// The plan of its file.
    ///
    /// # Errors
    /// As [`Plan::of`].
    pub(crate) fn plan(&self, options: &WriteOptions) -> Result<Plan<'_, 'a>> {
        let flags = Flags { ro_compat: Flags::SHARD, ..Flags::default() };
        let further = Further { kind: SECTION_SHARD, payload: self.payload.clone(), flags };
        Plan::of_shard(&self.snapshot, options, further)
    }

    /// What the manifest knows it by.
    pub(crate) fn known_by(&self, plan: &Plan<'_, '_>, written: &Written) -> ShardRef {
        ShardRef {
            rank: self.rank,
            file_id: plan.file_id(),
            len: written.byte_len,
            index_crc: written.index_crc,
        }
    }
}

impl Job {
    /// What a rank's shard is made of. `source` gives each part's tensor; `records` are the rank's
    /// own.
    ///
    /// # Errors
    /// `Mismatch` when a tensor is not its part's.
    pub fn shard<'a, S: IntoTensorSource<'a>>(
        &self,
        rank: u32,
        source: impl Fn(&Part) -> Result<S>,
    ) -> Result<ShardContents<'a>> {
        let mut tensors: BTreeMap<String, (Part, TensorSource<'a>)> = BTreeMap::new();
        for part in self.parts_of(rank) {
            let given = source(&part)?.into_source()?;
            self.check_part(rank, &part, &given)?;
            let mut name = stored_name(&part);
            while tensors.contains_key(&name) {
                name.push('@');
            }
            tensors.insert(name, (part, given));
        }
        let mut snapshot = Snapshot::new();
        let mut parts = Vec::with_capacity(tensors.len());
        for (name, (part, source)) in tensors {
            snapshot.add_tensor(name, source)?;
            parts.push(part);
        }
        let payload = Shard::new(&self.save, rank, self.world, parts)?.encode();
        Ok(ShardContents { rank, snapshot, payload })
    }

    /// Writes a rank's shard beside the manifest at `manifest`, durably, and says what it is known
    /// by. `source` gives each part's tensor.
    ///
    /// # Errors
    /// `Mismatch` when a tensor is not its part's, and as [`Snapshot::save`].
    #[cfg(feature = "testing")]
    pub fn write_shard<'a, S: IntoTensorSource<'a>>(
        &self,
        manifest: &Path,
        rank: u32,
        options: &WriteOptions,
        source: impl Fn(&Part) -> Result<S>,
    ) -> Result<ShardRef> {
        let contents = self.shard(rank, source)?;
        let plan = contents.plan(options)?;
        let path = manifest.with_file_name(shard_key(&self.save, rank));
        let folder = path.parent().unwrap_or(Path::new(""));
        std::fs::create_dir_all(folder).map_err(|error| Error::io("making the folder of shards", error))?;
        let written = plan.save(&path, |_| Ok(()))?;
        Ok(contents.known_by(&plan, &written))
    }

    /// A rank gives what the job says it has.
    fn check_part(&self, rank: u32, part: &Part, given: &TensorSource<'_>) -> Result<()> {
        let expected = (self.tensors.get(&part.name).map(|global| global.dtype), part.tensor_box.lens());
        let shape: Vec<u64> = given.shape().iter().map(|&len| len as u64).collect();
        if (Some(given.dtype()), &shape[..]) == expected {
            return Ok(());
        }
        let dtype = expected.0.map_or("nothing", Dtype::name);
        Err(Error::new(ErrorKind::Mismatch, format!("the part {} of rank {rank}", part.tensor_box))
            .expected(format!("{dtype} {:?}", expected.1))
            .found(format!("{} {shape:?}", given.dtype()))
            .in_tensor(&part.name))
    }
}

/// The name of a part in its shard: for people, the section of parts is what counts.
fn stored_name(part: &Part) -> String {
    if part.tensor_box == TensorBox::whole(&part.shape) {
        return part.name.clone();
    }
    let offsets: Vec<String> = part.tensor_box.offsets().iter().map(u64::to_string).collect();
    let name = format!("{}@{}", part.name, offsets.join(","));
    if name.len() as u64 <= Limits::V1.name_bytes { name } else { format!("@{}", offsets.join(",")) }
}
