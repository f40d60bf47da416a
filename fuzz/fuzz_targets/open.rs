//! Any bytes at all: opening them gives a checkpoint or an error.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for mapped in [false, true] {
        match common::open(bytes, mapped) {
            Ok(checkpoint) => drop(format!("{checkpoint:?}")),
            Err(error) => drop(format!("{error}{error:?}")),
        }
    }
});
