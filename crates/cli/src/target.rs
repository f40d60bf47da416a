//! What the user points at: a file, or a run in a folder or at a URL, with a selector.

use crate::budget::Budget;
use crate::mapped;
use crate::opened::Opened;
use crate::place::Place;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use tensorkeep::convert::Foreign;
use tensorkeep::{Checkpoint, CheckpointId, Error, ErrorKind, Mode, Reader, Result};

/// A target of the command line.
#[derive(Debug)]
pub enum Target {
    /// A checkpoint file.
    File(PathBuf),
    /// A run, and which of its checkpoints, if one was named.
    Run(Place, Option<Which>),
}

/// Which checkpoint of a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Which {
    /// The newest that opens.
    Latest,
    /// So many before the newest there is.
    Before(usize),
    /// The newest attempt's of a step.
    Step(u64),
    /// Exactly this one.
    Id(CheckpointId),
    /// The best by a metric.
    Best(String, Mode),
}

impl Target {
    /// Reads a target. A path that exists is itself, also when there is an `@` in it. Whether there
    /// is something at a URL is not asked yet.
    ///
    /// # Errors
    /// `NotFound` when there is no such path, `Invalid` for a selector that is none.
    pub fn parse(text: impl AsRef<OsStr>) -> Result<Self> {
        let path = text.as_ref();
        if let Some(url) = path.to_str().filter(|text| Place::new(*text).is_url()) {
            return Self::of_url(url);
        }
        let path = path.to_str().and_then(|text| text.strip_prefix("file://")).map_or(path, OsStr::new);
        if let Some(target) = Self::of_path(Path::new(path), None) {
            return Ok(target);
        }
        let not_found = || Error::new(ErrorKind::NotFound, "no such file or run").in_object(path.display());
        let (path, selector) = split_at_sign(path).ok_or_else(not_found)?;
        let which = Which::parse(selector)?;
        match Self::of_path(path, Some(which)) {
            Some(Self::File(_)) => Err(Error::new(ErrorKind::Invalid, "a file has no steps to choose from")
                .in_object(path.display())
                .help("leave out the @")),
            Some(run) => Ok(run),
            None => Err(not_found()),
        }
    }

    /// A run at a URL, or one of its checkpoints by its object's own URL.
    fn of_url(url: &str) -> Result<Self> {
        // An account may stand before the host, with an @ between; a selector has no slash.
        let run_and_selector = url.rsplit_once('@').filter(|(_, selector)| !selector.contains('/'));
        if let Some((run, selector)) = run_and_selector {
            return Ok(Self::Run(Place::new(run), Some(Which::parse(selector)?)));
        }
        let object = url.rsplit_once('/').and_then(|(run, name)| Some((run, name.strip_suffix(".tkeep")?)));
        Ok(match object.and_then(|(run, name)| Some((run, name.parse().ok()?))) {
            Some((run, id)) => Self::Run(Place::new(run), Some(Which::Id(id))),
            None => Self::Run(Place::new(url), None),
        })
    }

    fn of_path(path: &Path, which: Option<Which>) -> Option<Self> {
        let metadata = path.metadata().ok()?;
        // A folder of torch's distributed checkpoint is opened like a file.
        let is_foreign =
            || which.is_none() && (matches!(Foreign::sniff(path), Ok(Some(_))) || is_of_dcp(path));
        Some(if metadata.is_dir() && !is_foreign() {
            Self::Run(Place::new(path), which)
        } else {
            Self::File(path.to_owned())
        })
    }

    /// Opens the one checkpoint that is meant: of a run without a selector the newest.
    ///
    /// # Errors
    /// `NotFound` when the run has no such checkpoint, and as [`Checkpoint::open`].
    pub fn open(&self, budget: Budget) -> Result<Checkpoint> {
        match self {
            Self::File(path) => budget.options().open(path).map_err(|error| told_if_foreign(path, error)),
            Self::Run(place, which) => open_in(place, &place.reader_with(budget.options())?, which.as_ref()),
        }
    }

