//! What is printed and how: tables, JSON, sizes, ages. A reader that goes away (`| head`) is no error.

use crate::exit::Exit;
use serde_json::Value as Json;
use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};
use tensorkeep::{Error, ErrorKind, Value};

/// Prints one line, or several, to stdout.
///
/// # Errors
/// What writing to stdout says, but not that the reader went away.
pub fn print(text: impl Display) -> Result<(), Error> {
    emit(|out| write!(out, "{text}"))
}

/// Prints what `write` writes, and an end of line. What stdout itself holds back is 1 KiB: many small writes, and as many
/// system calls.
fn emit(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
    let mut out = io::BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let written = write(&mut out).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
    match written {
        // `head` has seen enough: end quietly, as any tool in a pipe does.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        written => written.map_err(|error| Error::io("writing to stdout", error)),
    }
}

/// Prints one JSON document under its schema's name.
///
/// # Errors
/// As [`print`].
pub fn print_json(schema: &str, mut document: Json) -> Result<(), Error> {
    if let Some(object) = document.as_object_mut() {
        object.insert("schema".to_owned(), format!("tensorkeep.{schema}.v1").into());
    }
    emit(|out| Ok(serde_json::to_writer(out, &document)?))
}

/// Tells an error, with all its causes, and its exit code.
pub fn fail(error: &Error) -> Exit {
    let mut text = format!("error: {}", clean(&error.to_string()));
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!("\n  because: {}", clean(&cause.to_string())));
        source = cause.source();
    }
    // Nowhere is left to say that stderr is closed.
    let _ = writeln!(io::stderr(), "{text}");
    error.into()
}

/// A table without lines; the columns numbered in `right` hold numbers. On a terminal, or where COLUMNS says so, it is
/// no wider than that: the first column gives way, in its middle, and then the ends of lines.
pub fn table(header: &[&str], right: &[usize], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let rows: Vec<Vec<String>> = rows.into_iter().collect();
    let mut widths: Vec<usize> = header.iter().map(|title| width(title)).collect();
    for row in &rows {
        widths.iter_mut().zip(row).for_each(|(most, cell)| *most = (*most).max(width(cell)));
    }
    let limit = columns().unwrap_or(usize::MAX);
    let all = widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1);
    if let Some(first) = widths.first_mut().filter(|_| all > limit) {
        *first = first.saturating_sub(all - limit).max(12.min(*first));
    }
    let titles: Vec<String> = header.iter().map(|title| (*title).to_owned()).collect();
    let lines = std::iter::once(&titles).chain(&rows);
    let (mut text, mut room) = (String::new(), String::new());
    for (number, row) in lines.enumerate() {
        text.push_str(if number == 0 { "" } else { "\n" });
        line(row, &widths, right, &mut room);
        text.push_str(&cut(room.trim_end(), limit));
    }
    text
}

/// Into memory that is used again: there may be hundreds of thousands of lines.
fn line(row: &[String], widths: &[usize], right: &[usize], line: &mut String) {
    line.clear();
    for (number, (cell, &wide)) in row.iter().zip(widths).enumerate() {
        let cell = middle(cell, wide);
        let space = wide.saturating_sub(width(&cell));
        let (before, after) = if right.contains(&number) { (space, 0) } else { (0, space) };
        line.push_str(if number == 0 { "" } else { "  " });
        line.extend(std::iter::repeat_n(' ', before));
        line.push_str(&cell);
        line.extend(std::iter::repeat_n(' ', after));
    }
}

/// Characters, which is columns for all but wide scripts.
fn width(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.chars().count() }
}

fn cut(text: &str, most: usize) -> Cow<'_, str> {
    if width(text) <= most {
        return text.into();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// Beginning and end: what tells names apart is in their ends.
fn middle(text: &str, most: usize) -> Cow<'_, str> {
    let len = width(text);
    if len <= most {
        return text.into();
    }
    let (head, tail) = ((most.saturating_sub(1)) / 2, most.saturating_sub(1) - (most.saturating_sub(1)) / 2);
    text.chars().take(head).chain(['…']).chain(text.chars().skip(len - tail)).collect()
}

/// Columns of the terminal; None where stdout is none and COLUMNS does not say.
pub fn columns() -> Option<usize> {
    if let Ok(Ok(columns)) = std::env::var("COLUMNS").map(|text| text.parse::<usize>()) {
        return (columns > 0).then_some(columns.max(20));
    }
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col).max(20))
}

