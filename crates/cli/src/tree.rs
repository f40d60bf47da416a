//! Tensors as a tree of their names' parts. Owns: grouping by dots and slashes, natural order, and sizes of groups.

use crate::names::natural;
use crate::opened::Meta;
use std::collections::BTreeMap;

/// A part of a name, compared the natural way.
#[derive(Debug, PartialEq, Eq)]
struct Part<'m>(&'m str);

impl PartialOrd for Part<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Part<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        natural(self.0, other.0)
    }
}

/// A group of tensors, or one, or both.
#[derive(Debug, Default)]
pub struct Node<'m> {
    /// What parts it from the name before: a dot or a slash.
    joint: &'m str,
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
            for part in meta.name.splitn(MOST_PARTS, ['.', '/']) {
                node = node.below.entry(Part(part)).or_default();
                node.joint = joint;
                node.count(bytes);
                end += joint.len() + part.len();
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
                return only.collect(&format!("{label}{}{}", only.joint, part.0), depth, lines);
            }
            let label = format!("{indent}{label}");
            lines.push(Line { label, leaf: None, bytes: self.bytes, tensors: self.tensors });
        }
        self.below.iter().for_each(|(part, node)| node.collect(part.0, depth + 1, lines));
    }
}

const MOST_PARTS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use tensorkeep::Dtype;

    #[test]
    fn groups_have_sizes_and_natural_order() {
        let meta = |name: &str| Meta {
            name: name.to_owned(),
            dtype: Ok(Dtype::F32),
            shape: vec![1],
            byte_len: 4,
            stored_len: 4,
            chunks: 1,
            offset: None,
            raw: true,
            alias_of: None,
        };
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
}
