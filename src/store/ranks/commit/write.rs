//! What one rank writes of a save: its shard or, where one rank has everything, the checkpoint; and
//! the manifest, by rank 0.

use super::Saving;
use crate::engine::CommitError;
use crate::error::{Error, ErrorKind, Result};
use crate::format::aliases::Aliases;
use crate::format::pieces::ShardRef;
use crate::format::shard::shard_key;
use crate::snapshot::{IntoTensorSource, Record, Snapshot};
use crate::store::ranks::receipts::Receipt;
use crate::store::record::CheckpointMeta;
use crate::tensor::Tensor;
use crate::writer::{Plan, Written};

impl<'a> Saving<'_, 'a> {
    /// This rank's shard, unless one rank writes the whole checkpoint, which is the commit.
    pub(super) fn write_part(&self, shard: &mut Option<String>) -> Result<Receipt> {
        let receipt = Receipt::of(self.snapshot, &self.plan.agreed, &self.sources, self.ranks.rank())?;
        match self.plan.agreed.plain {
            Some(_) => Ok(receipt),
            None => Ok(receipt.with_shard(self.write_shard(shard)?)),
        }
    }

    /// Writes the plain checkpoint of the rank that has everything. `records` has what is not in
    /// `extra`.
    pub(super) fn write_plain(&self, records: &Snapshot<'a>, extra: &[(&str, Vec<u8>)]) -> Result<Written> {
        let mut snapshot = records.without_tensors();
        for part in self.job.parts_of(self.ranks.rank()) {
            snapshot.add_tensor(part.name.clone(), self.sources.of(&part)?)?;
        }
        for name in self.job.names() {
            let Some((dtype, shape)) = self.job.tensor(name).filter(|(_, shape)| shape.contains(&0)) else {
                continue;
            };
            // OK to cast: without elements.
            let shape: Vec<usize> = shape.iter().map(|&len| len as usize).collect();
            snapshot.add_tensor(name.to_owned(), Tensor::new(dtype, &shape, &[])?.into_source()?)?;
        }
        let names: Vec<&str> = self.job.names().collect();
        for (name, number) in &self.plan.agreed.aliases {
            let existing = names.get(*number as usize).copied().unwrap_or_default();
            snapshot.add_alias(name.clone(), existing)?;
        }
        let nonce = self.core.attempt.nonce(self.id.step, self.plan.number);
        let options = self.core.options.write.clone().file_id(nonce);
        let snapshot = if self.snapshot.is_volatile() { snapshot.volatile() } else { snapshot };
        self.core.publish(&Plan::of(&snapshot, extra, &options)?, self.id)
    }

    pub(super) fn write_shard(&self, shard: &mut Option<String>) -> Result<Option<ShardRef>> {
        let (rank, engine) = (self.ranks.rank(), self.core.reader.engine());
        let mut contents = self.job.shard(rank, |part| self.sources.of(part))?;
        let own = self.snapshot.rank_records().iter();
        contents
            .snapshot
            .records
            .extend(own.map(|(key, own)| (key.clone(), Record::Here(own.bytes.clone()))));
        if self.snapshot.is_volatile() {
            contents.snapshot = contents.snapshot.volatile();
        }
        if contents.is_empty() {
            return Ok(None);
        }
        let nonce = self.core.attempt.shard_nonce(self.id.step, self.plan.number, rank);
        let plan = contents.plan(&self.core.options.write.clone().file_id(nonce))?;
        let (key, save_len) = (shard_key(&self.plan.save, rank), self.job.byte_len());
        let upload = || -> Result<Written, CommitError> {
            let mut upload = engine
                .create_shard(&key, Some(plan.size_bound()), save_len)
                .map_err(CommitError::NotCommitted)?;
            let written = plan.write(&mut *upload).map_err(CommitError::NotCommitted)?;
            upload.commit(nonce)?;
            Ok(written)
        };
        let written = match upload() {
            // As for a checkpoint: a new file from memory, once.
            Err(CommitError::NotCommitted(error)) if error.kind() == ErrorKind::Io => upload(),
            written => written,
        };
        // Also what may have arrived is deleted if the save fails.
        *shard = Some(key.clone());
        let written = written.map_err(Error::from).map_err(|error| {
            let error = error.in_object(engine.describe(&key));
            match error.kind() {
                ErrorKind::AlreadyExists => {
                    *shard = None;
                    let what = "another process has written this rank's shard";
                    Error::new(ErrorKind::Fenced, what).in_object(engine.describe(&key)).because(error)
                }
                // No manifest names it: the save has failed, and may be tried again.
                ErrorKind::Unknown => error.with_kind(ErrorKind::Io),
                _ => error,
            }
        })?;
        Ok(Some(contents.known_by(&plan, &written)))
    }

    pub(super) fn write_manifest(
        &self,
        receipts: &[Receipt],
        extra: &[(&'static str, Vec<u8>)],
        meta: CheckpointMeta,
    ) -> Result<(Written, CheckpointMeta)> {
        let shards: Vec<ShardRef> =
            (0..).zip(receipts).filter_map(|(rank, receipt)| receipt.shard(rank)).collect();
        let meta = meta.with_shards(&self.plan.save, &shards);
        let pieces = self.job.pieces(shards)?;
        let snapshot = self.snapshot.without_tensors();
        let nonce = self.core.attempt.nonce(self.id.step, self.plan.number);
        let options = self.core.options.write.clone().file_id(nonce);
        let aliases: Aliases = self.plan.agreed.aliases.clone();
        let plan = Plan::of(&snapshot, extra, &options)?.with(pieces, aliases);
        Ok((self.core.publish(&plan, self.id)?, meta))
    }
}
