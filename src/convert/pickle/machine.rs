//! The pickle machine: opcodes, a stack, marks and a memo. Protocols 0 to 5.

use super::input::Input;
use super::text::{bad, decimal, integer, quoted, raw_unicode};
use super::{Call, Global, Graph, Id, Node};
use crate::budget::Budget;
use crate::error::{Error, ErrorKind, Result};
use std::borrow::Cow;
use std::collections::HashMap;

/// Memory of a memo entry, with its share of the table.
const MEMO_ENTRY: u64 = 40;
/// Integers below this, the bools and None have one node each, even if a pickle has a million of
/// them.
const SMALL: Id = 256;

/// Reads the pickle at the start of the bytes.
///
/// # Errors
/// `Damaged` when the bytes are not a pickle, `Unsupported` for opcodes that no model needs,
/// `LimitExceeded` beyond the budget.
pub fn read<'p>(bytes: &'p [u8], budget: &Budget) -> Result<Graph<'p>> {
    let mut nodes = vec![Node::None, Node::Bool(false), Node::Bool(true)];
    nodes.extend((0..i64::from(SMALL)).map(Node::Int));
    let mut machine = Machine {
        input: Input::new(bytes),
        budget,
        nodes,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    let root = machine.run().map_err(|error| error.at_byte(machine.input.at as u64))?;
    Ok(Graph { nodes: machine.nodes, root, len: machine.input.at })
}

struct Machine<'p, 'b> {
    input: Input<'p>,
    budget: &'b Budget,
    nodes: Vec<Node<'p>>,
    stack: Vec<Id>,
    /// Heights of the stack at the marks.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl<'p> Machine<'p, '_> {
    fn run(&mut self) -> Result<Id> {
        loop {
            let op = self.input.take(1)?[0];
            match op {
                b'.' => return self.pop(),
                0x80 => {
                    self.input.take(1)?;
                }
                0x95 => {
                    self.input.take(8)?;
                }
                b'(' => {
                    self.budget.spend_values::<usize>(2, "the pickle's marks")?;
                    self.marks.push(self.stack.len());
                }
                b'0' => {
                    self.pop()?;
                }
                b'1' => {
                    self.pop_mark()?;
                }
                b'2' => {
                    let top = self.top()?;
                    self.recall_id(top)?;
                }
                _ => self.scalar(op)?,
            }
        }
    }