/// Text from a file, safe for a terminal: control characters are shown, not sent.
pub fn clean(text: &str) -> String {
    let unsafe_here = |c: char| {
        c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c) || ('\u{2066}'..='\u{2069}').contains(&c)
    };
    if !text.chars().any(unsafe_here) {
        return text.to_owned();
    }
    text.chars()
        .flat_map(|c| if unsafe_here(c) { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

/// Bold on a terminal, unless NO_COLOR is set.
pub fn bold(text: &str) -> String {
    paint(text, "1")
}

/// Red on a terminal, unless NO_COLOR is set.
pub fn red(text: &str) -> String {
    paint(text, "31")
}

fn paint(text: &str, code: &str) -> String {
    use std::io::IsTerminal;
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if plain || !io::stdout().is_terminal() { text.to_owned() } else { format!("\x1b[{code}m{text}\x1b[0m") }
}

/// Tells something that is not the answer. Nowhere is left to say that stderr is closed.
pub fn tell(text: impl Display) {
    let _ = writeln!(io::stderr(), "{}", clean(&text.to_string()));
}

/// Tells something that the user should look at.
pub fn warn(text: impl Display) {
    tell(format_args!("warning: {text}"));
}

/// `1 tensor`, `2 tensors`.
pub fn count(number: usize, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

/// Refuses an output path that is taken.
///
/// # Errors
/// `AlreadyExists`, `NotFound` for a folder that does not exist.
pub fn check_free(path: &Path, force: bool) -> Result<(), Error> {
    if path.symlink_metadata().is_ok() && !force {
        return Err(Error::new(ErrorKind::AlreadyExists, "is there already")
            .in_object(path.display())
            .help("--force replaces it"));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if folder.is_some_and(|folder| !folder.is_dir()) {
        return Err(Error::new(ErrorKind::NotFound, "the folder to write to does not exist")
            .in_object(path.display()));
    }
    Ok(())
}

/// A bar for each count.
pub fn sparkline(counts: &[u32]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = f64::from(counts.iter().copied().max().unwrap_or(0).max(1));
    counts.iter().map(|&count| BARS[(f64::from(count) / most * 7.0).ceil() as usize]).collect()
}

/// A bar for each value, between the smallest and the largest.
pub fn sparkline_of(values: &[f64]) -> String {
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    let (low, high) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    let scaled = |value: &f64| {
        if value.is_finite() && high > low { ((value - low) / (high - low) * 700.0) as u32 } else { 0 }
    };
    let bars: Vec<u32> = values.iter().map(scaled).collect();
    const TOP: u32 = 700;
    bars.iter().map(|&bar| sparkline(&[bar, TOP]).chars().next().unwrap_or(' ')).collect()
}

/// Five digits that matter.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || (1e-3..1e6).contains(&size) {
        let text = format!("{value:.5}");
        let short = text.trim_end_matches('0').trim_end_matches('.');
        return if short.is_empty() || short == "-" { "0".to_owned() } else { short.to_owned() };
    }
    if value.is_finite() { format!("{value:.4e}") } else { value.to_string() }
}

/// A number that JSON has, or text.
pub fn json_number(value: f64) -> Json {
    if value.is_finite() { value.into() } else { value.to_string().into() }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

/// 1.5 MiB.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// How long ago, in the largest unit that fits.
pub fn age(saved_at: u64, now: u64) -> String {
    if saved_at == 0 {
        return "?".to_owned();
    }
    let Some(seconds) = now.checked_sub(saved_at) else { return "in the future".to_owned() };
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// 12.3 ms: three digits, in the unit that fits.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let (value, unit) = match seconds {
        0.0..1e-3 => (seconds * 1e6, "µs"),
        1e-3..1.0 => (seconds * 1e3, "ms"),
        1.0..120.0 => (seconds, "s"),
        _ => (seconds / 60.0, "min"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

/// A record as JSON: bytes as their hex digits, floats that JSON cannot have as text, keys as text.
pub fn json_of(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::UInt(value) => (*value).into(),
        Value::Float(value) if value.is_finite() => (*value).into(),
        Value::Float(value) => value.to_string().into(),
        Value::Text(value) => value.as_str().into(),
        Value::Bytes(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
        Value::List(values) => values.iter().map(json_of).collect(),
        Value::Map(values) => values.iter().map(|(key, value)| (key.clone(), json_of(value))).collect(),
        Value::Pairs(values) => values.iter().map(|(key, value)| (key.to_string(), json_of(value))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_ages_and_durations_are_short() {
        assert_eq!([0, 1023, 1024, 1_572_864].map(size), ["0 B", "1023 B", "1.0 KiB", "1.5 MiB"]);
        assert_eq!(age(100, 130), "30 s");
        assert_eq!(age(100, 100 + 3 * 86_400), "3 d");
        assert_eq!([0, 1, 2].map(|number| count(number, "tensor")), ["0 tensors", "1 tensor", "2 tensors"]);
        let durations =
            [0, 950, 1_500, 23_400, 2_000_000, 300_000_000].map(Duration::from_micros).map(duration);
        assert_eq!(durations, ["0.00 µs", "950 µs", "1.50 ms", "23.4 ms", "2.00 s", "5.00 min"]);
        assert_eq!((age(0, 5), age(9, 5)), ("?".to_owned(), "in the future".to_owned()));
    }

    #[test]
    fn tables_give_way_in_the_middle_of_names() {
        assert_eq!(middle("encoder.layers.10.weight", 13), "encode…weight");
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(
            [0.0, 0.25, 1234.5, 1e-9, -2e7].map(number),
            ["0", "0.25", "1234.5", "1.0000e-9", "-2.0000e7"]
        );
        assert_eq!(sparkline(&[0, 1, 8]), "▁▂█");
        assert_eq!(sparkline_of(&[1.0, f64::NAN, 2.0]), "▁▁█");
    }

    #[test]
    fn text_from_files_cannot_steer_the_terminal() {
        assert_eq!(clean("a\x1b[2J\u{202e}b"), "a\\u{1b}[2J\\u{202e}b");
    }

    #[test]
    fn what_json_cannot_hold_becomes_text() {
        assert_eq!(json_of(&Value::Float(f64::NAN)), "NaN");
        assert_eq!(json_of(&Value::Bytes(vec![1, 255])), "01ff");
    }
}
