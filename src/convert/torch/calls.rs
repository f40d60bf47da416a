//! Interprets calls by the full name of the callee: torch's functions that rebuild tensors, and
//! Python's for sets, bytes and complex numbers. Everything else is an object of an unknown class.
//! Nothing is ever called.

use super::Reader;
use super::keys::Key;
use super::objects::Contents;
use crate::convert::Note;
use crate::convert::pickle::{Call, Id, Node};
use crate::error::Result;
use crate::format::value::Value;
use std::borrow::Cow;

/// Functions whose value is their first argument, as far as data is concerned.
const FIRST_ARGUMENT: &[&str] = &[
    "torch._utils._rebuild_parameter",
    "torch.Size",
    "torch.serialization._get_layout",
    "torch.jit._pickle.build_intlist",
    "torch.jit._pickle.build_tensorlist",
    "torch.jit._pickle.build_doublelist",
    "torch.jit._pickle.build_boollist",
    "torch.jit._pickle.restore_type_tag",
    "builtins.list",
    "builtins.tuple",
];

/// Functions whose value is their first argument in the dtype of their second.
const IN_A_DTYPE: &[&str] = &[
    "torch._utils._rebuild_device_tensor_from_numpy",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor",
    "torch._utils._rebuild_xla_tensor",
    "torch._utils._rebuild_mlc_tensor",
];

const SETS: &[&str] = &["builtins.set", "builtins.frozenset"];

/// Classes of lists and sets.
const LISTS: &[&str] = &[SETS[0], SETS[1], "collections.deque"];

const BYTES: &[&str] = &["_codecs.encode", "builtins.bytes", "builtins.bytearray"];