    fn scalar(&mut self, op: u8) -> Result<()> {
        let node: Node<'p> = match op {
            b'N' => Node::None,
            0x88 => Node::Bool(true),
            0x89 => Node::Bool(false),
            b'K' => Node::Int(self.input.number(1)? as i64),
            b'M' => Node::Int(self.input.number(2)? as i64),
            b'J' => Node::Int(i64::from(self.input.number(4)? as u32 as i32)),
            0x8A => self.long(1)?,
            0x8B => self.long(4)?,
            b'I' | b'L' => decimal(self.input.text_line()?)?,
            b'G' => Node::Float(f64::from_be_bytes(*self.input.array()?)),
            b'F' => {
                let line = self.input.text_line()?;
                Node::Float(line.parse().map_err(|_| bad("a float that is none"))?)
            }
            b'X' => self.text(4)?,
            0x8C => self.text(1)?,
            0x8D => self.text(8)?,
            b'U' => Node::Str(Cow::Borrowed(self.input.counted(1)?)),
            b'T' => Node::Str(Cow::Borrowed(self.input.counted(4)?)),
            b'V' => Node::Text(Cow::Owned(raw_unicode(self.input.line()?).into_bytes())),
            b'S' => Node::Str(Cow::Owned(quoted(self.input.line()?)?)),
            b'C' => Node::Bytes(self.input.counted(1)?),
            b'B' => Node::Bytes(self.input.counted(4)?),
            0x8E | 0x96 => Node::Bytes(self.input.counted(8)?),
            _ => return self.container(op),
        };
        self.push(node)
    }

    fn container(&mut self, op: u8) -> Result<()> {
        let node: Node<'p> = match op {
            b')' => Node::Tuple(vec![]),
            b']' => Node::List(vec![]),
            b'}' => Node::Dict(vec![]),
            0x8F => Node::Set(vec![]),
            b't' => Node::Tuple(self.pop_mark()?),
            b'l' => Node::List(self.pop_mark()?),
            0x91 => Node::Set(self.pop_mark()?),
            b'd' => Node::Dict(pairs(self.pop_mark()?)?),
            0x85..=0x87 => {
                let from = self.height(usize::from(op - 0x84))?;
                Node::Tuple(self.stack.split_off(from))
            }
            b'c' => self.named_global()?,
            0x93 => self.stack_global()?,
            b'R' | 0x81 => {
                let args = self.pop()?;
                let callee = self.pop()?;
                Node::Call(Box::new(Call { callee, args, ..Call::default() }))
            }
            0x92 => {
                let named_args = Some(self.pop()?);
                let args = self.pop()?;
                let callee = self.pop()?;
                Node::Call(Box::new(Call { callee, args, named_args, ..Call::default() }))
            }
            b'i' | b'o' => self.instance(op)?,
            b'P' => {
                let line = Node::Text(Cow::Borrowed(self.input.line()?));
                self.push(line)?;
                Node::Persistent(self.pop()?)
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
                let value = self.pop()?;
                let key = self.pop()?;
                self.insert(vec![(key, value)])
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.insert(pairs(items)?)
            }
            b'b' => {
                let new = self.pop()?;
                let top = self.top()?;
                let Node::Call(call) = &self.nodes[top as usize] else {
                    return Err(bad("a state for what has none"));
                };
                let state = call.state.map_or(Ok(new), |first| self.states(first, new))?;
                if let Node::Call(call) = &mut self.nodes[top as usize] {
                    call.state = Some(state);
                }
                Ok(())
            }
            b'q' => self.memoize(1),
            b'r' => self.memoize(4),
            0x94 => self.memoize_key(self.memo.len() as u64),
            b'h' => self.recall(1),
            b'j' => self.recall(4),
            b'p' | b'g' => {
                let key = self.input.text_line()?.parse().map_err(|_| bad("a memo key that is no number"))?;
                if op == b'g' { self.recall_key(key) } else { self.memoize_key(key) }
            }
            _ => Err(Error::new(ErrorKind::Unsupported, format!("pickle opcode {op:#04x}"))),
        }
    }

    fn extend(&mut self, new: Vec<Id>) -> Result<()> {
        let top = self.top()?;
        self.budget.spend_values::<Id>(2 * new.len(), "the pickle's lists")?;
        match &mut self.nodes[top as usize] {
            Node::List(items) | Node::Set(items) => items.extend(new),
            Node::Call(call) => call.items.extend(new),
            _ => return Err(bad("appending to what is no list")),
        }
        Ok(())
    }

    fn insert(&mut self, new: Vec<(Id, Id)>) -> Result<()> {
        let top = self.top()?;
        self.budget.spend_values::<(Id, Id)>(2 * new.len(), "the pickle's dicts")?;
        match &mut self.nodes[top as usize] {
            Node::Dict(pairs) => pairs.extend(new),
            Node::Call(call) => call.pairs.extend(new),
            _ => return Err(bad("setting items of what is no dict")),
        }
        Ok(())
    }

    /// The state of an object that gets a second one: of dicts both, as attributes are added, else
    /// the second.
    fn states(&mut self, first: Id, second: Id) -> Result<Id> {
        let (first, more) = (&self.nodes[first as usize], &self.nodes[second as usize]);
        let (Node::Dict(first), Node::Dict(more)) = (first, more) else { return Ok(second) };
        self.budget.spend_values::<(Id, Id)>(2 * (first.len() + more.len()), "the pickle's dicts")?;
        let both = [first.as_slice(), more].concat();
        self.push(Node::Dict(both))?;
        self.pop()
    }

    fn named_global(&mut self) -> Result<Node<'p>> {
        let module = self.input.text_line()?;
        let name = self.input.text_line()?;
        Ok(Node::Global(Box::new(Global::new(module, name))))
    }

    fn stack_global(&mut self) -> Result<Node<'p>> {
        let name = self.pop()?;
        let module = self.pop()?;
        match (&self.nodes[module as usize], &self.nodes[name as usize]) {
            (Node::Text(module), Node::Text(name)) => {
                let global = Global::new(&String::from_utf8_lossy(module), &String::from_utf8_lossy(name));
                Ok(Node::Global(Box::new(global)))
            }
            _ => Err(bad("a global whose name is no text")),
        }
    }

    /// An instance as Python 2 wrote it: class and arguments after a mark.
    fn instance(&mut self, op: u8) -> Result<Node<'p>> {
        let callee = if op == b'i' { Some(self.named_global()?) } else { None };
        let items = self.pop_mark()?;
        let (callee, args) = match callee {
            Some(callee) => {
                self.push(callee)?;
                (self.pop()?, items)
            }
            None => match items.as_slice() {
                [callee, args @ ..] => (*callee, args.to_vec()),
                [] => return Err(bad("an instance without a class")),
            },
        };
        self.push(Node::Tuple(args))?;
        Ok(Node::Call(Box::new(Call { callee, args: self.pop()?, ..Call::default() })))
    }

    fn memoize(&mut self, width: usize) -> Result<()> {
        let key = self.input.number(width)?;
        self.memoize_key(key)
    }

    fn memoize_key(&mut self, key: u64) -> Result<()> {
        let top = self.top()?;
        self.budget.spend(MEMO_ENTRY, "the pickle's memo")?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, width: usize) -> Result<()> {
        let key = self.input.number(width)?;
        self.recall_key(key)
    }

    fn recall_key(&mut self, key: u64) -> Result<()> {
        let id = self.memo.get(&key).copied().ok_or_else(|| bad("a memo that was never set"))?;
        self.recall_id(id)
    }

    /// Pushes an existing object.
    fn recall_id(&mut self, id: Id) -> Result<()> {
        self.budget.spend_values::<Id>(2, "the pickle's stack")?;
        self.stack.push(id);
        Ok(())
    }

    fn push(&mut self, node: Node<'p>) -> Result<()> {
        match node {
            Node::None => return self.recall_id(0),
            Node::Bool(value) => return self.recall_id(1 + Id::from(value)),
            Node::Int(value) if (0..i64::from(SMALL)).contains(&value) => {
                // OK to cast: below SMALL.
                return self.recall_id(3 + value as Id);
            }
            _ => {}
        }
        // Doubled, because vectors grow by doubling.
        self.budget.spend(2 * size_of::<Node<'_>>() as u64 + node.heap_bytes(), "the pickle's objects")?;
        let id = Id::try_from(self.nodes.len()).map_err(|_| bad("too many objects"))?;
        self.nodes.push(node);
        self.recall_id(id)
    }

    /// The lowest height to pop to: a mark protects the items below it.
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

    fn text(&mut self, width: usize) -> Result<Node<'p>> {
        Ok(Node::Text(Cow::Borrowed(self.input.counted(width)?)))
    }

    fn long(&mut self, width: usize) -> Result<Node<'p>> {
        Ok(integer(self.input.counted(width)?))
    }
}

