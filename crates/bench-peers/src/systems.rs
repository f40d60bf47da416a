//! The measured systems, one file each. The trait is in `system.rs`.

mod burn;
mod safetensors;
mod tensorkeep;
#[cfg(test)]
mod tests;
mod ztensor;

use crate::system::System;
use crate::{Outcome, raw};

/// All systems in this process, ours first, the raw paths last.
pub fn all() -> Vec<Box<dyn System>> {
    let mut all = tensorkeep::all();
    all.push(Box::new(safetensors::Safetensors));
    all.extend(ztensor::all());
    all.push(Box::new(burn::BurnPack));
    all.extend(raw::all());
    all
}

/// # Errors
/// If there is no system of this name.
pub fn find(name: &str) -> Outcome<Box<dyn System>> {
    all().into_iter().find(|system| system.name() == name).ok_or(format!("no system {name:?}").into())
}
