//! torch's zip archive, from torch 1.6 on and from TorchScript: a pickle, and a member for each
//! storage.

use super::storages::Storages;
use crate::budget::Budget;
use crate::convert::blob::{self, Archive};
use crate::convert::{Foreign, Format, Note, pickle};
use crate::engine::Blob;
use crate::error::{Error, ErrorKind, Result};
use std::sync::Arc;

/// Much longer than a model's pickle, which holds names and numbers; tensors are separate members.
const LONGEST_PICKLE: u64 = 128 << 20;

/// Members and folders beside the pickle that need not be carried over: storages, which are read
/// by the pickle's references to them, TorchScript's code, and what torch says of the file itself.
const KNOWN: [&str; 7] =
    ["byteorder", "constants.pkl", "version", ".format_version", ".storage_alignment", "code/", "constants/"];
const STORAGES: [&str; 2] = ["data/", ".data/"];

/// The archive's pickle, if it is torch's: that in the folder of the first member, as for torch
/// itself. Of an archive that has it elsewhere the first one, unless it has NumPy's arrays, too.
pub fn pickle_name(archive: &Archive) -> Option<String> {
    // An archive with unreadable names is refused by the next call that lists them.
    let names = blob::names(archive).unwrap_or_default();
    let folder = names.first().and_then(|first| first.split_once('/')).map(|(folder, _)| folder);
    if let Some(pickle) = folder.map(|folder| format!("{folder}/data.pkl"))
        && archive.index_for_name(&pickle).is_some()
    {
        return Some(pickle);
    }
    if names.iter().any(|name| name.ends_with(".npy")) {
        return None;
    }
    names.into_iter().find(|name| is_pickle(name))
}

fn is_pickle(name: &str) -> bool {
    name == "data.pkl" || name.ends_with("/data.pkl")
}

/// Opens an archive whose pickle has this name.
pub fn open(blob: &Arc<dyn Blob>, archive: Archive, pickle: &str, budget: &Budget) -> Result<Foreign> {
    open_under(blob, archive, pickle, None, budget)
}

/// Like [`open`], with the archive's contents under `name` if given.
pub fn open_under(
    blob: &Arc<dyn Blob>,
    mut archive: Archive,
    pickle: &str,
    name: Option<&str>,
    budget: &Budget,
) -> Result<Foreign> {
    let prefix = pickle.trim_end_matches("data.pkl").to_owned();
    let mut foreign = Foreign::empty(Format::Torch, blob.len());
    if let Some(unchecked) = blob::without_checksums(&archive)? {
        archive = unchecked;
        foreign.notes.push(Note::kept("checksums", "the archive has none: damage to its bytes is not seen"));
    }
    let order = format!("{prefix}byteorder");
    let is_there = archive.index_for_name(&order).is_some();
    let order = if is_there { blob::head(&mut archive, &order, 16)? } else { b"little".to_vec() };
    let is_big_endian = match order.as_slice() {
        b"little" => false,
        b"big" => true,
        _ => {
            let error = Error::new(ErrorKind::Unsupported, "a byte order that is not known");
            return Err(error.found(String::from_utf8_lossy(&order)));
        }
    };
    if is_big_endian {
        foreign.notes.push(Note::kept("byteorder", "big-endian elements brought into little-endian order"));
    }
    let facts = blob::member(&mut archive, pickle)?;
    if facts.len > LONGEST_PICKLE {
        return Err(Error::new(ErrorKind::LimitExceeded, "length of the pickle")
            .expected(format!("at most {LONGEST_PICKLE}"))
            .found(facts.len));
    }
    budget.spend(facts.len, "the pickle")?;
    let bytes = blob::read(&mut archive, pickle, 0, facts.len as usize)?;
    let graph = pickle::read(&bytes, budget)?;
    if archive.index_for_name(&format!("{prefix}constants.pkl")).is_some() {
        foreign
            .notes
            .push(Note::kept("code", "TorchScript's code and the constants in it are not carried over"));
    }
    for other in blob::names(&archive)?.into_iter().filter(|other| other != pickle) {
        let what = if is_pickle(&other) {
            format!("dropped: a further pickle, with its tensors; {pickle} is read")
        } else if other.strip_prefix(&prefix).is_some_and(is_known)
            || other.ends_with('/')
            || is_of_another(&archive, &other, pickle)
        {
            continue;
        } else {
            "dropped: no part of what torch saves".to_owned()
        };
        budget.spend((size_of::<Note>() + other.len() + what.len()) as u64, "notes")?;
        foreign.notes.push(Note::lost(other, what));
    }
    super::read(&graph, Storages::Archive { archive, prefix, is_big_endian }, foreign, name, budget)
}

/// Whether a member stands in the folder of a further pickle, which is told itself.
fn is_of_another(archive: &Archive, member: &str, pickle: &str) -> bool {
    let other = member.split_once('/').map(|(folder, _)| format!("{folder}/data.pkl"));
    other.is_some_and(|other| other != pickle && archive.index_for_name(&other).is_some())
}

fn is_known(member: &str) -> bool {
    let mut known = KNOWN.iter().chain(&STORAGES);
    known.any(|known| member == *known || (known.ends_with('/') && member.starts_with(known)))
}