fn pairs(items: Vec<Id>) -> Result<Vec<(Id, Id)>> {
    if !items.len().is_multiple_of(2) {
        return Err(bad("a key without a value"));
    }
    Ok(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Graph<'_>> {
        super::read(bytes, &Budget::new(1 << 20))
    }

    #[test]
    fn a_call_is_a_node_and_nothing_runs() {
        let graph = read(b"cos\nsystem\n(S'echo hacked'\ntR.").unwrap();
        let Node::Call(call) = graph.node(graph.root) else { panic!("{graph:?}") };
        assert!(graph.is_global(call.callee, "os", "system"));
        assert_eq!(graph.text(graph.args(call)[0]).unwrap(), "echo hacked");
    }

    #[test]
    fn instances_of_python_2_are_calls_too() {
        for bytes in [&b"(I1\nimodels\nNet\n."[..], b"(cmodels\nNet\nI1\no."] {
            let graph = read(bytes).unwrap();
            let Node::Call(call) = graph.node(graph.root) else { panic!("{graph:?}") };
            assert_eq!(graph.global(call.callee).as_deref(), Some("models.Net"));
            assert_eq!(graph.args(call), [4]);
        }
    }

    #[test]
    fn no_cut_and_no_flipped_byte_panics() {
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
    fn a_mark_guards_what_is_below_it() {
        assert!(read(b"K\x01(0.").is_err());
        assert!(read(b"K\x01(\x85.").is_err());
        assert!(read(b"t.").is_err());
        assert!(read(b"h\x05.").is_err());
    }
}
