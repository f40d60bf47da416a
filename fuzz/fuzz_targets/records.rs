//! Any bytes as a record.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| test_support::targets::records(input));
