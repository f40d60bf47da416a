//! The calls of `vfs.rs` on a simulated disk.

use super::{DataOp, EntryOp, Ino, Node, Op, SimulatedVfs};
use crate::engine::vfs::{Holder, Stat, Vfs, VfsFile};
use crate::engine::{Blob, Lock, MmapPromise};
use crate::error::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl SimulatedVfs {
    fn file(&self, ino: Ino) -> Arc<dyn VfsFile> {
        Arc::new(SimulatedFile { disk: self.clone(), ino })
    }
}

impl Vfs for SimulatedVfs {
    fn hold(&self, folder: &Path) -> io::Result<Arc<dyn Vfs>> {
        let inner = self.inner();
        let at = inner.lookup(self.at, folder)?;
        inner.dir(at)?;
        Ok(Arc::new(Self { inner: Arc::clone(&self.inner), at }))
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let mut inner = self.inner();
        let place = inner.free_place(self.at, path)?;
        let ino = inner.add_node(place, Node::File(Arc::default()))?;
        Ok(self.file(ino))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let ino = self.inner().lookup(self.at, path)?;
        Ok(self.file(ino))
    }

    fn map(&self, _: &Path, name: &str, _: MmapPromise) -> Result<Arc<dyn Blob>> {
        Err(Error::new(ErrorKind::Unsupported, "the simulated disk does not map").in_object(name))
    }

    fn lstat(&self, path: &Path) -> io::Result<Stat> {
        self.stat(path)
    }

    fn read_link(&self, _: &Path) -> io::Result<PathBuf> {
        Err(io::ErrorKind::InvalidInput.into())
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        let inner = self.inner();
        Ok(inner.stat(inner.lookup(self.at, path)?))
    }

    fn rename_noreplace(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let (from_dir, from_name, ino) = inner.taken_place(self.at, from)?;
        let (to_dir, to_name) = inner.free_place(self.at, to)?;
        inner.change(EntryOp { remove: Some((from_dir, from_name)), add: Some((to_dir, to_name, ino)) })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let (from_dir, from_name, ino) = inner.taken_place(self.at, from)?;
        let (to_dir, to_name) = inner.place(self.at, to)?;
        inner.change(EntryOp { remove: Some((from_dir, from_name)), add: Some((to_dir, to_name, ino)) })
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let ino = inner.lookup(self.at, from)?;
        let (dir, name) = inner.free_place(self.at, to)?;
        inner.change(EntryOp { remove: None, add: Some((dir, name, ino)) })
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let (dir, name, _) = inner.taken_place(self.at, path)?;
        inner.change(EntryOp { remove: Some((dir, name)), add: None })
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let place = inner.free_place(self.at, path)?;
        inner.add_node(place, Node::Dir(BTreeMap::new())).map(drop)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let dir = inner.lookup(self.at, path)?;
        inner.dir(dir)?;
        // A disk that is gone reports success here.
        if !inner.is_shut_down() {
            inner.journal.push(Op::SyncDir(dir));
        }
        Ok(())
    }

    fn names(&self, path: &Path) -> io::Result<Vec<String>> {
        let inner = self.inner();
        let entries = inner.dir(inner.lookup(self.at, path)?)?;
        Ok(entries.keys().cloned().collect())
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Result<Box<dyn Lock>, Holder>> {
        let mut inner = self.inner();
        let ino = match inner.lookup(self.at, path) {
            Ok(ino) => ino,
            Err(_) => {
                let place = inner.free_place(self.at, path)?;
                inner.add_node(place, Node::File(Arc::default()))?
            }
        };
        if !inner.locked.insert(ino) {
            let Some(Node::File(words)) = inner.nodes.get(ino) else { return Ok(Err(Holder::default())) };
            return Ok(Err(Holder { words: String::from_utf8_lossy(words).into_owned(), age: None }));
        }
        let lock = SimulatedLock { disk: self.clone(), ino };
        let bytes = Arc::from(holder.as_bytes());
        let written = inner
            .change_data(ino, DataOp::SetLen(0))
            .and_then(|()| inner.change_data(ino, DataOp::Write { offset: 0, bytes }));
        drop(inner);
        written.map(|()| Ok(Box::new(lock) as Box<dyn Lock>))
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedVfs,
    ino: Ino,
}

impl VfsFile for SimulatedFile {
    fn stat(&self) -> io::Result<Stat> {
        Ok(self.disk.inner().stat(self.ino))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let inner = self.disk.inner();
        let Some(Node::File(bytes)) = inner.nodes.get(self.ino) else {
            return Err(io::ErrorKind::IsADirectory.into());
        };
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let count = buffer.len().min(bytes.len() - start);
        buffer[..count].copy_from_slice(&bytes[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.disk.inner().change_data(self.ino, DataOp::Write { offset, bytes: Arc::from(bytes) })?;
        Ok(bytes.len())
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        let mut inner = self.disk.inner();
        let wanted = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        if inner.stat(self.ino).len >= len {
            return Ok(());
        }
        inner.change_data(self.ino, DataOp::SetLen(wanted))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.disk.inner().change_data(self.ino, DataOp::SetLen(len))
    }

    fn set_read_only(&self) -> io::Result<()> {
        // A mode does not change the bytes: a power cut makes no difference.
        self.disk.inner().check_up()
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.inner().sync_file(self.ino)
    }
}

/// Freed by drop, as the kernel frees it when the process ends.
#[derive(Debug)]
struct SimulatedLock {
    disk: SimulatedVfs,
    ino: Ino,
}

impl Lock for SimulatedLock {}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        self.disk.inner().locked.remove(&self.ino);
    }
}
