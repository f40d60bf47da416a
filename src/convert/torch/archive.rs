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

/// The archive's pickle, if it is torch's: the first, whose folder holds the archive's storages.
pub fn pickle_name(archive: &Archive) -> Option<String> {
    pickles(archive).into_iter().next()
}

fn pickles(archive: &Archive) -> Vec<String> {
    // An archive with unreadable names is refused by the next call that lists them.
    let mut names = blob::names(archive).unwrap_or_default();
    names.retain(|name| name == "data.pkl" || name.ends_with("/data.pkl"));
    names
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
    let order = format!("{prefix}byteorder");
    if archive.index_for_name(&order).is_some() && blob::head(&mut archive, &order, 16)? != b"little" {
        return Err(Error::new(ErrorKind::Unsupported, "the file is of a big-endian machine"));
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
    let mut foreign = Foreign::empty(Format::Torch, blob.len());
    if archive.index_for_name(&format!("{prefix}constants.pkl")).is_some() {
        foreign
            .notes
            .push(Note::kept("code", "TorchScript's code and the constants in it are not carried over"));
    }
    for other in pickles(&archive).into_iter().filter(|other| other != pickle) {
        budget.spend(other.len() as u64, "notes")?;
        let what = format!("dropped: a further pickle, with its tensors; {pickle} is read");
        foreign.notes.push(Note::lost(other, what));
    }
    super::read(&graph, Storages::Archive { archive, prefix }, foreign, name, budget)
}