    /// As [`Target::open`], foreign files too: for verbs that only look.
    ///
    /// # Errors
    /// As [`Target::open`] and [`Foreign::open`](tensorkeep::convert::Foreign::open).
    pub fn look(&self, budget: Budget) -> Result<Opened> {
        match self {
            Self::File(path) => budget.open(path),
            Self::Run(place, which) => {
                open_in(place, &place.reader_with(budget.options())?, which.as_ref()).map(Opened::Own)
            }
        }
    }

    /// As [`Target::look`], for verbs that look at every byte and need not go on where a disk
    /// fails.
    ///
    /// # Errors
    /// As [`Target::look`].
    pub fn look_at_all(&self, budget: Budget) -> Result<Opened> {
        match self {
            Self::File(path) => budget.open(path),
            Self::Run(place, which) => {
                open_in(place, &mapped::reader(place, budget)?, which.as_ref()).map(Opened::Own)
            }
        }
    }

    /// The run and the name of one of its checkpoints: of a run without a selector the newest.
    ///
    /// # Errors
    /// `Invalid` for a file, `NotFound`.
    pub fn in_run(&self) -> Result<(Place, Reader, CheckpointId)> {
        let (place, which) = match self {
            Self::Run(place, which) => (place, which.as_ref().unwrap_or(&Which::Latest)),
            Self::File(path) => {
                return Err(Place::new(path).is_a_file());
            }
        };
        let reader = place.reader()?;
        let id = match which {
            Which::Latest => reader.ids()?.last().copied(),
            Which::Before(count) => reader.ids()?.iter().rev().nth(*count).copied(),
            Which::Step(step) => Some(reader.find(*step)?),
            Which::Id(id) => reader.ids()?.into_iter().find(|there| there == id),
            Which::Best(metric, mode) => {
                let best = reader.best(metric, *mode)?;
                best.and_then(|best| Path::new(best.name()).file_stem()?.to_str()?.parse().ok())
            }
        };
        match id {
            Some(id) => Ok((place.clone(), reader, id)),
            None => Err(none_of(place, &reader, which)),
        }
    }
}

/// Whether a folder has files of torch's distributed checkpoints, also without their `.metadata`.
fn is_of_dcp(folder: &Path) -> bool {
    let is_part = |path: &Path| path.extension().is_some_and(|extension| extension == "distcp");
    std::fs::read_dir(folder).is_ok_and(|entries| entries.flatten().any(|entry| is_part(&entry.path())))
}

/// A file of another format is told as one, with the way to a checkpoint.
fn told_if_foreign(path: &Path, error: Error) -> Error {
    match Foreign::sniff(path) {
        Ok(Some(format)) if error.kind() == ErrorKind::Foreign => {
            let (name, shown) = (format.as_str(), path.display().to_string());
            Error::new(ErrorKind::Foreign, "is not a tensorkeep checkpoint")
                .in_object(&shown)
                .found(format!("a file of another format (.{name})"))
                .help(format!("`tensorkeep import {shown} -o {shown}.tkeep` makes a checkpoint of it"))
        }
        _ => error,
    }
}

/// What stands before the last `@` of a path, which need be no text, and the selector behind it,
/// which is.
fn split_at_sign(path: &OsStr) -> Option<(&Path, &str)> {
    let bytes = path.as_bytes();
    let at = bytes.iter().rposition(|&byte| byte == b'@')?;
    Some((Path::new(OsStr::from_bytes(&bytes[..at])), std::str::from_utf8(&bytes[at + 1..]).ok()?))
}

fn open_in(run: &Place, reader: &Reader, which: Option<&Which>) -> Result<Checkpoint> {
    let which = which.unwrap_or(&Which::Latest);
    let found = match which {
        Which::Latest => reader.latest()?,
        Which::Before(count) => match reader.ids()?.iter().rev().nth(*count) {
            Some(id) => return reader.checkpoint_by_id(*id),
            None => None,
        },
        Which::Step(step) => return reader.checkpoint(*step),
        Which::Id(id) => return reader.checkpoint_by_id(*id),
        Which::Best(metric, mode) => reader.best(metric, *mode)?,
    };
    found.ok_or_else(|| none_of(run, reader, which))
}

