//! Any bytes as a foreign file of any format: opening them gives tensors or an error.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/common/edits.rs"]
mod edits;
#[path = "../../tests/common/reseal.rs"]
mod reseal;
#[path = "../../tests/common/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|input: &[u8]| targets::foreign(input));
