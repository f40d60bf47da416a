//! How a finished file gets its name without replacing another: by which call, found out by trying.
//! Knows nothing of keys, and syncs nothing but what it tries.

use super::{TEMP_PREFIX, hex};
use crate::engine::fresh_nonce;
use crate::engine::vfs::{HERE, Vfs, write_all_at};
use std::io;
use std::path::{Path, PathBuf};

/// How a finished file gets its name without replacing another, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Publish {
    RenameNoReplace,
    /// `link` fails where the name exists; then the temporary name goes.
    LinkUnlink,
    /// Neither is to be had: looked up first, then renamed. Safe under the lock only.
    RenameUnderLock,
}

impl Publish {
    /// Finds out how files are published in the folder that is held by doing it: write, fsync,
    /// publish, fsync of the folder, unlink.
    pub(super) fn probe(vfs: &dyn Vfs) -> io::Result<Self> {
        let nonce = hex(fresh_nonce());
        let [from, to] = ["from", "to"].map(|end| PathBuf::from(format!("{TEMP_PREFIX}probe-{end}-{nonce}")));
        let file = vfs.create_new(&from)?;
        let published = (|| {
            write_all_at(&*file, 0, b"probe")?;
            file.sync()?;
            let mut refused = None;
            for publish in [Self::RenameNoReplace, Self::LinkUnlink, Self::RenameUnderLock] {
                match publish.run(vfs, &from, &to) {
                    Ok(()) => return Ok(publish),
                    Err(error) => refused = Some(error),
                }
            }
            Err(refused.unwrap_or_else(|| io::ErrorKind::Unsupported.into()))
        })();
        // The two names are tried for both outcomes: what is not there any more need not be
        // removed.
        let removed = [&from, &to].map(|path| vfs.unlink(path));
        let publish = published?;
        if removed.iter().all(Result::is_err) {
            removed.into_iter().next().unwrap_or(Ok(()))?;
        }
        vfs.sync_dir(Path::new(HERE))?;
        Ok(publish)
    }

    /// Gives `from` the name `to`, or fails with `AlreadyExists`.
    pub(super) fn run(self, vfs: &dyn Vfs, from: &Path, to: &Path) -> io::Result<()> {
        match self {
            Self::RenameNoReplace => vfs.rename_noreplace(from, to),
            Self::LinkUnlink => {
                vfs.link(from, to)?;
                // It has its name; a second one that stays is swept later.
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
