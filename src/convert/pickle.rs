//! Pickles as data. Owns: reading a pickle into a graph in which a class is a name and a call is a node: nothing is
//! looked up, imported or called, so no code can run. What the names mean is for the caller to decide.
//!
//! Memory stays in proportion to the pickle: each opcode makes at most one node, and counts never allocate.

use crate::budget::Budget;
use crate::error::{Error, ErrorKind, Result};
use std::collections::HashMap;

/// The number of a node.
pub type Id = u32;

/// One object of a pickle.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    None,
    Bool(bool),
    Int(i64),
    /// An integer beyond 64 bits, little-endian two's complement.
    BigInt(Vec<u8>),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or function, by module and name.
    Global(String, String),
    /// What calling a global would make, and what is put into that afterwards.
    Call {
        callee: Id,
        args: Id,
        items: Vec<Id>,
        pairs: Vec<(Id, Id)>,
        state: Option<Id>,
    },
    /// An object kept outside of the pickle, under this key.
    Persistent(Id),
}

/// A pickle's objects.
#[derive(Debug)]
pub struct Graph {
    nodes: Vec<Node>,
    /// The object that the pickle is of.
    pub root: Id,
}

impl Graph {
    /// One object.
    pub fn node(&self, id: Id) -> &Node {
        // OK to index: ids are made by this module, one for each node.
        &self.nodes[id as usize]
    }
}

/// Reads one pickle, protocols 0 to 5.
///
/// # Errors
/// `Damaged` when the bytes are no pickle, `Unsupported` for opcodes that no model needs.
pub fn read(bytes: &[u8], budget: &Budget) -> Result<Graph> {
    let (nodes, stack, marks, memo) = Default::default();
    let mut machine = Machine { bytes, budget, at: 0, nodes, stack, marks, memo };
    let root = machine.run().map_err(|error| error.at_byte(machine.at as u64))?;
    Ok(Graph { nodes: machine.nodes, root })
}

