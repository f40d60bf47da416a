//! `cp`: a checkpoint, or a whole run, from anywhere to anywhere, byte for byte. What arrives was
//! verified on its way; existing copies are left alone, so that the same line goes on where it was
//! interrupted; nothing is overwritten.

use crate::answer::{Answer, Text};
use crate::budget::Budget;
use crate::exit::Exit;
use crate::opened::is_of_one_file;
use crate::place::Place;
use crate::target::Target;
use crate::{Done, output, progress};
use serde_json::{Value as Json, json};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tensorkeep::engine::replace_file;
use tensorkeep::store::{CopyOutcome, Presence};
use tensorkeep::{Checkpoint, CheckpointId, CheckpointInfo, Error, ErrorKind, Result};

/// The outcome for each checkpoint.
#[derive(Default)]
struct Outcome {
    copied: Vec<String>,
    there_already: Vec<String>,
    /// What does not verify at its source, and was left there.
    damaged: Vec<(String, Error)>,
    bytes: u64,
}

impl Outcome {
    fn in_words(&self) -> String {
        let count = |names: &[String]| output::count(names.len(), "checkpoint");
        match (self.copied.as_slice(), self.there_already.as_slice()) {
            ([], []) => "nothing was copied".to_owned(),
            ([], [only]) => format!("nothing to copy: {only} is there already"),
            ([], all) => format!("nothing to copy: all {} are there already", count(all)),
            (copied, []) => format!("{}, {}, verified", count(copied), output::size(self.bytes)),
            (copied, before) => format!(
                "{}, {}, verified; {} there already",
                count(copied),
                output::size(self.bytes),
                count(before)
            ),
        }
    }
}

/// The copies that a `cp` made.
pub struct Copies<'a> {
    source: &'a OsStr,
    to: Place,
    outcome: Outcome,
}

pub fn run<'a>(source: &'a OsStr, target: &OsStr, force: bool) -> Result<Copies<'a>> {
    let to = Place::new(target);
    let outcome = copy(&Target::parse(source)?, &to, force)?;
    Ok(Copies { source, to, outcome })
}

impl Answer for Copies<'_> {
    fn schema(&self) -> &'static str {
        "cp"
    }

    fn json(&self) -> Json {
        let Outcome { copied, there_already, damaged, bytes } = &self.outcome;
        let told =
            |(name, error): &(String, Error)| json!({ "name": name, "error": output::error_in_json(error) });
        json!({
            "source": self.source.to_string_lossy(),
            "target": self.to.to_string(),
            "copied": copied,
            "there_already": there_already,
            "damaged": damaged.iter().map(told).collect::<Vec<_>>(),
            "bytes": bytes,
        })
    }

    fn text(&self) -> Result<Text<'_>> {
        let not_copied = self.outcome.damaged.iter().map(|(_, error)| format!("not copied: {error}"));
        let line = format!("{}: {}", self.to, self.outcome.in_words());
        Ok(Text::of(output::clean(&line)).warnings(not_copied))
    }

    fn end(self: Box<Self>) -> Done {
        let errors = self.outcome.damaged.iter().map(|(_, error)| Exit::from(error));
        Ok(Exit::worst(errors).unwrap_or(Exit::Ok))
    }
}

fn copy(source: &Target, to: &Place, force: bool) -> Result<Outcome> {
    let folder = to.folder().filter(|_| !to.is_url());
    let is_file = folder.is_some_and(|path| path.extension().is_some_and(|extension| extension == "tkeep"));
    let is_run = to.is_url() || to.ends_in_slash() || folder.is_some_and(Path::is_dir);
    match source {
        Target::Run(place, None) => copy_run(place, to, force, None),
        // Whatever else is there already is a file to replace.
        Target::Run(..) if is_run || !(is_file || folder.is_some_and(Path::exists)) => {
            let (place, _, name) = source.in_run()?;
            copy_run(&place, to, force, Some(name))
        }
        Target::File(path) if is_run => {
            let name = path
                .file_name()
                .and_then(|name| name.to_str()?.strip_suffix(".tkeep")?.parse::<CheckpointId>().ok());
            let name = name.ok_or_else(|| {
                Error::new(ErrorKind::Invalid, "a run's checkpoints are named after attempt and step")
                    .in_object(path.display())
                    .expected("a file such as 0003-0000001200.tkeep")
            })?;
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = Place::new(folder.unwrap_or(Path::new(".")));
            copy_run(&folder, to, force, Some(name))
        }
        one => match folder {
            Some(path) => copy_to_file(&one.open(Budget::default())?, path, force),
            // Not reached: a place without a folder is a URL, and a URL is a run.
            None => Err(Error::new(ErrorKind::Invalid, "is no file").in_object(to)),
        },
    }
}

/// Whether an error is about this checkpoint, so that the others can be copied. What failed while
/// it was copied may also be the target's fault, unless it could not be listed, either.
fn is_of_source(from: &Place, info: &CheckpointInfo, error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Foreign)
        || (info.state.is_err() && is_of_one_file(from, error))
}

