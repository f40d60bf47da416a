//! A folder that is held by its descriptor, and not by its path: writes, deletions and locks stay
//! in it when the process changes its directory, when the folder is moved, and when it is removed
//! and another one gets its path. Also creates folders durably.
//!
//! The given path may be a link to a place with more space; it is followed once, at opening. A
//! folder in the folder that is a link is read, but refused for all writes, because its target
//! belongs to others, perhaps to another run, and a lock here is no lock there.

use crate::engine::vfs::{HERE, Kind, Stat, Vfs};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::lock;
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// A held folder. Paths are relative to it.
#[derive(Debug)]
pub(super) struct Folder {
    pub vfs: Arc<dyn Vfs>,
    /// The path by which it was opened, for people.
    pub root: PathBuf,
    /// Folders in it that were made durable and are not links.
    durable: Mutex<HashSet<PathBuf>>,
}

impl Folder {
    /// Creates a folder, and those above it, durably: fsyncs each folder that holds the name of the
    /// next.
    pub(super) fn create(root: &Path, vfs: &dyn Vfs) -> Result<Self> {
        let exists =
            |path: &Path| path.as_os_str().is_empty() || vfs.stat(path).is_ok_and(|stat| stat.is_folder());
        let mut missing: Vec<&Path> = root.ancestors().take_while(|path| !exists(path)).collect();
        let deepest = root.ancestors().nth(missing.len()).unwrap_or(root);
        missing.reverse();
        // The deepest existing folder may have been made by a process that had no fsync, or was
        // killed before it. The folder above may be closed to us; then its owner made this one, and
        // its durability is theirs.
        if deepest.file_name().is_some() {
            match vfs.sync_dir(parent(deepest)) {
                Err(error) if !is_not_ours(&error) => return Err(sync_failed(error, parent(deepest))),
                _ => {}
            }
        }
        for path in missing {
            make(vfs, path, path, vfs.stat(path))?;
            vfs.sync_dir(parent(path)).map_err(|error| sync_failed(error, parent(path)))?;
        }
        Self::open(root, vfs)
    }

