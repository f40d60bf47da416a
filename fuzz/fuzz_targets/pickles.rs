//! A pickle of opcodes in torch's archive: what is read of it is within its bounds and its budget.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/common/edits.rs"]
mod edits;
#[path = "../../tests/common/reseal.rs"]
mod reseal;
#[path = "../../tests/common/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|input: &[u8]| targets::pickles(input));
