//! Values laid out as NumPy prints an array: columns on the decimal point, at most eight digits
//! behind it, one exponent form for all where the numbers are far apart, lines of 75 characters.

use super::cut::{Corners, EDGE};
use tensorkeep::Dtype;

/// NumPy's line width.
pub const WIDTH: usize = 75;
/// Digits behind the point.
const PRECISION: usize = 8;

/// The values in brackets, a row a line. `texts` are in the order of the corners.
pub fn nested(dtype: Dtype, corners: &Corners, texts: Vec<String>, width: usize) -> String {
    let axes: Vec<(u64, bool)> = corners.shape.iter().copied().zip(corners.is_cut.iter().copied()).collect();
    match (texts.first(), axes.is_empty()) {
        // However long its other axes are: a file may claim any length beside a zero.
        (None, _) => "[]".to_owned(),
        (Some(text), true) => scalar(dtype, text),
        (Some(_), false) => {
            let mut text = String::new();
            put(&axes, &words(dtype, texts), width, 1, &mut text);
            text
        }
    }
}

fn put(axes: &[(u64, bool)], words: &[String], width: usize, depth: usize, into: &mut String) {
    let Some((&(len, is_cut), inner)) = axes.split_first() else { return };
    // OK to cast: the values are in memory.
    let (len, indent) = (len as usize, " ".repeat(depth));
    into.push('[');
    if inner.is_empty() {
        row(words, is_cut, width.saturating_sub(depth), &indent, into);
    } else {
        let each = words.len() / len.max(1);
        let between = format!("{}{indent}", "\n".repeat(inner.len()));
        for i in 0..len {
            if i > 0 {
                into.push_str(&between);
            }
            if is_cut && i as u64 == EDGE {
                into.push_str("...");
                into.push_str(&between);
            }
            put(inner, words.get(i * each..(i + 1) * each).unwrap_or_default(), width, depth + 1, into);
        }
    }
    into.push(']');
}

/// The values of the last axis, cut into lines.
fn row(words: &[String], is_cut: bool, width: usize, indent: &str, into: &mut String) {
    let edge = if is_cut { EDGE as usize } else { words.len() };
    let dots = is_cut.then_some("...");
    let (first, last) = words.split_at(edge.min(words.len()));
    let mut line = indent.len();
    let words = first.iter().map(String::as_str).chain(dots).chain(last.iter().map(String::as_str));
    for (i, word) in words.enumerate() {
        let len = word.chars().count();
        if line + len > width && line > indent.len() {
            into.push('\n');
            into.push_str(indent);
            line = indent.len();
        } else if i > 0 {
            into.push(' ');
        }
        into.push_str(word);
        line += len + 1;
    }
}

/// A value by itself, with all of its digits.
fn scalar(dtype: Dtype, text: &str) -> String {
    let is_float = matches!(dtype, Dtype::F16 | Dtype::Bf16 | Dtype::F32 | Dtype::F64);
    match text {
        "true" => "True".to_owned(),
        "false" => "False".to_owned(),
        whole if is_float && whole.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') => {
            format!("{whole}.0")
        }
        "NaN" => "nan".to_owned(),
        other => other.to_owned(),
    }
}

/// The texts of values, of equal length.
fn words(dtype: Dtype, texts: Vec<String>) -> Vec<String> {
    use Dtype as D;
    match dtype {
        D::Bool => right(texts.iter().map(|text| if text == "true" { "True" } else { "False" }.to_owned())),
        D::F16 | D::Bf16 | D::F32 | D::F64 => floats(&texts),
        _ => right(texts.into_iter()),
    }
}

fn right(texts: impl Iterator<Item = String>) -> Vec<String> {
    let texts: Vec<String> = texts.collect();
    let wide = texts.iter().map(|text| text.chars().count()).max().unwrap_or(0);
    texts.into_iter().map(|text| format!("{text:>wide$}")).collect()
}

