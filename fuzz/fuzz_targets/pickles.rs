//! A pickle of opcodes in torch's archive: reading stays within its bounds and its budget.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| test_support::targets::pickles(input));
