//! The contents of an object: the items of a list or a tuple, the pairs of a dict, the attributes
//! of an object of any class. The class itself is not needed: attributes are plain data in a
//! pickle.

use super::Reader;
use super::keys::Key;
use crate::convert::Note;
use crate::convert::pickle::{Call, Id, Node};
use crate::error::Result;
use crate::format::value::Value;
use std::collections::HashMap;

/// The contents of an object.
#[derive(Debug)]
pub enum Contents {
    List(Vec<Id>),
    Map(Vec<(Key, Id)>),
}

/// Classes that are plain dicts, as far as data is concerned.
const DICTS: &[&str] = &[
    "collections.OrderedDict",
    "collections.Counter",
    "collections.defaultdict",
    "builtins.dict",
    "types.SimpleNamespace",
    "argparse.Namespace",
];

/// The attributes in which a module keeps the items of its state dict, which are named under the
/// module's own path.
const OF_MODULES: [&str; 3] = ["_parameters", "_buffers", "_modules"];

/// Deepest nesting of dicts that are made of dicts; deeper ones are not read. Bounds the recursion.
const DEEPEST: usize = 16;

impl Reader<'_, '_> {
    /// The contents of a list, a dict or an object that has any; None for tensors and for the
    /// results of functions.
    pub fn contents(&self, id: Id) -> Result<Option<Contents>> {
        let node = self.graph.node(id);
        let (Node::List(items) | Node::Tuple(items) | Node::Set(items)) = node else {
            return match node {
                Node::Dict(pairs) => self.copied(pairs).map(|pairs| Some(Contents::Map(pairs))),
                Node::Call(call) => self.contents_of_call(call),
                _ => Ok(None),
            };
        };
        self.budget.spend_values::<Id>(items.len(), "lists")?;
        let is_set = matches!(node, Node::Set(_));
        Ok(Some(Contents::List(if is_set { self.distinct(items)? } else { items.clone() })))
    }

    fn copied(&self, pairs: &[(Id, Id)]) -> Result<Vec<(Key, Id)>> {
        self.budget.spend_values::<(Key, Id)>(pairs.len(), "dicts")?;
        Ok(pairs.iter().map(|&(key, value)| (Key::Of(key), value)).collect())
    }

    fn contents_of_call(&self, call: &Call) -> Result<Option<Contents>> {
        let name = self.class(call);
        let is_dict = DICTS.contains(&name.as_str());
        if !is_dict && (self.is_special(&name) || !self.arguments(call).is_empty()) {
            return Ok(None);
        }
        let mut pairs = Vec::new();
        if is_dict {
            let Some(made) = self.pairs_of_call(call, &name, 0)? else { return Ok(None) };
            pairs = made;
        } else {
            pairs.extend(self.copied(&call.pairs)?);
        }
        let attributes = self.attributes(call.state)?;
        self.budget.spend_values::<(Key, Id)>(call.items.len() + attributes.len(), "objects")?;
        if pairs.is_empty() && attributes.is_empty() && !is_dict {
            return Ok((!call.items.is_empty()).then(|| Contents::List(call.items.clone())));
        }
        let items = call.items.iter().enumerate().map(|(number, &item)| (Key::Place(number), item));
        pairs.extend(items);
        self.add_attributes(&mut pairs, attributes)?;
        Ok(Some(Contents::Map(pairs)))
    }

    /// Adds attributes behind an object's items. In Python they are two things: an attribute with
    /// the name of an item, and another value, stands beside it.
    fn add_attributes(&self, pairs: &mut Vec<(Key, Id)>, attributes: Vec<(Key, Id)>) -> Result<()> {
        if pairs.is_empty() || attributes.is_empty() {
            pairs.extend(attributes);
            return Ok(());
        }
        let mut items = HashMap::new();
        for &(key, value) in &*pairs {
            items.insert(self.key_form(key)?, value);
        }
        for (key, value) in attributes {
            let item = items.get(&self.key_form(key)?);
            match (item, key) {
                (Some(item), _) if *item == value => {}
                (Some(_), Key::Of(id)) => pairs.push((Key::Attribute(id), value)),
                (Some(_), _) => pairs.push((Key::Word("__dict__"), value)),
                (None, key) => pairs.push((key, value)),
            }
        }
        Ok(())
    }

