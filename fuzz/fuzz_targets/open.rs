//! Any bytes: opening them returns a checkpoint or an error.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| test_support::targets::open(input));
