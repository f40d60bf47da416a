//! A checkpoint of many ranks whose manifest is lost, put together again from its shards: each of
//! them says which box of which tensor it holds.

use crate::buffer::Buffer;
use crate::checkpoint::{Checkpoint, Folder, OpenOptions};
use crate::dtype::Dtype;
use crate::engine::memory::MemoryBlob;
use crate::error::{Error, ErrorKind, Result};
use crate::format::aliases::Aliases;
use crate::format::pieces::ShardRef;
use crate::format::shard::{Shard, shard_key};
use crate::layout::TensorBox;
use crate::snapshot::Snapshot;
use crate::writer::job::Job;
use crate::writer::{Plan, WriteOptions};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// What was put together again, and an error for everything that was not.
#[derive(Debug)]
pub struct Rebuilt {
    /// The tensors of which every piece is there.
    pub checkpoint: Checkpoint,
    /// Tensors of which a piece is missing, shards that do not open, and the records of the
    /// manifest.
    pub lost: Vec<Error>,
}

/// Shards by rank, and why others are none.
type Found = (Vec<(u32, Checkpoint)>, Vec<Error>);

/// A tensor of the shards.
struct Whole {
    dtype: Dtype,
    shape: Vec<u64>,
    boxes: Vec<(TensorBox, u32)>,
}

/// Puts a checkpoint together again of which any shard is at `path`, from the shards of the same
/// save beside it. Records, progress and metrics were in the manifest, and so were tensors without
/// elements, and aliases.
///
/// ```no_run
/// use tensorkeep::OpenOptions;
///
/// let shard = "runs/job/shards/0/0004-0000001200-1-5b7711e0-r00000.tkeep";
/// let rebuilt = tensorkeep::ranks::rebuild(shard, OpenOptions::new())?;
/// rebuilt.lost.iter().for_each(|lost| eprintln!("{lost}"));
/// rebuilt.checkpoint.inspect().to_snapshot()?.save("rescued.tkeep")?;
/// # Ok::<(), tensorkeep::Error>(())
/// ```
///
/// # Errors
/// `Invalid` when there is no shard at `path`, or not where shards lie; `Damaged` when no tensor is
/// whole; `Io`.
pub fn rebuild(path: impl AsRef<Path>, options: OpenOptions) -> Result<Rebuilt> {
    let path = path.as_ref();
    let one = options.open(path)?;
    let Some((shard, _)) = one.as_shard() else {
        return Err(Error::invalid("a shard of a checkpoint of many ranks")
            .found("another file")
            .in_object(one.name()));
    };
    let folder =
        path.ancestors().nth(3).filter(|folder| folder.join(shard_key(&shard.save, shard.rank)) == path);
    let folder = folder.ok_or_else(|| {
        Error::invalid("where a shard lies")
            .expected(format!("{} in the folder of its manifest", shard_key(&shard.save, shard.rank)))
            .found(path.display())
    })?;
    let (shards, mut lost) = beside(folder, shard, options)?;
    lost.push(Error::damaged("the manifest is lost, and with it records, progress, metrics and aliases"));
    let mut job = Job::new(&shard.save, shard.world)?;
    for (name, whole) in tensors_of(&shards, &mut lost) {
        let Whole { dtype, shape, boxes } = whole;
        lost.extend(
            job.boxes(&name, dtype, &shape, boxes).err().map(|error| error.with_kind(ErrorKind::Damaged)),
        );
    }
    if job.names().next().is_none() {
        let error = lost.into_iter().find(|error| error.tensor().is_some());
        return Err(
            error.unwrap_or_else(|| Error::damaged("shards without a tensor").in_object(folder.display()))
        );
    }
    let known: Vec<ShardRef> = shards.iter().filter_map(|(_, shard)| Some(shard.as_shard()?.1)).collect();
    let pieces = job.pieces(known)?;
    let snapshot = Snapshot::new();
    let plan = Plan::of(&snapshot, &[], &WriteOptions::new())?.with(pieces, Aliases::new());
    let manifest = MemoryBlob(Buffer::copy_of(&plan.to_bytes()?)?);
    let name = format!("{} without its manifest", folder.join(&shard.save).display());
    let siblings = Folder { path: folder.to_owned(), map: None };
    let checkpoint = options.open_in(Arc::new(manifest), name, Some(Arc::new(siblings)))?;
    Ok(Rebuilt { checkpoint, lost })
}

