//! Turns torch's description of a tensor, a view of a storage, into a tensor whose bytes are read
//! or made on request: gathered unless its strides are row-major, negated if torch deferred that.

use super::Reader;
use super::change::Change;
use super::elements::ElementType;
use super::storages::Storage;
use super::view::{Extent, StorageId, View, unreadable};
use crate::convert::pickle::{Id, Node};
use crate::convert::tensor::Place;
use crate::convert::{ForeignTensor, Note, strided};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::format::limits::Limits;
use crate::format::value::Value;
use std::sync::Arc;

/// The identity of a tensor: only tensors with equal identities are aliases.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    View(View),
    /// An object of the pickle that holds its own bytes.
    Object(Id),
}

impl Reader<'_, '_> {
    /// The view in the arguments of `_rebuild_tensor_v2`, or of `_v3`, which has a dtype.
    pub fn view(&mut self, args: &[Id], has_dtype: bool) -> Result<View> {
        let lie = || unreadable("a description that is not as torch writes it");
        let [storage, offset, shape, strides, rest @ ..] = args else { return Err(lie()) };
        // Before they are copied: a small pickle can recall a long shape many times.
        let rank = |id: Id| self.graph.sequence(id).map_or(0, <[Id]>::len) as u64;
        if rank(*shape).max(rank(*strides)) > Limits::V1.rank {
            return Err(unreadable("more axes than a tensor may have"));
        }
        let id = self.storage_id(*storage)?;
        let element = match rest.get(2) {
            Some(&dtype) if has_dtype => {
                self.dtype(dtype).ok_or_else(|| unreadable("a dtype that is not known here"))?
            }
            _ => id.element.unwrap_or(ElementType::BYTES),
        };
        self.storages.check_order(&id, element)?;
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
        self.budget.spend(bits.map_or(0, <[_]>::len) as u64, "the bits of tensors")?;
        // torch does not look at the value.
        let bit = |name| bits.is_some_and(|pairs| graph.get(pairs, name).is_some());
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
        self.budget.spend_values::<Value>(if is_opaque { view.shape.len() } else { 0 }, "shapes")?;
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
        let first = self.seen.get(identity).copied();
        let Some(first) = first.filter(|first| !self.is_cast.contains(first)) else { return Ok(false) };
        self.alias(first)?;
        Ok(true)
    }

    /// Takes the current path as an alias of this tensor.
    pub fn alias(&mut self, first: usize) -> Result<()> {
        let rank = self.foreign.tensors[first].shape.len();
        self.budget.spend(self.tensor_cost(rank), "the list of tensors")?;
        let mut tensor = self.foreign.tensors[first].clone();
        tensor.name.clone_from(&self.path);
        tensor.alias_index = (tensor.byte_len > 0).then_some(first);
        self.foreign.tensors.push(tensor);
        Ok(())
    }

    /// Memory of a tensor in the list: its shape stands there, in its identity, and in whatever a
    /// caller prints of it.
    fn tensor_cost(&self, rank: usize) -> u64 {
        (2 * (size_of::<ForeignTensor>() + self.path.len()) + 96 * rank) as u64
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
        let change = Change::of(view, self.storages.is_big_endian())?;
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
