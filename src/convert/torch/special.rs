//! Tensors that consist of more than one view of a storage: sparse and quantised ones, kept as
//! their component tensors and a description.

use super::Reader;
use super::keys::Key;
use super::objects::Contents;
use super::tensors::describe;
use super::view::StorageId;
use crate::convert::Note;
use crate::convert::pickle::Id;
use crate::error::Result;
use crate::format::value::Value;
use std::collections::BTreeMap;

impl Reader<'_, '_> {
    /// A sparse tensor of any layout: its components by their names in torch.
    pub fn sparse(&mut self, layout: Id, data: Id) -> Result<Option<Value>> {
        let layout = self.layout(layout);
        let data = self.graph.sequence(data).unwrap_or_default();
        let (names, shape, coalesced): (&[&'static str], _, _) = match (layout.as_str(), data) {
            ("torch.sparse_coo", [_, _, shape]) => (&["indices", "values"], shape, None),
            ("torch.sparse_coo", [_, _, shape, coalesced]) => {
                (&["indices", "values"], shape, Some(coalesced))
            }
            ("torch.sparse_csr" | "torch.sparse_bsr", [_, _, _, shape]) => {
                (&["crow_indices", "col_indices", "values"], shape, None)
            }
            ("torch.sparse_csc" | "torch.sparse_bsc", [_, _, _, shape]) => {
                (&["ccol_indices", "row_indices", "values"], shape, None)
            }
            _ => return self.lost(&format!("a sparse tensor of layout {layout:?}, which is not known")),
        };
        self.note(Note::kept(&self.path, format!("{layout}: kept as the tensors that it is made of")))?;
        let mut pairs: Vec<(Key, Id)> =
            names.iter().map(|name| Key::Word(name)).zip(data.iter().copied()).collect();
        pairs.push((Key::Word("shape"), *shape));
        pairs.extend(coalesced.map(|&coalesced| (Key::Word("is_coalesced"), coalesced)));
        let left = self.take_contents(Contents::Map(pairs))?;
        Ok(with(left, [("layout", Value::Text(layout))]))
    }

    fn layout(&self, id: Id) -> String {
        let by_name = self.graph.call(id, "torch.serialization", "_get_layout");
        let name = by_name.and_then(|call| self.graph.text(*self.graph.args(call).first()?));
        name.map_or_else(|| self.graph.global(id).unwrap_or_default(), |name| name.into_owned())
    }

    /// A quantised tensor: its integers under its own name, and the parameters of the quantisation.
    pub fn quantised(&mut self, args: &[Id]) -> Result<Option<Value>> {
        let [storage, _, shape, _, quantizer, rest @ ..] = args else {
            return self.lost("a quantised tensor that is not as torch writes it");
        };
        let quantizer = self.graph.sequence(*quantizer).unwrap_or_default();
        // The view's arguments without the quantizer.
        let view_args: Vec<Id> = args[..4].iter().chain(rest).copied().collect();
        let view = self.view(&view_args, false);
        let element = self.storage_id(*storage).ok().and_then(|StorageId { element, .. }| element);
        let (scheme, pairs) = match quantizer {
            [scheme, scale, zero_point] => (scheme, vec![("scale", scale), ("zero_point", zero_point)]),
            [scheme, scales, zero_points, axis] => {
                (scheme, vec![("scales", scales), ("zero_points", zero_points), ("axis", axis)])
            }
            _ => return self.lost("a quantised tensor whose scheme is not known"),
        };
        let scheme = self.graph.global(*scheme).unwrap_or_default();
        let tensors = self.foreign.tensors.len();
        self.take_view(view)?;
        if self.foreign.tensors.len() == tensors {
            return Ok(None);
        }
        let is_packed = element.is_some_and(|element| element.per_byte > 1);
        let integers = if is_packed { "its packed integers" } else { "its integers" };
        let what = format!("{scheme}: kept as {integers}, with scale and zero point beside");
        self.note(Note::kept(&self.path, what))?;
        let pairs = pairs.into_iter().map(|(name, &id)| (Key::Word(name), id)).collect();
        let left = self.take_contents(Contents::Map(pairs))?;
        let description = element.map(|element| {
            let shape = self.graph.sizes(*shape).unwrap_or_default();
            describe(element, &shape)
        });
        let left = with(left, [("qscheme", Value::Text(scheme))]);
        Ok(match (left, description) {
            (Some(Value::Map(mut left)), Some(Value::Map(description))) => {
                left.extend(description);
                Some(Value::Map(left))
            }
            (left, _) => left,
        })
    }
}

/// Adds entries to a map.
fn with<const N: usize>(left: Option<Value>, more: [(&str, Value); N]) -> Option<Value> {
    let mut map = match left {
        Some(Value::Map(map)) => map,
        _ => BTreeMap::new(),
    };
    map.extend(more.map(|(name, value)| (name.to_owned(), value)));
    Some(Value::Map(map))
}
