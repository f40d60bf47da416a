//! Imports NumPy's `.npz`: a zip archive of `.npy` files, stored or deflated.

use super::blob::{self, Archive};
use super::tensor::Place;
use super::{Foreign, ForeignTensor, Format, Note, npy};
use crate::budget::Budget;
use crate::engine::Blob;
use crate::error::{Error, ErrorKind, Result};
use std::sync::Arc;

pub fn open(blob: &Arc<dyn Blob>, mut archive: Archive, budget: &Budget) -> Result<Foreign> {
    let mut foreign = Foreign::empty(Format::Npz, blob.len());
    let mut names: Vec<String> = blob::names(&archive)?;
    // Folders have no bytes.
    names.retain(|name| !name.ends_with('/'));
    budget.spend_values::<ForeignTensor>(names.len(), "the list of members")?;
    for member in &names {
        let name = match member.strip_suffix(".npy") {
            Some(name) => Some(name),
            // NumPy reads any member that begins like an array, under any name.
            None if blob::head(&mut archive, member, npy::MAGIC.len())? == npy::MAGIC => {
                Some(member.as_str())
            }
            None => None,
        };
        match name {
            Some(name) => push(&mut foreign, &mut archive, member, name)?,
            None => foreign.notes.push(Note::lost(member, "dropped: not an array")),
        }
    }
    if foreign.tensors.is_empty() && !names.is_empty() && names.len() == foreign.notes.len() {
        let some = names.first().map_or("", String::as_str);
        let error = Error::new(ErrorKind::Foreign, "a zip archive, but neither NumPy's nor torch's");
        return Err(error.found(format!("{some:?} in it")));
    }
    Ok(foreign)
}

fn push(foreign: &mut Foreign, archive: &mut Archive, member: &str, name: &str) -> Result<()> {
    let place = |error: Error| error.in_tensor(name);
    let facts = blob::member(archive, member).map_err(place)?;
    let head = blob::head(archive, member, npy::LONGEST_HEADER + 12).map_err(place)?;
    let header = match npy::parse(&head) {
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            // It will not be read again: tell an array of objects from a damaged one here.
            blob::read(archive, member, 0, 0).map_err(place)?;
            foreign.notes.push(Note::lost(name, format!("dropped: {error}")));
            return Ok(());
        }
        header => header.map_err(place)?,
    };
    let len = header.byte_len().map_err(place)?;
    let start = header.data_start as u64;
    if start.checked_add(len as u64) != Some(facts.len) {
        return Err(place(
            Error::damaged("length of the array").expected(format!("{start} + {len}")).found(facts.len),
        ));
    }
    if len == 0 {
        blob::read(archive, member, 0, 0).map_err(place)?;
    }
    header.note(name, foreign);
    let place = match facts.stored {
        Some(stored) if header.is_plain() => Place::At(stored, start),
        _ => {
            let (archive, member, header) = (archive.clone(), member.to_owned(), header.clone());
            Place::Made(Arc::new(move || {
                header.arrange(blob::read(&mut archive.clone(), &member, start, len)?)
            }))
        }
    };
    foreign.tensors.push(header.tensor(name, place)?);
    Ok(())
}
