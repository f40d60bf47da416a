//! Gives a finished file its name without replacing another: finds out by trying which call can.

use super::TEMP_PREFIX;
use crate::engine::fresh_nonce;
use crate::engine::vfs::{HERE, Vfs, VfsFile, write_all_at};
use crate::names::hex;
use std::io;
use std::path::{Path, PathBuf};

/// How a finished file gets its name without replacing another, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Publish {
    RenameNoReplace,
    /// `link` fails if the name exists; then the temporary name is removed.
    LinkUnlink,
    /// Neither works: look first, then rename. Safe only under the lock.
    RenameUnderLock,
}

impl Publish {
    /// Finds out how files are published in the held folder by doing it: write, fsync, publish,
    /// fsync of the folder, unlink.
    pub(super) fn probe(vfs: &dyn Vfs) -> io::Result<Self> {
        let nonce = hex(&fresh_nonce());
        let [from, to] = ["from", "to"].map(|end| PathBuf::from(format!("{TEMP_PREFIX}probe-{end}-{nonce}")));
        let file = vfs.create_new(&from)?;
        let published = Self::first_that_works(vfs, &*file, &from, &to);
        // Both names are tried, for either outcome: the one that does not exist need not be
        // removed.
        let [from_removed, to_removed] = [&from, &to].map(|path| vfs.unlink(path));
        let publish = published?;
        to_removed.or(from_removed)?;
        vfs.sync_dir(Path::new(HERE))?;
        Ok(publish)
    }

    fn first_that_works(vfs: &dyn Vfs, file: &dyn VfsFile, from: &Path, to: &Path) -> io::Result<Self> {
        write_all_at(file, 0, b"probe")?;
        file.sync()?;
        let mut refused = io::ErrorKind::Unsupported.into();
        for publish in [Self::RenameNoReplace, Self::LinkUnlink, Self::RenameUnderLock] {
            match publish.run(vfs, from, to) {
                Ok(()) => return Ok(publish),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// Gives `from` the name `to`, or fails with `AlreadyExists`.
    pub(super) fn run(self, vfs: &dyn Vfs, from: &Path, to: &Path) -> io::Result<()> {
        match self {
            Self::RenameNoReplace => vfs.rename_noreplace(from, to),
            Self::LinkUnlink => {
                vfs.link(from, to)?;
                // The file has its name; a second one that stays is swept later.
                let _ = vfs.unlink(from);
                Ok(())
            }
            Self::RenameUnderLock => match vfs.lstat(to) {
                Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
                Err(_) => vfs.rename(from, to),
            },
        }
    }
}
