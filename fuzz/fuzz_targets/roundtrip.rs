//! Any snapshot is either refused when it is made, or read back the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| test_support::targets::roundtrip(input));
