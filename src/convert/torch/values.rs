//! The walk through a pickle's objects: tensors become the file's tensors, named by the path of
//! keys to them, and the rest of an object is returned as a value, for a record.

use super::elements::ElementType;
use super::keys::Key;
use super::objects::Contents;
use super::scalars::scalar;
use super::tensors::Identity;
use super::view::View;
use super::{DEEPEST, Reader};
use crate::convert::Note;
use crate::convert::naming::Names;
use crate::convert::pickle::{Id, Node};
use crate::error::Result;
use crate::format::limits::Limits;
use crate::format::value::Value;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

/// The name of an outermost object that is not a dict, or is one with more keys than a checkpoint
/// has records.
const WHOLE: &str = "torch";

impl Reader<'_, '_> {
    /// Takes the outermost object: its keys become separate records, unless all of it has a name.
    pub fn take_root(&mut self, name: Option<&str>) -> Result<()> {
        let root = self.graph.root;
        let pairs = match (name, self.contents(root)?) {
            (None, Some(Contents::Map(pairs))) => pairs,
            (name, _) => {
                let name = name.unwrap_or(WHOLE);
                self.path.push_str(name);
                if let Some(value) = self.take(root)? {
                    self.foreign.keep_record(name, value);
                }
                return Ok(());
            }
        };
        self.note_root(root)?;
        self.around.push(root);
        let left = self.take_pairs(&pairs)?;
        if left.len() as u64 > Limits::V1.records / 2 {
            if let Some(value) = self.map(left)? {
                self.foreign.keep_record(WHOLE, value);
            }
            return Ok(());
        }
        for Left { key, name, value } in left {
            let kept = self.foreign.keep_record(&name, value);
            let is_text = !matches!(key, Key::Of(id) if self.graph.text(id).is_none());
            if let Some(kept) = kept
                && !is_text
            {
                self.note(Note::kept(kept, format!("a key that is no text: {name}")))?;
            }
        }
        Ok(())
    }

    /// Takes an object under a key of the current one.
    pub fn within(&mut self, key: &str, id: Id) -> Result<Option<Value>> {
        // Charges for the path and for the value.
        self.budget.spend((key.len() + size_of::<Value>()) as u64, "the objects of the file")?;
        let len = self.path.len();
        if !(self.around.len() == 1 && self.path.is_empty()) {
            self.path.push('.');
        }
        self.path.push_str(key);
        let value = self.take(id);
        self.path.truncate(len);
        value
    }

    /// Takes an object: tensors become the file's tensors; the rest is returned, if there is any.
    pub fn take(&mut self, id: Id) -> Result<Option<Value>> {
        if self.around.len() >= DEEPEST {
            return self.lost(&format!("objects within objects, more than {DEEPEST} deep"));
        }
        if self.around.contains(&id) && self.is_container(id) {
            return self.lost("an object that contains itself");
        }
        self.around.push(id);
        let value = self.take_inner(id);
        self.around.pop();
        value
    }

    fn is_container(&self, id: Id) -> bool {
        !matches!(
            self.graph.node(id),
            Node::None | Node::Bool(_) | Node::Int(_) | Node::Float(_) | Node::Text(_) | Node::Global(_)
        )
    }

    fn take_inner(&mut self, id: Id) -> Result<Option<Value>> {
        let graph = self.graph;
        let node = graph.node(id);
        if let Some(value) = scalar(node) {
            return Ok(Some(value));
        }
        match node {
            Node::Text(_) | Node::Str(_) | Node::Bytes(_) => self.take_text(id).map(Some),
            Node::Global(global)
                if global.module == "torch" && super::elements::is_constant(&global.name) =>
            {
                Ok(Some(Value::Text(format!("torch.{}", global.name))))
            }
            Node::Global(global) => {
                self.budget.spend((global.module.len() + global.name.len()) as u64, "notes")?;
                self.lost(&format!("{}.{} is code, which is not run", global.module, global.name))
            }
            Node::Persistent(_) => self.take_storage(id),
            Node::Call(call) => self.take_call(id, call),
            _ => match self.contents(id)? {
                Some(contents) => self.take_contents(contents),
                None => Ok(None),
            },
        }
    }

    fn take_text(&mut self, id: Id) -> Result<Value> {
        let graph = self.graph;
        if let Some(text) = graph.text(id) {
            self.budget.spend(text.len() as u64, "text")?;
            if matches!(text, Cow::Owned(_)) {
                self.note(Note::kept(&self.path, "lone surrogates in its text are replaced by U+FFFD"))?;
            }
            return Ok(Value::Text(text.into_owned()));
        }
        let bytes = self.bytes_of(id).unwrap_or_default();
        self.budget.spend(bytes.len() as u64, "bytes")?;
        Ok(Value::Bytes(bytes.into_owned()))
    }

