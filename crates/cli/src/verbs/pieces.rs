//! `show TARGET --pieces`: of a checkpoint of many ranks, which box of each tensor lies in which
//! shard, and which shards are there. It reads the manifest, and of shards the footers.

use super::show;
use crate::Done;
use crate::answer::{Answer, Text};
use crate::args::{Show, Sort};
use crate::exit::Exit;
use crate::opened::{Meta, Opened};
use crate::output::{self, Cell, clean};
use crate::parallel::{self, Task};
use crate::target::Target;
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use tensorkeep::inspect::{ShardInfo, StoredBox};
use tensorkeep::layout::TensorBox;
use tensorkeep::{Checkpoint, ErrorKind, Result};

/// The most pieces, and the most shards, that are listed: layouts say in a few kilobytes where
/// millions of pieces lie.
const MOST: usize = 100_000;

/// About what looking for one shard reads, for the progress.
const FOOTER_BYTES: u64 = 128;

/// The pieces of tensors, and the shards of their checkpoint.
pub struct Listed {
    opened: Opened,
    pieces: Pieces,
}

/// Opens one checkpoint and lists the pieces of its tensors.
///
/// # Errors
/// As opening it, and `NotFound` for a pattern that nothing matches. The exit code is that of the
/// worst shard.
pub fn run(args: &Show) -> Result<Listed> {
    let opened = Target::parse(&args.selected.target)?.look(args.selected.budget.get())?;
    let only = args.selected.only.as_deref();
    let mut metas = opened.wanted(only)?;
    show::sort(&mut metas, args.sort.unwrap_or(Sort::Name));
    let pieces = match &opened {
        Opened::Own(checkpoint) => Pieces::of(checkpoint, metas, only.is_none(), MOST)?,
        Opened::Foreign(_) => Pieces::of_one_file(metas),
    };
    Ok(Listed { opened, pieces })
}

/// What is listed of a checkpoint.
#[derive(Default)]
struct Pieces {
    tensors: Vec<Tensor>,
    shards: Vec<Shard>,
    /// Shards for which there was no room.
    shards_left_out: usize,
}

/// A tensor, and where it lies.
struct Tensor {
    meta: Meta,
    /// Of an alias none: they are those of its tensor.
    pieces: Vec<Piece>,
    /// Pieces for which there was no room.
    left_out: usize,
}

/// A box of a tensor, and what has it.
struct Piece {
    tensor_box: TensorBox,
    bytes: u64,
    /// None for the file itself.
    shard: Option<ShardInfo>,
}

/// A shard, and whether it is there.
struct Shard {
    info: ShardInfo,
    found: Result<()>,
}

impl Pieces {
    /// The first `most` pieces, and as many shards: all of the manifest, or without `all_shards`
    /// those that the listed pieces lie in.
    fn of(checkpoint: &Checkpoint, metas: Vec<Meta>, all_shards: bool, most: usize) -> Result<Self> {
        let inspect = checkpoint.inspect();
        let (mut room, mut used) = (most, BTreeSet::new());
        let mut tensors = Vec::new();
        for meta in metas {
            let count = checkpoint.info(&meta.name)?.pieces;
            if count == 0 || meta.alias_of.is_some() {
                tensors.push(Tensor::in_one_file(meta));
                continue;
            }
            let stored = inspect.pieces(&meta.name, room)?;
            room -= stored.len();
            used.extend(stored.iter().map(|stored| stored.shard));
            let left_out = count.saturating_sub(stored.len());
            let mut pieces: Vec<Piece> =
                stored.into_iter().map(|stored| Piece::of(checkpoint, &meta, stored)).collect();
            pieces.sort_by(|a, b| a.tensor_box.cmp(&b.tensor_box));
            tensors.push(Tensor { meta, pieces, left_out });
        }
        let numbers: Vec<usize> =
            if all_shards { (0..inspect.shards()).collect() } else { used.into_iter().collect() };
        let shards_left_out = numbers.len().saturating_sub(most);
        let shards = look_for(checkpoint, &numbers[..numbers.len() - shards_left_out])?;
        Ok(Self { tensors, shards, shards_left_out })
    }

    fn of_one_file(metas: Vec<Meta>) -> Self {
        Self { tensors: metas.into_iter().map(Tensor::in_one_file).collect(), ..Self::default() }
    }

    fn left_out(&self) -> usize {
        self.tensors.iter().fold(0, |all, tensor| all.saturating_add(tensor.left_out))
    }

    fn count(&self) -> usize {
        self.tensors.iter().fold(self.left_out(), |all, tensor| all.saturating_add(tensor.pieces.len()))
    }
}

