//! What is printed and how: tables, JSON, sizes, ages. A reader that goes away (`| head`) is no error.

use crate::exit::Exit;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value as Json;
use std::fmt::Display;
use std::io::{self, Write};
use tensorkeep::{Error, Value};

/// Prints one line, or several, to stdout.
///
/// # Errors
/// What writing to stdout says, but not that the reader went away.
pub fn print(text: impl Display) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
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
    print(document)
}

/// Tells an error, with all its causes, and its exit code.
pub fn fail(error: &Error) -> Exit {
    let mut text = format!("error: {error}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!("\n  because: {cause}"));
        source = cause.source();
    }
    // Nowhere is left to say that stderr is closed.
    let _ = writeln!(io::stderr(), "{text}");
    error.into()
}

/// A table without lines; the columns numbered in `right` hold numbers.
pub fn table(header: &[&str], right: &[usize], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header).add_rows(rows);
    for &column in right {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let text = table.to_string();
    let lines: Vec<&str> = text.lines().map(|line| line.trim_end()).collect();
    lines.join("\n")
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
    fn sizes_and_ages_are_short() {
        assert_eq!([0, 1023, 1024, 1_572_864].map(size), ["0 B", "1023 B", "1.0 KiB", "1.5 MiB"]);
        assert_eq!(age(100, 130), "30 s");
        assert_eq!(age(100, 100 + 3 * 86_400), "3 d");
        assert_eq!((age(0, 5), age(9, 5)), ("?".to_owned(), "in the future".to_owned()));
    }

    #[test]
    fn what_json_cannot_hold_becomes_text() {
        assert_eq!(json_of(&Value::Float(f64::NAN)), "NaN");
        assert_eq!(json_of(&Value::Bytes(vec![1, 255])), "01ff");
    }
}
