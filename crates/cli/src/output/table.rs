//! Tables in columns of a terminal: the one place where text from files is made safe to print and
//! its width is measured.

use super::text::{bold, clean, red};
use rustix::termios::tcgetwinsize;
use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Text of a table, which may come from a file.
#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    is_red: bool,
}

impl Cell {
    /// A cell about something wrong.
    pub fn red(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_red: true }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, is_red: false }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

/// A table without lines; the columns numbered in `right` hold numbers. On a terminal, or where
/// COLUMNS says so, it is no wider than that: see [`table_by_worth`].
pub fn table<C: Into<Cell>>(
    header: &[&str],
    right: &[usize],
    rows: impl IntoIterator<Item = Vec<C>>,
) -> String {
    table_by_worth(header, right, &[], rows)
}

/// As [`table`]; the columns numbered in `least` are worth least, the first of them least of all.
/// Columns without a value are left out. Where there is no room, what all names of the first column
/// begin with goes first, then the columns of least worth, then the middles of names as long as
/// they stay apart, then the ends of other text, and in the end the columns on the right. Numbers
/// are whole or not there at all.
pub fn table_by_worth<C: Into<Cell>>(
    header: &[&str],
    right: &[usize],
    least: &[usize],
    rows: impl IntoIterator<Item = Vec<C>>,
) -> String {
    table_within(columns().unwrap_or(usize::MAX), header, right, least, rows)
}

fn table_within<C: Into<Cell>>(
    limit: usize,
    header: &[&str],
    right: &[usize],
    least: &[usize],
    rows: impl IntoIterator<Item = Vec<C>>,
) -> String {
    let tame = |cell: C| {
        let cell: Cell = cell.into();
        Cell { text: clean(&cell.text), ..cell }
    };
    let titles: Vec<Cell> = header.iter().map(|title| clean(title).into()).collect();
    let rows = rows.into_iter().map(|row| row.into_iter().map(tame).collect());
    let mut rows: Vec<Vec<Cell>> = std::iter::once(titles).chain(rows).collect();
    let is_empty = |column: &usize| {
        rows.len() > 1 && rows[1..].iter().all(|row| row.get(*column).is_none_or(|cell| cell.text.is_empty()))
    };
    let mut shown: Vec<usize> = (0..header.len()).filter(|column| !is_empty(column)).collect();
    let all = |rows: &[Vec<Cell>], shown: &[usize]| {
        shown.iter().map(|&column| widest(rows, column)).sum::<usize>() + 2 * shown.len().saturating_sub(1)
    };
    if all(&rows, &shown) > limit {
        leave_out_common_beginning(&mut rows);
    }
    for column in least {
        if all(&rows, &shown) > limit {
            shown.retain(|other| other != column);
        }
    }
    let widths = widths_within(limit, &rows, &mut shown, right);
    let right: Vec<usize> = (0..shown.len()).filter(|&at| right.contains(&shown[at])).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        text.push_str(if number == 0 { "" } else { "\n" });
        let row: Vec<Cell> = shown.iter().map_while(|&column| row.get(column).cloned()).collect();
        push_line(&row, &widths, &right, limit, number == 0, &mut text);
    }
    text
}

/// The width of the widest cell of a column.
fn widest(rows: &[Vec<Cell>], column: usize) -> usize {
    rows.iter().filter_map(|row| row.get(column)).map(|cell| width(&cell.text)).max().unwrap_or(0)
}

/// The widths of the shown columns in so many characters; columns at the right that do not fit are
/// not shown.
fn widths_within(limit: usize, rows: &[Vec<Cell>], shown: &mut Vec<usize>, right: &[usize]) -> Vec<usize> {
    let is_text = |column: usize| !right.contains(&column) && has_text(&rows[1..], column);
    loop {
        let mut widths: Vec<usize> = shown.iter().map(|&column| widest(rows, column)).collect();
        let over = |widths: &[usize]| {
            let spaces = 2 * widths.len().saturating_sub(1);
            (widths.iter().sum::<usize>() + spaces).saturating_sub(limit)
        };
        // Names are shortened first, then what is farthest right.
        for at in (0..shown.len().min(1)).chain((1..shown.len()).rev()) {
            if is_text(shown[at]) {
                let least = if at == 0 { LEAST_OF_NAMES } else { LEAST_OF_TEXT };
                widths[at] = widths[at].saturating_sub(over(&widths)).max(least.min(widths[at]));
            }
        }
        let fits = over(&widths) == 0 && stay_apart(rows, shown, &widths);
        if fits || shown.len() < 2 || (over(&widths) == 0 && shown.len() == 2) {
            break widths;
        }
        shown.pop();
    }
}

/// Columns that shortened text has at least.
const LEAST_OF_NAMES: usize = 12;
const LEAST_OF_TEXT: usize = 8;