impl Tensor {
    /// A tensor of the file itself, which is one piece if it has elements.
    fn in_one_file(meta: Meta) -> Self {
        let has_piece = meta.alias_of.is_none() && meta.byte_len > 0;
        let tensor_box = TensorBox::whole(&meta.shape);
        let piece = has_piece.then_some(Piece { tensor_box, bytes: meta.byte_len, shard: None });
        Self { meta, pieces: piece.into_iter().collect(), left_out: 0 }
    }
}

impl Piece {
    fn of(checkpoint: &Checkpoint, meta: &Meta, stored: StoredBox) -> Self {
        let StoredBox { tensor_box, shard, .. } = stored;
        // A dtype that this version does not know has a width as well.
        let width = meta.byte_len / TensorBox::whole(&meta.shape).elements().max(1);
        let bytes = tensor_box.elements().saturating_mul(width);
        Self { tensor_box, bytes, shard: checkpoint.inspect().shard_info(shard) }
    }
}

/// Looks for shards by their numbers, several at a time: each is a request or two of a store.
fn look_for(checkpoint: &Checkpoint, numbers: &[usize]) -> Result<Vec<Shard>> {
    let inspect = checkpoint.inspect();
    let tasks: Vec<Task> =
        numbers.iter().map(|&number| Task { number, chunks: 0..1, bytes: FOOTER_BYTES }).collect();
    let mut found = Vec::new();
    let look = |task: &Task, (): &mut ()| Ok(inspect.check_shard(task.number));
    parallel::run("looking for shards", &tasks, look, |task, is_there| found.push((task.number, is_there)))?;
    found.sort_by_key(|(number, _)| *number);
    let shard = |(number, found)| Some(Shard { info: inspect.shard_info(number)?, found });
    Ok(found.into_iter().filter_map(shard).collect())
}

impl Answer for Listed {
    fn schema(&self) -> &'static str {
        "pieces"
    }

    fn json(&self) -> Json {
        let Pieces { tensors, shards, shards_left_out } = &self.pieces;
        json!({
            "path": self.opened.name(),
            "tensors": tensors.iter().map(tensor_in_json).collect::<Vec<_>>(),
            "pieces_left_out": self.pieces.left_out(),
            "shards": shards.iter().map(shard_in_json).collect::<Vec<_>>(),
            "shards_left_out": shards_left_out,
        })
    }

    fn text(&self) -> Result<Text<'_>> {
        let text = Text::default().warnings(self.opened.warnings());
        let name = clean(self.opened.name());
        if let Some(words) = without_shards(&self.opened) {
            return Ok(text.lines(format!("{name}: {words}")));
        }
        let (tensors, shards) = (&self.pieces.tensors, &self.pieces.shards);
        let mut parts = vec![format!("{}\n{}", output::bold(&name), summary(&self.pieces))];
        parts.push(table_of_pieces(tensors));
        parts.extend((!shards.is_empty()).then(|| table_of_shards(shards)));
        let mut lines: Vec<String> = shards.iter().filter_map(Shard::fault).collect();
        lines.extend(left_out(&self.pieces));
        parts.extend((!lines.is_empty()).then(|| lines.join("\n")));
        Ok(text.lines(parts.join("\n\n")))
    }

    fn end(self: Box<Self>) -> Done {
        let errors = self.pieces.shards.iter().filter_map(|shard| shard.found.as_ref().err());
        // A checkpoint that lacks a shard is there, and damaged.
        let exits = errors.map(|error| match error.kind() {
            ErrorKind::NotFound => Exit::Damaged,
            _ => Exit::from(error),
        });
        Ok(Exit::worst(exits).unwrap_or(Exit::Ok))
    }
}

impl Shard {
    fn state(&self) -> &str {
        self.found.as_ref().map_or_else(|error| error.kind().as_str(), |()| "ok")
    }

    /// What is wrong with it.
    fn fault(&self) -> Option<String> {
        self.found.as_ref().err().map(|error| clean(&error.to_string()))
    }
}

/// What to say of a file that has no shards.
fn without_shards(opened: &Opened) -> Option<&'static str> {
    match opened {
        Opened::Own(checkpoint) if checkpoint.inspect().is_shard() => {
            Some("is itself a shard of a checkpoint of many ranks; name the manifest to see all pieces")
        }
        Opened::Own(checkpoint) if checkpoint.inspect().shards() > 0 => None,
        Opened::Own(_) => Some("is one file without shards: each tensor is whole in it"),
        Opened::Foreign(_) => Some("is no checkpoint of many ranks: each tensor is whole in it"),
    }
}

fn summary(pieces: &Pieces) -> String {
    let Pieces { tensors, shards, shards_left_out } = pieces;
    let bytes = output::size(output::total(shards.iter().map(|shard| shard.info.byte_len)));
    let faults = shards.iter().filter(|shard| shard.found.is_err()).count();
    let shown = match shards_left_out {
        0 => output::count(shards.len(), "shard"),
        _ => format!("the first {}", output::count(shards.len(), "shard")),
    };
    let faults = match faults {
        0 => String::new(),
        _ => format!(", {faults} of them lost or damaged"),
    };
    let tensors = output::count(tensors.len(), "tensor");
    format!("{tensors} in {}; {shown} of {bytes}{faults}", output::count(pieces.count(), "piece"))
}