struct Machine<'a> {
    bytes: &'a [u8],
    budget: &'a Budget,
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Id> {
        loop {
            let op = self.take(1)?[0];
            match op {
                b'.' => return self.pop(),
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),
                b'(' => self.marks.push(self.stack.len()),
                b'0' => drop(self.pop()?),
                b'1' => drop(self.pop_mark()?),
                b'2' => {
                    let top = self.top()?;
                    self.stack.push(top);
                }
                _ => self.scalar(op)?,
            }
        }
    }

    fn scalar(&mut self, op: u8) -> Result<()> {
        let node = match op {
            b'N' => Node::None,
            0x88 => Node::Bool(true),
            0x89 => Node::Bool(false),
            b'K' => Node::Int(self.number(1)? as i64),
            b'M' => Node::Int(self.number(2)? as i64),
            b'J' => Node::Int(i64::from(self.number(4)? as u32 as i32)),
            0x8A => self.long(1)?,
            0x8B => self.long(4)?,
            b'I' | b'L' => self.decimal()?,
            b'G' => Node::Float(f64::from_be_bytes(*self.array()?)),
            b'F' => {
                let line = self.line()?;
                Node::Float(line.parse().map_err(|_| bad("a float that is none"))?)
            }
            b'X' => self.text(4)?,
            0x8C => self.text(1)?,
            0x8D => self.text(8)?,
            b'U' => self.latin(1)?,
            b'T' => self.latin(4)?,
            b'V' => Node::Text(self.line()?.to_owned()),
            b'S' => Node::Text(self.line()?.trim_matches(['\'', '"']).to_owned()),
            b'C' => self.blob(1)?,
            b'B' => self.blob(4)?,
            0x8E | 0x96 => self.blob(8)?,
            _ => return self.container(op),
        };
        self.push(node)
    }

    fn container(&mut self, op: u8) -> Result<()> {
        let node = match op {
            b')' => Node::Tuple(vec![]),
            b']' => Node::List(vec![]),
            b'}' => Node::Dict(vec![]),
            0x8F => Node::List(vec![]),
            b't' => Node::Tuple(self.pop_mark()?),
            b'l' | 0x91 => Node::List(self.pop_mark()?),
            b'd' => Node::Dict(pairs(self.pop_mark()?)?),
            0x85..=0x87 => {
                let from = self.height(usize::from(op - 0x84))?;
                Node::Tuple(self.stack.split_off(from))
            }
            b'c' => {
                let (module, name) = (self.line()?.to_owned(), self.line()?.to_owned());
                Node::Global(module, name)
            }
            0x93 => self.stack_global()?,
            b'R' | 0x81 => {
                let (args, callee) = (self.pop()?, self.pop()?);
                Node::Call { callee, args, items: vec![], pairs: vec![], state: None }
            }
            0x92 => {
                // With keyword arguments, which nothing that is known here takes.
                let (_, args, callee) = (self.pop()?, self.pop()?, self.pop()?);
                Node::Call { callee, args, items: vec![], pairs: vec![], state: None }
            }
            b'Q' => Node::Persistent(self.pop()?),
            _ => return self.change(op),
        };
        self.push(node)
    }

    fn change(&mut self, op: u8) -> Result<()> {
        match op {
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item])
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.extend(items)
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.insert(vec![(key, value)])
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.insert(pairs(items)?)
            }
            b'b' => {
                let new = self.pop()?;
                let top = self.top()?;
                if let Node::Call { state, .. } = &mut self.nodes[top as usize] {
                    *state = Some(new);
                }
                Ok(())
            }
            b'q' => self.memoize(1),
            b'r' => self.memoize(4),
            0x94 => {
                let (key, top) = (self.memo.len() as u64, self.top()?);
                self.memo.insert(key, top);
                Ok(())
            }
            b'h' => self.recall(1),
            b'j' => self.recall(4),
            b'p' | b'g' => {
                let key = self.line()?.parse().map_err(|_| bad("a memo key that is no number"))?;
                if op == b'g' { self.recall_key(key) } else { self.memoize_key(key) }
            }
            _ => Err(Error::new(ErrorKind::Unsupported, format!("pickle opcode {op:#04x}"))),
        }
    }

    fn extend(&mut self, new: Vec<Id>) -> Result<()> {
        let top = self.top()?;
        match &mut self.nodes[top as usize] {
            Node::List(items) | Node::Call { items, .. } => items.extend(new),
            _ => return Err(bad("appending to what is no list")),
        }
        Ok(())
    }

    fn insert(&mut self, new: Vec<(Id, Id)>) -> Result<()> {
        let top = self.top()?;
        match &mut self.nodes[top as usize] {
            Node::Dict(pairs) | Node::Call { pairs, .. } => pairs.extend(new),
            _ => return Err(bad("setting items of what is no dict")),
        }
        Ok(())
    }

    fn stack_global(&mut self) -> Result<Node> {
        let (name, module) = (self.pop()?, self.pop()?);
        match (&self.nodes[module as usize], &self.nodes[name as usize]) {
            (Node::Text(module), Node::Text(name)) => Ok(Node::Global(module.clone(), name.clone())),
            _ => Err(bad("a global whose name is no text")),
        }
    }

    fn memoize(&mut self, width: usize) -> Result<()> {
        let key = self.number(width)?;
        self.memoize_key(key)
    }

    fn memoize_key(&mut self, key: u64) -> Result<()> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, width: usize) -> Result<()> {
        let key = self.number(width)?;
        self.recall_key(key)
    }

    fn recall_key(&mut self, key: u64) -> Result<()> {
        let id = self.memo.get(&key).copied().ok_or_else(|| bad("a memo that was never set"))?;
        self.stack.push(id);
        Ok(())
    }

    fn push(&mut self, node: Node) -> Result<()> {
        let id = Id::try_from(self.nodes.len()).map_err(|_| bad("too many objects"))?;
        let len = match &node {
            Node::Text(text) => text.len(),
            Node::Bytes(bytes) | Node::BigInt(bytes) => bytes.len(),
            _ => 0,
        };
        self.budget.spend(2 * size_of::<Node>() as u64 + len as u64, "the objects of the pickle")?;
        self.nodes.push(node);
        self.stack.push(id);
        Ok(())
    }

    /// The lowest height that may be popped to: marks guard what is below them.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn height(&self, count: usize) -> Result<usize> {
        let from = self.stack.len().checked_sub(count).filter(|&from| from >= self.floor());
        from.ok_or_else(|| bad("more is taken from the stack than is on it"))
    }

    fn pop(&mut self) -> Result<Id> {
        self.height(1)?;
        self.stack.pop().ok_or_else(|| bad("nothing on the stack"))
    }

    fn top(&self) -> Result<Id> {
        self.stack.last().copied().ok_or_else(|| bad("nothing on the stack"))
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or_else(|| bad("no mark on the stack"))?;
        if mark > self.stack.len() {
            return Err(bad("a mark above the stack"));
        }
        Ok(self.stack.split_off(mark))
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(len).ok().and_then(|len| rest.get(..len));
        let taken = taken.ok_or_else(|| bad("cut short"))?;
        self.at += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N]> {
        self.take(N as u64)?.first_chunk().ok_or_else(|| bad("cut short"))
    }

    fn number(&mut self, width: usize) -> Result<u64> {
        Ok(self.take(width as u64)?.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    fn counted(&mut self, width: usize) -> Result<&'a [u8]> {
        let len = self.number(width)?;
        self.take(len)
    }

    fn text(&mut self, width: usize) -> Result<Node> {
        // torch's pickles may hold lone surrogates, which are no UTF-8.
        Ok(Node::Text(String::from_utf8_lossy(self.counted(width)?).into_owned()))
    }

    fn latin(&mut self, width: usize) -> Result<Node> {
        Ok(Node::Text(self.counted(width)?.iter().map(|&byte| char::from(byte)).collect()))
    }

    fn blob(&mut self, width: usize) -> Result<Node> {
        Ok(Node::Bytes(self.counted(width)?.to_vec()))
    }

    fn long(&mut self, width: usize) -> Result<Node> {
        let bytes = self.counted(width)?;
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        if bytes.len() > 8 {
            return Ok(Node::BigInt(bytes.to_vec()));
        }
        let mut full = [if negative { 0xFF } else { 0 }; 8];
        full[..bytes.len()].copy_from_slice(bytes);
        Ok(Node::Int(i64::from_le_bytes(full)))
    }

    fn decimal(&mut self) -> Result<Node> {
        let line = self.line()?.trim_end_matches('L');
        match line {
            "00" => Ok(Node::Bool(false)),
            "01" => Ok(Node::Bool(true)),
            line => Ok(Node::Int(line.parse().map_err(|_| bad("an integer that is none"))?)),
        }
    }

    fn line(&mut self) -> Result<&'a str> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|&byte| byte == b'\n').ok_or_else(|| bad("a line without an end"))?;
        self.at += len + 1;
        std::str::from_utf8(&rest[..len]).map_err(|error| bad("a line that is no text").because(error))
    }
}

