//! Helpers that tensorkeep's integration tests and fuzz targets share: folders and small stores,
//! containers in memory, containers that lie, and the fuzz targets themselves.
#![expect(missing_docs, reason = "tests read names; what a name does not say is documented")]
#![expect(clippy::new_without_default, reason = "tests write `new`")]

pub mod build;
pub mod counting;
pub mod edits;
pub mod ranks;
pub mod reseal;
pub mod targets;

mod folder;
mod gated;
mod in_memory;
mod linear;
mod store;
mod zoo;

pub use folder::{TempFolder, leftovers};
pub use gated::Gated;
pub use in_memory::{InMemory, open, open_with};
pub use linear::{Linear, LinearConfig};
pub use store::{
    ends_in_time, flip_byte_on_disk, flip_on_disk, get, put, save, save_elements, snapshot, steps, steps_in,
};
pub use zoo::{CODECS, Zoo, wave};