/// Columns that go first on a narrow terminal: the rank tells a shard as well as its key.
const LEAST_OF_PIECES: [usize; 2] = [4, 2];

fn table_of_pieces(tensors: &[Tensor]) -> String {
    let rows = tensors.iter().flat_map(|tensor| {
        let name = &tensor.meta.name;
        let nowhere = match &tensor.meta.alias_of {
            Some(other) => Some(format!("= {other}")),
            None => (tensor.meta.byte_len == 0).then(|| "empty".to_owned()),
        };
        let nowhere = nowhere.map(|words| vec![Cell::from(name.as_str()), words.into()]);
        nowhere.into_iter().chain(tensor.pieces.iter().map(|piece| {
            let (rank, key) = match &piece.shard {
                Some(shard) => (shard.rank.to_string(), shard.key.clone()),
                None => (String::new(), "the manifest itself".to_owned()),
            };
            let cells = [name.clone(), piece.tensor_box.to_string(), output::size(piece.bytes), rank, key];
            cells.map(Cell::from).into()
        }))
    });
    output::table_by_worth(&["tensor", "box", "size", "rank", "shard"], &[2, 3], &LEAST_OF_PIECES, rows)
}

fn table_of_shards(shards: &[Shard]) -> String {
    let rows = shards.iter().map(|shard| {
        let state = if shard.found.is_ok() { Cell::from("ok") } else { Cell::red(shard.state()) };
        let ShardInfo { key, rank, byte_len, .. } = &shard.info;
        vec![Cell::from(key.as_str()), rank.to_string().into(), output::size(*byte_len).into(), state]
    });
    output::table(&["shard", "rank", "size", "state"], &[1, 2], rows)
}

/// What was not listed, and how to see it.
fn left_out(pieces: &Pieces) -> Option<String> {
    let some = |count: usize, what: &str| (count > 0).then(|| output::count(count, what));
    let parts = [some(pieces.left_out(), "more piece"), some(pieces.shards_left_out, "more shard")];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| format!("{}; --only lists those of fewer tensors", parts.join(" and ")))
}

fn tensor_in_json(tensor: &Tensor) -> Json {
    let piece = |piece: &Piece| {
        json!({
            "offsets": piece.tensor_box.offsets(),
            "lens": piece.tensor_box.lens(),
            "bytes": piece.bytes,
            "rank": piece.shard.as_ref().map(|shard| shard.rank),
            "shard": piece.shard.as_ref().map(|shard| &shard.key),
        })
    };
    json!({
        "name": tensor.meta.name,
        "dtype": tensor.meta.dtype_text(),
        "shape": tensor.meta.shape,
        "bytes": tensor.meta.byte_len,
        "alias_of": tensor.meta.alias_of,
        "pieces": tensor.pieces.iter().map(piece).collect::<Vec<_>>(),
        "pieces_left_out": tensor.left_out,
    })
}

fn shard_in_json(shard: &Shard) -> Json {
    json!({
        "key": shard.info.key,
        "rank": shard.info.rank,
        "bytes": shard.info.byte_len,
        "state": shard.state(),
        "error": shard.found.as_ref().err().map(output::error_in_json),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_is_counted_and_told() {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus/ranks");
        let opened = Target::parse(corpus.join("whole/manifest.tkeep")).unwrap();
        let opened = opened.look(crate::budget::Budget(None)).unwrap();
        let metas = || opened.tensors();
        let Opened::Own(checkpoint) = &opened else { panic!("a checkpoint of ours") };
        let all = Pieces::of(checkpoint, metas(), true, MOST).unwrap();
        assert_eq!((all.count(), all.left_out(), left_out(&all)), (13, 0, None));
        let some = Pieces::of(checkpoint, metas(), true, 4).unwrap();
        let listed = |pieces: &Pieces| -> usize {
            let in_shards =
                |tensor: &Tensor| tensor.pieces.iter().filter(|piece| piece.shard.is_some()).count();
            pieces.tensors.iter().map(in_shards).sum()
        };
        assert_eq!((listed(&all), listed(&some), some.count()), (12, 4, 13));
        assert_eq!((some.shards.len(), some.shards_left_out), (4, 1));
        let told = left_out(&some).unwrap();
        assert!(told.starts_with("8 more pieces and 1 more shard; "), "{told}");
        assert!(summary(&some).contains("; the first 4 shards of "), "{}", summary(&some));
        let none = Pieces::of(checkpoint, metas(), false, 0).unwrap();
        assert_eq!((listed(&none), none.left_out(), none.shards.len()), (0, 12, 0));
    }
}
