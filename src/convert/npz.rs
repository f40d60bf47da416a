//! NumPy's `.npz`, in: a zip archive of `.npy` files, stored or deflated.

use super::blob::{self, Archive};
use super::tensor::Place;
use super::{Foreign, ForeignTensor, Format, Note, npy};
use crate::budget::Budget;
use crate::engine::Blob;
use crate::error::{Error, ErrorKind, Result};
use std::collections::HashSet;
use std::sync::Arc;

pub fn open(blob: &Arc<dyn Blob>, mut archive: Archive, budget: &Budget) -> Result<Foreign> {
    check_members(blob, &mut archive)?;
    let mut foreign = Foreign::empty(Format::Npz, blob.len());
    let names: Vec<String> = blob::names(&archive)?;
    budget.spend_values::<ForeignTensor>(names.len(), "the list of members")?;
    for member in &names {
        let name = match member.strip_suffix(".npy") {
            Some(name) => Some(name),
            // NumPy reads a member of any name that begins like an array.
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

/// That every member is one of its own: of two with one name, readers take either, and bytes that
/// many members share would be terabytes to whoever reads them all.
fn check_members(blob: &Arc<dyn Blob>, archive: &mut Archive) -> Result<()> {
    if archive.has_duplicate_names() {
        let name = first_twice(&**blob, archive.central_directory_start());
        let what = match name {
            Some(name) => format!("archive member {name:?} stands twice"),
            None => "an archive member stands twice".to_owned(),
        };
        return Err(
            Error::damaged(what).help("`unzip -l` lists both; keep one of them in an archive of its own")
        );
    }
    match archive.has_overlapping_files() {
        Ok(false) => Ok(()),
        Ok(true) => Err(Error::damaged("archive members share bytes")),
        Err(error) => Err(Error::damaged("an archive member cannot be found").because(error)),
    }
}

/// The first name that an archive's directory has twice. The zip reader keeps the last of equal
/// names and does not tell.
fn first_twice(blob: &dyn Blob, mut at: u64) -> Option<String> {
    /// Fixed part of an entry: signature at 0, lengths of name, extra field and comment at 28.
    const ENTRY: usize = 46;
    let mut seen = HashSet::new();
    loop {
        let mut entry = [0; ENTRY];
        blob.read_at(at, &mut entry).ok().filter(|()| entry.starts_with(b"PK\x01\x02"))?;
        let len = |at: usize| usize::from(u16::from_le_bytes([entry[at], entry[at + 1]]));
        let mut name = vec![0; len(28)];
        blob.read_at(at + ENTRY as u64, &mut name).ok()?;
        at += (ENTRY + len(28) + len(30) + len(32)) as u64;
        let name = String::from_utf8_lossy(&name).into_owned();
        if seen.contains(&name) {
            return Some(name);
        }
        seen.insert(name);
    }
}

fn push(foreign: &mut Foreign, archive: &mut Archive, member: &str, name: &str) -> Result<()> {
    let place = |error: Error| error.in_tensor(name);
    let facts = blob::member(archive, member).map_err(place)?;
    let head = blob::head(archive, member, npy::LONGEST_HEADER + 12).map_err(place)?;
    let header = match npy::parse(&head) {
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            // Nobody will read it: whether it is an array of objects or a damaged one is told here.
            blob::read(archive, member, 0, 0).map_err(place)?;
            foreign.notes.push(Note::lost(name, format!("dropped: {error}")));
            return Ok(());
        }
        header => header.map_err(place)?,
    };
    let (len, start) = (header.byte_len().map_err(place)?, header.data_start as u64);
    if start.checked_add(len as u64) != Some(facts.len) {
        return Err(place(
            Error::damaged("length of the array").expected(format!("{start} + {len}")).found(facts.len),
        ));
    }
    if len == 0 {
        blob::read(archive, member, 0, 0).map_err(place)?;
    }
    header.tell(name, foreign);
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