/// The shards of the same save, by rank, and why others of its names are none.
fn beside(folder: &Path, of: &Shard, options: OpenOptions) -> Result<Found> {
    let listed = |error| Error::io("listing shards", error).in_object(folder.display());
    let mut ranks = Vec::new();
    for digit in std::fs::read_dir(folder.join("shards")).map_err(listed)? {
        let digit = digit.map_err(listed)?.path();
        if !digit.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(&digit).map_err(listed)? {
            let name = file.map_err(listed)?.file_name();
            let rank = name.to_str().and_then(|name| rank_in(name, &of.save));
            ranks.extend(rank.filter(|rank| folder.join(shard_key(&of.save, *rank)) == digit.join(&name)));
        }
    }
    ranks.sort_unstable();
    let (mut shards, mut lost) = (Vec::new(), Vec::new());
    for rank in ranks {
        let path = folder.join(shard_key(&of.save, rank));
        match options.open(&path) {
            Ok(found) => match found.as_shard() {
                Some((shard, _)) if (&shard.save, shard.rank, shard.world) == (&of.save, rank, of.world) => {
                    shards.push((rank, found));
                }
                _ => lost.push(
                    Error::damaged("another file in place of a shard")
                        .expected(format!("that of rank {rank} of {}", of.world))
                        .in_object(path.display()),
                ),
            },
            Err(error) => lost.push(error),
        }
    }
    Ok((shards, lost))
}

fn rank_in(name: &str, save: &str) -> Option<u32> {
    name.strip_prefix(save)?.strip_prefix("-r")?.strip_suffix(".tkeep")?.parse().ok()
}

/// The pieces of each tensor. One of which shards say different things is lost.
fn tensors_of(shards: &[(u32, Checkpoint)], lost: &mut Vec<Error>) -> BTreeMap<String, Whole> {
    let mut tensors: BTreeMap<String, Whole> = BTreeMap::new();
    let mut odd: BTreeMap<String, Error> = BTreeMap::new();
    for (rank, checkpoint) in shards {
        let parts = checkpoint.as_shard().into_iter().flat_map(|(shard, _)| &shard.parts);
        for (number, part) in parts.enumerate() {
            let error =
                |what: String| Error::damaged(what).in_tensor(&part.name).in_object(checkpoint.name());
            let dtype = match checkpoint.part_dtype(number) {
                Ok(dtype) => dtype,
                Err(id) => {
                    let newer = Error::new(ErrorKind::NewerVersion, "dtype").found(format!("id {id}"));
                    odd.insert(part.name.clone(), newer.in_tensor(&part.name).in_object(checkpoint.name()));
                    continue;
                }
            };
            let new = || Whole { dtype, shape: part.shape.clone(), boxes: Vec::new() };
            let whole = tensors.entry(part.name.clone()).or_insert_with(new);
            if (whole.dtype, &whole.shape) == (dtype, &part.shape) {
                whole.boxes.push((part.tensor_box.clone(), *rank));
            } else {
                let found = format!("{dtype} {:?} by rank {rank}", part.shape);
                let expected = format!("{} {:?}", whole.dtype, whole.shape);
                odd.insert(
                    part.name.clone(),
                    error("shards say different things".to_owned()).expected(expected).found(found),
                );
            }
        }
    }
    tensors.retain(|name, _| !odd.contains_key(name));
    lost.extend(odd.into_values());
    tensors
}
