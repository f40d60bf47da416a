//! torch's files before 1.6: a magic number, a version, the machine, the object and the storages'
//! keys as five consecutive pickles, followed by the storages.

use super::elements::ElementType;
use super::storages::{Storage, Storages};
use crate::budget::Budget;
use crate::convert::blob::Section;
use crate::convert::pickle::{self, Graph, Node};
use crate::convert::{Foreign, Format, Note};
use crate::engine::Blob;
use crate::error::{Error, ErrorKind, Result};
use std::collections::HashMap;
use std::sync::Arc;

/// Bytes of the file read for the pickles at first; more are read while they turn out to be longer.
const WINDOW: u64 = 1 << 20;
const LONGEST: u64 = 128 << 20;

pub fn open(blob: &Arc<dyn Blob>, budget: &Budget) -> Result<Foreign> {
    let mut window = WINDOW;
    loop {
        let len = blob.len().min(window);
        let trial = Budget::new(budget.rest());
        trial.spend(len, "the pickles")?;
        // OK to cast: at most LONGEST.
        let mut bytes = vec![0; len as usize];
        blob.read_at(0, &mut bytes)?;
        match open_within(blob, &bytes, &trial) {
            Err(error) if error.kind() == ErrorKind::Damaged && len < blob.len() && window < LONGEST => {
                window *= 4;
            }
            opened => {
                budget.spend(trial.spent(), "the pickles")?;
                return opened;
            }
        }
    }
}

fn open_within(blob: &Arc<dyn Blob>, bytes: &[u8], budget: &Budget) -> Result<Foreign> {
    let mut at = 0;
    let mut next = || -> Result<Graph<'_>> {
        let graph = pickle::read(&bytes[at..], budget)?;
        at += graph.len;
        Ok(graph)
    };
    // The magic number was checked when the file was recognised.
    next()?;
    let version = next()?;
    // The machine that wrote the file: storages are little-endian, whatever its order is.
    next()?;
    let object = next()?;
    let keys = next()?;
    if version.node(version.root) != &Node::Int(1001) {
        return Err(Error::new(ErrorKind::Unsupported, "a version of torch's old format that is not known")
            .expected("1001")
            .found(format!("{:?}", version.node(version.root))));
    }
    let widths = widths(&object);
    let (storages, end) = storages(blob, at as u64, &keys, &widths, budget)?;
    let mut foreign = Foreign::empty(Format::Torch, blob.len());
    if end < blob.len() {
        let what = format!("dropped: {} bytes behind its last storage", blob.len() - end);
        foreign.notes.push(Note::lost("the end of the file", what));
    }
    super::read(&object, Storages::File(storages), foreign, None, budget)
}

/// Bytes of an element by storage, from the class in its first reference.
fn widths(object: &Graph<'_>) -> HashMap<String, usize> {
    let mut widths = HashMap::new();
    for node in object.nodes() {
        let Node::Persistent(id) = node else { continue };
        let Some([_, class, key, ..]) = object.sequence(*id) else { continue };
        let (Node::Global(class), Some(key)) = (object.node(*class), object.text(*key)) else { continue };
        let element = ElementType::of_storage(&class.name).unwrap_or(ElementType::BYTES);
        widths.entry(key.into_owned()).or_insert(element.width);
    }
    widths
}

/// The storages, in the order of their keys: a count of elements, then the elements. Also returns
/// where the last one ends.
fn storages(
    blob: &Arc<dyn Blob>,
    mut at: u64,
    keys: &Graph<'_>,
    widths: &HashMap<String, usize>,
    budget: &Budget,
) -> Result<(HashMap<String, Arc<Storage>>, u64)> {
    let mut storages = HashMap::new();
    for &key in keys.sequence(keys.root).unwrap_or_default() {
        let key = keys.text(key).ok_or_else(|| Error::damaged("a storage's key is no text").at_byte(at))?;
        budget.spend((2 * key.len() + 2 * size_of::<Storage>()) as u64, "the list of storages")?;
        let mut count = [0; 8];
        blob.read_at(at, &mut count)?;
        let count = u64::from_le_bytes(count);
        let width = widths.get(&*key).copied().unwrap_or(1);
        let start = at + 8;
        let end = count.checked_mul(width as u64).and_then(|len| start.checked_add(len));
        let end = end.filter(|&end| end <= blob.len()).ok_or_else(|| {
            Error::damaged(format!("storage {key:?} goes beyond the end of the file"))
                .at_byte(at)
                .expected(format!("at most {} bytes", blob.len().saturating_sub(start)))
                .found(format!("{count} elements of {width}"))
        })?;
        let section = Arc::new(Section::new(blob, start, end - start));
        storages.insert(key.into_owned(), Arc::new(Storage::in_file(section)));
        at = end;
    }
    Ok((storages, at))
}