impl<'g> Reader<'g, '_> {
    /// Whether calls of this name are interpreted here, and so are not objects with attributes.
    pub fn is_special(&self, name: &str) -> bool {
        let is_torch = ["torch._utils.", "torch._tensor.", "torch.serialization.", "torch.jit._pickle."];
        is_torch.iter().any(|module| name.starts_with(module))
            || name.starts_with("numpy.")
            || [FIRST_ARGUMENT, LISTS, BYTES].iter().any(|names| names.contains(&name))
            || matches!(name, "builtins.complex" | "torch.device" | "torch.nn.parameter.Parameter")
            || is_tensor_class(name)
    }

    pub fn take_call(&mut self, id: Id, call: &Call) -> Result<Option<Value>> {
        let name = self.class(call);
        let args = self.graph.args(call);
        if let Some(value) = self.rebuild(&name, args)? {
            return Ok(value);
        }
        match (name.as_str(), args) {
            (name, [first, ..]) if FIRST_ARGUMENT.contains(&name) => self.take(*first),
            (name, &[data, dtype, ..]) if IN_A_DTYPE.contains(&name) => self.take_cast(id, data, dtype),
            (name, args) if LISTS.contains(&name) => self.take_items(call, args, SETS.contains(&name)),
            (name, _) if BYTES.contains(&name) => match self.bytes_of(id) {
                Some(bytes) => {
                    self.budget.spend(bytes.len() as u64, "bytes")?;
                    Ok(Some(Value::Bytes(bytes.into_owned())))
                }
                None => self.take_unknown(id, call),
            },
            ("builtins.complex", &[real, imaginary]) => match (self.float(real), self.float(imaginary)) {
                (Some(real), Some(imaginary)) => Ok(Some(complex(real, imaginary))),
                _ => self.take_unknown(id, call),
            },
            ("builtins.complex", &[real]) => match self.float(real) {
                Some(real) => Ok(Some(complex(real, 0.0))),
                None => self.take_unknown(id, call),
            },
            ("torch.device", [kind, rest @ ..]) => self.device(*kind, rest.first().copied()).map(Some),
            ("torch.nn.parameter.Parameter", args) => match args.first().or(self.state(call).first()) {
                // `Parameter(data)`, or an empty one with `(data, …)` as its state.
                Some(&data) => self.take(data),
                None => self.take_unknown(id, call),
            },
            (name, _) if is_tensor_class(name) => match self.state(call) {
                // Created empty, then set to a view of a storage.
                args if args.len() >= 4 => {
                    let view = self.view(args, false);
                    self.take_view(view)
                }
                _ => self.take_unknown(id, call),
            },
            (name, _) if name.starts_with("numpy.") => self.take_numpy(id, call, name),
            _ => self.take_unknown(id, call),
        }
    }

    /// The items of a call's state, if it is a tuple or list.
    fn state(&self, call: &Call) -> &'g [Id] {
        call.state.and_then(|state| self.graph.sequence(state)).unwrap_or_default()
    }

    fn float(&self, id: Id) -> Option<f64> {
        match self.graph.node(id) {
            Node::Float(value) => Some(*value),
            Node::Int(value) => Some(*value as f64),
            _ => None,
        }
    }

    fn device(&self, kind: Id, index: Option<Id>) -> Result<Value> {
        let kind = self.graph.text(kind).unwrap_or_default();
        self.budget.spend(kind.len() as u64, "text")?;
        let index = index.and_then(|index| self.graph.size(index));
        Ok(Value::Text(index.map_or_else(|| kind.to_string(), |index| format!("{kind}:{index}"))))
    }

    /// A tensor made by one of torch's functions for rebuilding; None for any other name.
    pub fn rebuild(&mut self, name: &str, args: &[Id]) -> Result<Option<Option<Value>>> {
        let Some(function) =
            name.strip_prefix("torch._utils._rebuild_").or(name.strip_prefix("torch._tensor._rebuild_"))
        else {
            return Ok(None);
        };
        let value = match (function, args) {
            ("tensor" | "tensor_v2" | "tensor_v3", args) => {
                let view = self.view(args, function == "tensor_v3");
                self.take_view(view)?
            }
            ("parameter_with_state", [data, _, _, state]) => {
                let value = self.take(*data)?;
                self.with_attributes(value, *state)?
            }
            ("from_type" | "from_type_v2", [function, class, args, state]) => {
                self.subclass(*function, *class, *args, *state)?
            }
            ("sparse_tensor" | "sparse_csr_tensor", [layout, data]) => self.sparse(*layout, *data)?,
            ("qtensor", args) => self.quantised(args)?,
            ("nested_tensor", &[buffer, sizes, strides, offsets]) => {
                self.nested([buffer, sizes, strides, offsets])?
            }
            ("meta_tensor_no_storage", [dtype, shape, ..]) => {
                let dtype = self.graph.global(*dtype).unwrap_or_default();
                let shape = self.graph.sizes(*shape).unwrap_or_default();
                self.lost(&format!("a meta tensor has no values: {dtype} {shape:?}"))?
            }
            ("wrapper_subclass", [class, _, shape, ..]) => {
                let class = self.graph.global(*class).unwrap_or_default();
                let shape = self.graph.sizes(*shape).unwrap_or_default();
                let what = format!("{class} {shape:?} has no bytes of its own: kept are its attributes");
                self.note(Note::kept(&self.path, what))?;
                None
            }
            _ => return Ok(None),
        };
        Ok(Some(value))
    }

    fn nested(&mut self, parts: [Id; 4]) -> Result<Option<Value>> {
        self.note(Note::kept(&self.path, "a nested tensor, kept as the tensors that it is made of"))?;
        let names = ["buffer", "sizes", "strides", "storage_offsets"];
        self.take_contents(Contents::Map(names.map(Key::Word).into_iter().zip(parts).collect()))
    }

    /// A tensor of a subclass of torch's: a plain tensor with attributes.
    fn subclass(&mut self, function: Id, class: Id, args: Id, state: Id) -> Result<Option<Value>> {
        let function = self.graph.global(function).unwrap_or_default();
        let class = self.graph.global(class).unwrap_or_default();
        // `function` makes a plain tensor; a recursive one would not end.
        if function.contains("_rebuild_from_type") {
            return self.lost(&format!("a tensor of class {class} that is rebuilt in an unknown way"));
        }
        if !matches!(class.as_str(), "torch.Tensor" | "torch._tensor.Tensor" | "torch.nn.parameter.Parameter")
        {
            self.note(Note::kept(&self.path, format!("of class {class}, kept as a plain tensor")))?;
        }
        let args = self.graph.sequence(args).unwrap_or_default();
        let value = match self.rebuild(&function, args)? {
            Some(value) => value,
            None => self.lost(&format!("a tensor of class {class} that is rebuilt in an unknown way"))?,
        };
        self.with_attributes(value, state)
    }

    /// Merges the rest of a tensor with its attributes.
    fn with_attributes(&mut self, value: Option<Value>, state: Id) -> Result<Option<Value>> {
        let attributes = self.attributes(Some(state))?;
        if attributes.is_empty() {
            return Ok(value);
        }
        let attributes = self.take_contents(Contents::Map(attributes))?;
        match (value, attributes) {
            (Some(value), Some(attributes)) => self.beside(value, attributes).map(Some),
            (value, attributes) => Ok(attributes.or(value)),
        }
    }

    /// The rest of a tensor, such as the scale of a quantised one, and its attributes beside it:
    /// of two with one name, the attribute gets another.
    fn beside(&mut self, value: Value, attributes: Value) -> Result<Value> {
        let (mut map, attributes) = match (value, attributes) {
            (Value::Map(map), Value::Map(attributes)) => (map, attributes),
            (value, attributes) => {
                let both = [("data".to_owned(), value), ("__dict__".to_owned(), attributes)];
                return Ok(Value::Map(both.into()));
            }
        };
        for (mut name, attribute) in attributes {
            while map.contains_key(&name) {
                self.budget.spend(name.len() as u64, "names")?;
                name.insert_str(0, "__dict__.");
                let what = format!("at {name:?}: an attribute, which has the name of a part of it");
                self.note(Note::kept(&self.path, what))?;
            }
            map.insert(name, attribute);
        }
        Ok(Value::Map(map))
    }

    fn take_items(&mut self, call: &Call, args: &[Id], is_set: bool) -> Result<Option<Value>> {
        let first = args.first().and_then(|&first| self.graph.sequence(first)).unwrap_or_default();
        let items: Vec<Id> = first.iter().chain(&call.items).copied().collect();
        self.budget.spend_values::<Id>(items.len(), "lists")?;
        let items = if is_set { self.distinct(&items)? } else { items };
        self.take_list(&items)
    }

    /// The bytes of a bytes object, which the protocols write as bytes, or as text with the name of
    /// an encoding.
    pub fn bytes_of(&self, id: Id) -> Option<Cow<'_, [u8]>> {
        let graph = self.graph;
        let call = match graph.node(id) {
            Node::Bytes(bytes) => return Some(Cow::Borrowed(bytes)),
            Node::Str(bytes) => return Some(Cow::Borrowed(bytes)),
            Node::Call(call) => call,
            _ => return None,
        };
        let name = graph.global(call.callee)?;
        if !BYTES.contains(&name.as_str()) {
            return None;
        }
        match graph.args(call) {
            [] => Some(Cow::Borrowed(&[])),
            // A bytearray of bytes: only one step, because bytes are not made of bytearrays.
            [bytes] if name != "_codecs.encode" => match graph.node(*bytes) {
                Node::Bytes(bytes) => Some(Cow::Borrowed(bytes)),
                // So many zeros.
                Node::Int(count) => {
                    let count = usize::try_from(*count).ok()?;
                    self.budget.spend(count as u64, "bytes").ok()?;
                    Some(Cow::Owned(vec![0; count]))
                }
                Node::Call(inner) if graph.is_global(inner.callee, "_codecs", "encode") => {
                    self.bytes_of(*bytes)
                }
                _ => None,
            },
            [text, encoding, ..] => encode(&graph.text(*text)?, &graph.text(*encoding)?),
            _ => None,
        }
    }
}

/// Encodes text; bytes are pickled as text in one of these encodings.
fn encode(text: &str, encoding: &str) -> Option<Cow<'static, [u8]>> {
    match encoding {
        "latin1" | "latin-1" => {
            text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect::<Option<Vec<_>>>()
        }
        "utf-8" | "utf8" => Some(text.as_bytes().to_vec()),
        _ => None,
    }
    .map(Cow::Owned)
}

pub fn complex(real: f64, imaginary: f64) -> Value {
    let parts = Value::List(vec![Value::Float(real), Value::Float(imaginary)]);
    Value::Map([("complex".to_owned(), parts)].into())
}

/// `torch.Tensor`, and the classes by element type of early torch versions.
fn is_tensor_class(name: &str) -> bool {
    let Some(class) = name.strip_prefix("torch.") else { return false };
    class == "_tensor.Tensor" || (class.ends_with("Tensor") && !class.contains('.'))
}
