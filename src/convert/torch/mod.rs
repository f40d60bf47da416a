//! torch's files, in: pickles of state with tensors, whose bytes lie beside them. What
//! `torch.load(weights_only=True)` reads is read with the same values; of what is code, the data is
//! read where it can be and the rest is listed.
//!
//! Nested dicts become names joined by dots; what is no tensor becomes records, one for each key of
//! the outermost dict. Values that MessagePack has no type for are written like this, in Python's
//! words:
//!
//! * an integer beyond 64 bits: `{"int": "0x1f…"}`, hexadecimal, with `-` in front where it is
//!   negative
//! * a complex number: `{"complex": [real, imaginary]}`
//! * a tuple or a set: a list
//! * a dict with keys that are not all text: pairs, keys as they are, but for a tuple, which is the
//!   text `(1, 2)`
//! * an object: a map of its attributes, or the items of the dict or list that its class extends
//! * a sparse tensor: tensors `.indices` and `.values` (or `.crow_indices` …), and a map with
//!   `layout` and `shape`
//! * a quantised tensor: its integers, and a map with `qscheme`, `scale` and `zero_point`
//! * a dtype without a counterpart: opaque bytes, and a map with `dtype` and `shape`

mod archive;
mod calls;
pub mod distributed;
mod elements;
mod keys;
mod legacy;
mod numpy;
mod objects;
mod special;
mod storages;
mod tensors;
mod values;

pub use archive::{open, pickle_name};
pub use legacy::open as open_legacy;

use super::pickle::{Graph, Id};
use super::{Foreign, Note};
use crate::budget::Budget;
use crate::error::Result;
use crate::format::value::Value;
use std::collections::HashMap;
use storages::{Found, Storages};
use tensors::Identity;

/// Reads the objects of one pickle into a foreign file.
struct Reader<'g, 'b> {
    graph: &'g Graph<'g>,
    storages: Found<'b>,
    foreign: Foreign,
    budget: &'b Budget,
    /// Where the walk is, keys joined by dots. One text for the whole walk: it is copied only into
    /// names and notes.
    path: String,
    /// The objects around the present one, outermost first.
    around: Vec<Id>,
    /// How many objects of unknown classes are around the present one.
    inside_objects: usize,
    /// The tensors taken, by what makes them the same.
    seen: HashMap<Identity, usize>,
    /// Bytes of each storage that no tensor has been made of.
    unclaimed: HashMap<String, u64>,
}

/// What reading a pickle's objects takes from the stack for each level of nesting is bounded by
/// this.
const DEEPEST: usize = 128;

/// Reads all of a pickle's objects, under one name where there is one.
///
/// # Errors
/// `Damaged` when tensors reach beyond their storages, `LimitExceeded` beyond the budget.
fn read<'g>(
    graph: &'g Graph<'g>,
    storages: Storages,
    foreign: Foreign,
    name: Option<&str>,
    budget: &Budget,
) -> Result<Foreign> {
    let storages = Found::new(storages, budget);
    let (path, around, inside_objects, seen, unclaimed) = Default::default();
    let mut reader =
        Reader { graph, storages, foreign, budget, path, around, inside_objects, seen, unclaimed };
    reader.take_root(name)?;
    Ok(reader.foreign)
}

impl Reader<'_, '_> {
    fn note(&mut self, note: Note) -> Result<()> {
        self.budget.spend((size_of::<Note>() + note.name.len() + note.what.len()) as u64, "notes")?;
        self.foreign.notes.push(note);
        Ok(())
    }

    /// Notes that the present object is lost.
    fn lost(&mut self, why: &str) -> Result<Option<Value>> {
        // Charged before the path is copied: it may be long, and there may be many.
        self.budget.spend((self.path.len() + why.len()) as u64, "notes")?;
        self.note(Note::lost(&self.path, format!("dropped: {why}")))?;
        Ok(None)
    }
}
