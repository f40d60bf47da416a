//! Any bytes as a foreign file of any format: opening it returns tensors or an error.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| test_support::targets::foreign(input));
