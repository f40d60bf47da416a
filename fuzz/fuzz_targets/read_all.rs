//! A damaged container, its checksums as they were: whatever can still be read is what was written.
//!
//! The input is a list of overwrites (where, how much, with what) of a container that the target builds itself, so that
//! no corpus is needed to get past the magic.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use tensorkeep::{Codec, Snapshot, WriteOptions};

static CONTAINERS: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    let (elements, constant) = (common::wave(17_000), vec![0.25_f64; 9000]);
    let mut snapshot = Snapshot::new();
    snapshot.tensor("weight", &elements).unwrap().tensor("bias", &elements[..9]).unwrap();
    snapshot.tensor("constant", &constant).unwrap().tie("tied", "bias").unwrap();
    snapshot.record("optimizer", &("adam", 0.001, vec![0.9, 0.999])).unwrap().metric("loss", 0.5).unwrap();
    [Codec::Raw, Codec::Balanced]
        .map(|codec| snapshot.to_bytes(&WriteOptions::new().codec(codec).chunk_log2(16).workers(1)).unwrap())
});

fuzz_target!(|overwrites: (bool, bool, Vec<(u32, u16, u8)>)| {
    let (compressed, mapped, overwrites) = overwrites;
    let whole = &CONTAINERS[usize::from(compressed)];
    let mut damaged = whole.clone();
    for (start, len, value) in overwrites {
        // From the end: footer, mirror and index are there.
        let end = whole.len() - start as usize % whole.len();
        let start = end.saturating_sub(1 + usize::from(len));
        damaged[start..end].fill(value);
    }
    let original = common::open(whole, true).unwrap();
    let Ok(checkpoint) = common::open(&damaged, mapped) else { return };
    assert!(checkpoint.names().eq(original.names()));
    for name in original.names() {
        if let Ok(tensor) = checkpoint.tensor(name) {
            let expected = original.tensor(name).unwrap();
            assert_eq!((tensor.dtype(), tensor.shape()), (expected.dtype(), expected.shape()));
            assert!(tensor.bytes() == expected.bytes(), "{name} is wrong");
        }
    }
    for name in original.records() {
        if let Ok(value) = checkpoint.record_value(name) {
            assert_eq!(value, original.record_value(name).unwrap());
        }
    }
    assert_eq!(checkpoint.verify().is_ok(), &damaged == whole);
});
