//! The verbs, one file each.

pub mod ls;
pub mod show;
pub mod verify;
