//! `cp`: a checkpoint, or a whole run, from anywhere to anywhere, byte for byte. What arrives was
//! verified on its way; what is there already is left alone, so that the same line goes on where it
//! was interrupted; nothing is overwritten.

use crate::budget::Budget;
use crate::exit::Exit;
use crate::parallel;
use crate::place::Place;
use crate::target::Target;
use crate::{Done, output};
use serde_json::json;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use tensorkeep::engine::replace_file;
use tensorkeep::{Checkpoint, CheckpointId, Error, ErrorKind, Result, store::CopyOutcome};

/// What was done.
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

pub fn run(source: &OsStr, target: &OsStr, force: bool, json: bool) -> Done {
    let to = Place::new(target);
    let done = copy(&Target::parse(source)?, &to, force)?;
    if json {
        let told =
            |(name, error): &(String, Error)| json!({ "name": name, "error": output::error_in_json(error) });
        let damaged: Vec<_> = done.damaged.iter().map(told).collect();
        let document = json!({
            "source": source.to_string_lossy(), "target": to.to_string(), "copied": done.copied, "there_already": done.there_already,
            "damaged": damaged, "bytes": done.bytes,
        });
        output::print_json("cp", document)?;
    } else {
        output::print(output::clean(&format!("{to}: {}", done.in_words())))?;
        done.damaged.iter().for_each(|(_, error)| output::warn(format!("not copied: {error}")));
    }
    Ok(if done.damaged.is_empty() { Exit::Ok } else { Exit::Damaged })
}

fn copy(source: &Target, to: &Place, force: bool) -> Result<Outcome> {
    let folder = to.folder().filter(|_| !to.is_url());
    let is_file = folder.is_some_and(|path| path.extension().is_some_and(|extension| extension == "tkeep"));
    let is_run = to.is_url() || to.ends_in_slash() || folder.is_some_and(Path::is_dir);
    match source {
        Target::Run(place, None) => copy_run(place, to, force),
        // Whatever else is there already is a file to replace.
        Target::Run(..) if is_run || !(is_file || folder.is_some_and(Path::exists)) => {
            let (place, _, name) = source.in_run()?;
            copy_some(&place, to, force, |names| names.retain(|there| *there == name))
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
            copy_some(&folder, to, force, |names| names.retain(|there| *there == name))
        }
        one => match folder {
            Some(path) => copy_to_file(&one.open(Budget::default())?, path, force),
            // OK to be unreachable: what is no folder is a URL, and that a run.
            None => Err(Error::new(ErrorKind::Invalid, "is no file").in_object(to)),
        },
    }
}

/// One checkpoint as a file of any name.
fn copy_to_file(source: &Checkpoint, target: &Path, force: bool) -> Result<Outcome> {
    output::check_free(target, force)?;
    let bar = parallel::bar("copying", source.byte_len());
    replace_file(target, Some(source.byte_len()), |upload| {
        source.inspect().copy_into(upload, |bytes| bar.inc(bytes))
    })?;
    bar.finish_and_clear();
    let copy = Checkpoint::open(target)?;
    copy.verify()?;
    let copied = vec![target.display().to_string()];
    Ok(Outcome { copied, bytes: copy.byte_len(), ..Outcome::default() })
}

/// All checkpoints, oldest first: what is interrupted is a run as it was earlier.
fn copy_run(from: &Place, to: &Place, force: bool) -> Result<Outcome> {
    copy_some(from, to, force, |_| {})
}

/// Some of a run's checkpoints, with their pins, under the target's lock where it has one.
fn copy_some(
    from: &Place,
    to: &Place,
    force: bool,
    choose: impl FnOnce(&mut Vec<CheckpointId>),
) -> Result<Outcome> {
    let reader = from.reader()?;
    let infos = reader.list()?;
    if infos.is_empty() {
        from.check_exists(&reader)?;
    }
    let mut names: Vec<CheckpointId> = infos.iter().map(|info| info.name).collect();
    choose(&mut names);
    let wanted = || infos.iter().filter(|info| names.contains(&info.name));
    let bar = parallel::bar("copying", wanted().map(|info| info.len).sum());
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
            done.damaged.push((info.name.to_string(), marked));
            continue;
        }
        match reader.copy_to(info.name, &target, |bytes| bar.inc(bytes)) {
            Ok(CopyOutcome::Written(bytes)) => {
                done.copied.push(info.name.to_string());
                done.bytes += bytes;
            }
            Ok(CopyOutcome::AlreadyThere) => {
                bar.inc(info.len);
                done.there_already.push(info.name.to_string());
            }
            Err(error) if error.kind() == ErrorKind::Damaged => {
                done.damaged.push((info.name.to_string(), error));
                continue;
            }
            // Rotated away by the run's writer since it was listed.
            Err(error) if error.kind() == ErrorKind::NotFound && !reader.names()?.contains(&info.name) => {
                continue;
            }
            Err(error) => return Err(error),
        }
        if info.pinned {
            info.name.pin(&*engine)?;
        }
    }
    bar.finish_and_clear();
    Ok(done)
}
