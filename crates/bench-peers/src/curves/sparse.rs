//! Opening a file of 100 GB of zeros that take no space on the disk: an engine that leaves holes in
//! place of zeros writes a checkpoint like any other, with all its checksums.

use super::{Point, map};
use crate::Outcome;
use crate::row::Row;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tensorkeep::engine::{Caps, CommitError, Decorator, Engine as _, Local, Nonce, Upload};
use tensorkeep::{
    Dtype, Error, ErrorKind, LazyTensor, Progress, Result, Snapshot, Store, StoreOptions, Tensor,
    tensor::SharedBytes,
};

/// Bytes of one tensor: small enough to stay in the processor's cache while it is checked and
/// skipped.
const TENSOR: usize = 8 << 20;

pub fn points(dir: &Path, quick: bool) -> Outcome<Vec<Row>> {
    let sizes: &[u64] = if quick { &[1 << 30] } else { &[1 << 30, 10 << 30, 100 << 30] };
    sizes.iter().map(|&bytes| point(&dir.join(format!("sparse-{bytes}")), bytes)).collect()
}

fn point(run: &Path, bytes: u64) -> Outcome<Row> {
    let zeros: SharedBytes = Arc::new(vec![0_u8; TENSOR]);
    let mut snapshot = Snapshot::new().progress(Progress::new(1));
    for i in 0..bytes / TENSOR as u64 {
        let zeros = Arc::clone(&zeros);
        // Lazy: the same memory under many names would be stored once.
        let produce = move || Tensor::shared(Dtype::U8, &[TENSOR], Arc::clone(&zeros));
        snapshot =
            snapshot.tensor(format!("zeros.{i:05}"), LazyTensor::new(Dtype::U8, &[TENSOR], produce))?;
    }
    let store = Store::open(Sparse(Local::create(run)?), StoreOptions::new())?;
    let name = store.save(&snapshot)?.id;
    let path = run.join(format!("{name}.tkeep"));
    let index = path.metadata()?.len() - bytes;
    let at = Point { curve: "sparse", x: bytes as f64, bytes: index, times: 11 };
    let row = at.measure("open", || map(&path))?;
    drop(store);
    std::fs::remove_dir_all(run)?;
    Ok(row)
}

/// A [`Local`] whose files have holes.
#[derive(Debug)]
struct Sparse(Local);

impl Decorator for Sparse {
    type Inner = Local;

    fn inner(&self) -> &Local {
        &self.0
    }

    fn create(&self, key: &str, _: Option<u64>) -> Result<Box<dyn Upload>> {
        let path = self.0.root().join(key);
        let create = || {
            std::fs::create_dir_all(path.parent().unwrap_or(&path))?;
            OpenOptions::new().write(true).create_new(true).open(&path)
        };
        let file = create().map_err(|error| failed(&error))?;
        Ok(Box::new(Holes { file, len: 0, path: Some(path) }))
    }

    fn caps(&self) -> Caps {
        let mut caps = self.0.caps();
        caps.durable = false;
        caps
    }
}

fn failed(error: &std::io::Error) -> Error {
    Error::new(ErrorKind::Io, error.to_string())
}

struct Holes {
    file: File,
    len: u64,
    /// Removed when this is dropped before it is committed.
    path: Option<PathBuf>,
}

impl Upload for Holes {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.iter().any(|&byte| byte != 0) {
            self.file.write_all_at(bytes, self.len).map_err(|error| failed(&error))?;
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn commit(mut self: Box<Self>, _: Nonce) -> Result<(), CommitError> {
        self.file.set_len(self.len).map_err(|error| CommitError::NotCommitted(failed(&error)))?;
        self.path = None;
        Ok(())
    }
}

impl Drop for Holes {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            let _ = std::fs::remove_file(path);
        }
    }
}
