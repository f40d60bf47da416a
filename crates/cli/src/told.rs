//! The notes of a foreign file's reader: losses, and values that are stored in another form. Verbs
//! that write print them, and end with exit code 1 where something was lost.

use crate::answer::Text;
use crate::opened::Opened;
use serde_json::{Value as Json, json};
use tensorkeep::convert::Note;

/// Notes, in the order of the files.
#[derive(Default)]
pub struct Told(Vec<Line>);

struct Line {
    name: String,
    what: String,
    is_loss: bool,
}

impl Told {
    pub fn of(notes: &[Note]) -> Self {
        let line =
            |note: &Note| Line { name: note.name.clone(), what: note.what.clone(), is_loss: note.loss };
        Self(notes.iter().map(line).collect())
    }

    /// The notes of a file.
    pub fn of_file(opened: &Opened) -> Self {
        match opened {
            Opened::Foreign(foreign) => Self::of(foreign.notes()),
            Opened::Own(_) => {
                let name = || opened.name().to_owned();
                let line = |what| Line { name: name(), what, is_loss: false };
                Self(opened.warnings().into_iter().map(line).collect())
            }
        }
    }

    /// The notes of several files, each line with the name of its file.
    pub fn of_files<'o>(files: impl IntoIterator<Item = &'o Opened>) -> Self {
        let all = files.into_iter().flat_map(|opened| {
            let named = move |line: Line| Line { name: format!("{}: {}", opened.name(), line.name), ..line };
            Self::of_file(opened).0.into_iter().map(named)
        });
        Self(all.collect())
    }

    /// How many things were lost.
    pub fn lost(&self) -> usize {
        self.0.iter().filter(|line| line.is_loss).count()
    }

    pub fn json(&self) -> Json {
        let line = |line: &Line| json!({ "name": line.name, "what": line.what, "loss": line.is_loss });
        self.0.iter().map(line).collect()
    }

    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|line| {
            let word = if line.is_loss { "lost" } else { "note" };
            format!("{word}: {}: {}", line.name, line.what)
        })
    }

    /// Adds the lines to an answer.
    pub fn add_to<'t>(&self, text: Text<'t>) -> Text<'t> {
        self.lines().fold(text, Text::note)
    }
}
