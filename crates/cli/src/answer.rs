//! A verb's answer, and the one place that prints it: in words for people, or as a JSON document.
//! Errors are printed here as well, because with `--json` they are documents too.

use crate::Done;
use crate::exit::Exit;
use crate::output::{self, clean, columns};
use serde_json::{Value as Json, json};
use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tensorkeep::{Error, ErrorKind, Result};

/// What a verb has found out. It knows both of its forms and prints neither.
pub trait Answer {
    /// The name of its JSON schema, without prefix and version.
    fn schema(&self) -> &'static str;

    /// The JSON document, without its schema's name.
    fn json(&self) -> Json;

    /// The same in words.
    ///
    /// # Errors
    /// For flags that only matter to the words, such as the names of columns.
    fn text(&self) -> Result<Text<'_>>;

    /// How the verb ends after its answer is printed.
    ///
    /// # Errors
    /// What went wrong although there is an answer, such as a file that could not be deleted.
    fn end(self: Box<Self>) -> Done {
        Ok(Exit::Ok)
    }
}

/// An answer in words, whose parts are printed in the order in which they were added.
#[derive(Default)]
pub struct Text<'a>(Vec<Part<'a>>);

enum Part<'a> {
    Lines(String),
    Summary(String),
    Bytes(&'a [u8]),
    Note(String),
    Warning(String),
}

impl<'a> Text<'a> {
    /// One line on stdout, or several.
    pub fn of(lines: impl Display) -> Self {
        Self::default().lines(lines)
    }

    /// Adds one line on stdout, or several.
    pub fn lines(self, lines: impl Display) -> Self {
        self.with(Part::Lines(lines.to_string()))
    }

    /// Adds the last line on stdout, which sums up the others and is cut between words on a narrow
    /// terminal.
    pub fn summary(self, line: impl Display) -> Self {
        self.with(Part::Summary(line.to_string()))
    }

    /// Adds bytes on stdout, as they are.
    pub fn bytes(self, bytes: &'a [u8]) -> Self {
        self.with(Part::Bytes(bytes))
    }

    /// Adds a line on stderr.
    pub fn note(self, note: impl Display) -> Self {
        self.with(Part::Note(note.to_string()))
    }

    /// Adds warnings on stderr, one a line.
    pub fn warnings<T: Display>(self, warnings: impl IntoIterator<Item = T>) -> Self {
        warnings.into_iter().fold(self, |text, warning| text.with(Part::Warning(warning.to_string())))
    }

    fn with(mut self, part: Part<'a>) -> Self {
        self.0.push(part);
        self
    }

    fn print(self) -> Result<()> {
        for part in self.0 {
            match part {
                Part::Lines(lines) => output::print(lines)?,
                Part::Summary(line) => {
                    output::print(wrapped(&clean(&line), columns().unwrap_or(usize::MAX)))?
                }
                Part::Bytes(bytes) => output::print_bytes(bytes)?,
                Part::Note(note) => output::tell(note),
                Part::Warning(warning) => output::warn(warning),
            }
        }
        Ok(())
    }
}

/// Lines of at most so many characters, cut between words.
fn wrapped(text: &str, most: usize) -> String {
    let (mut lines, mut used) = (String::new(), 0);
    for word in text.split(' ') {
        let len = word.chars().count();
        match used {
            0 => {}
            _ if used + 1 + len > most => {
                lines.push('\n');
                used = 0;
            }
            _ => {
                lines.push(' ');
                used += 1;
            }
        }
        lines.push_str(word);
        used += len;
    }
    lines
}

/// Whether stdout has its JSON document: an error behind it is told on stderr only.
static HAS_DOCUMENT: AtomicBool = AtomicBool::new(false);

/// The form in which answers and errors are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    Text,
    Json,
}

impl OutputFormat {
    /// The form that the arguments ask for.
    pub fn of(is_json: bool) -> Self {
        if is_json { Self::Json } else { Self::Text }
    }

    /// The form that arguments ask for which could not be parsed.
    pub fn of_unparsed(args: &[std::ffi::OsString]) -> Self {
        if args.iter().any(|arg| arg == "--json") { Self::Json } else { Self::Text }
    }

    /// Whether a question can be asked: programs that read JSON answer none.
    pub fn may_ask(self) -> bool {
        self == Self::Text && io::stdin().is_terminal()
    }

    /// Refuses to print two things to stdout.
    ///
    /// # Errors
    /// `Invalid` for an output of `-` beside the JSON document.
    pub fn check_stdout_is_free(self, output: Option<&Path>, what: &str) -> Result<()> {
        if self == Self::Text || !output.is_some_and(output::is_stdout) {
            return Ok(());
        }
        let words = format!("stdout cannot be both the {what} and the JSON document");
        Err(Error::new(ErrorKind::Invalid, words).help("leave out --json, or name a file"))
    }

    /// Prints an answer.
    ///
    /// # Errors
    /// As [`output::print`] and [`Answer::text`].
    pub fn print(self, answer: &dyn Answer) -> Result<()> {
        match self {
            Self::Text => answer.text()?.print(),
            Self::Json => print_document(answer.schema(), answer.json()),
        }
    }

    /// Prints an error with all its causes, and returns its exit code.
    pub fn fail(self, error: &Error) -> Exit {
        let chain = chain(error);
        let exit = Exit::from(error);
        let is_printed = self == Self::Json
            && !HAS_DOCUMENT.load(Relaxed)
            && print_document("error", error_as_json(error, &chain)).is_ok();
        // Also for a document that cannot be written: words are left.
        if !is_printed {
            output::tell_raw(format_args!("error: {}", chain.join("\n  because: ")));
        }
        exit
    }

    /// Prints what the command line says of its wrong use.
    pub fn fail_usage(self, words: &str) -> Exit {
        let words = words.trim_end();
        let document = json!({
            "kind": "usage", "exit": Exit::Usage as u8, "message": words.trim_start_matches("error: "), "because": [],
            "object": null, "tensor": null, "byte": null,
        });
        if self == Self::Text || print_document("error", document).is_err() {
            output::tell_raw(words);
        }
        Exit::Usage
    }
}

/// Prints one JSON document under its schema's name.
fn print_document(schema: &str, mut document: Json) -> Result<()> {
    if let Some(object) = document.as_object_mut() {
        object.insert("schema".to_owned(), format!("tensorkeep.{schema}.v1").into());
    }
    HAS_DOCUMENT.store(true, Relaxed);
    output::print_json(&document)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_cut_between_words() {
        assert_eq!(wrapped("3 of 100 damaged", 8), "3 of 100\ndamaged");
        assert_eq!(wrapped("3 of 100 damaged", 80), "3 of 100 damaged");
        assert_eq!(wrapped("incomprehensible", 4), "incomprehensible");
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
