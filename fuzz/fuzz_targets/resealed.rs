//! Lies with valid checksums: the input is a program that edits a container, whose checksums are then made again.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/common/edits.rs"]
mod edits;
#[path = "../../tests/common/reseal.rs"]
mod reseal;

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static SEEDS: LazyLock<Vec<reseal::Pieces>> = LazyLock::new(edits::seeds);

fuzz_target!(|input: &[u8]| {
    let [which, program @ ..] = input else { return };
    let bytes = edits::edited(&SEEDS[usize::from(*which) % SEEDS.len()], program);
    for mapped in [false, true] {
        edits::read_everything(&bytes, mapped);
    }
});
