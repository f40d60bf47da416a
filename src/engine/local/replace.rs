//! Writes one file at a plain path, replacing an existing one whole.

use super::Folder;
use super::upload::TempFile;
#[cfg(feature = "convert")]
use crate::engine::Blob;
use crate::engine::vfs::{Kind, Os, Vfs};
use crate::engine::{CommitError, Nonce, Upload};
use crate::error::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Writes one file at a plain path, replacing an existing one, atomically and durably: temporary
/// file, fsync, rename, fsync of the folder. `write` runs again, once, when the first file's fsync
/// failed.
///
/// A link is followed, as editors do: its target is replaced, or created if missing, and the link
/// stays. The folder is held while the file is written: changes to its path meanwhile redirect
/// nothing.
///
/// # Errors
/// Errors of `write`; `Invalid` for a folder, a device, a pipe, a socket, and links in a circle;
/// `NoSpace`, `Io`: `path` is unchanged. `Unknown` when the new file is there but may not be
/// durable.
pub fn replace_file(
    path: &Path,
    size_hint: Option<u64>,
    write: impl FnMut(&mut dyn Upload) -> Result<()>,
) -> Result<()> {
    replace_on(&Os::default(), path, size_hint, write)
}

pub(super) fn replace_on(
    vfs: &dyn Vfs,
    path: &Path,
    size_hint: Option<u64>,
    mut write: impl FnMut(&mut dyn Upload) -> Result<()>,
) -> Result<()> {
    Staged::write_on(vfs, path, size_hint, &mut write)?.publish()
}

/// A file that is written and durable, but not named yet: its content can be checked before it
/// replaces anything. Dropped, it is removed.
pub(crate) struct Staged {
    temp: TempFile,
    folder: Arc<Folder>,
    leaf: PathBuf,
}

impl Staged {
    /// Writes it, as [`replace_file`] does.
    ///
    /// # Errors
    /// As [`replace_file`], except `Unknown`.
    pub(crate) fn write(
        path: &Path,
        size_hint: Option<u64>,
        mut write: impl FnMut(&mut dyn Upload) -> Result<()>,
    ) -> Result<Self> {
        Self::write_on(&Os::default(), path, size_hint, &mut write)
    }

    fn write_on(
        vfs: &dyn Vfs,
        path: &Path,
        size_hint: Option<u64>,
        write: &mut dyn FnMut(&mut dyn Upload) -> Result<()>,
    ) -> Result<Self> {
        let target = to_replace(vfs, path)?;
        let Some(leaf) = target.file_name().map(PathBuf::from) else {
            return Err(Error::invalid("is no name for a file").in_object(path.display()));
        };
        let above = target.parent().unwrap_or(Path::new(""));
        let folder = Arc::new(Folder::open(above, vfs)?);
        let mut attempt = || -> Result<TempFile> {
            let mut replacement = Replacement(TempFile::create_again(Arc::clone(&folder), &leaf, size_hint)?);
            write(&mut replacement)?;
            replacement.0.complete()?;
            Ok(replacement.0)
        };
        let mut temp = attempt()?;
        match temp.sync("fsync") {
            Ok(()) => {}
            // Dropped, never synced again: the new file is written from memory.
            Err(error) if error.kind() == ErrorKind::Io => {
                temp = attempt()?;
                temp.sync("fsync of a second file, after the first one's failed")?;
            }
            Err(error) => return Err(error),
        }
        Ok(Self { temp, folder, leaf })
    }

    /// Its bytes, as later readers will see them.
    ///
    /// # Errors
    /// `Io`.
    #[cfg(feature = "convert")]
    pub(crate) fn open(&self) -> Result<Arc<dyn Blob>> {
        self.folder.open_file(&self.temp.path)
    }

    /// Gives it its name, replacing an existing file.
    ///
    /// # Errors
    /// As [`replace_file`].
    pub(crate) fn publish(mut self) -> Result<()> {
        let renamed = self.folder.vfs.rename(&self.temp.path, &self.leaf);
        renamed.map_err(|error| self.folder.error("publishing by rename", &self.leaf, error))?;
        self.temp.unfinished = None;
        self.temp.sync_name(&self.leaf).map_err(|error| error.with_kind(ErrorKind::Unknown))
    }
}

/// The limit that Linux has.
const MOST_LINKS: usize = 40;

/// The path to write for `path`: behind its links, and either a file or a free name.
fn to_replace(vfs: &dyn Vfs, path: &Path) -> Result<PathBuf> {
    let mut target = path.to_owned();
    for _ in 0..MOST_LINKS {
        let what = match vfs.lstat(&target).map(|stat| stat.kind) {
            Ok(Kind::Link) => {
                let failed = |error| Error::io("following the link", error).in_object(target.display());
                let next = vfs.read_link(&target).map_err(failed)?;
                target = target.parent().unwrap_or(Path::new("")).join(next);
                continue;
            }
            Ok(Kind::Folder) => "is a folder where a file is to be written",
            Ok(Kind::Other) => "is a device, a pipe or a socket where a file is to be written",
            // A path that cannot be examined cannot be replaced, either, and that error explains
            // why.
            Ok(Kind::File) | Err(_) => return Ok(target),
        };
        return Err(Error::invalid(what).in_object(target.display()).help("name a file"));
    }
    Err(Error::invalid("is a link in a circle").in_object(path.display()).help("name a file"))
}

struct Replacement(TempFile);

impl Upload for Replacement {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.append(bytes)
    }

    fn commit(self: Box<Self>, _: Nonce) -> Result<(), CommitError> {
        Err(CommitError::NotCommitted(Error::invalid("a plain file is published by `replace_file`")))
    }
}
