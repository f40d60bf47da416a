//! A disk whose blocks are ours: what a drive was told, write by write, and what it may have kept
//! of it. Owns: the device, and two ways to be a bad one, by losing power and by failing a write.

pub mod device;
pub mod eio;
mod image;
pub mod replay;
