//! A disk whose blocks are under our control: every write the drive received, and the part of them
//! that it may have kept. It can be a bad one in two ways, by losing power and by failing a write.

pub mod device;
pub mod eio;
mod image;
pub mod replay;
