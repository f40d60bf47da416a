//! The Python literals that occur in `.npy` headers: text, integers, bools, lists, tuples and
//! dicts.

/// Deepest nesting, far beyond that of structured dtypes.
const DEEPEST: usize = 32;

#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    Text(String),
    Int(u64),
    Bool(bool),
    None,
    /// A list or a tuple.
    Items(Vec<Literal>),
    /// Pairs of a dict, each with the source of its value.
    Dict(Vec<(Literal, Literal, String)>),
}

impl Literal {
    /// Parses a whole text.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parser = Parser { rest: text };
        let literal = parser.literal(0)?;
        parser.rest.trim().is_empty().then_some(literal)
    }

    /// The value of a key in a dict, and its source text.
    pub fn get(&self, key: &str) -> Option<(&Literal, &str)> {
        let Self::Dict(pairs) = self else { return None };
        let mut found = pairs.iter().filter(|(name, ..)| matches!(name, Self::Text(name) if name == key));
        // The last one, as in Python.
        found.next_back().map(|(_, value, source)| (value, source.as_str()))
    }
}

struct Parser<'t> {
    rest: &'t str,
}

impl Parser<'_> {
    fn literal(&mut self, depth: usize) -> Option<Literal> {
        if depth > DEEPEST {
            return None;
        }
        self.rest = self.rest.trim_start();
        let first = self.rest.chars().next()?;
        match first {
            '\'' | '"' => self.text(first).map(Literal::Text),
            '[' => self.items(']', depth).map(Literal::Items),
            '(' => self.items(')', depth).map(Literal::Items),
            '{' => self.dict(depth),
            '0'..='9' => self.int(),
            _ => self.word(),
        }
    }

    fn text(&mut self, quote: char) -> Option<String> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => text.push(chars.next()?.1),
                c if c == quote => {
                    self.rest = &self.rest[at + c.len_utf8()..];
                    return Some(text);
                }
                c => text.push(c),
            }
        }
        None
    }

    fn eat(&mut self, c: char) -> bool {
        self.rest = self.rest.trim_start();
        let after = self.rest.strip_prefix(c);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn items(&mut self, end: char, depth: usize) -> Option<Vec<Literal>> {
        self.rest = &self.rest[1..];
        let mut items = Vec::new();
        while !self.eat(end) {
            items.push(self.literal(depth + 1)?);
            if !self.eat(',') {
                return self.eat(end).then_some(items);
            }
        }
        Some(items)
    }

    fn dict(&mut self, depth: usize) -> Option<Literal> {
        self.rest = &self.rest[1..];
        let mut pairs = Vec::new();
        while !self.eat('}') {
            let key = self.literal(depth + 1)?;
            if !self.eat(':') {
                return None;
            }
            let before = self.rest.trim_start();
            let value = self.literal(depth + 1)?;
            let source = before[..before.len() - self.rest.len()].to_owned();
            pairs.push((key, value, source));
            if !self.eat(',') {
                return self.eat('}').then_some(Literal::Dict(pairs));
            }
        }
        Some(Literal::Dict(pairs))
    }

    fn int(&mut self) -> Option<Literal> {
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let value = self.rest[..end].parse().ok()?;
        // Python 2 wrote an L after long integers.
        self.rest = self.rest[end..].trim_start_matches('L');
        Some(Literal::Int(value))
    }

    fn word(&mut self) -> Option<Literal> {
        let words = [("True", Literal::Bool(true)), ("False", Literal::Bool(false)), ("None", Literal::None)];
        let (word, literal) = words.into_iter().find(|(word, _)| self.rest.starts_with(word))?;
        self.rest = &self.rest[word.len()..];
        Some(literal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_parsed_and_values_keep_their_source() {
        let text =
            "{'descr': [('shape', '<f4'), (('title', 'b'), '<i2', (2,))], 'shape': (3L, 4), 'x': True, }  \n";
        let header = Literal::parse(text).unwrap();
        let (shape, _) = header.get("shape").unwrap();
        assert_eq!(*shape, Literal::Items(vec![Literal::Int(3), Literal::Int(4)]));
        assert_eq!(header.get("descr").unwrap().1, "[('shape', '<f4'), (('title', 'b'), '<i2', (2,))]");
        assert_eq!(header.get("x").unwrap().0, &Literal::Bool(true));
        assert_eq!(Literal::parse(r"'a\'b'"), Some(Literal::Text("a'b".to_owned())));
    }

    #[test]
    fn what_is_no_literal_is_none() {
        let deep = "[".repeat(10_000);
        for text in [
            "",
            "{",
            "{'a'}",
            "{'a': }",
            "(1",
            "'a",
            "-1",
            "a",
            "1 2",
            "os.system('x')",
            &deep,
            "99999999999999999999",
        ] {
            assert_eq!(Literal::parse(text), None, "{text:.20}");
        }
    }
}
