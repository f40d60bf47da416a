//! Where a run is: a folder, or a URL of an object store. Owns: telling them apart, and engines for both. All other files
//! know engines only.

use std::path::Path;
use std::sync::Arc;
use tensorkeep::engine::{Engine, Local};
use tensorkeep::{Error, ErrorKind, OpenOptions, Reader, Result, Verify};
#[cfg(feature = "object-store")]
use tensorkeep_object_store::ObjectStoreEngine;

/// A run's folder or URL, as the user wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(String);

impl Place {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether it is over the network.
    pub fn is_url(&self) -> bool {
        self.0.contains("://") && self.folder().is_none()
    }

    /// The folder, where it is one: a path, or a URL of one.
    pub fn folder(&self) -> Option<&Path> {
        match self.0.split_once("://") {
            None => Some(Path::new(&self.0)),
            Some(("file", path)) => Some(Path::new(path)),
            Some(_) => None,
        }
    }

    /// The run that is there.
    ///
    /// # Errors
    /// `NotFound` for a folder that does not exist; `Invalid` for a file; `Invalid` and `Unsupported` for a URL of no store.
    pub fn open(&self) -> Result<Arc<dyn Engine>> {
        match self.folder() {
            Some(file) if file.is_file() => Err(self.is_a_file()),
            Some(folder) => Ok(Arc::new(Local::open(folder)?)),
            None => over_the_network(&self.0),
        }
    }

    /// The run that is there or will be.
    ///
    /// # Errors
    /// As [`Local::create`], and as [`Place::open`].
    pub fn create(&self) -> Result<Arc<dyn Engine>> {
        match self.folder() {
            Some(folder) => Ok(Arc::new(Local::create(folder)?)),
            None => over_the_network(&self.0),
        }
    }

    /// Its checkpoints.
    ///
    /// # Errors
    /// As [`Place::open`].
    pub fn reader(&self) -> Result<Reader> {
        self.open().map(Reader::new)
    }

    /// Says `NotFound` where a URL has nothing of a run: unlike a folder, a prefix with nothing under it does not exist.
    ///
    /// # Errors
    /// That, and whatever listing says.
    pub fn check_exists(&self, reader: &Reader) -> Result<()> {
        if !self.is_url() || !reader.names()?.is_empty() || !reader.attempts()?.is_empty() {
            return Ok(());
        }
        let error = Error::new(ErrorKind::NotFound, "there is no such run").in_object(self);
        Err(error
            .help("nothing is stored under this URL: look at the name of the bucket and what follows it"))
    }

    /// What is said where a run is needed.
    pub fn is_a_file(&self) -> Error {
        let error = Error::new(ErrorKind::Invalid, "is a file, not a run").in_object(self);
        error.help(format!("look into it with `tensorkeep show {self}`"))
    }

    /// As a target of copies, which are read back whole where that costs no network.
    pub fn reader_of_copies(&self, engine: Arc<dyn Engine>) -> Reader {
        let verify = if self.is_url() { Verify::OnTouch } else { Verify::AtOpen };
        Reader::with(engine, OpenOptions::new().verify(verify), None)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.trim_end_matches('/'))
    }
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
