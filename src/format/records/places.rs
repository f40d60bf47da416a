//! Places of tensors in a record. A nested state, as Python saves it, has a null in its record
//! where a tensor is; a tensor that is taken out or renamed leaves a null that means nothing.

use super::walk::{Item, Walker};
use crate::error::Result;

/// The record `name` without the nulls that stand in maps at paths which are gone. Those in lists
/// stay, so that the other elements keep their places. None if nothing changes.
///
/// Paths are names of tensors: keys and indices joined by slashes, with `~1` for a slash and `~0`
/// for a tilde in a key.
///
/// # Errors
/// `Damaged` for bytes that are not one value.
pub fn without_places(bytes: &[u8], name: &str, is_gone: &dyn Fn(&str) -> bool) -> Result<Option<Vec<u8>>> {
    let mut copy = Copy { bytes, walker: Walker::new(bytes), path: name.to_owned(), is_gone };
    let mut out = Vec::with_capacity(bytes.len());
    copy.value(&mut out)?;
    Ok((out.len() != bytes.len()).then_some(out))
}

/// One pass over a record that was checked, so it nests no deeper than the limit.
struct Copy<'a, 'g> {
    bytes: &'a [u8],
    walker: Walker<'a>,
    path: String,
    is_gone: &'g dyn Fn(&str) -> bool,
}

impl Copy<'_, '_> {
    fn value(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let start = self.walker.at;
        let item = self.walker.item()?;
        let head = &self.bytes[start..self.walker.at];
        match item {
            Item::Map(pairs) => return self.map(pairs, out),
            Item::List(count) => {
                out.extend_from_slice(head);
                for index in 0..count {
                    self.under(&index.to_string(), |copy| copy.value(out))?;
                }
            }
            Item::Scalar | Item::Text(_) | Item::Bin(_) => out.extend_from_slice(head),
        }
        Ok(())
    }

    fn map(&mut self, pairs: u64, out: &mut Vec<u8>) -> Result<()> {
        let (mut kept, mut count) = (Vec::new(), 0);
        for _ in 0..pairs {
            let start = self.walker.at;
            let key = self.walker.item()?;
            let head = &self.bytes[start..self.walker.at];
            let part = match key {
                Item::Text(text) => String::from_utf8_lossy(text).replace('~', "~0").replace('/', "~1"),
                _ => rmp::decode::read_int::<i64, _>(&mut &*head)
                    .map_or_else(|_| String::new(), |key| key.to_string()),
            };
            let is_null = self.bytes.get(self.walker.at) == Some(&NIL);
            let goes = self.under(&part, |copy| {
                if is_null && (copy.is_gone)(&copy.path) {
                    return copy.walker.skip_value().map(|()| true);
                }
                kept.extend_from_slice(head);
                copy.value(&mut kept).map(|()| false)
            })?;
            count += u32::from(!goes);
        }
        // A vector takes all bytes.
        let _ = rmp::encode::write_map_len(out, count);
        out.append(&mut kept);
        Ok(())
    }

    fn under<T>(&mut self, part: &str, act: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let len = self.path.len();
        self.path.push('/');
        self.path.push_str(part);
        let done = act(self);
        self.path.truncate(len);
        done
    }
}

/// MessagePack's null.
const NIL: u8 = 0xC0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::records::{decode, encode};
    use std::collections::BTreeMap;

    #[test]
    fn places_of_tensors_that_are_gone_leave_maps_and_stay_in_lists() {
        type Model = BTreeMap<String, Option<u8>>;
        let model: Model = [("module.w", None), ("a/b~c", None), ("n", Some(7)), ("none", None)]
            .map(|(key, value)| (key.to_owned(), value))
            .into();
        let by_number: BTreeMap<i64, Option<u8>> = [(-3, None), (0, None), (1, Some(2))].into();
        let bytes = encode(&(model, by_number, vec![None::<u8>, None])).unwrap();
        let gone = ["s/0/module.w", "s/0/a~1b~0c", "s/1/-3", "s/2/1", "s/0/n"];
        let bytes = without_places(&bytes, "s", &|path| gone.contains(&path)).unwrap().unwrap();
        let (model, by_number, list) =
            decode::<(Model, BTreeMap<i64, Option<u8>>, Vec<Option<u8>>)>(&bytes).unwrap();
        let left = [("n", Some(7)), ("none", None)].map(|(key, value)| (key.to_owned(), value));
        assert_eq!((model, list), (left.into(), vec![None, None]));
        assert_eq!(by_number, [(0, None), (1, Some(2))].into());
        assert!(without_places(&bytes, "s", &|_| false).unwrap().is_none());
    }
}
