//! The meaning of opaque bytes in their original format: one line of metadata for each such tensor,
//! so that an export to that format can restore it.

use super::{Foreign, Note};
use crate::format::table::check_name;

/// The original format's description of a tensor's elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// Prefix of the tensor's name in the metadata key.
    pub prefix: &'static str,
    pub text: String,
}

impl Foreign {
    /// Writes the meaning of opaque tensors into the metadata, under their final names. The file's
    /// own metadata under such a key is not replaced.
    pub(super) fn note_meanings(&mut self) {
        for tensor in &self.tensors {
            let Some(Meaning { prefix, text }) = &tensor.meaning else { continue };
            let key = format!("{prefix}{}", tensor.name);
            let fits = check_name(&key).is_ok();
            let kept = fits && *self.metadata.entry(key).or_insert_with(|| text.clone()) == *text;
            if !kept {
                let why =
                    if fits { "its metadata key is taken" } else { "its metadata key would be too long" };
                self.notes.push(Note::lost(&tensor.name, format!("no longer said to be {text}: {why}")));
            }
        }
    }
}
