//! `gc URL --orphans`: what killed processes left in an object store and no checkpoint names. A
//! folder has none: its writers sweep under the lock.

use super::gc::confirmed;
use crate::answer::{Answer, Text};
use crate::args::Gc;
use crate::output;
use crate::place::Place;
use serde_json::{Value as Json, json};
use std::time::Duration;
use tensorkeep::engine::Entry;
use tensorkeep::{Error, ErrorKind, Result};

/// Removes them, or with `--dry-run` only lists them; asks before where `asks` says so.
///
/// # Errors
/// `Invalid` for a folder; what the store says.
pub fn run(args: &Gc, age: Duration, asks: bool) -> Result<Removed<'_>> {
    if !Place::new(&args.run).is_url() {
        return Err(Error::new(ErrorKind::Invalid, "a folder has no orphans").in_object(args.run.display()).help(
            "what killed uploads left there goes when the run is opened for writing; --orphans is for URLs",
        ));
    }
    let mut orphans = Orphans::find(&args.run.to_string_lossy(), age)?;
    if asks && !args.dry_run && !orphans.found.is_empty() {
        output::print(orphans.in_words("would remove").join("\n"))?;
        if !confirmed()? {
            return Ok(Removed { args, orphans, is_declined: true });
        }
    }
    if !args.dry_run {
        orphans.remove(age)?;
    }
    Ok(Removed { args, orphans, is_declined: false })
}

/// What was removed, or would be.
pub struct Removed<'a> {
    args: &'a Gc,
    orphans: Orphans,
    is_declined: bool,
}

impl Answer for Removed<'_> {
    fn schema(&self) -> &'static str {
        "gc"
    }

    fn json(&self) -> Json {
        let keys: Vec<&str> = self.orphans.found.iter().map(|entry| &*entry.key).collect();
        json!({
            "run": self.args.run.to_string_lossy(),
            "dry_run": self.args.dry_run,
            "orphans": keys,
            "bytes": self.orphans.bytes(),
        })
    }

    fn text(&self) -> Result<Text<'_>> {
        if self.is_declined {
            return Ok(Text::of("nothing was removed"));
        }
        let verb = if self.args.dry_run { "would remove" } else { "removed" };
        Ok(Text::of(self.orphans.in_words(verb).join("\n")))
    }
}

struct Orphans {
    #[cfg(feature = "object-store")]
    engine: tensorkeep_object_store::ObjectStoreEngine,
    found: Vec<Entry>,
}

#[cfg(feature = "object-store")]
impl Orphans {
    fn find(url: &str, age: Duration) -> Result<Self> {
        let engine = crate::place::object_store(url)?;
        Ok(Self { found: engine.orphans(age)?, engine })
    }

    fn remove(&mut self, age: Duration) -> Result<()> {
        self.found = self.engine.sweep(age)?;
        Ok(())
    }
}

#[cfg(not(feature = "object-store"))]
impl Orphans {
    fn find(url: &str, _: Duration) -> Result<Self> {
        Place::new(url).open().map(|_| Self { found: vec![] })
    }

    fn remove(&mut self, _: Duration) -> Result<()> {
        Ok(())
    }
}

impl Orphans {
    fn bytes(&self) -> u64 {
        output::total(self.found.iter().map(|entry| entry.len))
    }

    fn in_words(&self, verb: &str) -> Vec<String> {
        let one =
            |entry: &Entry| format!("{verb} {} ({})", output::clean(&entry.key), output::size(entry.len));
        let mut lines: Vec<String> = self.found.iter().map(one).collect();
        let objects = output::count(self.found.len(), "object");
        lines.push(format!("{verb} {objects}, {}", output::size(self.bytes())));
        lines
    }
}
