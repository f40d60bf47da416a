//! Pickles as data: a graph in which a class is a name and a call is a node. Nothing is looked up,
//! imported or called, so no code can run; what the names mean is for the caller to decide.
//!
//! Text and bytes are borrowed from the pickle where they can be, and everything that is made is
//! charged to a budget.

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
    /// UTF-8, but for lone surrogates, which Python encodes likewise.
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
    /// An object kept outside of the pickle, under this key.
    Persistent(Id),
}

/// A class or function, by module and name.
#[derive(Clone, Debug, PartialEq)]
pub struct Global {
    pub module: String,
    pub name: String,
}

/// What calling a global would make, and what is put into that afterwards.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Call {
    pub callee: Id,
    pub args: Id,
    /// Arguments by name, which only few classes take.
    pub named_args: Option<Id>,
    pub items: Vec<Id>,
    pub pairs: Vec<(Id, Id)>,
    pub state: Option<Id>,
}

/// A pickle's objects.
#[derive(Debug)]
pub struct Graph<'p> {
    nodes: Vec<Node<'p>>,
    /// The object that the pickle is of.
    pub root: Id,
    /// Bytes of the pickle.
    pub len: usize,
}

impl<'p> Graph<'p> {
    /// One object.
    pub fn node(&self, id: Id) -> &Node<'p> {
        // OK to index: ids are made by the machine, one for each node.
        &self.nodes[id as usize]
    }

    /// All objects, in the order in which they were made.
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

    /// The items of a tuple or list, also of one that is made by a call with it, such as
    /// `torch.Size`.
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

    /// A dict's pairs as they were set, also of an ordered dict.
    pub fn pairs(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.node(id) {
            Node::Dict(pairs) => Some(pairs),
            Node::Call(call) if self.is_global(call.callee, "collections", "OrderedDict") => {
                Some(&call.pairs)
            }
            _ => None,
        }
    }

    /// The value of a text key, the last one as in Python.
    pub fn get(&self, pairs: &[(Id, Id)], key: &str) -> Option<Id> {
        let is_key = |(id, _): &&(Id, Id)| self.text(*id).is_some_and(|text| text == key);
        pairs.iter().rev().find(is_key).map(|(_, value)| *value)
    }

    /// The arguments of a call, by place.
    pub fn args(&self, call: &Call) -> &[Id] {
        match self.node(call.args) {
            Node::Tuple(args) => args,
            _ => &[],
        }
    }

    /// A call of the class or function of this name.
    pub fn call(&self, id: Id, module: &str, name: &str) -> Option<&Call> {
        match self.node(id) {
            Node::Call(call) if self.is_global(call.callee, module, name) => Some(call),
            _ => None,
        }
    }

    /// A number that is not negative.
    pub fn size(&self, id: Id) -> Option<usize> {
        match self.node(id) {
            Node::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        }
    }

    /// Numbers that are not negative.
    pub fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        self.sequence(id)?.iter().map(|&item| self.size(item)).collect()
    }
}
