//! The process that saves: starts it, reads its messages, and ends it.

use crate::subject::Subject;
use crate::{Options, Result};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A trainer's messages, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// A save returned Ok.
    Saved(u64),
    /// A save returned an error, which is right when a write failed.
    Failed(u64),
    /// The trainer itself saw a broken promise.
    Broken(String),
}

impl Word {
    fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ')?;
        let step = || rest.split(' ').next()?.parse().ok();
        match word {
            "saved" => step().map(Self::Saved),
            "failed" => step().map(Self::Failed),
            "broken" => Some(Self::Broken(rest.to_owned())),
            _ => None,
        }
    }
}

pub struct Trainer {
    child: Child,
    listener: Option<JoinHandle<()>>,
}

impl Trainer {
    /// Starts a trainer of the subject in the folder; `hear` is called with each message as it
    /// arrives.
    pub fn start(
        options: &Options,
        folder: &Path,
        saves: Option<u64>,
        mut hear: impl FnMut(Word) + Send + 'static,
    ) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--subject", &options.subject.name(), "--train"]).arg(folder);
        if let Some(saves) = saves {
            command.args(["--saves", &saves.to_string()]);
        }
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let listener = child.stdout.take().map(|out| {
            std::thread::spawn(move || {
                let lines = BufReader::new(out).lines().map_while(std::io::Result::ok);
                for word in lines.filter_map(|line| Word::parse(&line)) {
                    hear(word);
                }
            })
        });
        Ok(Self { child, listener })
    }

    pub fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill()?)
    }

    /// Waits for the end, and kills the process after `limit`. True when it ended by itself. Every
    /// message has been read then.
    pub fn end(mut self, limit: Duration) -> Result<bool> {
        let start = Instant::now();
        let mut by_itself = true;
        while self.child.try_wait()?.is_none() {
            if start.elapsed() > limit {
                by_itself = false;
                self.child.kill()?;
                self.child.wait()?;
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        Ok(by_itself)
    }
}

/// Whether a subject's messages after its disk is gone count. Each of tensorkeep's must be true;
/// peers, which never check, are spared that.
pub fn late_words_count(subject: Subject) -> bool {
    subject == Subject::Tensorkeep
}