    /// Opens a folder that exists.
    pub(super) fn open(root: &Path, vfs: &dyn Vfs) -> Result<Self> {
        let path = if root.as_os_str().is_empty() { Path::new(HERE) } else { root };
        match vfs.hold(path) {
            Ok(vfs) => Ok(Self { root: root.to_owned(), ..Self::of(vfs) }),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(not_a_folder(root)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Error::io("there is no such folder", error).in_object(path.display()))
            }
            Err(error) => Err(Error::io("opening the folder", error).in_object(path.display())),
        }
    }

    /// The folder where `vfs` is.
    pub(super) fn of(vfs: Arc<dyn Vfs>) -> Self {
        Self { vfs, root: PathBuf::new(), durable: Mutex::default() }
    }

    /// A path in it, for people.
    pub(super) fn name(&self, path: &Path) -> String {
        let path = if path == Path::new(HERE) { self.root.clone() } else { self.root.join(path) };
        if path.as_os_str().is_empty() { HERE.to_owned() } else { path.display().to_string() }
    }

    /// The error of a call at `path`.
    pub(super) fn error(&self, what: impl Into<String>, path: &Path, error: io::Error) -> Error {
        if error.kind() == io::ErrorKind::NotFound && self.vfs.is_removed() {
            return self.removed();
        }
        Error::io(what.into(), error).in_object(self.name(path))
    }

    /// The error of a folder that is gone.
    pub(super) fn removed(&self) -> Error {
        Error::new(ErrorKind::NotFound, "the run's folder was removed while it was open")
            .in_object(self.name(Path::new(HERE)))
            .help("nothing can be saved there any more; start again in a folder that exists")
    }

    pub(super) fn sync_parent(&self, path: &Path) -> Result<()> {
        let folder = parent(path);
        self.vfs.sync_dir(folder).map_err(|error| self.error("fsync of the folder", folder, error))
    }

    /// Makes the folder of `path` durably, with those above it, and checks that none of them is a
    /// link.
    pub(super) fn ensure_parent(&self, path: &Path) -> Result<()> {
        self.each_above(path, |folder, stat| {
            let made = make(&*self.vfs, folder, Path::new(&self.name(folder)), stat);
            made.map_err(|error| match error.kind() {
                ErrorKind::NotFound if self.vfs.is_removed() => self.removed(),
                _ => error,
            })?;
            // An existing folder may have been made by a process that was killed before its fsync.
            self.sync_parent(folder)
        })?;
        self.durable().insert(parent(path).to_owned());
        Ok(())
    }

    /// Checks that no folder above `path` is a link. A missing one is no error: then nothing is at
    /// `path`.
    pub(super) fn check_parent(&self, path: &Path) -> Result<()> {
        self.each_above(path, |folder, stat| match stat {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.error("looking at the folder", folder, error))
            }
            Ok(Stat { kind: Kind::Link, .. }) => Err(is_a_link(Path::new(&self.name(folder)))),
            _ => Ok(()),
        })
    }

    /// The folders above `path`, the highest first; none when they are known to be durable.
    fn each_above(
        &self,
        path: &Path,
        mut each: impl FnMut(&Path, io::Result<Stat>) -> Result<()>,
    ) -> Result<()> {
        if parent(path) == Path::new(HERE) || self.durable().contains(parent(path)) {
            return Ok(());
        }
        let above: Vec<&Path> =
            path.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).collect();
        above.into_iter().rev().try_for_each(|folder| each(folder, self.vfs.lstat(folder)))
    }

    fn durable(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        lock(&self.durable)
    }

    /// How a listing sees a name: a link counts as its target, and a dangling one as a file. None
    /// when the name is gone, an error when it exists but cannot be examined.
    pub(super) fn look(&self, path: &Path) -> io::Result<Option<Stat>> {
        let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        match self.vfs.stat(path) {
            Err(error) if is_gone(&error) => match self.vfs.lstat(path) {
                Ok(link) => Ok(Some(Stat { kind: Kind::File, len: 0, ..link })),
                Err(error) if is_gone(&error) => Ok(None),
                Err(error) => Err(error),
            },
            stat => stat.map(Some),
        }
    }
}

/// Makes one folder, unless it is there.
fn make(vfs: &dyn Vfs, path: &Path, name: &Path, stat: io::Result<Stat>) -> Result<()> {
    match stat {
        Ok(Stat { kind: Kind::Folder, .. }) => return Ok(()),
        Ok(Stat { kind: Kind::Link, .. }) => return Err(is_a_link(name)),
        Ok(_) => return Err(not_a_folder(name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {}
        Err(error) => return Err(Error::io("looking at the folder", error).in_object(name.display())),
    }
    match vfs.create_dir(path) {
        // Another process was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match vfs.stat(path) {
            Ok(stat) if stat.is_folder() => Ok(()),
            Ok(_) => Err(not_a_folder(name)),
            Err(_) => Err(Error::io("creating the folder", error).in_object(name.display())),
        },
        created => created.map_err(|error| Error::io("creating the folder", error).in_object(name.display())),
    }
}

/// The folder that holds `path`.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new(HERE),
    }
}

/// For a folder above the run's: not readable, or of a file system without such an fsync.
fn is_not_ours(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, NotFound, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem | InvalidInput | Unsupported | NotFound)
}

fn sync_failed(error: io::Error, folder: &Path) -> Error {
    Error::io("fsync of the folder", error).in_object(folder.display())
}

fn not_a_folder(path: &Path) -> Error {
    Error::invalid("is a file where a folder is needed").in_object(path.display())
}

fn is_a_link(path: &Path) -> Error {
    Error::invalid("is a link where a folder of the run's own is needed")
        .in_object(path.display())
        .help("replace it by the folder it leads to; the run's folder itself may be a link")
}
