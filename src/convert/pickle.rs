//! Pickles as data: a graph in which a class is a name and a call is a node. Nothing is looked up,
//! imported or called, so no code can run; the caller interprets the names.
//!
//! Text and bytes are borrowed from the pickle if possible, and everything else is charged to a
//! budget.

mod input;
mod machine;
mod text;

pub use machine::read;

use std::borrow::Cow;

/// The number of a node.
pub type Id = u32;

/// One object of a pickle.
#[derive(Clone, Debug, PartialEq)]
pub enum Node<'p> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer beyond 64 bits, little-endian two's complement.
    BigInt(Cow<'p, [u8]>),
    Float(f64),
    /// UTF-8, except for lone surrogates, which Python encodes the same way.
    Text(Cow<'p, [u8]>),
    /// A `str` of Python 2: text or bytes.
    Str(Cow<'p, [u8]>),
    Bytes(&'p [u8]),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Set(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Box<Global>),
    Call(Box<Call>),
    /// An object stored outside of the pickle, under this key.
    Persistent(Id),
}

impl Node<'_> {
    /// Heap bytes of a node besides the node itself.
    fn heap_bytes(&self) -> u64 {
        let len = match self {
            Self::BigInt(Cow::Owned(bytes))
            | Self::Text(Cow::Owned(bytes))
            | Self::Str(Cow::Owned(bytes)) => bytes.len(),
            Self::Tuple(items) | Self::List(items) | Self::Set(items) => items.len() * size_of::<Id>(),
            Self::Dict(pairs) => pairs.len() * size_of::<(Id, Id)>(),
            Self::Global(global) => size_of::<Global>() + global.module.len() + global.name.len(),
            Self::Call(_) => size_of::<Call>(),
            _ => 0,
        };
        len as u64
    }
}

/// A class or function, by module and name.
#[derive(Clone, Debug, PartialEq)]
pub struct Global {
    pub module: String,
    pub name: String,
}

impl Global {
    /// Renames Python 2's modules to those of Python 3.
    fn new(module: &str, name: &str) -> Self {
        let module = match module {
            "__builtin__" => "builtins",
            "copy_reg" => "copyreg",
            module => module,
        };
        Self { module: module.to_owned(), name: name.to_owned() }
    }
}

/// The result of calling a global, and the items set on it afterwards.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Call {
    pub callee: Id,
    pub args: Id,
    /// Keyword arguments, which few classes take.
    pub named_args: Option<Id>,
    pub items: Vec<Id>,
    pub pairs: Vec<(Id, Id)>,
    pub state: Option<Id>,
}

/// A pickle's objects.
#[derive(Debug)]
pub struct Graph<'p> {
    nodes: Vec<Node<'p>>,
    /// The pickled object.
    pub root: Id,
    /// Bytes of the pickle.
    pub len: usize,
}

impl<'p> Graph<'p> {
    /// One object.
    pub fn node(&self, id: Id) -> &Node<'p> {
        // OK to index: the machine makes ids, one for each node.
        &self.nodes[id as usize]
    }

    /// All objects, in the order of their creation.
    pub fn nodes(&self) -> &[Node<'p>] {
        &self.nodes
    }

    /// A class or function by its whole name, `module.name`.
    pub fn global(&self, id: Id) -> Option<String> {
        match self.node(id) {
            Node::Global(global) => Some(format!("{}.{}", global.module, global.name)),
            _ => None,
        }
    }

    /// Whether an object is the class or function of this name.
    pub fn is_global(&self, id: Id, module: &str, name: &str) -> bool {
        matches!(self.node(id), Node::Global(global) if global.module == module && global.name == name)
    }

    /// Text, lone surrogates replaced.
    pub fn text(&self, id: Id) -> Option<Cow<'_, str>> {
        match self.node(id) {
            Node::Text(bytes) => Some(String::from_utf8_lossy(bytes)),
            Node::Str(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            _ => None,
        }
    }

    /// The items of a tuple or list, also of a call that takes just one, such as `torch.Size`.
    pub fn sequence(&self, id: Id) -> Option<&[Id]> {
        match self.node(id) {
            Node::Tuple(items) | Node::List(items) => Some(items),
            Node::Call(call) => match self.args(call) {
                [only] => match self.node(*only) {
                    Node::Tuple(items) | Node::List(items) => Some(items),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        }
    }

    /// A dict's pairs in the order of insertion, also of an ordered dict.
    pub fn pairs(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.node(id) {
            Node::Dict(pairs) => Some(pairs),
            Node::Call(call) if self.is_global(call.callee, "collections", "OrderedDict") => {
                Some(&call.pairs)
            }
            _ => None,
        }
    }

    /// The value of a text key; the last one, as in Python.
    pub fn get(&self, pairs: &[(Id, Id)], key: &str) -> Option<Id> {
        let is_key = |(id, _): &&(Id, Id)| self.text(*id).is_some_and(|text| text == key);
        pairs.iter().rev().find(is_key).map(|(_, value)| *value)
    }

    /// The positional arguments of a call.
    pub fn args(&self, call: &Call) -> &[Id] {
        match self.node(call.args) {
            Node::Tuple(args) => args,
            _ => &[],
        }
    }

    /// The call, if it calls the class or function of this name.
    pub fn call(&self, id: Id, module: &str, name: &str) -> Option<&Call> {
        match self.node(id) {
            Node::Call(call) if self.is_global(call.callee, module, name) => Some(call),
            _ => None,
        }
    }

    /// A non-negative integer.
    pub fn size(&self, id: Id) -> Option<usize> {
        match self.node(id) {
            Node::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        }
    }

    /// Non-negative integers.
    pub fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        self.sequence(id)?.iter().map(|&item| self.size(item)).collect()
    }
}
