//! Where a run is: a folder, or a URL of an object store. Only this file tells them apart and makes
//! engines for both; all others take an engine.

use crate::output;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;
use tensorkeep::engine::{Engine, Local};
use tensorkeep::{Error, ErrorKind, OpenOptions, Reader, Result, Verify};
#[cfg(feature = "object-store")]
use tensorkeep_object_store::ObjectStoreEngine;

/// A run's folder or URL, as the user wrote it: a folder's name need be no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(OsString);

impl Place {
    pub fn new(text: impl Into<OsString>) -> Self {
        Self(text.into())
    }

    /// Whether it is over the network.
    pub fn is_url(&self) -> bool {
        self.url().is_some_and(|url| !url.starts_with("file://"))
    }

    fn url(&self) -> Option<&str> {
        self.0.to_str().filter(|text| text.contains("://"))
    }

    /// The folder, where it is one: a path, or a URL of one.
    pub fn folder(&self) -> Option<&Path> {
        match self.url() {
            None => Some(Path::new(&self.0)),
            Some(url) => url.strip_prefix("file://").map(Path::new),
        }
    }

    /// Whether it is written as a folder is, with a slash at its end.
    pub fn ends_in_slash(&self) -> bool {
        self.0.as_encoded_bytes().last() == Some(&b'/')
    }

    /// The run that is there.
    ///
    /// # Errors
    /// `NotFound` for a folder that does not exist; `Invalid` for a file; `Invalid` and
    /// `Unsupported` for a URL of no store.
    pub fn open(&self) -> Result<Arc<dyn Engine>> {
        match self.folder() {
            Some(file) if file.is_file() => Err(self.is_a_file()),
            Some(folder) => Ok(Arc::new(Local::open(folder)?)),
            None => over_the_network(self.url().unwrap_or_default()),
        }
    }

    /// The run that is there or will be.
    ///
    /// # Errors
    /// As [`Local::create`], and as [`Place::open`].
    pub fn create(&self) -> Result<Arc<dyn Engine>> {
        match self.folder() {
            Some(folder) => Ok(Arc::new(Local::create(folder)?)),
            None => over_the_network(self.url().unwrap_or_default()),
        }
    }

    /// Its checkpoints.
    ///
    /// # Errors
    /// As [`Place::open`].
    pub fn reader(&self) -> Result<Reader> {
        self.reader_with(OpenOptions::new())
    }

    /// As [`Place::reader`], each checkpoint opened with these options.
    ///
    /// # Errors
    /// As [`Place::open`].
    pub fn reader_with(&self, options: OpenOptions) -> Result<Reader> {
        Ok(Reader::new(self.open()?).options(options))
    }

    /// Says `NotFound` where there is nothing of a run: no checkpoint, no attempt to write one,
    /// nothing set aside.
    ///
    /// # Errors
    /// That, and whatever listing says.
    pub fn check_exists(&self, reader: &Reader) -> Result<()> {
        if is_run(reader)? {
            return Ok(());
        }
        let Some(folder) = self.folder() else {
            let error = Error::new(ErrorKind::NotFound, "there is no such run").in_object(self);
            return Err(error.help(
                "nothing is stored under this URL: look at the name of the bucket and what follows it",
            ));
        };
        let error = Error::new(ErrorKind::NotFound, "is no run: it has no checkpoints, and none was begun");
        let error = match runs_in(folder).as_slice() {
            [] => error,
            runs => {
                let names: Vec<String> = runs.iter().take(5).map(|(name, _)| name.clone()).collect();
                let more = if runs.len() > 5 { ", …" } else { "" };
                error.help(format!(
                    "it holds {}: {}{more}; `tensorkeep ls {self}` lists them",
                    output::count(runs.len(), "run"),
                    names.join(", ")
                ))
            }
        };
        Err(error.in_object(self))
    }

    /// The error of a verb that needs a run.
    pub fn is_a_file(&self) -> Error {
        let error = Error::new(ErrorKind::Invalid, "is a file, not a run").in_object(self);
        error.help(format!("look into it with `tensorkeep show {self}`"))
    }

    /// As a target of copies, which are read back whole where that costs no network.
    pub fn reader_of_copies(&self, engine: Arc<dyn Engine>) -> Reader {
        let verify = if self.is_url() { Verify::OnTouch } else { Verify::AtOpen };
        Reader::new(engine).options(OpenOptions::new().verify(verify))
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.to_string_lossy().trim_end_matches('/'))
    }
}

impl AsRef<OsStr> for Place {
    fn as_ref(&self) -> &OsStr {
        &self.0
    }
}

fn is_run(reader: &Reader) -> Result<bool> {
    Ok(!reader.ids()?.is_empty() || !reader.attempts()?.is_empty() || !reader.set_aside()?.is_empty())
}

/// The runs that are folders in this one, by name, whatever cannot be looked at left out.
pub fn runs_in(folder: &Path) -> Vec<(String, Reader)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
    let reader = |path: &Path| Some(Reader::new(Arc::new(Local::open(path).ok()?) as Arc<dyn Engine>));
    let runs = folders.filter_map(|path| {
        let reader = reader(&path).filter(|reader| is_run(reader).unwrap_or(false))?;
        Some((path.file_name()?.to_string_lossy().into_owned(), reader))
    });
    let mut runs: Vec<_> = runs.collect();
    runs.sort_by(|(a, _), (b, _)| crate::names::natural(a, b));
    runs
}

#[cfg(feature = "object-store")]
fn over_the_network(url: &str) -> Result<Arc<dyn Engine>> {
    Ok(Arc::new(object_store(url)?))
}

/// The engine at a URL.
///
/// # Errors
/// `Invalid` and `Unsupported` for a URL of no store.
#[cfg(feature = "object-store")]
pub fn object_store(url: &str) -> Result<ObjectStoreEngine> {
    if url.starts_with("memory://") {
        return Err(Error::new(ErrorKind::Invalid, "memory ends with this process")
            .in_object(url)
            .help("there is nothing in it to look at: name a folder or a URL of a store"));
    }
    Ok(ObjectStoreEngine::from_url(url)?.with_deadline(PATIENCE))
}

/// Somebody looks at the terminal.
#[cfg(feature = "object-store")]
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

#[cfg(not(feature = "object-store"))]
fn over_the_network(url: &str) -> Result<Arc<dyn Engine>> {
    Err(Error::new(ErrorKind::Unsupported, "this build knows folders only")
        .in_object(url)
        .help("build tensorkeep-cli with the feature object-store"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_urls_are_told_apart() {
        for (text, folder) in [
            ("runs/lenet", Some("runs/lenet")),
            ("file:///data/runs/lenet", Some("/data/runs/lenet")),
            ("s3://bucket/runs/lenet", None),
        ] {
            let place = Place::new(text);
            assert_eq!((place.folder(), place.is_url()), (folder.map(Path::new), folder.is_none()), "{text}");
        }
    }
}
