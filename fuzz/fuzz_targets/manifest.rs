//! An edited manifest, or an edited shard of one, read as a checkpoint.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| test_support::targets::manifest(input));
