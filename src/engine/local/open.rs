//! Opens and maps files, of a held folder or by their own path.

use super::blob::FileBlob;
use super::folder::Folder;
use crate::engine::vfs::{self, Kind, Os, Vfs};
use crate::engine::{Blob, MmapPromise, PrivateMap};
use crate::error::{Error, ErrorKind, Result};
use std::io;
use std::path::Path;
use std::sync::Arc;

impl Folder {
    pub(super) fn open_file(&self, path: &Path) -> Result<Arc<dyn Blob>> {
        let failed = |error: io::Error| {
            let leads_nowhere = error.kind() == io::ErrorKind::NotFound
                && self.vfs.lstat(path).is_ok_and(|stat| stat.kind == Kind::Link);
            let error = self.error(vfs::not_opened(&error), path, error);
            if leads_nowhere { self.leads_nowhere(path, error) } else { error }
        };
        let file = self.vfs.open(path).map_err(failed)?;
        let stat = file.stat().map_err(failed)?;
        let name = self.name(path);
        stat.check_is_file(&name)?;
        Ok(Arc::new(FileBlob::new(file, stat.len, name)))
    }

    /// Not `NotFound`: the object is listed, and the link's target can be fetched.
    fn leads_nowhere(&self, path: &Path, error: Error) -> Error {
        let target = self.vfs.read_link(path).unwrap_or_default();
        Error::new(ErrorKind::Io, "is a link that leads nowhere")
            .in_object(self.name(path))
            .found(format!("a link to {}", target.display()))
            .help("fetch what it leads to (git annex get, dvc checkout), or remove the link")
            .because(error)
    }

    pub(super) fn map_file(&self, path: &Path, promise: MmapPromise) -> Result<Arc<dyn Blob>> {
        if self.vfs.network(path).is_some() {
            return self.open_file(path);
        }
        self.vfs.map(path, &self.name(path), promise)
    }

    /// Paths as the process sees them, for files that are named by their path.
    fn anywhere() -> Self {
        Self::of(Arc::new(Os::default()))
    }
}

/// Opens one file for reading.
///
/// # Errors
/// `NotFound`, `Invalid` for a folder, `Io`.
pub(crate) fn open_file(path: &Path) -> Result<Arc<dyn Blob>> {
    Folder::anywhere().open_file(path)
}

/// Maps one file; on a network file system opens it for reading instead.
///
/// # Errors
/// As [`open_file`].
pub(crate) fn map_file(path: &Path, promise: MmapPromise) -> Result<Arc<dyn Blob>> {
    Folder::anywhere().map_file(path, promise)
}

/// Maps one file to read, and once more copy-on-write.
///
/// # Errors
/// As [`open_file`]; `Unsupported` on a network file system, where files are not mapped.
pub(crate) fn map_copy_of_file(path: &Path, promise: MmapPromise) -> Result<(Arc<dyn Blob>, PrivateMap)> {
    if let Some(network) = Os::default().network(path) {
        return Err(Error::new(ErrorKind::Unsupported, "files of a network file system are not mapped")
            .in_object(path.display())
            .found(network)
            .help("open it for reading, and load its tensors"));
    }
    vfs::map_twice(path, promise)
}
