//! torch's `.pt`, in: a zip archive with a pickle and one member per storage. Owns: which names in the pickle mean
//! something (tensors, parameters, ordered dicts, sizes), and flattening nested dicts to names. Everything else is
//! listed and left out; nothing is ever called.

use super::blob::{self, Archive, Member};
use super::pickle::{Graph, Id, Node};
use super::tensor::Place;
use super::{Foreign, ForeignTensor, Format, Note, pickle, strided};
use crate::budget::Budget;
use crate::dtype::Dtype;
use crate::engine::Blob;
use crate::error::{Error, ErrorKind, Result};
use crate::format::value::Value;
use crate::tensor::byte_len;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

/// A model's pickle is names and numbers; its tensors are beside it.
const LONGEST_PICKLE: u64 = 128 << 20;
/// As deep as a record may be, with room for its own map.
const DEEPEST: usize = 24;
/// Objects looked at. A pickle can name one list again and again, within itself too: without a limit a small one would
/// be walked for ever.
const MOST_VISITS: usize = 10_000_000;
const STORAGES: &[(&str, Dtype)] = &[
    ("BoolStorage", Dtype::Bool),
    ("ByteStorage", Dtype::U8),
    ("CharStorage", Dtype::I8),
    ("ShortStorage", Dtype::I16),
    ("IntStorage", Dtype::I32),
    ("LongStorage", Dtype::I64),
    ("HalfStorage", Dtype::F16),
    ("BFloat16Storage", Dtype::Bf16),
    ("FloatStorage", Dtype::F32),
    ("DoubleStorage", Dtype::F64),
    ("ComplexFloatStorage", Dtype::C64),
    ("ComplexDoubleStorage", Dtype::C128),
];

const DTYPES: &[(&str, Dtype)] = &[
    ("bool", Dtype::Bool),
    ("uint8", Dtype::U8),
    ("int8", Dtype::I8),
    ("uint16", Dtype::U16),
    ("int16", Dtype::I16),
    ("uint32", Dtype::U32),
    ("int32", Dtype::I32),
    ("uint64", Dtype::U64),
    ("int64", Dtype::I64),
    ("float16", Dtype::F16),
    ("bfloat16", Dtype::Bf16),
    ("float32", Dtype::F32),
    ("float64", Dtype::F64),
    ("complex64", Dtype::C64),
    ("complex128", Dtype::C128),
    ("float8_e4m3fn", Dtype::F8E4M3Fn),
    ("float8_e4m3fnuz", Dtype::F8E4M3FnUz),
    ("float8_e5m2", Dtype::F8E5M2),
    ("float8_e5m2fnuz", Dtype::F8E5M2FnUz),
    ("float8_e8m0fnu", Dtype::F8E8M0Fnu),
];

/// The archive's pickle, if it is torch's.
pub fn pickle_name(archive: &Archive) -> Option<String> {
    // An archive whose names cannot be read is refused by whoever lists it next.
    let names = blob::names(archive).unwrap_or_default();
    names.into_iter().find(|name| name == "data.pkl" || name.ends_with("/data.pkl"))
}

pub fn open(blob: &Arc<dyn Blob>, mut archive: Archive, pickle: &str, budget: &Budget) -> Result<Foreign> {
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
    let bytes = blob::read(&mut archive, pickle, 0, facts.len as usize)?;
    let graph = pickle::read(&bytes, budget)?;
    let (members, seen) = Default::default();
    let foreign = Foreign::empty(Format::Torch, blob.len());
    let mut reader = Reader { archive, prefix, graph, foreign, members, seen, budget, visits: 0 };
    reader.take_root()?;
    Ok(reader.foreign)
}

/// Storage, offset, dtype, shape and strides: equal ones are one tensor.
type Identity = (String, usize, Dtype, Vec<usize>, Vec<usize>);

struct Reader<'b> {
    archive: Archive,
    prefix: String,
    graph: Graph,
    foreign: Foreign,
    members: HashMap<String, Arc<Member>>,
    seen: HashMap<Identity, usize>,
    budget: &'b Budget,
    visits: usize,
}

