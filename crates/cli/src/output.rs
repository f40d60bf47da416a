//! Printing: text, bytes and JSON on stdout, words on stderr, and the paths of output files.
//! Answers are in answer.rs, tables in output/table.rs, single values in output/text.rs.

mod table;
mod text;

pub use table::{Cell, be_wide, columns, table, table_by_worth};
pub use text::{
    age, ago, bold, clean, count, date, direction, duration, json_number, number, red, size, sparkline,
    sparkline_of,
};

use serde_json::{Value as Json, json};
use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::SystemTime;
use tensorkeep::{CheckpointId, Error, ErrorKind, Value};

/// Whether nobody reads stdout any more: `| head` has seen enough.
static READER_IS_GONE: AtomicBool = AtomicBool::new(false);
/// Prints one line, or several, to stdout.
///
/// # Errors
/// What writing to stdout says, but not that the reader went away.
pub fn print(text: impl Display) -> Result<(), Error> {
    emit(|out| writeln!(out, "{text}"))
}

/// Prints bytes as they are.
///
/// # Errors
/// As [`print`].
pub fn print_bytes(bytes: &[u8]) -> Result<(), Error> {
    emit(|out| out.write_all(bytes))
}

/// Prints what `write` writes. What stdout itself holds back is 1 KiB: many small writes, and as
/// many system calls.
fn emit(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
    if reader_is_gone() {
        return Ok(());
    }
    let mut out = io::BufWriter::with_capacity(1 << 16, io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        // The verb goes on, because its exit code still counts.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            READER_IS_GONE.store(true, Relaxed);
            // The buffered rest has nowhere to go.
            drop(out.into_parts());
            Ok(())
        }
        written => written.map_err(|error| Error::io("writing to stdout", error)),
    }
}

/// Whether nobody reads stdout any more, for verbs without an end.
pub fn reader_is_gone() -> bool {
    READER_IS_GONE.load(Relaxed)
}

/// Prints one JSON document on a line.
///
/// # Errors
/// As [`print`].
pub fn print_json(document: &Json) -> Result<(), Error> {
    emit(|out| {
        let mut serializer = serde_json::Serializer::with_formatter(&mut *out, Tame);
        serde::Serialize::serialize(document, &mut serializer)?;
        out.write_all(b"\n")
    })
}

/// JSON whose text cannot steer a terminal: control characters are written as their code points.
struct Tame;

impl serde_json::ser::Formatter for Tame {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut written = 0;
        for (at, c) in fragment.char_indices().filter(|(_, c)| text::steers(*c)) {
            out.write_all(&fragment.as_bytes()[written..at])?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
            written = at + c.len_utf8();
        }
        out.write_all(&fragment.as_bytes()[written..])
    }
}

/// An error as a part of an answer.
pub fn error_in_json(error: &Error) -> Json {
    json!({
        "kind": error.kind().as_str(),
        "tensor": error.tensor(),
        "byte": error.byte(),
        "message": error.to_string(),
    })
}

/// Tells something that is not the answer.
pub fn tell(text: impl Display) {
    tell_raw(clean(&text.to_string()));
}

/// Tells text that is safe for a terminal already. Nowhere is left to say that stderr is closed.
pub fn tell_raw(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Tells something that the user should look at.
pub fn warn(text: impl Display) {
    tell(format_args!("warning: {text}"));
}

/// Whether an output is stdout.
pub fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Refuses an output path that is taken, or would be taken for a checkpoint of a run.
///
/// # Errors
/// `AlreadyExists`, `NotFound` for a folder that does not exist, `Invalid` within a run.
pub fn check_free(path: &Path, force: bool) -> Result<(), Error> {
    if is_within_a_run(path) {
        return Err(Error::new(ErrorKind::Invalid, "is a place of a run's own checkpoints")
            .in_object(path.display())
            .help("a resume would go on from it; write it elsewhere"));
    }
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

/// Whether this is the name of a checkpoint, in the folder of a run.
fn is_within_a_run(path: &Path) -> bool {
    let is_checkpoint =
        path.file_stem().and_then(|stem| stem.to_str()?.parse::<CheckpointId>().ok()).is_some();
    is_checkpoint && path.parent().is_some_and(|folder| folder.join("attempts").is_dir())
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs())
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

/// A sum of lengths, which a lying server may make as long as it likes.
pub fn total(lens: impl Iterator<Item = u64>) -> u64 {
    lens.fold(0, u64::saturating_add)
}

/// Asks on the terminal whether to delete them.
///
/// # Errors
/// Errors of the terminal.
pub fn confirmed() -> tensorkeep::Result<bool> {
    let failed = |error| Error::io("asking on the terminal", error);
    let mut answer = String::new();
    eprint!("delete them? [y/N] ");
    std::io::stdin().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_json_cannot_hold_becomes_text() {
        assert_eq!(json_of(&Value::Float(f64::NAN)), "NaN");
        assert_eq!(json_of(&Value::Bytes(vec![1, 255])), "01ff");
    }

    #[test]
    fn json_cannot_steer_the_terminal_and_means_the_same() {
        let document = json!({ "a\u{9b}31m": "x\u{202e}\u{e0041}\n模型" });
        let mut bytes = Vec::new();
        let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Tame);
        serde::Serialize::serialize(&document, &mut serializer).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text, "{\"a\\u009b31m\":\"x\\u202e\\udb40\\udc41\\n模型\"}");
        assert_eq!(serde_json::from_str::<Json>(&text).unwrap(), document);
    }

    #[test]
    fn a_total_of_lengths_does_not_wrap_around() {
        assert_eq!(total([1 << 63, 1 << 63, 5].into_iter()), u64::MAX);
    }
}
