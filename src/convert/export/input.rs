//! The source of an export: a checkpoint or a foreign file, behind one interface.

use crate::checkpoint::{Checkpoint, inspect::Scratch};
use crate::convert::{Foreign, Note};
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::format::value::Value;
use crate::snapshot::METADATA;
use std::collections::BTreeMap;

/// The source of an export.
#[derive(Clone, Copy, Debug)]
pub enum Input<'c> {
    /// A checkpoint.
    Checkpoint(&'c Checkpoint),
    /// A file of another format.
    Foreign(&'c Foreign),
}

impl<'c> From<&'c Checkpoint> for Input<'c> {
    fn from(checkpoint: &'c Checkpoint) -> Self {
        Self::Checkpoint(checkpoint)
    }
}

impl<'c> From<&'c Foreign> for Input<'c> {
    fn from(foreign: &'c Foreign) -> Self {
        Self::Foreign(foreign)
    }
}

/// One tensor to export.
pub struct Item<'c> {
    /// Its name in the source.
    pub name: &'c str,
    /// Its name in the exported file, if different.
    pub renamed: Option<String>,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub byte_len: u64,
    chunks: usize,
}

impl Item<'_> {
    /// Its name in the exported file.
    pub fn target(&self) -> &str {
        self.renamed.as_deref().unwrap_or(self.name)
    }
}

impl<'c> Input<'c> {
    /// Notes from reading the source.
    pub(super) fn notes(self) -> Vec<Note> {
        match self {
            Self::Checkpoint(_) => vec![],
            Self::Foreign(foreign) => foreign.notes().to_vec(),
        }
    }

    /// All tensors that this version can read; the others are noted.
    pub(super) fn items(self, notes: &mut Vec<Note>) -> Result<Vec<Item<'c>>> {
        match self {
            Self::Checkpoint(checkpoint) => of_checkpoint(checkpoint, notes),
            Self::Foreign(foreign) => Ok(of_foreign(foreign, notes)),
        }
    }

    /// Calls `visit` with the bytes of a tensor, piece by piece, each with its offset.
    ///
    /// # Errors
    /// Errors of reading, `Damaged` for a bool that is neither 0 nor 1, and any error of `visit`.
    pub(super) fn visit(
        self,
        item: &Item<'_>,
        mut visit: impl FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut checked = |start: u64, bytes: &[u8]| {
            check_bools(item.dtype, start, bytes).map_err(|error| error.in_tensor(item.name))?;
            visit(start, bytes)
        };
        let mut scratch = Scratch::default();
        match self {
            Self::Checkpoint(checkpoint) => {
                checkpoint.inspect().visit_chunks_with(item.name, 0..item.chunks, &mut scratch, &mut checked)
            }
            Self::Foreign(foreign) => {
                foreign.visit_chunks_with(item.name, 0..item.chunks, &mut scratch, &mut checked)
            }
        }
    }

    /// Text by key.
    pub(super) fn metadata(self) -> Result<BTreeMap<String, String>> {
        match self {
            Self::Checkpoint(checkpoint) => checkpoint.metadata(),
            Self::Foreign(foreign) => Ok(foreign.metadata().clone()),
        }
    }

    /// The names of all records except the metadata.
    pub(super) fn record_names(self) -> Vec<&'c str> {
        match self {
            Self::Checkpoint(checkpoint) => checkpoint.records().filter(|name| *name != METADATA).collect(),
            Self::Foreign(foreign) => foreign.records().keys().map(String::as_str).collect(),
        }
    }

    /// One record.
    pub(super) fn record(self, name: &str) -> Result<Value> {
        match self {
            Self::Checkpoint(checkpoint) => checkpoint.inspect().record_value(name),
            Self::Foreign(foreign) => Ok(foreign.records().get(name).cloned().unwrap_or(Value::Null)),
        }
    }
}

fn of_checkpoint<'c>(checkpoint: &'c Checkpoint, notes: &mut Vec<Note>) -> Result<Vec<Item<'c>>> {
    let mut items = Vec::new();
    for info in checkpoint.tensors() {
        let shape: Option<Vec<usize>> = info.shape.iter().map(|&dim| usize::try_from(dim).ok()).collect();
        let (Ok(dtype), Some(shape)) = (info.dtype, shape) else {
            notes.push(Note::lost(info.name, "dropped: a dtype that this version does not know"));
            continue;
        };
        if checkpoint.inspect().chunks(info.name)?.iter().any(|chunk| chunk.codec == "unknown") {
            notes.push(Note::lost(info.name, "dropped: stored by a codec that this version does not know"));
            continue;
        }
        notes.extend(info.alias_of.map(|other| alias(info.name, other)));
        items.push(Item {
            name: info.name,
            renamed: None,
            dtype,
            shape,
            byte_len: info.byte_len,
            chunks: info.chunks,
        });
    }
    Ok(items)
}

fn of_foreign<'c>(foreign: &'c Foreign, notes: &mut Vec<Note>) -> Vec<Item<'c>> {
    let mut items = Vec::new();
    for tensor in foreign.tensors() {
        notes.extend(tensor.alias_of.as_ref().map(|other| alias(&tensor.name, other)));
        items.push(Item {
            name: &tensor.name,
            renamed: None,
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
            byte_len: tensor.byte_len as u64,
            chunks: tensor.chunks(),
        });
    }
    items
}

fn alias(name: &str, other: &str) -> Note {
    Note::kept(name, format!("an alias of {other}, written a second time"))
}

/// Checks that bools are 0 or 1.
///
/// # Errors
/// `Damaged` with the first other byte.
pub fn check_bools(dtype: Dtype, start: u64, bytes: &[u8]) -> Result<()> {
    if dtype != Dtype::Bool {
        return Ok(());
    }
    match bytes.iter().position(|&byte| byte > 1) {
        Some(at) => Err(Error::damaged(format!("element {} is no truth value", start + at as u64))
            .expected("0 or 1")
            .found(bytes[at])),
        None => Ok(()),
    }
}
