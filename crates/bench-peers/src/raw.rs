//! The machine's own limits: the same bytes without names, checksums or format, by each method that
//! the kernel offers, as systems of their own. A format cannot exceed them.

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

/// The extension of the file that all of them share: the values as in memory.
const EXTENSION: &str = "raw";
/// Bytes of one call, where a method writes or reads in pieces.
const PIECE: usize = 8 << 20;
/// O_DIRECT requires offsets, lengths and addresses that are multiples of this.
const PAGE: usize = 4096;
