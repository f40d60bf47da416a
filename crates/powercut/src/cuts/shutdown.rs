//! The ioctl that cuts the power of a mounted file system: the only unsafe block of this program.
#![expect(unsafe_code, reason = "an ioctl without a safe wrapper")]

use rustix::ioctl::{Setter, ioctl, opcode};
use std::fs::File;

/// `_IOR('X', 125, __u32)`: `FS_IOC_SHUTDOWN`, known to ext4 and XFS.
const SHUTDOWN: rustix::ioctl::Opcode = opcode::read::<u32>(b'X', 125);

/// The data that reaches the disk before the cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Everything, as if only the processes had been killed.
    All = 0,
    /// The journal of names and sizes, no data: the worst case for a rename without an fsync.
    Journal = 1,
    /// Nothing: a power cut.
    Nothing = 2,
}

/// Cuts the power of the file system that holds `folder`.
pub fn shut_down(folder: &File, flush: Flush) -> std::io::Result<()> {
    // SAFETY: the kernel reads one u32 behind the pointer, which `Setter` keeps alive during the
    // call, and writes nothing; the opcode is the kernel's own for this call.
    unsafe { ioctl(folder, Setter::<SHUTDOWN, u32>::new(flush as u32))? };
    Ok(())
}
