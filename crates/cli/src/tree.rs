//! Tensors as a tree of their names' parts. Owns: grouping by dots and slashes, natural order, and
//! sizes of groups.

use crate::names::natural;
use crate::opened::Meta;
use std::collections::BTreeMap;

/// A part of a name, compared the natural way, and what parts it from the part before: `a.b` and
/// `a/b` are two names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part<'m> {
    text: &'m str,
    joint: &'m str,
}

impl PartialOrd for Part<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Part<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        natural(self.text, other.text).then_with(|| self.joint.cmp(other.joint))
    }
}

/// A group of tensors, or one, or both.
#[derive(Debug, Default)]
pub struct Node<'m> {
    leaf: Option<&'m Meta>,
    below: BTreeMap<Part<'m>, Node<'m>>,
    bytes: u64,
    tensors: usize,
}

/// One line of the tree.
#[derive(Debug)]
pub struct Line<'m> {
    /// Indented, and without what the lines above say.
    pub label: String,
    /// The tensor, or None for a group.
    pub leaf: Option<&'m Meta>,
    /// Bytes of values, ties counted once.
    pub bytes: u64,
    /// Tensors in it.
    pub tensors: usize,
}

impl<'m> Node<'m> {
    pub fn of(metas: &'m [Meta]) -> Self {
        let mut root = Self::default();
        for meta in metas {
            let bytes = if meta.alias_of.is_some() { 0 } else { meta.byte_len };
            let mut node = &mut root;
            node.count(bytes);
            // A name of thousands of dots must not be a tree that overflows the stack.
            let (mut joint, mut end) = ("", 0);
            for text in meta.name.splitn(MOST_PARTS, ['.', '/']) {
                node = node.below.entry(Part { text, joint }).or_default();
                node.count(bytes);
                end += joint.len() + text.len();
                joint = meta.name.get(end..end + 1).unwrap_or_default();
            }
            node.leaf = Some(meta);
        }
        root
    }

    fn count(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.tensors += 1;
    }

    /// Lines, top down. A group of one tensor is one line with it.
    pub fn lines(&self) -> Vec<Line<'m>> {
        let mut lines = Vec::new();
        self.collect("", 0, &mut lines);
        lines
    }

    fn collect(&self, label: &str, depth: usize, lines: &mut Vec<Line<'m>>) {
        let indent = "  ".repeat(depth.saturating_sub(1));
        if let Some(leaf) = self.leaf {
            lines.push(Line {
                label: format!("{indent}{label}"),
                leaf: Some(leaf),
                bytes: self.bytes,
                tensors: 1,
            });
        } else if depth > 0 {
            if let Some((part, only)) = self.below.first_key_value().filter(|_| self.below.len() == 1) {
                return only.collect(&format!("{label}{}{}", part.joint, part.text), depth, lines);
            }
            let label = format!("{indent}{label}");
            lines.push(Line { label, leaf: None, bytes: self.bytes, tensors: self.tensors });
        }
        for (part, node) in &self.below {
            let twin = |joint| self.below.contains_key(&Part { joint, ..*part });
            // Where both `a.b` and `a/b` are there, their lines say which is which.
            let joint = if twin(".") && twin("/") { part.joint } else { "" };
            node.collect(&format!("{joint}{}", part.text), depth + 1, lines);
        }
    }
}

const MOST_PARTS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use tensorkeep::Dtype;

    fn meta(name: &str) -> Meta {
        Meta {
            name: name.to_owned(),
            dtype: Ok(Dtype::F32),
            shape: vec![1],
            byte_len: 4,
            stored_len: 4,
            chunks: 1,
            chunk_len: 4,
            offset: None,
            raw: true,
            alias_of: None,
        }
    }

    #[test]
    fn groups_have_sizes_and_natural_order() {
        let slashes = ["adam/m/fc.w", "adam/m/fc.b", "adam/step"].map(meta);
        let labels: Vec<String> = Node::of(&slashes).lines().into_iter().map(|line| line.label).collect();
        assert_eq!(labels, ["adam", "  m/fc", "    b", "    w", "  step"]);
        let metas = ["layer.10.w", "layer.2.w", "layer.2.b", "head.w", "layer"].map(meta);
        let root = Node::of(&metas);
        let lines: Vec<(String, u64)> =
            root.lines().into_iter().map(|line| (line.label, line.bytes)).collect();
        let expected = [("head.w", 4), ("layer", 16), ("  2", 8), ("    b", 4), ("    w", 4), ("  10.w", 4)];
        assert_eq!(lines, expected.map(|(label, bytes)| (label.to_owned(), bytes)));
        assert_eq!(Node::of(&[meta(&".".repeat(100_000))]).lines().len(), 1);
    }

    #[test]
    fn names_that_differ_in_a_dot_and_a_slash_are_two_lines() {
        let metas = ["a.b", "a/b", "a/c", "x.y.z", "x/y.z"].map(meta);
        let lines = Node::of(&metas).lines();
        let labels: Vec<&str> = lines.iter().map(|line| line.label.as_str()).collect();
        assert_eq!(labels, ["a", "  .b", "  /b", "  c", "x", "  .y.z", "  /y.z"]);
        assert_eq!(lines.iter().filter(|line| line.leaf.is_some()).count(), metas.len());
    }
}
