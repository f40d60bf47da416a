//! Turns torch's description of a tensor, a view of a storage, into a tensor whose bytes are read
//! or made on request: gathered unless its strides are row-major, negated if torch deferred that.

use super::Reader;
use super::elements::ElementType;
use super::storages::Storage;
use crate::convert::pickle::{Id, Node};
use crate::convert::tensor::Place;
use crate::convert::{ForeignTensor, Note, lie, strided};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::format::value::Value;
use crate::tensor::{byte_len, element_count};
use std::sync::Arc;

/// The identity of a tensor: only tensors with equal identities are aliases.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    View(View),
    /// An object of the pickle that holds its own bytes.
    Object(Id),
}

/// A view of a storage.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    pub storage: String,
    pub element: ElementType,
    /// In elements, as are the strides.
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
    /// Operations that torch defers until the tensor is used.
    pub conj: bool,
    pub neg: bool,
}

impl View {
    /// The view as a view of bytes, if several elements share a byte: torch starts each row with a
    /// new byte. None for other elements.
    ///
    /// # Errors
    /// `Unsupported` for a view of less than its whole storage, whose elements would begin within a
    /// byte.
    fn of_bytes(&self) -> Result<Option<Self>> {
        if self.element.per_byte == 1 {
            return Ok(None);
        }
        if self.offset != 0 || !strided::is_row_major(&self.shape, &self.strides) {
            return Err(unreadable(
                "a view of elements that share bytes, other than the whole of its storage",
            ));
        }
        let mut shape = self.shape.clone();
        if let Some(row) = shape.last_mut() {
            *row = row.div_ceil(self.element.per_byte);
        }
        let mut strides = vec![1_usize; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
        }
        Ok(Some(Self { shape, strides, ..self.clone() }))
    }

    fn extent(&self) -> Result<Extent> {
        let overflow = || Error::damaged("offset overflows");
        let width = self.element.width;
        let count = element_count(&self.shape).map_err(lie)?;
        if count == 0 {
            // An empty view may begin beyond its storage, as `torch.zeros(4, 0)[3]` does.
            return Ok(Extent { start: 0, end: 0, len: 0 });
        }
        let start = self.offset.checked_mul(width).ok_or_else(overflow)?;
        let reach = strided::reach(&self.shape, &self.strides).map_err(lie)?;
        let reach = reach.checked_mul(width).ok_or_else(overflow)?;
        let end = start.checked_add(reach).ok_or_else(overflow)?;
        let len = count.checked_mul(width).ok_or_else(overflow)?;
        let len = byte_len(Dtype::Opaque, &[len]).map_err(lie)?;
        Ok(Extent { start, end, len })
    }
}

/// The bytes of a storage from a view's first element to its last, and the view's own length. All
/// are 0 for an empty view.
struct Extent {
    start: usize,
    end: usize,
    len: usize,
}

/// A storage, as a persistent id describes it.
pub struct StorageId {
    pub key: String,
    /// None for untyped storages.
    pub element: Option<ElementType>,
    /// Number of elements, by the id.
    pub count: usize,
    /// Start of a view of a storage, in files before torch 1.6.
    offset: usize,
}

/// The error for a description that torch would not write. Only this tensor is lost.
pub fn unreadable(what: &'static str) -> Error {
    Error::new(ErrorKind::Unsupported, what)
}

impl Reader<'_, '_> {
    /// The view in the arguments of `_rebuild_tensor_v2`, or of `_v3`, which has a dtype.
    pub fn view(&self, args: &[Id], has_dtype: bool) -> Result<View> {
        let lie = || unreadable("a description that is not as torch writes it");
        let [storage, offset, shape, strides, rest @ ..] = args else { return Err(lie()) };
        let id = self.storage_id(*storage)?;
        let element = match rest.get(2) {
            Some(&dtype) if has_dtype => {
                self.dtype(dtype).ok_or_else(|| unreadable("a dtype that is not known here"))?
            }
            _ => id.element.unwrap_or(ElementType::BYTES),
        };
        let graph = self.graph;
        let (Some(offset), Some(shape), Some(strides)) =
            (graph.size(*offset), graph.sizes(*shape), graph.sizes(*strides))
        else {
            return Err(lie());
        };
        if shape.len() != strides.len() {
            return Err(lie());
        }
        let bits = rest.get(if has_dtype { 3 } else { 2 }).and_then(|&bits| graph.pairs(bits));
        let bit = |name| {
            let value = bits.and_then(|pairs| graph.get(pairs, name));
            value.is_some_and(|value| graph.node(value) == &Node::Bool(true))
        };
        let offset = offset.checked_add(id.offset).ok_or_else(|| Error::damaged("offset overflows"))?;
        let conj = bit("conj");
        Ok(View { storage: id.key, element, offset, shape, strides, conj, neg: bit("neg") })
    }

