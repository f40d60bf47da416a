//! Any bytes as a record: the door of MessagePack lets a value in or refuses it, and what it lets in can be written
//! and read again.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/common/edits.rs"]
mod edits;
#[path = "../../tests/common/reseal.rs"]
mod reseal;

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use tensorkeep::{ErrorKind, Snapshot, WriteOptions};

static TEMPLATE: LazyLock<reseal::Pieces> = LazyLock::new(edits::record_template);

fuzz_target!(|record: &[u8]| {
    let bytes = reseal::with_record(&TEMPLATE, record);
    let value = match edits::read_record(&bytes, record.len().is_multiple_of(2)) {
        Ok(value) => value,
        Err(error) => return assert_eq!(error.kind(), ErrorKind::Damaged, "{error}"),
    };
    let mut snapshot = Snapshot::new();
    // A map whose keys differ in their bytes and not in their value (1 in one byte and in two) cannot be written again.
    if snapshot.record("r", &value).is_err() {
        return;
    }
    let again = common::open(&snapshot.to_bytes(&WriteOptions::new()).unwrap(), true).unwrap();
    // As text, because NaN is not equal to itself.
    assert_eq!(again.record_value("r").unwrap().to_string(), value.to_string());
});