/// Whether a column has text that tells something when it is cut: words, lists, dates.
fn has_text(rows: &[Vec<Cell>], column: usize) -> bool {
    let is_text = |cell: &Cell| {
        cell.text.starts_with(|c: char| c == '…' || c.is_alphabetic()) || cell.text.contains(' ')
    };
    rows.iter().filter_map(|row| row.get(column)).any(is_text)
}

/// Whether shortened names are as many as whole ones.
fn stay_apart(rows: &[Vec<Cell>], shown: &[usize], widths: &[usize]) -> bool {
    let (Some(&column), Some(&wide)) = (shown.first(), widths.first()) else { return true };
    let names = || rows.iter().skip(1).filter_map(|row| row.get(column)).map(|cell| cell.text.as_str());
    if names().all(|name| width(name) <= wide) {
        return true;
    }
    let whole: BTreeSet<&str> = names().collect();
    let short: BTreeSet<String> = whole.iter().map(|name| middle(name, wide)).collect();
    short.len() == whole.len()
}

/// Takes out of the first column what all its names begin with, up to the last mark: it tells none
/// of them apart.
fn leave_out_common_beginning(rows: &mut [Vec<Cell>]) {
    let names = || rows.iter().skip(1).filter_map(|row| row.first()).map(|cell| cell.text.as_str());
    let Some(first) = names().next().map(str::to_owned) else { return };
    let common = names().fold(first.len(), |common, name| {
        first.bytes().zip(name.bytes()).take(common).take_while(|(a, b)| a == b).count()
    });
    let Some(end) = first.get(..common).and_then(|common| common.rfind(['.', '/'])) else { return };
    if names().count() < 2 || end < 2 {
        return;
    }
    for cell in rows.iter_mut().skip(1).filter_map(|row| row.first_mut()) {
        cell.text.replace_range(..=end, "…");
    }
}

/// One line, at most `limit` columns wide, without spaces at its end.
fn push_line(
    row: &[Cell],
    widths: &[usize],
    right: &[usize],
    limit: usize,
    is_header: bool,
    text: &mut String,
) {
    let (mut used, mut spaces) = (0, 0);
    for (number, (cell, &wide)) in row.iter().zip(widths).enumerate() {
        let shown = if number == 0 { middle(&cell.text, wide) } else { cut(&cell.text, wide) };
        let space = wide.saturating_sub(width(&shown));
        let (before, after) = if right.contains(&number) { (space, 0) } else { (0, space) };
        spaces += before + if number == 0 { 0 } else { 2 };
        if shown.is_empty() {
            spaces += after;
            continue;
        }
        let room = limit.saturating_sub(used + spaces);
        if room == 0 {
            return;
        }
        let cut = cut(&shown, room);
        text.extend(std::iter::repeat_n(' ', spaces));
        text.push_str(&match (is_header, cell.is_red) {
            (true, _) => bold(&cut),
            (_, true) => red(&cut),
            _ => cut.clone(),
        });
        (used, spaces) = (used + spaces + width(&cut), after);
    }
}

/// Columns of a terminal.
fn width(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.width() }
}

/// The longest beginning of at most `most` columns that ends within no number.
fn beginning(text: &str, most: usize) -> &str {
    let mut used = 0;
    let end = text.char_indices().find(|(_, c)| {
        used += c.width().unwrap_or(0);
        used > most
    });
    let mut beginning = &text[..end.map_or(text.len(), |(at, _)| at)];
    while is_within_number(text, beginning.len()) {
        beginning = &beginning[..beginning.len() - 1];
    }
    beginning
}

/// The longest end of at most `most` columns that begins within no number.
fn ending(text: &str, most: usize) -> &str {
    let mut used = 0;
    let start = text.char_indices().rev().find(|(_, c)| {
        used += c.width().unwrap_or(0);
        used > most
    });
    let mut start = start.map_or(0, |(at, c)| at + c.len_utf8());
    while is_within_number(text, start) {
        start += 1;
    }
    &text[start..]
}

/// Whether what is before this place and what is behind it are one number: what is left of it would
/// be another.
fn is_within_number(text: &str, at: usize) -> bool {
    let (mut before, mut after) = (text[..at].bytes().rev(), text[at..].bytes());
    let is_digit = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_digit());
    match (before.next(), after.next()) {
        (Some(b'0'..=b'9'), Some(b'0'..=b'9')) => true,
        (Some(b'0'..=b'9'), Some(b'.')) => is_digit(after.next()),
        (Some(b'.'), Some(b'0'..=b'9')) => is_digit(before.next()),
        (Some(b'0'..=b'9'), Some(b'e')) => matches!(after.next(), Some(b'-' | b'0'..=b'9')),
        (Some(b'e'), Some(b'-' | b'0'..=b'9')) => is_digit(before.next()),
        (Some(b'-'), Some(b'0'..=b'9')) => before.next() == Some(b'e') && is_digit(before.next()),
        _ => false,
    }
}

