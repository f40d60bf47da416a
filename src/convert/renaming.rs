//! The metadata of files whose tensors get other names: what it says of a tensor's opaque bytes in
//! their original format goes with the tensor.

use super::{gguf, npy, safetensors};
use std::collections::BTreeMap;

/// Prefixes of the names of tensors in the keys of such lines.
const PREFIXES: [&str; 3] = [safetensors::DTYPE_KEY, npy::DESCR_KEY, gguf::TYPE_KEY];

/// What a file's metadata says of a tensor's opaque bytes: the prefix of the key, which stands for
/// the format in whose terms it is said, and the text.
pub fn meaning_of<'m>(metadata: &'m BTreeMap<String, String>, name: &str) -> Option<(&'static str, &'m str)> {
    let line = |prefix: &'static str| Some((prefix, metadata.get(&format!("{prefix}{name}"))?.as_str()));
    PREFIXES.into_iter().find_map(line)
}

/// The metadata of a file some of whose tensors get other names: a line about the opaque bytes of a
/// tensor goes with it. `names` has each tensor's new name by its old one, and None for a tensor
/// that is left out, whose line is left out, too. All other lines stay.
pub fn rename_meanings(
    metadata: BTreeMap<String, String>,
    names: &BTreeMap<String, Option<String>>,
) -> BTreeMap<String, String> {
    let (mut others, mut renamed) = (BTreeMap::new(), BTreeMap::new());
    for (key, text) in metadata {
        let named = PREFIXES.iter().find_map(|prefix| {
            let name = key.strip_prefix(prefix)?;
            Some((prefix, names.get(name)?))
        });
        match named {
            Some((prefix, Some(new))) => drop(renamed.insert(format!("{prefix}{new}"), text)),
            Some((_, None)) => {}
            None => drop(others.insert(key, text)),
        }
    }
    others.extend(renamed);
    others
}
