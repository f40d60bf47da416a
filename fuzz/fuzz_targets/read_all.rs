//! A damaged container with its original checksums: every readable entry is as written.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| test_support::targets::read_all(input));
