//! Tensors of a checkpoint in memory of this process's own, which frameworks may share and write:
//! a private copy-on-write mapping of the file, or one buffer that they were read into.

use crate::dlpack::{Keeper, Place};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use tensorkeep::engine::MmapPromise;
use tensorkeep::tensor::Buffer;
use tensorkeep::{Checkpoint, Dtype, Error, MappedCopy, OpenOptions, Result, TensorInfo};

/// Alignment of tensors in a buffer: what frameworks like to compute on.
const ALIGN: usize = 64;

/// A checkpoint, mapped, with the places of its tensors.
pub struct Mapped {
    copy: Arc<MappedCopy>,
    places: HashMap<String, Place>,
}

impl Mapped {
    /// Maps a file copy-on-write; every byte is verified unless the options say otherwise.
    ///
    /// # Errors
    /// As [`OpenOptions::map_copy`].
    pub fn open(path: &Path, options: OpenOptions) -> Result<Self> {
        let mut copy = options.map_copy(path, promise())?;
        let mut places = HashMap::new();
        for (name, mut tensor) in copy.tensors_mut() {
            let (dtype, shape) = (tensor.dtype(), tensor.shape().to_vec());
            // A copied tensor's bytes are always in one piece.
            let Some(bytes) = tensor.bytes_mut() else { continue };
            let place = Place { start: bytes.as_mut_ptr(), len: bytes.len(), dtype, shape };
            places.insert(name.to_owned(), place);
        }
        Ok(Self { copy: Arc::new(copy), places })
    }

    /// What the file says. Its tensors are read from the file's own mapping, which nobody writes.
    pub fn checkpoint(&self) -> &Checkpoint {
        self.copy.checkpoint()
    }

    /// A tensor's place, by its own name.
    pub fn place(&self, name: &str) -> Option<&Place> {
        self.places.get(name)
    }

    /// Keeps the mapping alive. Nothing looks at its tensors through it: they are Python's.
    pub fn keeper(&self) -> Keeper {
        Arc::clone(&self.copy) as Keeper
    }
}

/// Files that this library published are never written again; that nobody else writes to them, or
/// cuts them, is asked of the caller in the documentation of `load(mmap=)`.
#[expect(unsafe_code, reason = "a promise that only the user of a file can give")]
fn promise() -> MmapPromise {
    // SAFETY: handed on to the user: `tensorkeep.load` says what must not be done to a file that is
    // mapped, and `mmap=False` reads it. On network file systems nothing is mapped.
    unsafe { MmapPromise::assume_unchanged() }
}

/// Reads tensors into one buffer, each at a multiple of 64 bytes: pages of one large allocation
/// cost a third of what those of many do. The places are in the order of the names.
///
/// # Errors
/// As [`Checkpoint::load_into`]; `LimitExceeded` without memory; `Unsupported` for a dtype that
/// this version does not know.
pub fn read(checkpoint: &Checkpoint, names: &[&str]) -> Result<(Vec<Place>, Keeper)> {
    let infos: Vec<_> = names.iter().map(|name| checkpoint.info(name)).collect::<Result<_>>()?;
    let too_large =
        || Error::new(tensorkeep::ErrorKind::LimitExceeded, "tensors beyond this machine's memory");
    let mut lens = Vec::with_capacity(infos.len());
    let mut total = 0_usize;
    for info in &infos {
        let len = usize::try_from(info.byte_len).map_err(|_| too_large())?;
        total = total.checked_add(len.next_multiple_of(ALIGN)).ok_or_else(too_large)?;
        lens.push(len);
    }
    let mut buffer = Buffer::zeroed(total)?;
    let (mut places, mut targets) = (Vec::with_capacity(infos.len()), Vec::with_capacity(infos.len()));
    let mut rest = &mut buffer[..];
    for (info, len) in infos.iter().zip(lens) {
        let (room, later) = std::mem::take(&mut rest).split_at_mut(len.next_multiple_of(ALIGN));
        rest = later;
        let dtype = known_dtype(checkpoint, info)?;
        let target = &mut room[..len];
        // OK to cast: elements are in memory, or one of the axes is 0.
        let shape = info.shape.iter().map(|&axis| axis as usize).collect();
        places.push(Place { start: target.as_mut_ptr(), len, dtype, shape });
        targets.push((info.name, target));
    }
    checkpoint.load_into(targets)?;
    Ok((places, Arc::new(buffer)))
}

/// Some rows of a tensor, in memory of their own.
///
/// # Errors
/// As [`Checkpoint::slice`].
pub fn rows(checkpoint: &Checkpoint, name: &str, from: usize, to: usize) -> Result<(Place, Keeper)> {
    let tensor = checkpoint.slice(name, from..to)?;
    let mut buffer = Buffer::copy_of(tensor.bytes())?;
    let place = Place {
        start: buffer.as_mut_ptr(),
        len: buffer.len(),
        dtype: tensor.dtype(),
        shape: tensor.shape().to_vec(),
    };
    Ok((place, Arc::new(buffer)))
}

fn known_dtype(checkpoint: &Checkpoint, info: &TensorInfo<'_>) -> Result<Dtype> {
    info.dtype.map_err(|id| {
        Error::new(tensorkeep::ErrorKind::Unsupported, format!("dtype {id} of a newer version"))
            .in_tensor(info.name)
            .in_object(checkpoint.name())
    })
}
