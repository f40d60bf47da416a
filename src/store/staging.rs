//! Copies a snapshot's tensors, on two threads, into memory that is reused from save to save. A
//! fresh allocation costs several times as much as a copy into warm memory: the kernel first clears
//! every page.

use crate::buffer::{ALIGN, Buffer};
use crate::error::{Error, Result};
use crate::snapshot::{Drawn, IntoTensorSource, Snapshot};
use crate::sync::lock;
use crate::tensor::{SharedBytes, Tensor, part_of};
use std::sync::{Arc, Mutex};
use tensorkeep_memcpy::Copier;

/// From this many bytes on, a second thread helps: one core cannot saturate memory bandwidth.
const TWO_THREADS_FROM: usize = 8 << 20;

/// The free buffers.
#[derive(Debug, Default)]
pub(super) struct Staging(Arc<Mutex<Vec<Buffer>>>);

/// A buffer in use; freed when its last tensor is dropped.
struct Staged {
    buffer: Option<Buffer>,
    free: Arc<Mutex<Vec<Buffer>>>,
}

impl Drop for Staged {
    fn drop(&mut self) {
        lock(&self.free).extend(self.buffer.take());
    }
}

impl AsRef<[u8]> for Staged {
    fn as_ref(&self) -> &[u8] {
        self.buffer.as_deref().unwrap_or_default()
    }
}

impl Staging {
    /// Copies a snapshot into one that borrows nothing. Lazy tensors are drawn now, aliases are
    /// copied once, and volatile tensors are copied straight into their place.
    pub(super) fn copy(&self, snapshot: &Snapshot<'_>) -> Result<Snapshot<'static>> {
        let sources: Vec<_> = snapshot.distinct().collect();
        let drawn = sources
            .iter()
            .map(|(name, source)| source.draw().map_err(|error| error.in_tensor(*name)))
            .collect::<Result<Vec<_>>>()?;
        let total = sources.iter().map(|(_, source)| source.byte_len().next_multiple_of(ALIGN)).sum();
        let mut buffer = self.take(total)?;
        let mut parts = Vec::with_capacity(sources.len());
        let mut rest = &mut buffer[..total];
        for ((name, source), drawn) in sources.iter().zip(&drawn) {
            let len = source.byte_len();
            let (to, later) = std::mem::take(&mut rest).split_at_mut(len.next_multiple_of(ALIGN));
            parts.push(Part { name, to: &mut to[..len], drawn, offset: 0 });
            rest = later;
        }
        copy_all(parts, total)?;
        let staged: SharedBytes = Arc::new(Staged { buffer: Some(buffer), free: Arc::clone(&self.0) });
        let mut start = 0;
        let sources = sources.into_iter().map(|(name, source)| {
            let range = start..start + source.byte_len();
            start += source.byte_len().next_multiple_of(ALIGN);
            let copied = Tensor::shared(source.dtype(), source.shape(), part_of(&staged, range))?;
            Ok((name.to_owned(), copied.into_source()?))
        });
        let sources: Vec<_> = sources.collect::<Result<_>>()?;
        snapshot.with_tensors(sources)
    }

    /// The smallest free buffer that is large enough, or a new one.
    fn take(&self, len: usize) -> Result<Buffer> {
        let mut free = lock(&self.0);
        let fitting = (0..free.len()).filter(|&i| free[i].len() >= len).min_by_key(|&i| free[i].len());
        match fitting {
            Some(i) => Ok(free.swap_remove(i)),
            None => {
                // A buffer that is too small now will be too small next time: models do not shrink.
                free.pop();
                Buffer::zeroed(len)
            }
        }
    }
}

/// Part of a tensor's bytes, and its destination.
struct Part<'p> {
    name: &'p str,
    to: &'p mut [u8],
    drawn: &'p Drawn<'p, 'p>,
    offset: usize,
}

impl<'p> Part<'p> {
    fn split_at(self, len: usize) -> (Self, Self) {
        let Self { name, to, drawn, offset } = self;
        let (a, b) = to.split_at_mut(len);
        (Self { name, to: a, drawn, offset }, Self { name, to: b, drawn, offset: offset + len })
    }

    fn copy(self, copier: Copier) -> Result<()> {
        match self.drawn {
            _ if self.to.is_empty() => return Ok(()),
            Drawn::Volatile(fill) => fill(self.offset, self.to),
            Drawn::Tensor(tensor) => match tensor.bytes().get(self.offset..self.offset + self.to.len()) {
                Some(from) => {
                    copier.copy(from, self.to);
                    Ok(())
                }
                None => Err(Error::invalid("a shared tensor's bytes became fewer")),
            },
        }
        .map_err(|error| error.in_tensor(self.name))
    }
}

fn copy_all(parts: Vec<Part<'_>>, total: usize) -> Result<()> {
    let copier = Copier::for_total(total as u64);
    if total < TWO_THREADS_FROM {
        return parts.into_iter().try_for_each(|part| part.copy(copier));
    }
    // Halves by bytes: a tensor across the middle is split in two, between elements.
    let (mut first, mut second, mut copied) = (Vec::new(), Vec::new(), 0);
    for part in parts {
        let len = part.to.len();
        let here = ((total / 2).saturating_sub(copied) / ALIGN * ALIGN).min(len);
        copied += len.next_multiple_of(ALIGN);
        let (here, later) = part.split_at(here);
        first.push(here);
        second.push(later);
    }
    let copy_parts = |parts: &mut Vec<Part<'_>>| parts.drain(..).try_for_each(|part| part.copy(copier));
    let (first, helped) = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("tensorkeep-stage".to_owned());
        let helper = thread.spawn_scoped(scope, || copy_parts(&mut second));
        let first = copy_parts(&mut first);
        // A panic in the caller's own tensor source propagates to the caller.
        let helped =
            helper.map(|helper| helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        (first, helped.ok())
    });
    // If no thread can be had, this only takes longer.
    first.and(helped.unwrap_or_else(|| copy_parts(&mut second)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::writer::WriteOptions;

    #[test]
    fn a_staged_snapshot_is_the_same_and_its_memory_is_used_again() {
        let large: Vec<f32> = (0..3_000_000).map(|i| i as f32).collect();
        let small = [1_u8, 2, 3];
        let mut snapshot =
            Snapshot::new().tensor("large", &large).unwrap().tensor("small", &small[..]).unwrap();
        snapshot = snapshot.tensor("tied", &large).unwrap().alias("named", "small").unwrap();
        snapshot = snapshot.record("seed", &7).unwrap().metric("loss", 0.5).unwrap();
        let staging = Staging::default();
        let expected = snapshot.to_bytes(&WriteOptions::new()).unwrap();
        let mut address = None;
        for _ in 0..3 {
            let staged = staging.copy(&snapshot).unwrap();
            let bytes = staged.to_bytes(&WriteOptions::new()).unwrap();
            assert!(bytes.len() <= expected.len() + 200, "aliases were lost: {} bytes", bytes.len());
            let read = crate::checkpoint::Checkpoint::from_bytes(&bytes).unwrap();
            assert_eq!(read.tensor("tied").unwrap().elements::<f32>().unwrap(), &large[..]);
            assert_eq!(read.tensor("named").unwrap().bytes(), small);
            assert_eq!(read.metrics().unwrap()["loss"], 0.5);
            drop(staged);
            let now = staging.0.lock().unwrap()[0].as_ptr();
            assert_eq!(*address.get_or_insert(now), now, "memory was allocated again");
        }
    }
}