impl Reader<'_> {
    /// Top-level keys become records of their own.
    fn take_root(&mut self) -> Result<()> {
        let root = self.graph.root;
        match self.pairs_of(root) {
            Some(pairs) => {
                for (key, value) in pairs {
                    let name = self.key(key);
                    if let Some(value) = self.take(&name, value, 1)? {
                        self.record(name, value);
                    }
                }
            }
            None => {
                if let Some(value) = self.take("torch", root, 0)? {
                    self.record("torch".to_owned(), value);
                }
            }
        }
        Ok(())
    }

    fn record(&mut self, name: String, value: Value) {
        let mut valid = super::valid_name(&name);
        if valid.starts_with(crate::snapshot::RESERVED_PREFIX) {
            valid.insert(0, '_');
        }
        if valid != name {
            self.foreign.notes.push(Note::kept(&valid, format!("record renamed from {name:?}")));
        }
        self.foreign.records.insert(valid, value);
    }

    /// Tensors under `path` go to the file's tensors; what is left of the object is returned, if anything is.
    fn take(&mut self, path: &str, id: Id, depth: usize) -> Result<Option<Value>> {
        self.visits += 1;
        if depth > DEEPEST || self.visits > MOST_VISITS {
            return Err(Error::new(ErrorKind::LimitExceeded, format!("nesting at {path:?}"))
                .expected(format!("at most {DEEPEST} deep, {MOST_VISITS} objects")));
        }
        let len = match self.graph.node(id) {
            Node::Text(text) => text.len(),
            Node::Bytes(bytes) => bytes.len(),
            _ => 0,
        };
        self.budget.spend((path.len() + len) as u64, "text and paths")?;
        if let Some(pairs) = self.pairs_of(id) {
            return self.take_dict(path, &pairs, depth);
        }
        Ok(Some(match self.graph.node(id).clone() {
            Node::None => Value::Null,
            Node::Bool(value) => Value::Bool(value),
            Node::Int(value) => Value::Int(value),
            Node::Float(value) => Value::Float(value),
            Node::Text(text) => Value::Text(text),
            Node::Bytes(bytes) => Value::Bytes(bytes),
            Node::Tuple(items) | Node::List(items) => return self.take_list(path, &items, depth),
            Node::Global(module, name)
                if module == "torch" && DTYPES.iter().any(|(known, _)| *known == name) =>
            {
                Value::Text(format!("torch.{name}"))
            }
            Node::BigInt(_) => return self.drop(path, "an integer beyond 64 bits"),
            Node::Global(module, name) => {
                return self.drop(path, &format!("{module}.{name} is code, which is not run"));
            }
            Node::Persistent(_) => return self.drop(path, "a bare storage"),
            Node::Dict(_) => return Ok(None),
            Node::Call { callee, args, items, .. } => {
                return self.take_call(path, callee, args, &items, depth);
            }
        }))
    }

    fn drop(&mut self, path: &str, why: &str) -> Result<Option<Value>> {
        self.foreign.notes.push(Note::lost(path, format!("dropped: {why}")));
        Ok(None)
    }

    /// A dict's pairs, also of an ordered one.
    fn pairs_of(&self, id: Id) -> Option<Vec<(Id, Id)>> {
        match self.graph.node(id) {
            Node::Dict(pairs) => Some(pairs.clone()),
            Node::Call { callee, pairs, .. } => {
                let (module, name) = self.global(*callee)?;
                let is_dict = module == "collections" && matches!(name, "OrderedDict" | "defaultdict");
                is_dict.then(|| pairs.clone())
            }
            _ => None,
        }
    }

    fn global(&self, id: Id) -> Option<(&str, &str)> {
        match self.graph.node(id) {
            Node::Global(module, name) => Some((module, name)),
            _ => None,
        }
    }

    fn key(&self, id: Id) -> String {
        match self.graph.node(id) {
            Node::Text(text) => text.clone(),
            Node::Int(value) => value.to_string(),
            Node::Bool(value) => value.to_string(),
            Node::Float(value) => format!("{value:?}"),
            _ => format!("key-{id}"),
        }
    }

    fn take_dict(&mut self, path: &str, pairs: &[(Id, Id)], depth: usize) -> Result<Option<Value>> {
        let mut left = Vec::new();
        for &(key, value) in pairs {
            let name = self.key(key);
            if let Some(value) = self.take(&format!("{path}.{name}"), value, depth + 1)? {
                let key = match self.graph.node(key) {
                    Node::Int(number) => Value::Int(*number),
                    _ => Value::Text(name),
                };
                left.push((key, value));
            }
        }
        // A dict of tensors alone has become tensors.
        if left.is_empty() && !pairs.is_empty() {
            return Ok(None);
        }
        if left.iter().any(|(key, _)| !matches!(key, Value::Text(_))) {
            return Ok(Some(Value::Pairs(left)));
        }
        let named = left.into_iter().filter_map(|(key, value)| match key {
            Value::Text(key) => Some((key, value)),
            _ => None,
        });
        Ok(Some(Value::Map(named.collect())))
    }

    fn take_list(&mut self, path: &str, items: &[Id], depth: usize) -> Result<Option<Value>> {
        let mut left = Vec::new();
        for (number, &item) in items.iter().enumerate() {
            left.push(self.take(&format!("{path}.{number}"), item, depth + 1)?);
        }
        if !items.is_empty() && left.iter().all(Option::is_none) {
            return Ok(None);
        }
        Ok(Some(Value::List(left.into_iter().map(|value| value.unwrap_or(Value::Null)).collect())))
    }

    fn take_call(
        &mut self,
        path: &str,
        callee: Id,
        args: Id,
        items: &[Id],
        depth: usize,
    ) -> Result<Option<Value>> {
        let name = self.global(callee).map(|(module, name)| format!("{module}.{name}"));
        let name = name.unwrap_or_else(|| "an unnamed class".to_owned());
        let args = match self.graph.node(args) {
            Node::Tuple(args) => args.clone(),
            _ => vec![],
        };
        match (name.as_str(), args.as_slice()) {
            (
                "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state",
                [data, ..],
            ) => self.take(path, *data, depth + 1),
            ("torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor_v3", args) => {
                let tensor = self.tensor(path, args).map_err(|error| error.in_tensor(path))?;
                self.foreign.tensors.push(tensor);
                Ok(None)
            }
            ("torch.Size", [sizes]) => self.take(path, *sizes, depth + 1),
            ("torch.device", [device, ..]) => self.take(path, *device, depth + 1),
            ("builtins.set" | "__builtin__.set" | "builtins.frozenset", [list]) if items.is_empty() => {
                self.take(path, *list, depth + 1)
            }
            _ => self.drop(path, &format!("{name} is code, which is not run")),
        }
    }

    fn tensor(&mut self, path: &str, args: &[Id]) -> Result<ForeignTensor> {
        let lie = || Error::damaged("a tensor's description is not as torch writes it");
        let [storage, offset, shape, strides, rest @ ..] = args else { return Err(lie()) };
        let (of_storage, key) = self.storage(*storage)?;
        let of_call = rest.get(2).and_then(|&id| self.global(id)).and_then(|(module, name)| {
            let found = DTYPES.iter().find(|(known, _)| module == "torch" && *known == name);
            found.map(|&(_, dtype)| dtype)
        });
        let dtype = of_storage
            .or(of_call)
            .ok_or_else(|| Error::new(ErrorKind::Unsupported, "a dtype that has no counterpart here"))?;
        let (offset, shape, strides) = (self.size(*offset), self.sizes(*shape), self.sizes(*strides));
        let (Some(offset), Some(shape), Some(strides)) = (offset, shape, strides) else { return Err(lie()) };
        if shape.len() != strides.len() {
            return Err(lie());
        }
        let identity = (key, offset, dtype, shape, strides);
        let tied = match self.seen.entry(identity.clone()) {
            Entry::Occupied(first) => Some(*first.get()),
            Entry::Vacant(free) => {
                free.insert(self.foreign.tensors.len());
                None
            }
        };
        let mut tensor = self.place(path, identity)?;
        tensor.tied = tied.filter(|_| tensor.byte_len > 0);
        Ok(tensor)
    }

    fn place(&mut self, path: &str, (key, offset, dtype, shape, strides): Identity) -> Result<ForeignTensor> {
        let member = self.member(&key)?;
        let width = dtype.size();
        let overflow = || Error::damaged("offset overflows");
        let start = offset.checked_mul(width).ok_or_else(overflow)?;
        let needed = strided::reach(&shape, &strides)?.checked_mul(width).ok_or_else(overflow)?;
        let end = start.checked_add(needed).ok_or_else(overflow)?;
        let len = byte_len(dtype, &shape).map_err(super::lie)?;
        if end as u64 > member.len {
            return Err(Error::damaged("the tensor reaches beyond its storage")
                .expected(format!("{end} bytes"))
                .found(member.len));
        }
        // Expanded by strides of 0.
        if len > needed && !self.budget.has(len as u64) {
            return Err(Error::new(ErrorKind::LimitExceeded, "an expanded tensor is larger than the budget")
                .found(format!("{len} bytes from {needed}")));
        }
        let plain = strided::is_row_major(&shape, &strides) || len == 0;
        if !plain {
            self.foreign
                .notes
                .push(Note::kept(path, format!("strides {strides:?} brought into row-major order")));
        }
        let place = match &member.stored {
            Some(stored) if plain => Place::At(Arc::clone(stored), start as u64),
            _ => {
                let member = format!("{}data/{key}", self.prefix);
                let (archive, shape) = (self.archive.clone(), shape.clone());
                Place::Made(Arc::new(move || {
                    let bytes = blob::read(&mut archive.clone(), &member, start as u64, needed)?;
                    if plain { Ok(bytes) } else { strided::gather(&bytes, width, &shape, &strides) }
                }))
            }
        };
        ForeignTensor::new(path.to_owned(), dtype, shape, place)
    }

    fn member(&mut self, key: &str) -> Result<Arc<Member>> {
        if let Some(member) = self.members.get(key) {
            return Ok(Arc::clone(member));
        }
        let name = format!("{}data/{key}", self.prefix);
        let member = Arc::new(blob::member(&mut self.archive, &name)?);
        self.members.insert(key.to_owned(), Arc::clone(&member));
        Ok(member)
    }

    /// A storage's dtype, if it has one, and its key.
    fn storage(&self, id: Id) -> Result<(Option<Dtype>, String)> {
        let lie = || Error::damaged("a storage is not as torch writes it");
        let Node::Persistent(key) = self.graph.node(id) else { return Err(lie()) };
        let Node::Tuple(parts) = self.graph.node(*key) else { return Err(lie()) };
        let [_, class, key, ..] = parts.as_slice() else { return Err(lie()) };
        let (Some((_, class)), Node::Text(key)) = (self.global(*class), self.graph.node(*key)) else {
            return Err(lie());
        };
        let found = STORAGES.iter().find(|(name, _)| *name == class).map(|&(_, dtype)| dtype);
        if found.is_none() && class != "UntypedStorage" {
            return Err(Error::new(ErrorKind::Unsupported, format!("a storage of class {class}")));
        }
        Ok((found, key.clone()))
    }

    fn size(&self, id: Id) -> Option<usize> {
        match self.graph.node(id) {
            Node::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        }
    }

    fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        match self.graph.node(id) {
            Node::Tuple(items) => items.iter().map(|&item| self.size(item)).collect(),
            Node::Call { args, .. } => match self.graph.node(*args) {
                Node::Tuple(args) if args.len() == 1 && args[0] != id => match self.graph.node(args[0]) {
                    Node::Tuple(items) => items.iter().map(|&item| self.size(item)).collect(),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        }
    }
}
