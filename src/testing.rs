//! For authors of engines and collectives, and for tests of trainers: both contracts and the
//! store's promises as executable suites, a local engine whose calls fail on demand, a simulated
//! disk that loses power, a model check of the commit protocol, and random operations against a
//! model of the run. Behind the feature `testing`; a trainer's binary contains none of it.

pub mod collective_suite;
pub mod conformance;
pub mod crash;
pub(crate) mod disks;
pub mod operations;
pub mod protocol;
pub mod store_suite;

pub use crate::testing::disks::failing::{Call, Fault, Faults};

use crate::engine::Local;
use crate::error::Result;
use crate::testing::disks::failing::FailingVfs;
use std::path::Path;

/// [`Local::create`] on a real folder whose calls fail as `faults` specifies.
///
/// # Errors
/// As [`Local::create`], and the errors of `faults`.
pub fn failing_local(root: impl AsRef<Path>, faults: &Faults) -> Result<Local> {
    Local::create_on(root.as_ref(), &FailingVfs::new(faults))
}