fn floats(texts: &[String]) -> Vec<String> {
    let numbers: Vec<Result<Decimal, String>> = texts.iter().map(|text| Decimal::parse(text)).collect();
    let sizes = || texts.iter().filter_map(|text| text.parse::<f64>().ok()).map(f64::abs);
    let sizes = || sizes().filter(|size| size.is_finite() && *size > 0.0);
    let (least, most) = (sizes().fold(f64::INFINITY, f64::min), sizes().fold(0.0, f64::max));
    let is_scientific = most >= 1e8 || least < 1e-4 || most / least > 1000.0;
    let parts: Vec<Result<(String, String, String), &String>> = numbers
        .iter()
        .map(|number| {
            number.as_ref().map(|number| if is_scientific { number.scientific() } else { number.fixed() })
        })
        .collect();
    let longest =
        |of: fn(&(String, String, String)) -> usize| parts.iter().flatten().map(of).max().unwrap_or(0);
    let (left, behind) = (longest(|parts| parts.0.len()), longest(|parts| parts.1.len()));
    let word = |parts: &Result<(String, String, String), &String>| match parts {
        Ok((whole, fraction, exponent)) if is_scientific => {
            format!("{whole:>left$}.{fraction:0<behind$}{exponent}")
        }
        Ok((whole, fraction, _)) => format!("{whole:>left$}.{fraction:<behind$}"),
        Err(special) => (*special).clone(),
    };
    right(parts.iter().map(word))
}

/// A number by its shortest digits: 0.DIGITS times ten to the power of `point`.
struct Decimal {
    is_negative: bool,
    digits: Vec<u8>,
    point: i32,
}

impl Decimal {
    /// From a number's shortest text; for NaN and infinities, NumPy's word as the error.
    fn parse(text: &str) -> Result<Self, String> {
        let (is_negative, unsigned) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        let exponent = exponent.parse::<i32>().ok().filter(|_| digits.iter().all(u8::is_ascii_digit));
        let Some(exponent) = exponent.filter(|_| !digits.is_empty()) else { return Err(text.to_lowercase()) };
        let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
        let digits = digits[zeros..].to_vec();
        // OK to cast: a number's text has few digits.
        let point = if digits.is_empty() { 1 } else { whole.len() as i32 - zeros as i32 + exponent };
        Ok(Self { is_negative, digits, point })
    }

    /// Rounded to so many digits, half up: the text is the shortest, so a tie is no tie of the
    /// number.
    fn rounded(&self, keep: i32) -> (Vec<u8>, i32) {
        let (mut digits, mut point) = (self.digits.clone(), self.point);
        // OK to cast: not negative.
        let keep = keep.max(-1);
        if (digits.len() as i32) > keep {
            let is_up = keep >= 0 && digits[keep as usize] >= b'5';
            digits.truncate(keep.max(0) as usize);
            if is_up {
                let nines = digits.iter().rev().take_while(|digit| **digit == b'9').count();
                digits.truncate(digits.len() - nines);
                match digits.last_mut() {
                    Some(last) => *last += 1,
                    None => {
                        digits.push(b'1');
                        point += 1;
                    }
                }
            }
        }
        while digits.last() == Some(&b'0') {
            digits.pop();
        }
        (digits, point)
    }

