//! The machine's own limits: the same bytes without names, checksums or format, by each way that
//! the kernel offers. Owns: the list of ways, as systems of their own. What nobody here can do, no
//! format can.

mod copy;
mod read;
mod write;

use crate::system::System;

/// All of them.
pub fn all() -> Vec<Box<dyn System>> {
    let writes = write::Way::ALL.map(|way| Box::new(way) as Box<dyn System>);
    let reads = read::Way::ALL.map(|way| Box::new(way) as Box<dyn System>);
    let copies = copy::Way::ALL.map(|way| Box::new(way) as Box<dyn System>);
    writes.into_iter().chain(reads).chain(copies).collect()
}

/// The extension of the file that all of them share: the values as they lie in memory.
const EXTENSION: &str = "raw";
/// Bytes of one call, where a way writes or reads in pieces.
const PIECE: usize = 8 << 20;
/// What O_DIRECT wants offsets, lengths and addresses to be multiples of.
const PAGE: usize = 4096;