    pub fn storage_id(&self, id: Id) -> Result<StorageId> {
        let lie = || unreadable("a storage that is not as torch writes it");
        let graph = self.graph;
        let Node::Persistent(id) = graph.node(id) else { return Err(lie()) };
        let Node::Tuple(parts) = graph.node(*id) else { return Err(lie()) };
        let [_, class, key, _, count, rest @ ..] = parts.as_slice() else { return Err(lie()) };
        let Node::Global(class) = graph.node(*class) else { return Err(lie()) };
        let key = match graph.node(*key) {
            Node::Int(key) => key.to_string(),
            _ => graph.text(*key).ok_or_else(lie)?.into_owned(),
        };
        let element = ElementType::of_storage(&class.name);
        if element.is_none() && class.name != "UntypedStorage" {
            return Err(unreadable("a storage of a class that is not known here"));
        }
        let view = rest.first().and_then(|&view| graph.sequence(view));
        let offset = match view {
            Some([_, offset, _]) => graph.size(*offset).ok_or_else(lie)?,
            _ => 0,
        };
        Ok(StorageId { key, element, count: graph.size(*count).unwrap_or(0), offset })
    }

    pub fn dtype(&self, id: Id) -> Option<ElementType> {
        match self.graph.node(id) {
            Node::Global(global) if global.module == "torch" => ElementType::of_dtype(&global.name),
            _ => None,
        }
    }

    /// Takes a view as a tensor under the current path. Returns a description if it is opaque.
    ///
    /// # Errors
    /// `Damaged` when it reaches beyond its storage. Other obstacles are noted.
    pub fn take_view(&mut self, view: Result<View>) -> Result<Option<Value>> {
        match view.and_then(|view| self.take_known(view)) {
            Err(error) if error.kind() == ErrorKind::Unsupported => self.lost(&error.to_string()),
            taken => taken.map_err(|error| error.in_tensor(&self.path)),
        }
    }

    fn take_known(&mut self, view: View) -> Result<Option<Value>> {
        let is_opaque = view.element.dtype == Dtype::Opaque;
        let description = is_opaque.then(|| describe(view.element, &view.shape));
        let identity = Identity::View(view.clone());
        if !self.add_alias(&identity)? {
            let tensor = self.place(&view)?;
            self.push(tensor, identity)?;
        }
        Ok(description)
    }

    /// Takes the current path as an alias of an earlier tensor with this identity, if there is one.
    pub fn add_alias(&mut self, identity: &Identity) -> Result<bool> {
        let Some(&first) = self.seen.get(identity) else { return Ok(false) };
        self.budget.spend(self.tensor_cost(0), "the list of tensors")?;
        let mut tensor = self.foreign.tensors[first].clone();
        tensor.name.clone_from(&self.path);
        tensor.alias_index = (tensor.byte_len > 0).then_some(first);
        self.foreign.tensors.push(tensor);
        Ok(true)
    }

    fn tensor_cost(&self, rank: usize) -> u64 {
        (2 * (size_of::<ForeignTensor>() + self.path.len()) + 32 * rank) as u64
    }

    pub fn push(&mut self, tensor: ForeignTensor, identity: Identity) -> Result<()> {
        self.budget.spend(self.tensor_cost(tensor.shape.len()), "the list of tensors")?;
        self.seen.insert(identity, self.foreign.tensors.len());
        self.foreign.tensors.push(tensor);
        Ok(())
    }

    fn place(&mut self, view: &View) -> Result<ForeignTensor> {
        let as_bytes = view.of_bytes()?;
        let source = as_bytes.as_ref().unwrap_or(view);
        let View { storage: key, element, shape, strides, .. } = source;
        let storage = self.storages.get(key)?;
        let extent = source.extent()?;
        if extent.end as u64 > storage.len {
            return Err(Error::damaged("the tensor reaches beyond its storage")
                .expected(format!("{} bytes", extent.end))
                .found(storage.len));
        }
        self.claim(key, storage.len, extent.len as u64)?;
        let is_row_major = strided::is_row_major(shape, strides) || extent.len == 0;
        if !is_row_major {
            let what = format!("strides {strides:?} brought into row-major order");
            self.note(Note::kept(&self.path, what))?;
        }
        let change = Change::of(view)?;
        let (dtype, shape_here) = match element.dtype {
            Dtype::Opaque => (Dtype::Opaque, vec![extent.len]),
            dtype => (dtype, shape.clone()),
        };
        if dtype == Dtype::Opaque {
            let what = format!("torch.{} {:?} kept as opaque bytes", element.name, view.shape);
            self.note(Note::kept(&self.path, what))?;
        }
        let place = match &storage.stored {
            Some(stored) if is_row_major && change.is_none() => {
                Place::At(Arc::clone(stored), extent.start as u64)
            }
            _ => self.made(&storage, source, extent, change)?,
        };
        ForeignTensor::new(self.path.clone(), dtype, shape_here, place)
    }

