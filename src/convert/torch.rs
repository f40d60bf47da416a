//! Imports torch's files: pickles of state with tensors, whose bytes are beside them. Everything
//! that `torch.load(weights_only=True)` reads is read with the same values; of objects whose
//! classes are code, the data is read if possible and the rest is listed.
//!
//! Nested dicts become names joined by dots; values other than tensors become records, one for each
//! key of the outermost dict. Values without a MessagePack type are written as follows, in Python's
//! terms:
//!
//! * an integer beyond 64 bits: `{"int": "0x1f…"}`, hexadecimal, with a leading `-` if negative
//! * a complex number: `{"complex": [real, imaginary]}`
//! * a tuple or a set: a list
//! * a dict with keys that are not all text: pairs with the original keys, except that a tuple
//!   becomes the text `(1, 2)`
//! * an object: a map of its attributes, or the items of the dict or list that its class extends
//! * a sparse tensor: tensors `.indices` and `.values` (or `.crow_indices` …), and a map with
//!   `layout` and `shape`
//! * a quantised tensor: its integers, and a map with `qscheme`, `scale` and `zero_point`
//! * a dtype without a counterpart: opaque bytes, and a map with `dtype` and `shape`. Elements of
//!   NumPy's arrays are the last axis, and their description is metadata, as from a `.npy` file.

mod archive;
mod calls;
mod cast;
mod change;
pub mod distributed;
mod elements;
mod keys;
mod legacy;
mod numpy;
mod objects;
mod scalars;
mod special;
mod storages;
mod tensors;
mod values;
mod view;

pub use archive::{open, pickle_name};
pub use legacy::open as open_legacy;

use super::pickle::{Graph, Id};
use super::{Foreign, Note};
use crate::budget::Budget;
use crate::error::Result;
use crate::format::value::Value;
use std::collections::{HashMap, HashSet};
use storages::{Found, Storages};
use tensors::Identity;

/// Reads the objects of one pickle into a foreign file.
struct Reader<'g, 'b> {
    graph: &'g Graph<'g>,
    storages: Found<'b>,
    foreign: Foreign,
    budget: &'b Budget,
    /// The walk's position, keys joined by dots. One text for the whole walk, copied only into
    /// names and notes.
    path: String,
    /// The objects that contain the current one, outermost first.
    around: Vec<Id>,
    /// Number of objects of unknown classes around the current one.
    inside_objects: usize,
    /// The tensors taken so far, by identity.
    seen: HashMap<Identity, usize>,
    /// The tensors that are another one's values in another dtype, by the call that casts them.
    cast: HashMap<Id, usize>,
    /// The same tensors: nothing that stands for the original is an alias of them.
    is_cast: HashSet<usize>,
    /// Bytes of each storage that no tensor uses.
    unclaimed: HashMap<String, u64>,
}

/// Deepest nesting; bounds the stack used by the recursion.
const DEEPEST: usize = 128;

/// Reads all of a pickle's objects, under `name` if given.
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
    let mut reader = Reader {
        graph,
        storages,
        foreign,
        budget,
        path: String::new(),
        around: Vec::new(),
        inside_objects: 0,
        seen: HashMap::new(),
        cast: HashMap::new(),
        is_cast: HashSet::new(),
        unclaimed: HashMap::new(),
    };
    reader.take_root(name)?;
    Ok(reader.foreign)
}

impl Reader<'_, '_> {
    fn note(&mut self, note: Note) -> Result<()> {
        self.budget.spend((size_of::<Note>() + note.name.len() + note.what.len()) as u64, "notes")?;
        self.foreign.notes.push(note);
        Ok(())
    }

    /// Notes that the current object is lost.
    fn lost(&mut self, why: &str) -> Result<Option<Value>> {
        // Charged before the path is copied: it may be long, and there may be many notes.
        self.budget.spend((self.path.len() + why.len()) as u64, "notes")?;
        self.note(Note::lost(&self.path, format!("dropped: {why}")))?;
        Ok(None)
    }
}
