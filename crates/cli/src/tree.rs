//! Tensors as a tree of their names' parts, split at dots and slashes, in natural order, with the
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
    /// Bytes of values, without aliases.
    pub bytes: u64,
    /// Tensors in it.
    pub tensors: usize,
}

/// A child and its name below its parent.
type Child<'t, 'm> = (&'t Part<'m>, &'t Node<'m>);

/// Children numbered one after the other that have the same insides.
struct Alike<'t, 'm> {
    /// The number that would continue it.
    next: u64,
    insides: String,
    run: Vec<Child<'t, 'm>>,
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

    /// Lines, top down. A group of one tensor is one line with it. Groups that are numbered and
    /// alike are one, `{0..31}`, where `rolled` says so; what lies deeper than `depth` is left out.
    pub fn lines(&self, rolled: bool, depth: usize) -> Vec<Line<'m>> {
        let mut lines = Vec::new();
        self.collect("", 0, Shape { rolled, depth }, &mut lines);
        lines
    }

    /// Names, dtypes and shapes of its contents, without its own name.
    fn insides(&self, into: &mut String) {
        if let Some(leaf) = self.leaf {
            into.push_str(&format!("={}{}", leaf.dtype_text(), leaf.shape_text()));
        }
        for (part, node) in &self.below {
            into.push_str(&format!("({}{}", part.joint, part.text));
            node.insides(into);
            into.push(')');
        }
    }

    /// The children, those that are numbered one after the other and alike together.
    fn runs(&self, rolled: bool) -> Vec<Vec<Child<'_, 'm>>> {
        let mut runs: Vec<Alike<'_, 'm>> = Vec::new();
        for child @ (part, node) in &self.below {
            let number = part.text.parse::<u64>().ok().filter(|_| rolled && node.leaf.is_none());
            let Some(number) = number else {
                runs.push(Alike { next: u64::MAX, insides: String::new(), run: vec![child] });
                continue;
            };
            let mut insides = part.joint.to_owned();
            node.insides(&mut insides);
            match runs.last_mut() {
                Some(last) if last.next == number && last.insides == insides => {
                    last.run.push(child);
                    last.next += 1;
                }
                _ => runs.push(Alike { next: number + 1, insides, run: vec![child] }),
            }
        }
        let mut all = Vec::new();
        for Alike { run, .. } in runs {
            // Two are shown as they are.
            match run.len() {
                0..3 => all.extend(run.into_iter().map(|one| vec![one])),
                _ => all.push(run),
            }
        }
        all
    }

    fn collect(&self, label: &str, depth: usize, shape: Shape, lines: &mut Vec<Line<'m>>) {
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
                return only.collect(&format!("{label}{}{}", part.joint, part.text), depth, shape, lines);
            }
            let label = format!("{indent}{label}");
            lines.push(Line { label, leaf: None, bytes: self.bytes, tensors: self.tensors });
        }
        if depth >= shape.depth {
            return;
        }
        for run in self.runs(shape.rolled) {
            let Some(&(part, node)) = run.first() else { continue };
            let twin = |joint| self.below.contains_key(&Part { joint, ..*part });
            // Where both `a.b` and `a/b` are there, their lines say which is which.
            let joint = if twin(".") && twin("/") { part.joint } else { "" };
            let at = lines.len();
            node.collect(&format!("{joint}{}", part.text), depth + 1, shape, lines);
            if let ([_, .., (last, _)], Some(line)) = (run.as_slice(), lines.get_mut(at)) {
                // The first stands for all: its lines are theirs, each.
                let name = format!("{joint}{{{}..{}}}", part.text, last.text);
                line.label = line.label.replacen(&format!("{joint}{}", part.text), &name, 1);
                line.bytes = run.iter().map(|(_, node)| node.bytes).sum();
                line.tensors = run.iter().map(|(_, node)| node.tensors).sum();
            }
        }
    }
}

/// How a tree is shown.
#[derive(Clone, Copy, Debug)]
struct Shape {
    rolled: bool,
    depth: usize,
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
        let labels: Vec<String> =
            Node::of(&slashes).lines(false, 99).into_iter().map(|line| line.label).collect();
        assert_eq!(labels, ["adam", "  m/fc", "    b", "    w", "  step"]);
        let metas = ["layer.10.w", "layer.2.w", "layer.2.b", "head.w", "layer"].map(meta);
        let root = Node::of(&metas);
        let lines: Vec<(String, u64)> =
            root.lines(false, 99).into_iter().map(|line| (line.label, line.bytes)).collect();
        let expected = [("head.w", 4), ("layer", 16), ("  2", 8), ("    b", 4), ("    w", 4), ("  10.w", 4)];
        assert_eq!(lines, expected.map(|(label, bytes)| (label.to_owned(), bytes)));
        assert_eq!(Node::of(&[meta(&".".repeat(100_000))]).lines(false, 99).len(), 1);
    }

    #[test]
    fn modules_that_repeat_are_one_line() {
        let names = (0..4).flat_map(|i| [format!("net.{i}.w"), format!("net.{i}.b")]);
        let metas: Vec<Meta> = names.chain(["net.norm".to_owned()]).map(|name| meta(&name)).collect();
        let root = Node::of(&metas);
        let lines: Vec<(String, u64)> =
            root.lines(true, 99).into_iter().map(|line| (line.label, line.bytes)).collect();
        let expected = [("net", 36), ("  {0..3}", 32), ("    b", 4), ("    w", 4), ("  norm", 4)];
        assert_eq!(lines, expected.map(|(label, bytes)| (label.to_owned(), bytes)));
        assert_eq!(root.lines(true, 1).len(), 1);
        assert_eq!(root.lines(false, 99).len(), 14);
    }

    #[test]
    fn names_that_differ_in_a_dot_and_a_slash_are_two_lines() {
        let metas = ["a.b", "a/b", "a/c", "x.y.z", "x/y.z"].map(meta);
        let lines = Node::of(&metas).lines(false, 99);
        let labels: Vec<&str> = lines.iter().map(|line| line.label.as_str()).collect();
        assert_eq!(labels, ["a", "  .b", "  /b", "  c", "x", "  .y.z", "  /y.z"]);
        assert_eq!(lines.iter().filter(|line| line.leaf.is_some()).count(), metas.len());
    }
}