    /// A tensor's bytes made from those of its storage: gathered, negated.
    fn made(
        &self,
        storage: &Arc<Storage>,
        source: &View,
        extent: Extent,
        change: Option<Change>,
    ) -> Result<Place> {
        let Extent { start, end, len } = extent;
        let read = self.storages.reader(storage, strided::is_sparse(end - start, len))?;
        let View { element, shape, strides, .. } = source.clone();
        let is_row_major = strided::is_row_major(&shape, &strides) || len == 0;
        Ok(Place::Made(Arc::new(move || {
            let mut bytes = if is_row_major {
                read(start as u64, len)?
            } else {
                strided::gather_from(&read, start as u64, element.width, &shape, &strides)?
            };
            if let Some(change) = change {
                change.apply(&mut bytes);
            }
            Ok(bytes)
        })))
    }

    /// Each byte of a storage may become part of a tensor once; more, by overlapping views or
    /// strides of 0, is charged to the budget.
    fn claim(&mut self, key: &str, storage: u64, len: u64) -> Result<()> {
        let unclaimed = self.unclaimed.entry(key.to_owned()).or_insert(storage);
        let more = len.saturating_sub(*unclaimed);
        *unclaimed = unclaimed.saturating_sub(len);
        if !self.budget.has(more) {
            let what =
                format!("{len} bytes of a storage of {storage}, which is more than the budget has left");
            return Err(Error::new(ErrorKind::Unsupported, what)
                .help("open the file with a larger budget, or save a clone of the tensor"));
        }
        self.budget.spend(more, "tensors that share a storage")
    }
}

/// The description of opaque bytes.
pub fn describe(element: ElementType, shape: &[usize]) -> Value {
    let shape = shape.iter().map(|&len| Value::Int(len as i64)).collect();
    let pairs = [
        ("dtype".to_owned(), Value::Text(format!("torch.{}", element.name))),
        ("shape".to_owned(), Value::List(shape)),
    ];
    Value::Map(pairs.into())
}

/// The effect of torch's bits `conj` and `neg` on numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Change {
    element: ElementType,
    /// For a complex number its real and imaginary part, for others only the first.
    negates: [bool; 2],
}

impl Change {
    fn of(view: &View) -> Result<Option<Self>> {
        let &View { element, conj, neg, .. } = view;
        let negates = [neg, neg != (conj && element.is_complex())];
        if negates == [false, false] {
            return Ok(None);
        }
        let is_integer = matches!(
            element.dtype,
            Dtype::U8
                | Dtype::I8
                | Dtype::U16
                | Dtype::I16
                | Dtype::U32
                | Dtype::I32
                | Dtype::U64
                | Dtype::I64
        );
        if !element.is_float() && !is_integer {
            return Err(unreadable("a negated view of a dtype that is not negated here"));
        }
        Ok(Some(Self { element, negates }))
    }

    fn apply(self, bytes: &mut [u8]) {
        let parts = bytes.chunks_exact_mut(self.element.part()).enumerate();
        for (number, part) in parts {
            let which = if self.element.is_complex() { number % 2 } else { 0 };
            if !self.negates[which] {
                continue;
            }
            if self.element.is_float() {
                if let Some(last) = part.last_mut() {
                    *last ^= 0x80;
                }
            } else {
                negate(part);
            }
        }
    }
}

/// Negates a little-endian integer, wrapping.
fn negate(bytes: &mut [u8]) {
    let mut carry = true;
    for byte in bytes {
        (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_negated_as_they_wrap() {
        for value in [0_i32, 1, -1, 256, -65536, i32::MIN, i32::MAX] {
            let mut bytes = value.to_le_bytes();
            negate(&mut bytes);
            assert_eq!(i32::from_le_bytes(bytes), value.wrapping_neg());
        }
    }
}