fn cut(text: &str, most: usize) -> String {
    if width(text) <= most {
        return text.to_owned();
    }
    format!("{}…", beginning(text, most.saturating_sub(1)))
}

/// Beginning and end: what tells names apart is in their ends.
fn middle(text: &str, most: usize) -> String {
    if width(text) <= most {
        return text.to_owned();
    }
    let head = most.saturating_sub(1) / 2;
    format!("{}…{}", beginning(text, head), ending(text, most.saturating_sub(1) - head))
}

/// Whether lines may be as wide as they are: `--wide`.
static IS_WIDE: AtomicBool = AtomicBool::new(false);

/// From now on lines are as wide as they are.
pub fn be_wide() {
    IS_WIDE.store(true, Relaxed);
}

/// Columns of the terminal; None where stdout is none and COLUMNS does not say.
pub fn columns() -> Option<usize> {
    if IS_WIDE.load(Relaxed) {
        return None;
    }
    if let Ok(Ok(columns)) = std::env::var("COLUMNS").map(|text| text.parse::<usize>()) {
        return (columns > 0).then_some(columns.max(20));
    }
    let size = tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col).max(20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_give_way_in_the_middle_of_names() {
        assert_eq!(middle("encoder.layers.10.weight", 13), "encode…weight");
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(middle("模型模型模型", 7), "模…型");
        assert_eq!(cut("模型", 3), "模…");
    }

    #[test]
    fn wide_characters_take_two_columns_and_emoji_do_not_shift_rows() {
        let rows = [vec!["模型", "1"], vec!["🦀", "22"], vec!["ascii", "333"]];
        let text = table_within(80, &["name", "n"], &[1], &[], rows);
        assert_eq!(text, "name     n\n模型     1\n🦀      22\nascii  333");
    }

    #[test]
    fn no_cell_of_a_table_can_steer_the_terminal() {
        let text = table_within(80, &["na\u{9b}me"], &[], &[], [vec!["a\u{9b}31m\u{202e}\u{2028}b\u{7f}"]]);
        assert_eq!(text, "na\\u{9b}me\na\\u{9b}31m\\u{202e}\\u{2028}b\\u{7f}");
    }

    #[test]
    fn columns_go_by_worth_and_names_keep_what_tells_them_apart() {
        let rows =
            || [vec!["model/fc1.weight", "0.5", "", "f32"], vec!["model/fc2.weight", "0.25", "", "f32"]];
        let header = ["tensor", "mean", "first", "dtype"];
        let within = |limit| table_within(limit, &header, &[1], &[3, 1], rows());
        assert_eq!(within(80).lines().next(), Some("tensor            mean  dtype"), "nothing is in `first`");
        assert_eq!(within(24), "tensor       mean  dtype\n…fc1.weight   0.5  f32\n…fc2.weight  0.25  f32");
        assert_eq!(within(20), "tensor       mean\n…fc1.weight   0.5\n…fc2.weight  0.25");
    }

    #[test]
    fn numbers_are_whole_or_not_there() {
        let rows = || [vec!["→ 1234567", "0.98765", "0001-0000001200", "[30, 10]", "at 1.5e-7 or so"]];
        let header = ["step", "loss", "from", "shape", "why"];
        for limit in 20..70 {
            let table = table_within(limit, &header, &[0, 1], &[], rows());
            let line = table.lines().nth(1).unwrap();
            let words: Vec<&str> = line.split([' ', ',']).map(|word| word.trim_end_matches('…')).collect();
            let whole = rows()[0].join(" ");
            let whole: Vec<&str> = whole.split([' ', ',']).collect();
            assert!(
                words.iter().all(|word| word.is_empty() || whole.contains(word) || *word == "o"),
                "{table}"
            );
            assert!(table.lines().all(|line| width(line) <= limit), "{limit}: {table}");
        }
    }

    #[test]
    fn names_are_shortened_between_numbers_and_stay_apart() {
        assert_eq!(middle("layers.1234.weight", 16), "layers.….weight");
        assert_eq!(cut("lr 0.001, 1e-7", 6), "lr …");
        assert_eq!(cut("lr 0.001, 1e-7", 13), "lr 0.001, …");
        let rows =
            [vec!["a.layers.17.weight", "17", "f32"], vec!["a.layers.18.weight", "18", "f32"], vec!["step"]];
        let table = table_within(24, &["tensor", "n", "dtype"], &[1], &[], rows);
        assert!(table.contains("a.layers.17.weight  17\n") && !table.contains("dtype"), "{table}");
    }

    #[test]
    fn lines_end_at_the_edge_and_have_no_spaces_there() {
        let rows = [vec!["a", "", ""], vec!["b", "c", "defghijkl"]];
        assert_eq!(table_within(14, &["1", "2", "3"], &[], &[], rows), "1  2  3\na\nb  c  defghij…");
    }
}
