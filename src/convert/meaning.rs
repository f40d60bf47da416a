//! What opaque bytes mean in the format that they came from: a line of metadata for each such
//! tensor, so that the format can be given it back.

use super::{Foreign, Note};
use crate::format::table::check_name;

/// A format's own words for a tensor's elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// What goes before the tensor's name in the metadata's key.
    pub prefix: &'static str,
    pub text: String,
}

impl Foreign {
    /// Writes into the metadata what opaque tensors mean, under the names that they have now. What
    /// the file itself says under such a key stays.
    pub(super) fn tell_meanings(&mut self) {
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