    /// The class or function of a call, `module.name`.
    pub fn class(&self, call: &Call) -> String {
        let class = match self.reconstructed(call) {
            Some([class, ..]) => *class,
            _ => call.callee,
        };
        // In files before torch 1.6, a module's class is stored outside of the pickle, with its
        // source.
        let class = match self.graph.node(class) {
            Node::Persistent(id) => match self.graph.node(*id) {
                Node::Tuple(parts) => parts.get(1).copied().unwrap_or(class),
                _ => class,
            },
            _ => class,
        };
        self.graph.global(class).unwrap_or_else(|| "an unnamed class".to_owned())
    }

    /// The arguments of a call, without those that only identify the class.
    pub fn arguments(&self, call: &Call) -> &[Id] {
        match self.reconstructed(call) {
            // The class, the class it extends, and the arguments for that one: none for `object`.
            Some([_, _, state]) if self.graph.node(*state) == &Node::None => &[],
            Some([_, _, state @ ..]) => state,
            _ => self.graph.args(call),
        }
    }

    /// The arguments of `copyreg._reconstructor`, with which protocols 0 and 1 make an object of a
    /// class.
    fn reconstructed(&self, call: &Call) -> Option<&[Id]> {
        self.graph.is_global(call.callee, "copyreg", "_reconstructor").then(|| self.graph.args(call))
    }

    /// The pairs of a plain dict by the call that makes it: those of its arguments, and those set
    /// afterwards. None if an argument is not understood.
    fn pairs_of_call(&self, call: &Call, class: &str, depth: usize) -> Result<Option<Vec<(Key, Id)>>> {
        let mut pairs = Vec::new();
        // A default dict's first argument makes its missing values.
        let factories = usize::from(class == "collections.defaultdict");
        let arguments = self.arguments(call).iter().skip(factories).chain(&call.named_args);
        for &argument in arguments {
            let Some(more) = self.pairs_in(argument, class, depth)? else { return Ok(None) };
            pairs.extend(more);
        }
        pairs.extend(self.copied(&call.pairs)?);
        Ok(Some(pairs))
    }

    /// The pairs in an argument of a dict of this class: of another dict, or of a sequence of
    /// pairs, as Python 2 writes ordered dicts. A counter counts a sequence's items instead.
    fn pairs_in(&self, id: Id, class: &str, depth: usize) -> Result<Option<Vec<(Key, Id)>>> {
        // Each is visited as often as it is recalled, also where it has no pairs.
        self.budget.spend(64, "dicts")?;
        let items = match self.graph.node(id) {
            Node::Dict(pairs) => return self.copied(pairs).map(Some),
            Node::Call(call) if depth < DEEPEST => {
                let class = self.class(call);
                let is_dict = DICTS.contains(&class.as_str());
                return if is_dict { self.pairs_of_call(call, &class, depth + 1) } else { Ok(None) };
            }
            Node::List(items) | Node::Tuple(items) | Node::Set(items) => items,
            _ => return Ok(None),
        };
        if class == "collections.Counter" && !items.is_empty() {
            return Ok(None);
        }
        self.budget.spend_values::<(Id, Id)>(items.len(), "dicts")?;
        let pair = |&item: &Id| match self.graph.sequence(item) {
            Some(&[key, value]) => Some((key, value)),
            _ => None,
        };
        let pairs: Option<Vec<_>> = items.iter().map(pair).collect();
        pairs.map(|pairs| self.copied(&pairs)).transpose()
    }

    /// The attributes in an object's state: a dict, or a pair of dicts if its class has slots.
    pub fn attributes(&self, state: Option<Id>) -> Result<Vec<(Key, Id)>> {
        let Some(state) = state else { return Ok(vec![]) };
        let graph = self.graph;
        let is_dict = |id: &Id| graph.pairs(*id).is_some() || graph.node(*id) == &Node::None;
        match graph.node(state) {
            Node::None => Ok(vec![]),
            Node::Tuple(both) if both.len() == 2 && both.iter().all(is_dict) => {
                let mut attributes = self.attributes(Some(both[0]))?;
                attributes.extend(self.attributes(Some(both[1]))?);
                Ok(attributes)
            }
            _ => match graph.pairs(state) {
                Some(pairs) if self.is_module(pairs) => self.module(pairs),
                Some(pairs) => self.copied(pairs),
                None => Ok(vec![(Key::Word("state"), state)]),
            },
        }
    }

