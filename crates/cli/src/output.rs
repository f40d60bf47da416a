//! What is printed where: answers on stdout, words on stderr, JSON documents and errors. Tables are
//! in output/table.rs, how single values are written in output/text.rs.

mod table;
mod text;

pub use table::{Cell, columns, table};
pub use text::{
    age, ago, bold, clean, count, date, duration, json_number, number, red, size, sparkline, sparkline_of,
};

use crate::exit::Exit;
use serde_json::{Value as Json, json};
use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::SystemTime;
use tensorkeep::{Error, ErrorKind, Value};

/// Whether nobody reads stdout any more: `| head` has seen enough.
static READER_IS_GONE: AtomicBool = AtomicBool::new(false);
/// Whether stdout has its JSON document: an error behind it is told on stderr only.
static HAS_DOCUMENT: AtomicBool = AtomicBool::new(false);

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
        // The verb goes on: its exit code is asked for by whoever does not read its words.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            READER_IS_GONE.store(true, Relaxed);
            // What is still in the buffer has nowhere to go.
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

/// Prints one JSON document under its schema's name.
///
/// # Errors
/// As [`print`].
pub fn print_json(schema: &str, mut document: Json) -> Result<(), Error> {
    if let Some(object) = document.as_object_mut() {
        object.insert("schema".to_owned(), format!("tensorkeep.{schema}.v1").into());
    }
    HAS_DOCUMENT.store(true, Relaxed);
    emit(|out| {
        let mut serializer = serde_json::Serializer::with_formatter(&mut *out, Tame);
        serde::Serialize::serialize(&document, &mut serializer)?;
        out.write_all(b"\n")
    })
}

/// JSON whose text cannot steer a terminal: what is no text for people is written as its code
/// point.
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

/// Tells an error, with all its causes, and its exit code: as a JSON document where those were
/// asked for, and in words.
pub fn fail(error: &Error, json: bool) -> Exit {
    let chain = chain(error);
    let exit = Exit::from(error);
    // A document that cannot be written either: the words below are what is left.
    if json && !HAS_DOCUMENT.load(Relaxed) && print_json("error", error_as_json(error, &chain)).is_ok() {
        return exit;
    }
    // Nowhere is left to say that stderr is closed.
    let _ = writeln!(io::stderr(), "error: {}", chain.join("\n  because: "));
    exit
}

fn error_as_json(error: &Error, chain: &[String]) -> Json {
    json!({
        "kind": error.kind().as_str(),
        "exit": Exit::from(error) as u8,
        "message": chain.first(),
        "because": chain.iter().skip(1).collect::<Vec<_>>(),
        "object": error.object(),
        "tensor": error.tensor(),
        "byte": error.byte(),
    })
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

/// What the command line itself says of a wrong use: for people, or as the document that errors
/// are.
pub fn fail_usage(words: &str, json: bool) -> Exit {
    let words = words.trim_end();
    let document = json!({
        "kind": "usage", "exit": Exit::Usage as u8, "message": words.trim_start_matches("error: "), "because": [],
        "object": null, "tensor": null, "byte": null,
    });
    if !json || print_json("error", document).is_err() {
        let _ = writeln!(io::stderr(), "{words}");
    }
    Exit::Usage
}

/// An error and its causes, one line each; a cause that the line before it told in full is left
/// out: some libraries print theirs with every level.
fn chain(error: &Error) -> Vec<String> {
    let mut lines = vec![clean(&error.to_string())];
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let line = clean(&cause.to_string());
        if !lines.iter().any(|before| before.contains(&line)) {
            lines.push(line);
        }
        source = cause.source();
    }
    lines
}

/// Tells something that is not the answer. Nowhere is left to say that stderr is closed.
pub fn tell(text: impl Display) {
    let _ = writeln!(io::stderr(), "{}", clean(&text.to_string()));
}

/// Tells something that the user should look at.
pub fn warn(text: impl Display) {
    tell(format_args!("warning: {text}"));
}

/// Whether an output is stdout.
pub fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
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
    fn a_cause_that_was_told_already_is_not_told_again() {
        #[derive(Debug)]
        struct Outer(io::Error);
        impl Display for Outer {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "outer: {}", self.0)
            }
        }
        impl std::error::Error for Outer {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.0)
            }
        }
        let error = Error::io("listing", io::Error::other(Outer(io::Error::other("404"))));
        assert_eq!(chain(&error), ["listing", "outer: 404"]);
    }
}
