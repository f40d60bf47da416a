//! Any bytes as a run's history.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| test_support::targets::history(input));
