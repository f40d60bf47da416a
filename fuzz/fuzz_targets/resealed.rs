//! Lies with valid checksums: the input is a program that edits a container.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| test_support::targets::resealed(input));
