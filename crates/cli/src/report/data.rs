//! What the page is made of. Owns: reading all of it from a run, once.

use super::Options;
use super::pairs::Pair;
use crate::budget::Budget;
use crate::opened::{Meta, Opened};
use crate::records::{self, Change};
use crate::stats::{self, Stats};
use crate::verbs::ls::{self, Kept};
use std::collections::BTreeMap;
use tensorkeep::{
    Checkpoint, CheckpointId, CheckpointInfo, Error, ErrorKind, Keep, Reader, Result, Value,
    store::AttemptInfo,
};

/// A file with damage, and where.
pub struct Damaged {
    pub name: String,
    pub len: u64,
    /// (offset, stored length) of all chunks.
    pub chunks: Vec<(u64, u32)>,
    pub errors: Vec<Error>,
}

/// Everything.
pub struct Run {
    pub infos: Vec<CheckpointInfo>,
    pub attempts: Vec<AttemptInfo>,
    pub keep: Option<Keep>,
    pub kept: Kept,
    /// The newest that verifies, and its tensors.
    pub newest: Option<(CheckpointId, Tensors)>,
    pub damaged: Vec<Damaged>,
    /// Every two of a few checkpoints, the first of them shown first.
    pub pairs: Vec<Pair>,
    /// Each attempt's last records against those of the attempt before.
    pub changes: Vec<(u32, u32, Vec<Change>)>,
}

impl Run {
    pub fn read(reader: &Reader, options: &Options) -> Result<Self> {
        let infos = reader.list()?;
        let (keep, kept) = ls::kept(reader, &infos)?;
        let mut damaged = Vec::new();
        let newest = newest(reader, &infos, &mut damaged)?;
        for key in reader.set_aside()?.iter().filter(|key| key.contains(".tkeep")) {
            damaged.push(look(key, reader.open_set_aside(key)));
        }
        let is_damaged = |info: &CheckpointInfo| damaged.iter().any(|damaged| damaged.name == info.key);
        let intact: Vec<&CheckpointInfo> =
            infos.iter().filter(|info| info.state.is_ok() && !is_damaged(info)).collect();
        let pairs = super::pairs::compare(reader, &intact, &kept, options)?;
        let changes = changes(reader, &infos);
        let attempts = reader.attempts()?;
        Ok(Self { infos, attempts, keep, kept, newest, damaged, pairs, changes })
    }

    /// Whether damage of a checkpoint was found, which is looked for from the newest back to one
    /// that is intact.
    pub fn is_damaged(&self, info: &CheckpointInfo) -> bool {
        self.damaged.iter().any(|damaged| damaged.name == info.key)
    }

    /// Checkpoints that say something of themselves.
    pub fn states(
        &self,
    ) -> impl DoubleEndedIterator<Item = (CheckpointId, &tensorkeep::store::CheckpointMeta)> {
        self.infos.iter().filter_map(|info| Some((info.name, info.state.as_ref().ok()?)))
    }
}

/// Tensors with their numbers.
pub type Tensors = Vec<(Meta, Option<Stats>)>;

fn newest(
    reader: &Reader,
    infos: &[CheckpointInfo],
    damaged: &mut Vec<Damaged>,
) -> Result<Option<(CheckpointId, Tensors)>> {
    for info in infos.iter().rev() {
        let opened = reader.checkpoint_by_id(info.name);
        if info.is_marked {
            damaged.push(marked(look(&info.key, opened)));
            continue;
        }
        let verified = opened.as_ref().is_ok_and(|checkpoint| checkpoint.verify().is_ok());
        match opened {
            Ok(checkpoint) if verified => {
                let opened = Opened::Own(checkpoint);
                let mut metas = opened.tensors();
                metas.retain(|meta| meta.alias_of.is_none());
                let stats = match Budget::default().check(&opened, &metas) {
                    // Too much to be summed for a page: then the page has no numbers of it.
                    Err(_) => metas.iter().map(|_| None).collect(),
                    Ok(()) => {
                        stats::of(&opened, &metas)?.into_iter().map(|stats| stats.ok().flatten()).collect()
                    }
                };
                let stats: Vec<Option<Stats>> = stats;
                return Ok(Some((info.name, metas.into_iter().zip(stats).collect())));
            }
            opened => damaged.push(look(&info.key, opened)),
        }
    }
    Ok(None)
}

/// A checkpoint that a resume has marked as damaged, on storage that cannot rename.
fn marked(mut one: Damaged) -> Damaged {
    if one.errors.is_empty() {
        let error = Error::new(ErrorKind::Damaged, "is marked as damaged, and verifies now");
        one.errors.push(error.help("`tensorkeep verify --heal-marks` takes the mark off"));
    }
    one
}

fn look(name: &str, opened: Result<Checkpoint>) -> Damaged {
    let name = name.to_owned();
    let checkpoint = match opened {
        Ok(checkpoint) => checkpoint,
        Err(error) => return Damaged { name, len: 0, chunks: vec![], errors: vec![error] },
    };
    let errors = checkpoint.inspect().verify_all().map_or_else(|error| vec![error], |report| report.damage);
    let tensors: Vec<&str> =
        checkpoint.tensors().filter(|info| info.alias_of.is_none()).map(|info| info.name).collect();
    let chunks = tensors.iter().flat_map(|name| checkpoint.inspect().chunks(name).unwrap_or_default());
    let chunks = chunks.map(|chunk| (chunk.offset, chunk.stored_len)).collect();
    Damaged { name, len: checkpoint.byte_len(), chunks, errors }
}

fn changes(reader: &Reader, infos: &[CheckpointInfo]) -> Vec<(u32, u32, Vec<Change>)> {
    let lasts: BTreeMap<u32, CheckpointId> =
        infos.iter().filter(|info| info.state.is_ok()).map(|info| (info.name.attempt, info.name)).collect();
    let own = |name: CheckpointId| -> Vec<(String, Value)> {
        let Ok(checkpoint) = reader.checkpoint_by_id(name) else { return vec![] };
        let mut records = Opened::Own(checkpoint).records();
        records.retain(|(name, _)| !name.starts_with(tensorkeep::inspect::RESERVED_PREFIX));
        records.into_iter().filter_map(|(name, value)| Some((name, value.ok()?))).collect()
    };
    let names: Vec<CheckpointId> = lasts.into_values().collect();
    let pairs = names
        .windows(2)
        .map(|pair| (pair[0].attempt, pair[1].attempt, records::changes(&own(pair[0]), &own(pair[1]))));
    pairs.collect()
}