    /// A storage outside of any tensor.
    fn take_storage(&mut self, id: Id) -> Result<Option<Value>> {
        let view = self.storage_id(id).and_then(|id| {
            let element = id.element.unwrap_or(ElementType::BYTES);
            self.storages.check_order(&id, element)?;
            Ok(View {
                storage: id.key,
                element,
                offset: 0,
                shape: vec![id.count],
                strides: vec![1],
                conj: false,
                neg: false,
            })
        });
        self.take_view(view)
    }

    pub fn take_contents(&mut self, contents: Contents) -> Result<Option<Value>> {
        match contents {
            Contents::List(items) => self.take_list(&items),
            Contents::Map(pairs) => {
                let left = self.take_pairs(&pairs)?;
                // A dict of tensors only leaves nothing.
                if left.is_empty() && !pairs.is_empty() {
                    return Ok(None);
                }
                self.map(left)
            }
        }
    }

    pub fn take_list(&mut self, items: &[Id]) -> Result<Option<Value>> {
        let mut left = Vec::new();
        for (number, &item) in items.iter().enumerate() {
            left.push(self.within(&number.to_string(), item)?);
        }
        if !items.is_empty() && left.iter().all(Option::is_none) {
            return Ok(None);
        }
        Ok(Some(Value::List(left.into_iter().map(|value| value.unwrap_or(Value::Null)).collect())))
    }

    fn take_pairs(&mut self, pairs: &[(Key, Id)]) -> Result<Vec<Left>> {
        let mut left = Vec::new();
        for (key, value) in self.unique(pairs)? {
            let name = self.key_name(key)?;
            if matches!(key, Key::Attribute(_)) {
                let dot = if self.path.is_empty() { "" } else { "." };
                let place = format!("{}{dot}{name}", self.path);
                self.note(Note::kept(place, "an attribute, which has the name of an item"))?;
            }
            if let Some(value) = self.within(&name, value)? {
                left.push(Left { key, name, value });
            }
        }
        Ok(left)
    }

    /// The rest of a dict, as one value.
    fn map(&mut self, left: Vec<Left>) -> Result<Option<Value>> {
        let mut keys = left.iter().map(|left| self.key_value(left.key)).collect::<Result<Vec<_>>>()?;
        self.tell_apart(&mut keys)?;
        if keys.iter().all(|key| matches!(key, Value::Text(_))) {
            let mut map = BTreeMap::new();
            for (key, Left { value, .. }) in keys.into_iter().zip(left) {
                if let Value::Text(key) = key {
                    map.insert(key, value);
                }
            }
            return Ok(Some(Value::Map(map)));
        }
        Ok(Some(Value::Pairs(keys.into_iter().zip(left).map(|(key, left)| (key, left.value)).collect())))
    }

    /// Gives numbers to keys that differ in Python but not here, such as two lone surrogates or two
    /// NaNs.
    fn tell_apart(&mut self, keys: &mut [Value]) -> Result<()> {
        let mut seen = HashSet::new();
        let mut names = Names::default();
        for key in keys {
            let form = format!("{key:?}");
            self.budget.spend(form.len() as u64, "keys")?;
            if seen.insert(form) {
                continue;
            }
            let name = match &*key {
                Value::Text(text) => text.clone(),
                key => key.to_string(),
            };
            let mut free = Value::Text(names.free(&name));
            while !seen.insert(format!("{free:?}")) {
                free = Value::Text(names.free(&name));
            }
            self.budget.spend(2 * name.len() as u64, "keys")?;
            self.note(Note::kept(&self.path, format!("a key is {key} twice: one is {free}")))?;
            *key = free;
        }
        Ok(())
    }

    /// Takes the bytes of the current object as a tensor, once for all references to the object.
    pub fn take_object(
        &mut self,
        id: Id,
        make: impl FnOnce(&mut Self) -> Result<crate::convert::ForeignTensor>,
    ) -> Result<()> {
        let identity = Identity::Object(id);
        if !self.add_alias(&identity)? {
            let tensor = make(self)?;
            self.push(tensor, identity)?;
        }
        Ok(())
    }
}

/// The rest of a value under one key, without its tensors.
struct Left {
    key: Key,
    name: String,
    value: Value,
}