    fn sign(&self) -> &'static str {
        if self.is_negative { "-" } else { "" }
    }

    /// The sign, and the digits before and behind the point.
    fn fixed(&self) -> (String, String, String) {
        let (digits, point) = self.rounded(self.point + PRECISION as i32);
        let digit = |at: i32| {
            usize::try_from(at).ok().and_then(|at| digits.get(at)).map_or('0', |digit| char::from(*digit))
        };
        let whole: String = if point <= 0 { "0".to_owned() } else { (0..point).map(digit).collect() };
        let fraction: String =
            (point.min(0)..digits.len() as i32).filter(|at| *at >= point).map(digit).collect();
        (format!("{}{whole}", self.sign()), fraction, String::new())
    }

    /// One digit before the point, those behind it, and the exponent.
    fn scientific(&self) -> (String, String, String) {
        let (digits, point) = self.rounded(1 + PRECISION as i32);
        let exponent = if digits.is_empty() { 0 } else { point - 1 };
        let text: String = digits.iter().map(|digit| char::from(*digit)).collect();
        let (first, rest) = text.split_at(text.len().min(1));
        let first = if first.is_empty() { "0" } else { first };
        let sign = if exponent < 0 { '-' } else { '+' };
        (format!("{}{first}", self.sign()), rest.to_owned(), format!("e{sign}{:02}", exponent.abs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(dtype: Dtype, shape: &[u64], cut: &[usize], texts: &[&str]) -> String {
        let is_cut = (0..shape.len()).map(|axis| cut.contains(&axis)).collect();
        let corners = Corners { shape: shape.to_vec(), is_cut, bytes: vec![] };
        nested(dtype, &corners, texts.iter().map(|text| (*text).to_owned()).collect(), WIDTH)
    }

    /// What NumPy 2 prints of the same arrays.
    #[test]
    fn arrays_are_printed_as_numpy_prints_them() {
        let ints = |shape: &[u64], texts: &[&str]| printed(Dtype::I64, shape, &[], texts);
        assert_eq!(ints(&[2, 2], &["1", "-2", "3", "4"]), "[[ 1 -2]\n [ 3  4]]");
        assert_eq!(ints(&[2, 2, 1], &["1", "-2", "3", "4"]), "[[[ 1]\n  [-2]]\n\n [[ 3]\n  [ 4]]]");
        assert_eq!((ints(&[], &["7"]), ints(&[0], &[])), ("7".to_owned(), "[]".to_owned()));
        assert_eq!(ints(&[1 << 62, 0], &[]), "[]");
        let floats = |texts: &[&str]| printed(Dtype::F64, &[texts.len() as u64], &[], texts);
        assert_eq!(floats(&["-1", "2", "-3"]), "[-1.  2. -3.]");
        assert_eq!(floats(&["0.5", "10", "NaN", "inf"]), "[ 0.5 10.   nan  inf]");
        assert_eq!(floats(&["1e-10", "1", "1e10"]), "[1.e-10 1.e+00 1.e+10]");
        assert_eq!(floats(&["0.1234567891", "-0.004454133120083229"]), "[ 0.12345679 -0.00445413]");
        assert_eq!(floats(&["0.00012", "123456.5"]), "[1.200000e-04 1.234565e+05]");
        assert_eq!(floats(&["0", "0"]), "[0. 0.]");
        assert_eq!(floats(&["0.999999999", "99.5"]), "[ 1.  99.5]");
        let scalars = ["99999", "-0.1", "NaN", "1e-10"].map(|text| printed(Dtype::F32, &[], &[], &[text]));
        assert_eq!(scalars, ["99999.0", "-0.1", "nan", "1e-10"]);
        assert_eq!(printed(Dtype::Bool, &[2], &[], &["true", "false"]), "[ True False]");
    }

    #[test]
    fn the_middle_of_long_axes_is_left_out_and_lines_are_cut() {
        let numbers: Vec<String> = (0..12).map(|i| i.to_string()).collect();
        let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
        assert_eq!(printed(Dtype::U8, &[6], &[0], &numbers[..6]), "[0 1 2 ... 3 4 5]");
        let rows = "[[ 0  1]\n [ 2  3]\n [ 4  5]\n ...\n [ 6  7]\n [ 8  9]\n [10 11]]";
        assert_eq!(printed(Dtype::U8, &[6, 2], &[0], &numbers), rows);
        let hundred: Vec<String> = (100..130).map(|i| i.to_string()).collect();
        let hundred: Vec<&str> = hundred.iter().map(String::as_str).collect();
        let text = printed(Dtype::U8, &[30], &[], &hundred);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[0].len(), &lines[1][..4]), (2, 72, " 118"));
    }
}
