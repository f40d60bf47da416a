//! `gc RUN --orphans`: shards of saves that many ranks did not end, and what killed processes left
//! in an object store and no checkpoint names. A folder has none of the latter: its writers sweep
//! under the lock.

use crate::answer::{Answer, Text};
use crate::args::Gc;
use crate::output;
use crate::place::Place;
use serde_json::{Value as Json, json};
use std::time::Duration;
use tensorkeep::engine::Entry;
use tensorkeep::ranks::OrphanedShards;
use tensorkeep::{Reader, Result};

/// Removes them, or with `--dry-run` only lists them; asks before where `asks` says so. `age` is
/// that of uploads: what is younger may be one in flight.
///
/// # Errors
/// `Locked` while a writer has the folder; `Busy` where the newest attempt has saved nothing yet;
/// what the store says.
pub fn run(args: &Gc, age: Duration, asks: bool) -> Result<Removed<'_>> {
    let place = Place::new(&args.run);
    let reader = Reader::new(place.open()?);
    if reader.ids()?.is_empty() {
        place.check_exists(&reader)?;
    }
    let _lock = if args.dry_run { None } else { reader.lock_for("tensorkeep gc")? };
    let shards = reader.orphaned_shards()?;
    let uploads = if place.is_url() { Some(Uploads::find(&args.run.to_string_lossy(), age)?) } else { None };
    let mut removed = Removed { args, found: vec![], is_declined: false };
    removed.found.extend(shards.objects().cloned());
    removed.found.extend(uploads.iter().flat_map(|uploads| uploads.found.iter().cloned()));
    if asks && !args.dry_run && !removed.found.is_empty() {
        output::print(removed.in_words("would remove").join("\n"))?;
        removed.is_declined = !output::confirmed()?;
    }
    if !args.dry_run && !removed.is_declined {
        removed.found = remove(shards, uploads, age)?;
    }
    Ok(removed)
}

fn remove(shards: OrphanedShards, uploads: Option<Uploads>, age: Duration) -> Result<Vec<Entry>> {
    let mut removed = shards.delete()?;
    removed.extend(uploads.map_or(Ok(vec![]), |uploads| uploads.remove(age))?);
    Ok(removed)
}

/// What was removed, or would be.
pub struct Removed<'a> {
    args: &'a Gc,
    found: Vec<Entry>,
    is_declined: bool,
}

impl Answer for Removed<'_> {
    fn schema(&self) -> &'static str {
        "gc"
    }

    fn json(&self) -> Json {
        let keys: Vec<&str> = self.found.iter().map(|entry| &*entry.key).collect();
        json!({
            "run": self.args.run.to_string_lossy(),
            "dry_run": self.args.dry_run,
            "orphans": keys,
            "bytes": self.bytes(),
        })
    }

    fn text(&self) -> Result<Text<'_>> {
        if self.is_declined {
            return Ok(Text::of("nothing was removed"));
        }
        let verb = if self.args.dry_run { "would remove" } else { "removed" };
        Ok(Text::of(self.in_words(verb).join("\n")))
    }
}

impl Removed<'_> {
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

/// What killed uploads left in an object store.
struct Uploads {
    #[cfg(feature = "object-store")]
    engine: tensorkeep_object_store::ObjectStoreEngine,
    found: Vec<Entry>,
}

#[cfg(feature = "object-store")]
impl Uploads {
    fn find(url: &str, age: Duration) -> Result<Self> {
        let engine = crate::place::object_store(url)?;
        Ok(Self { found: engine.orphans(age)?, engine })
    }

    fn remove(self, age: Duration) -> Result<Vec<Entry>> {
        self.engine.sweep(age)
    }
}

#[cfg(not(feature = "object-store"))]
impl Uploads {
    fn find(url: &str, _: Duration) -> Result<Self> {
        Place::new(url).open().map(|_| Self { found: vec![] })
    }

    fn remove(self, _: Duration) -> Result<Vec<Entry>> {
        Ok(self.found)
    }
}
