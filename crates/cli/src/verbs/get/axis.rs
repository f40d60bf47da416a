//! What of one axis a slice of `get` takes: NumPy's grammar, without steps backwards.

/// One axis: some of its places, or one index, which takes the axis away.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cut {
    Span(Span),
    Index(u64),
}

/// So many places, the first of them and how far the next is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    pub start: u64,
    pub len: u64,
    pub step: u64,
}

impl Span {
    pub fn whole(len: u64) -> Self {
        Self { start: 0, len, step: 1 }
    }

    pub fn place(self, at: u64) -> u64 {
        self.start + at * self.step
    }
}

impl Cut {
    pub fn span(self) -> Span {
        match self {
            Self::Span(span) => span,
            Self::Index(start) => Span { start, len: 1, step: 1 },
        }
    }

    /// Reads `3`, `-1`, `2:5`, `:` or `::2`, of an axis of this length. Ends beyond it are its own;
    /// an index must be within it.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(text: &str, len: u64) -> std::result::Result<Self, String> {
        let len = i128::from(len);
        let wrong = || format!("slice {text:?} of an axis of {len}");
        let number = |text: &str| text.trim().parse::<i128>().map_err(|_| wrong());
        let from_end = |place: i128| if place < 0 { place.saturating_add(len) } else { place };
        let Some((start, rest)) = text.split_once(':') else {
            let index = from_end(number(text)?);
            // OK to cast: not negative, and below a u64.
            return if (0..len).contains(&index) { Ok(Self::Index(index as u64)) } else { Err(wrong()) };
        };
        let (end, step) = rest.split_once(':').unwrap_or((rest, ""));
        let given = |text: &str, otherwise: i128| {
            if text.trim().is_empty() { Ok(otherwise) } else { number(text) }
        };
        let place = |place: i128| from_end(place).clamp(0, len);
        let (start, end) = (place(given(start, 0)?), place(given(end, len)?));
        let step = match given(step, 1)? {
            0 => return Err(format!("{}: its step is 0", wrong())),
            ..0 => return Err(format!("{}: a step backwards is not supported", wrong())),
            step => step.min(len.max(1)),
        };
        let count = (end - start).max(0).div_euclid(step) + i128::from((end - start).max(0) % step > 0);
        // OK to cast: none is negative or beyond the axis.
        Ok(Self::Span(Span { start: start as u64, len: count as u64, step: step as u64 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_numpy() {
        let places = |text: &str, len: u64| {
            let span = Cut::parse(text, len).unwrap().span();
            (0..span.len).map(|at| span.place(at)).collect::<Vec<u64>>()
        };
        for (text, expected) in [
            (":", &[0, 1, 2, 3, 4][..]),
            ("1:-1", &[1, 2, 3]),
            ("-99:99:2", &[0, 2, 4]),
            ("1::3", &[1, 4]),
            ("4:1", &[]),
            ("7:9", &[]),
            ("-1", &[4]),
            (" 1 : 2 ", &[1]),
            ("::99", &[0]),
        ] {
            assert_eq!(places(text, 5), expected, "{text}");
        }
        assert!(places("::2", 0).is_empty());
        assert_eq!(places(&format!("{}:", u64::MAX - 1), u64::MAX), [u64::MAX - 1]);
        for wrong in ["5", "-6", "", "a", "1:2:0", "::-1", "1:2:3:4"] {
            assert!(Cut::parse(wrong, 5).is_err(), "{wrong}");
        }
    }
}
