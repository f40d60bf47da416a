//! Aliases of tensors: tied weights have one payload and several names. Encodes and decodes the
//! alias columns.

use super::le;
use super::limits::Limits;
use crate::error::{Error, ErrorKind, Result};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize)]
struct Columns<'a> {
    /// All aliases, concatenated, UTF-8, sorted by their bytes, without duplicates, none of them a
    /// tensor's name.
    #[serde(with = "serde_bytes")]
    names: &'a [u8],
    /// u32: end of each alias in `names`.
    #[serde(with = "serde_bytes")]
    name_ends: &'a [u8],
    /// u32: number of the tensor that it names.
    #[serde(with = "serde_bytes")]
    targets: &'a [u8],
}

/// Aliases and the numbers of their tensors. There are few, so an ordinary map.
pub type Aliases = BTreeMap<String, u32>;

/// The payload of the section, or `None` without aliases.
pub fn encode(aliases: &Aliases) -> Option<Vec<u8>> {
    if aliases.is_empty() {
        return None;
    }
    let mut names = Vec::new();
    let mut name_ends = Vec::new();
    let mut targets = Vec::new();
    for (name, target) in aliases {
        names.extend_from_slice(name.as_bytes());
        name_ends.extend_from_slice(&(names.len() as u32).to_le_bytes());
        targets.extend_from_slice(&target.to_le_bytes());
    }
    Some(super::records::encode_trusted(&Columns { names: &names, name_ends: &name_ends, targets: &targets }))
}

/// Decodes and validates the payload; `tensors` is the number of tensors.
///
/// # Errors
/// `Damaged`.
pub fn decode(payload: &[u8], tensors: usize, is_tensor: impl Fn(&str) -> bool) -> Result<Aliases> {
    let [names, name_ends, targets] = super::records::columns(payload, ["names", "name_ends", "targets"])?;
    let columns = Columns { names, name_ends, targets };
    let count = columns.name_ends.len() / 4;
    if count as u64 > Limits::V1.tensors
        || !columns.name_ends.len().is_multiple_of(4)
        || columns.targets.len() != count * 4
    {
        return Err(Error::damaged("length of the alias columns"));
    }
    let names = std::str::from_utf8(columns.names)
        .map_err(|error| Error::damaged("aliases that are not UTF-8").because(error))?;
    let mut aliases = Aliases::new();
    let mut start = 0;
    for (end, target) in columns.name_ends.chunks_exact(4).zip(columns.targets.chunks_exact(4)) {
        let (end, target) = (le::u32(end, 0..4) as usize, le::u32(target, 0..4));
        let name = names.get(start..end).ok_or_else(|| Error::damaged("place of an alias"))?;
        super::table::check_name(name).map_err(|error| error.with_kind(ErrorKind::Damaged))?;
        let sorted = aliases.last_key_value().is_none_or(|(last, _)| last.as_str() < name);
        if !sorted || is_tensor(name) {
            return Err(
                Error::damaged("aliases are not sorted, or one stands twice").found(format!("{name:?}"))
            );
        }
        if target as usize >= tensors {
            return Err(Error::damaged(format!("alias {name:?} of no tensor"))
                .expected(format!("below {tensors}"))
                .found(target));
        }
        aliases.insert(name.to_owned(), target);
        start = end;
    }
    if start != names.len() {
        return Err(Error::damaged("bytes after the last alias").expected(start).found(names.len()));
    }
    Ok(aliases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_survive_the_round_trip_and_lies_are_refused() {
        let aliases = Aliases::from([("b".to_owned(), 0), ("c".to_owned(), 1)]);
        let payload = encode(&aliases).unwrap();
        assert_eq!(decode(&payload, 2, |_| false).unwrap(), aliases);
        assert!(decode(&payload, 1, |_| false).is_err(), "a target that is no tensor");
        assert!(decode(&payload, 2, |name| name == "b").is_err(), "an alias that is a tensor's name");
        assert!(decode(&payload[..payload.len() - 1], 2, |_| false).is_err());
        assert_eq!(encode(&Aliases::new()), None);
    }
}
