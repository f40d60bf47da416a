//! The checks before the page calls anything well: checkpoints are verified from the newest back to
//! the first that is intact, all that are drawn, and with `--verify-all` all.

use super::Options;
use std::collections::{BTreeMap, BTreeSet};
use tensorkeep::{Checkpoint, CheckpointId, CheckpointInfo, Error, ErrorKind, Reader, Result};

/// Damaged checkpoints of which everything that is wrong is found out; of others, that it is.
const LOOKED_INTO: usize = 20;

/// A checkpoint with damage, and where.
#[derive(Debug)]
pub struct Damaged {
    /// None for one that a resume has set aside.
    pub id: Option<CheckpointId>,
    pub key: String,
    pub len: u64,
    /// Groups of tensors and where their bytes are: (name, first, behind the last).
    pub parts: Vec<(String, u64, u64)>,
    pub errors: Vec<Error>,
    /// Tensors that are intact, of how many; None where the index cannot be read.
    pub intact: Option<(u64, u64)>,
}

/// The findings.
#[derive(Debug, Default)]
pub struct Looked {
    /// Every byte verified.
    pub verified: BTreeSet<CheckpointId>,
    pub damaged: BTreeMap<CheckpointId, Damaged>,
    pub set_aside: Vec<Damaged>,
    /// The checkpoint that a resume opens: the newest that verifies.
    pub resume: Option<CheckpointId>,
}

impl Looked {
    /// Verifies from the newest back to one that is intact, and checkpoints that were set aside.
    ///
    /// # Errors
    /// Errors of listing.
    pub fn at(reader: &Reader, infos: &[CheckpointInfo], options: &Options) -> Result<Self> {
        let mut looked = Self::default();
        if options.quick {
            looked.resume = infos.iter().rev().find(|info| info.state.is_ok()).map(|info| info.id);
        } else {
            for info in infos.iter().rev() {
                if looked.verifies(reader, info) {
                    looked.resume = Some(info.id);
                    break;
                }
            }
            if options.verify_all {
                for info in infos {
                    looked.verifies(reader, info);
                }
            }
        }
        for key in reader.set_aside()?.iter().filter(|key| key.contains(".tkeep")) {
            looked.set_aside.push(look(None, key, reader.open_set_aside(key)));
        }
        Ok(looked)
    }

    /// Whether every byte of a checkpoint is as it was written. Asked once of each.
    pub fn verifies(&mut self, reader: &Reader, info: &CheckpointInfo) -> bool {
        if self.verified.contains(&info.id) || self.damaged.contains_key(&info.id) {
            return self.verified.contains(&info.id);
        }
        let opened = reader.checkpoint_by_id(info.id);
        if !info.is_marked && opened.as_ref().is_ok_and(|checkpoint| checkpoint.verify().is_ok()) {
            self.verified.insert(info.id);
            return true;
        }
        let found = match opened {
            Ok(_) if self.damaged.len() >= LOOKED_INTO => {
                let error = Error::new(ErrorKind::Damaged, "does not verify");
                let (id, key) = (Some(info.id), info.key.clone());
                Damaged { id, key, len: info.byte_len, parts: vec![], errors: vec![error], intact: None }
            }
            opened => look(Some(info.id), &info.key, opened),
        };
        let found = if info.is_marked { marked(found) } else { found };
        self.damaged.insert(info.id, found);
        false
    }

    /// All with damage, newest first, and then those that were set aside.
    pub fn all_damaged(&self) -> impl Iterator<Item = &Damaged> {
        self.damaged.values().rev().chain(&self.set_aside)
    }
}

impl Damaged {
    /// The damage in a few words: HTML.
    pub fn why(&self) -> String {
        use super::words::{code, escape, shorten};
        let of_tensor = self.errors.iter().find_map(|error| error.tensor());
        let Some(first) = self.errors.first() else { return "it cannot be read".to_owned() };
        let text = first.to_string();
        match of_tensor {
            Some(tensor) => {
                let others = self.errors.iter().filter_map(|error| error.tensor()).collect::<BTreeSet<_>>();
                let more = match others.len() {
                    0 | 1 => String::new(),
                    many => format!(" and {} more", super::words::count(many as u64 - 1, "tensor")),
                };
                format!("bit rot in {}{more}", code(&shorten(tensor, 80)))
            }
            None if self.intact.is_none() && first.kind() == ErrorKind::Damaged => {
                format!("cut short or overwritten ({})", escape(&shorten(&reason(&text), 100)))
            }
            None => escape(&shorten(&reason(&text), 120)),
        }
    }
}

/// An error's words without the path that they begin with.
fn reason(text: &str) -> String {
    text.split_once(".tkeep: ").map_or(text, |(_, rest)| rest).to_owned()
}

/// A checkpoint that a resume has marked as damaged, on storage that cannot rename.
fn marked(mut one: Damaged) -> Damaged {
    if one.errors.is_empty() {
        let error = Error::new(ErrorKind::Damaged, "is marked as damaged, and verifies now");
        one.errors.push(error.help("`tensorkeep verify --heal-marks` takes the mark off"));
    }
    one
}

fn look(id: Option<CheckpointId>, key: &str, opened: Result<Checkpoint>) -> Damaged {
    let key = key.to_owned();
    let checkpoint = match opened {
        Ok(checkpoint) => checkpoint,
        Err(error) => return Damaged { id, key, len: 0, parts: vec![], errors: vec![error], intact: None },
    };
    let errors = checkpoint.inspect().verify_all().map_or_else(|error| vec![error], |report| report.damage);
    let own: Vec<_> = checkpoint.tensors().filter(|info| info.alias_of.is_none()).collect();
    let bad: BTreeSet<&str> = errors.iter().filter_map(|error| error.tensor()).collect();
    let intact = own.iter().filter(|info| !bad.contains(info.name)).count();
    let mut parts: Vec<(String, u64, u64)> = Vec::new();
    for info in own.iter().filter(|info| info.stored_len > 0 && info.pieces == 0) {
        let group = info.name.split(['/', '.']).next().unwrap_or_default();
        let (from, to) = (info.offset, info.offset + info.stored_len);
        match parts.iter_mut().find(|(name, ..)| name == group) {
            Some((_, first, last)) => (*first, *last) = ((*first).min(from), (*last).max(to)),
            None => parts.push((crate::output::clean(group), from, to)),
        }
    }
    parts.sort_by_key(|(_, from, _)| *from);
    parts.truncate(40);
    let intact = Some((intact as u64, own.len() as u64));
    Damaged { id, key, len: checkpoint.inspect().byte_len(), parts, errors, intact }
}
