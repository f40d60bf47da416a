//! Counts the bytes that this process reads, over all files and engines, for the progress of long
//! work.

use std::sync::atomic::{AtomicU64, Ordering};

static READ: AtomicU64 = AtomicU64::new(0);

/// Bytes that this process has read so far, through engines and from files by path. Mapped bytes
/// do not count. The difference of two calls, while only one piece of work goes on, is how far it
/// has come.
///
/// ```
/// # use tensorkeep::{Checkpoint, Snapshot, engine};
/// # let path = std::env::temp_dir().join(format!("counted-{}.tkeep", std::process::id()));
/// # Snapshot::new().tensor("w", &[1.0_f32; 1024][..])?.save(&path)?;
/// let before = engine::bytes_read();
/// let checkpoint = Checkpoint::open(&path)?;
/// checkpoint.verify()?;
/// assert!(engine::bytes_read() - before >= checkpoint.inspect().byte_len());
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), tensorkeep::Error>(())
/// ```
pub fn bytes_read() -> u64 {
    READ.load(Ordering::Relaxed)
}

/// Adds to [`bytes_read`]: for engines, once for each read that they answered.
pub fn count_read(bytes: usize) {
    READ.fetch_add(bytes as u64, Ordering::Relaxed);
}