fn pairs(items: Vec<Id>) -> Result<Vec<(Id, Id)>> {
    if !items.len().is_multiple_of(2) {
        return Err(bad("a key without a value"));
    }
    Ok(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

fn bad(what: &'static str) -> Error {
    Error::damaged(format!("not a pickle: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Graph> {
        super::read(bytes, &Budget::new(1 << 20))
    }

    #[test]
    fn a_call_is_a_node_and_nothing_runs() {
        let graph = read(b"cos\nsystem\n(S'echo hacked'\ntR.").unwrap();
        let Node::Call { callee, .. } = graph.node(graph.root) else { panic!("{graph:?}") };
        assert_eq!(graph.node(*callee), &Node::Global("os".to_owned(), "system".to_owned()));
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_an_error_or_a_graph_and_no_panic() {
        let whole = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01K\x05X\x01\x00\x00\x00b]q\x02(K\x01\x8a\x02\xff\x7fG?\xf0\x00\x00\x00\x00\x00\x00eu.";
        assert!(read(whole).is_ok());
        for len in 0..whole.len() {
            assert!(read(&whole[..len]).is_err(), "{len}");
        }
        for at in 0..whole.len() {
            for byte in 0..=255 {
                let mut bytes = whole.to_vec();
                bytes[at] = byte;
                let _ = read(&bytes);
            }
        }
    }

    #[test]
    fn long_integers_of_any_length_keep_their_sign() {
        let number = |bytes: &[u8]| {
            let pickle = [&[0x80, 2, 0x8A, bytes.len() as u8], bytes, b"."].concat();
            let graph = read(&pickle).unwrap();
            graph.node(graph.root).clone()
        };
        for expected in [0, 127, -1, -128, -129, -(1 << 31) - 1, -(1 << 40), 1 << 39, i64::MIN, i64::MAX] {
            let full = expected.to_le_bytes();
            // As few bytes as hold it, as Python writes it, and one more.
            let sign = if expected < 0 { 0xFF } else { 0 };
            let fewest = (0..8).find(|&len| {
                let signed = len == 0 || (full[len - 1] ^ sign) & 0x80 == 0;
                signed && (len > 0 || expected == 0) && full[len..].iter().all(|byte| *byte == sign)
            });
            for len in fewest.unwrap_or(8)..=8 {
                assert_eq!(number(&full[..len]), Node::Int(expected), "{len} bytes");
            }
        }
        let beyond = [0, 0, 0, 0, 0, 0, 0, 0x80, 0];
        assert_eq!(number(&beyond), Node::BigInt(beyond.to_vec()));
    }

    #[test]
    fn a_mark_guards_what_is_below_it() {
        assert!(read(b"K\x01(0.").is_err());
        assert!(read(b"K\x01(\x85.").is_err());
        assert!(read(b"t.").is_err());
        assert!(read(b"h\x05.").is_err());
    }
}