    fn is_module(&self, pairs: &[(Id, Id)]) -> bool {
        OF_MODULES
            .iter()
            .all(|name| self.graph.get(pairs, name).is_some_and(|id| self.graph.pairs(id).is_some()))
    }

    /// A module's items, under the names in its state dict, then its attributes. Of its private
    /// bookkeeping, only items that are not empty.
    fn module(&self, pairs: &[(Id, Id)]) -> Result<Vec<(Key, Id)>> {
        let graph = self.graph;
        let (mut found, mut attributes) = (Vec::new(), Vec::new());
        for &(key, value) in pairs {
            let name = graph.text(key).unwrap_or_default();
            if OF_MODULES.contains(&&*name) {
                let held = self.pairs_in(value, "", 0)?.unwrap_or_default().into_iter();
                found.extend(held.filter(|(_, held)| graph.node(*held) != &Node::None));
            } else if !(name.starts_with('_') && self.is_empty(value)) {
                attributes.extend(self.copied(&[(key, value)])?);
            }
        }
        self.add_attributes(&mut found, attributes)?;
        Ok(found)
    }

    fn is_empty(&self, id: Id) -> bool {
        match self.graph.node(id) {
            Node::None | Node::Bool(_) => true,
            Node::List(items) | Node::Tuple(items) | Node::Set(items) => items.is_empty(),
            Node::Dict(pairs) => pairs.is_empty(),
            Node::Call(call) => {
                let no_items = |id: &Id| self.graph.sequence(*id).is_some_and(<[Id]>::is_empty);
                let is_empty = call.pairs.is_empty() && call.items.is_empty() && call.state.is_none();
                is_empty && self.graph.args(call).iter().all(no_items)
            }
            _ => false,
        }
    }

    /// An object of an unknown class: its attributes and items are kept as data, and so are its
    /// constructor's arguments, although their effect is unknown.
    pub fn take_unknown(&mut self, id: Id, call: &Call) -> Result<Option<Value>> {
        let class = self.class(call);
        self.budget.spend(class.len() as u64, "names of classes")?;
        if let Some(contents) = self.contents(id)? {
            if self.inside_objects == 0 && !DICTS.contains(&class.as_str()) {
                let what =
                    format!("{class} is code, which is not run: its attributes and items are kept as data");
                self.note(Note::kept(&self.path, what))?;
            }
            return self.inside(|reader| reader.take_contents(contents));
        }
        if self.arguments(call).is_empty() {
            return self.lost(&format!("{class} is code, which is not run"));
        }
        self.note(Note::lost(
            &self.path,
            format!(
                "{class} is code, which is not run: kept are its arguments, and not what it makes of them"
            ),
        ))?;
        let mut pairs = vec![(Key::Word("args"), call.args)];
        pairs.extend(call.named_args.map(|named| (Key::Word("named_args"), named)));
        let mut rest = self.copied(&call.pairs)?;
        rest.extend(call.items.iter().enumerate().map(|(number, &item)| (Key::Place(number), item)));
        self.add_attributes(&mut rest, self.attributes(call.state)?)?;
        self.add_attributes(&mut pairs, rest)?;
        self.inside(|reader| reader.take_contents(Contents::Map(pairs)))
    }

    /// Notes the class of the outermost object, if it has one.
    pub fn note_root(&mut self, root: Id) -> Result<()> {
        let Node::Call(call) = self.graph.node(root) else { return Ok(()) };
        let class = self.class(call);
        if DICTS.contains(&class.as_str()) {
            return Ok(());
        }
        self.inside_objects += 1;
        self.note(Note::kept(class, "code, which is not run: its attributes and items are kept as data"))
    }

    fn inside<T>(&mut self, take: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.inside_objects += 1;
        let taken = take(self);
        self.inside_objects -= 1;
        taken
    }
}