/// One checkpoint as a file of any name; of one of many ranks its shards first, beside it.
fn copy_to_file(source: &Checkpoint, target: &Path, force: bool) -> Result<Outcome> {
    output::check_free(target, force)?;
    let replaced = shards_at(target);
    let bar = progress::bar("copying", source.inspect().byte_len());
    let one = |file: &Checkpoint, to: &Path| {
        let file = file.inspect();
        replace_file(to, Some(file.file_len()), |upload| file.copy_into(upload, |bytes| bar.inc(bytes)))
    };
    let mut shards = Vec::new();
    for shard in source.inspect().shard_files() {
        let (key, shard) = shard?;
        let path = target.with_file_name(key);
        check_apart(shard, &path)?;
        let is_there = Checkpoint::open(&path).is_ok_and(|there| there.inspect().is_copy_of(shard));
        if !is_there {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)
                    .map_err(|error| Error::io("making the folder of shards", error))?;
            }
            one(shard, &path)?;
        }
        shards.push(path);
    }
    one(source, target)?;
    bar.finish_and_clear();
    let copy = Checkpoint::open(target)?;
    copy.verify()?;
    let mut going = replaced;
    going.retain(|shard| !shards.contains(shard));
    if !going.is_empty() {
        let others = manifests_beside(target);
        let named: Vec<PathBuf> = others.iter().flat_map(|manifest| shards_at(manifest)).collect();
        for shard in going.iter().filter(|shard| !named.contains(shard)) {
            let _ = std::fs::remove_file(shard);
        }
    }
    let copied = vec![target.display().to_string()];
    Ok(Outcome { copied, bytes: copy.inspect().byte_len(), ..Outcome::default() })
}

/// Refuses a copy of many files beside its source: both would have the same shards, and what
/// deletes one would take the other's bytes.
fn check_apart(shard: &Checkpoint, path: &Path) -> Result<()> {
    let is_same = std::fs::canonicalize(path)
        .is_ok_and(|there| std::fs::canonicalize(shard.name()).is_ok_and(|here| here == there));
    if !is_same {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Invalid, "a copy beside its source would share its shards")
        .in_object(path.display())
        .help("copy it to another folder, or make one file of it: tensorkeep repack SOURCE -o COPY.tkeep"))
}

/// Other files of checkpoints in the folder of this one.
fn manifests_beside(path: &Path) -> Vec<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_other = |file: &PathBuf| {
        file.extension().is_some_and(|extension| extension == "tkeep") && file.file_name() != path.file_name()
    };
    files.filter(is_other).collect()
}

/// Paths of the shards of a checkpoint at this path, if one is there.
fn shards_at(path: &Path) -> Vec<PathBuf> {
    let there = Checkpoint::open(path);
    let keys = there.map(|there| there.inspect().shard_keys()).unwrap_or_default();
    keys.into_iter().map(|key| path.with_file_name(key)).collect()
}

/// A run's checkpoints, or this one, with their pins, under the target's lock where it has one:
/// oldest first, so that an interrupted copy is the run as it was earlier. A whole run takes along
/// its attempts and how each ended.
fn copy_run(from: &Place, to: &Place, force: bool, only: Option<CheckpointId>) -> Result<Outcome> {
    let reader = from.reader()?;
    let infos = reader.list()?;
    if infos.is_empty() {
        from.check_exists(&reader)?;
    }
    let wanted = || infos.iter().filter(|info| only.is_none_or(|only| only == info.id));
    let bar = progress::bar("copying", output::total(wanted().map(|info| info.byte_len)));
    let engine = to.create()?;
    let target = to.reader_of_copies(Arc::clone(&engine));
    let _lock = target.lock_for("tensorkeep cp")?;
    let same_run = reader.run_id()?.map_or(Ok(()), |run| target.belong_to(run));
    same_run.or_else(|error| match error.kind() {
        ErrorKind::Invalid if force => Ok(()),
        ErrorKind::Invalid => {
            Err(error.help("copy it to a place of its own, or mix the two runs with --force"))
        }
        _ => Err(error),
    })?;
    let mut done = Outcome::default();
    for info in wanted() {
        if info.is_marked {
            let marked =
                Error::new(ErrorKind::Damaged, "is marked as damaged by a resume, and stays where it is")
                    .help("`tensorkeep verify --heal-marks` takes the mark off if it verifies");
            done.damaged.push((info.id.to_string(), marked));
            continue;
        }
        match reader.ask_listed(info.id, || reader.copy_to(info.id, &target, |bytes| bar.inc(bytes))) {
            Ok(Presence::There(CopyOutcome::Written(bytes))) => {
                done.copied.push(info.id.to_string());
                done.bytes += bytes;
            }
            Ok(Presence::There(CopyOutcome::AlreadyThere)) => {
                bar.inc(info.byte_len);
                done.there_already.push(info.id.to_string());
            }
            Ok(Presence::Deleted) => continue,
            Ok(Presence::Absent(error)) => {
                done.damaged.push((info.id.to_string(), error));
                continue;
            }
            Err(error) if is_of_source(from, info, &error) => {
                done.damaged.push((info.id.to_string(), error));
                continue;
            }
            Err(error) => return Err(error),
        }
        if info.pinned {
            info.id.pin(&*engine)?;
        }
    }
    // Of two runs that were mixed, the attempts of neither are those of the other.
    if only.is_none() && reader.run_id()? == target.run_id()? {
        reader.copy_attempts_to(&target)?;
    }
    bar.finish_and_clear();
    Ok(done)
}
