//! `gc URL --orphans`: what killed processes left in an object store and no checkpoint names. A
//! folder has none: its writers sweep under the lock.

use super::gc::confirmed;
use crate::args::Gc;
use crate::exit::Exit;
use crate::place::Place;
use crate::{Done, output};
use serde_json::json;
use std::io::{self, IsTerminal};
use std::time::Duration;
use tensorkeep::engine::Entry;
use tensorkeep::{Error, ErrorKind, Result};

/// Removes them, asking on a terminal; with `--dry-run` says what would go.
///
/// # Errors
/// `Invalid` for a folder; what the store says.
pub fn run(args: &Gc, age: Duration, json: bool) -> Done {
    if !Place::new(&args.run).is_url() {
        return Err(Error::new(ErrorKind::Invalid, "a folder has no orphans").in_object(args.run.display()).help(
            "what killed uploads left there goes when the run is opened for writing; --orphans is for URLs",
        ));
    }
    let orphans = Orphans::find(&args.run.to_string_lossy(), age)?;
    let is_asked = !args.dry_run && !args.yes && !json && !orphans.found.is_empty();
    if is_asked && io::stdin().is_terminal() {
        output::print(orphans.in_words("would remove").join("\n"))?;
        if !confirmed()? {
            output::print("nothing was removed")?;
            return Ok(Exit::Ok);
        }
    }
    if !args.dry_run {
        orphans.remove(age)?;
    }
    if json {
        let keys: Vec<&str> = orphans.found.iter().map(|entry| &*entry.key).collect();
        let document = json!({ "run": args.run.to_string_lossy(), "dry_run": args.dry_run, "orphans": keys, "bytes": orphans.bytes() });
        output::print_json("gc", document)?;
    } else {
        let verb = if args.dry_run { "would remove" } else { "removed" };
        output::print(orphans.in_words(verb).join("\n"))?;
    }
    Ok(Exit::Ok)
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

    fn remove(&self, age: Duration) -> Result<()> {
        self.engine.sweep(age).map(drop)
    }
}

#[cfg(not(feature = "object-store"))]
impl Orphans {
    fn find(url: &str, _: Duration) -> Result<Self> {
        Place::new(url).open().map(|_| Self { found: vec![] })
    }

    fn remove(&self, _: Duration) -> Result<()> {
        Ok(())
    }
}

impl Orphans {
    fn bytes(&self) -> u64 {
        self.found.iter().map(|entry| entry.len).sum()
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