fn none_of(run: &Place, reader: &Reader, which: &Which) -> Error {
    if let Err(error) = run.check_exists(reader) {
        return error;
    }
    let what = match which {
        Which::Best(metric, _) => format!("no checkpoint of this run has the metric {metric:?}"),
        Which::Id(id) => format!("no checkpoint {id}"),
        Which::Before(count) => format!("the run has no {} checkpoints", count + 1),
        _ => "the run has no checkpoints".to_owned(),
    };
    Error::new(ErrorKind::NotFound, what).in_object(run).help("list it with `tensorkeep ls`")
}

impl Which {
    fn parse(text: &str) -> Result<Self> {
        if text == "latest" {
            return Ok(Self::Latest);
        }
        let back = match text.strip_prefix("latest~") {
            Some(count) => count.parse().ok(),
            // As in an index from the end: -1 is the newest.
            None => text.strip_prefix('-').and_then(|n| n.parse::<usize>().ok()?.checked_sub(1)),
        };
        if let Some(count) = back {
            return Ok(Self::Before(count));
        }
        if let Some(best) = text.strip_prefix("best:") {
            let (metric, mode) = best.rsplit_once(':').unwrap_or((best, ""));
            match mode {
                "min" => return Ok(Self::Best(metric.to_owned(), Mode::Min)),
                "max" => return Ok(Self::Best(metric.to_owned(), Mode::Max)),
                _ => {}
            }
        } else if let Ok(id) = text.parse() {
            return Ok(Self::Id(id));
        } else if let Ok(step) = text.parse() {
            return Ok(Self::Step(step));
        }
        Err(Error::new(ErrorKind::Invalid, format!("{text:?} selects no checkpoint"))
            .expected("a step, latest, latest~1, -2, ATTEMPT-STEP or best:METRIC:min|max"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_selectors_and_objects_of_their_own() {
        let id = CheckpointId { attempt: 3, step: 1200 };
        for (url, run, which) in [
            ("s3://bucket/run", "s3://bucket/run", None),
            ("s3://bucket/run@latest", "s3://bucket/run", Some(Which::Latest)),
            ("gs://bucket/run@1200", "gs://bucket/run", Some(Which::Step(1200))),
            ("s3://bucket/run/0003-0000001200.tkeep", "s3://bucket/run", Some(Which::Id(id))),
            (
                "abfs://box@account.dfs.core.windows.net/run",
                "abfs://box@account.dfs.core.windows.net/run",
                None,
            ),
        ] {
            match Target::parse(url).unwrap() {
                Target::Run(place, found) => assert_eq!((place, found), (Place::new(run), which), "{url}"),
                file => panic!("{url}: {file:?}"),
            }
        }
        assert_eq!(Target::parse("s3://bucket/run@newest").unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn selectors_are_told_apart() {
        assert_eq!(Which::parse("latest").unwrap(), Which::Latest);
        assert_eq!(Which::parse("1200").unwrap(), Which::Step(1200));
        assert_eq!(
            Which::parse("0003-0000001200").unwrap(),
            Which::Id(CheckpointId { attempt: 3, step: 1200 })
        );
        assert_eq!(Which::parse("best:val:loss:min").unwrap(), Which::Best("val:loss".to_owned(), Mode::Min));
        assert_eq!(Which::parse("latest~1").unwrap(), Which::Before(1));
        assert_eq!(Which::parse("-2").unwrap(), Which::Before(1));
        for wrong in
            ["", "newest", "best", "best:loss", "best:loss:least", "-0", "latest~", "latest~x", "3-1200"]
        {
            assert_eq!(Which::parse(wrong).unwrap_err().kind(), ErrorKind::Invalid, "{wrong:?}");
        }
    }
}
