//! Disks for tests: one in memory that records every call and can lose power between any two, one
//! whose calls fail, and protocols that are wrong on purpose.

pub(crate) mod failing;
pub(crate) mod power_cut;
mod power_cut_files;
pub(crate) mod simulated;
pub(crate) mod wrong;
