//! A rank that hears another message than was sent.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| test_support::targets::messages(input));
