//! Exports and imports of damaged or unreadable entries: listed, and never published unchecked.

use crate::{files, losses, safetensors, saved};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use tensorkeep::convert::{self, Foreign, Format};
use tensorkeep::engine::Blob;
use tensorkeep::{Checkpoint, Error, ErrorKind, OpenOptions, Result, Snapshot, WriteOptions};
use test_support::TempFolder;
use test_support::build::{Container, Stored};

#[test]
fn a_damaged_source_replaces_nothing() {
    let folder = TempFolder::new("export");
    let values = vec![1.0_f32; 40_000];
    let snapshot = Snapshot::new().tensor("a", &values).unwrap().tensor("b", &values[1..]).unwrap();
    let source = saved(&folder, &snapshot);
    let offset = source.info("b").unwrap().offset as usize;
    let mut bytes = std::fs::read(source.name()).unwrap();
    bytes[offset] ^= 1;
    std::fs::write(folder.path().join("damaged.tkeep"), bytes).unwrap();
    let damaged = Checkpoint::open(folder.path().join("damaged.tkeep")).unwrap();
    for format in [Format::Safetensors, Format::Npz] {
        let path = folder.path().join(format!("out.{format}"));
        std::fs::write(&path, b"mine").unwrap();
        let error = convert::export(&damaged, &path, format).unwrap_err();
        assert_eq!((error.kind(), error.tensor()), (ErrorKind::Damaged, Some("b")));
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    }
    assert_eq!(files(&folder).len(), 4, "something was left: {:?}", files(&folder));
}

#[test]
fn a_byte_that_is_no_truth_value_is_not_written_as_one() {
    let folder = TempFolder::new("export");
    let header = r#"{"flags":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]}}"#;
    let foreign = Foreign::open(safetensors(&folder, header, &[0, 1, 2])).unwrap();
    let error = convert::export(&foreign, &folder.path().join("out.npz"), Format::Npz).unwrap_err();
    assert_eq!((error.kind(), error.tensor()), (ErrorKind::Damaged, Some("flags")));
    assert!(error.to_string().contains("element 2"), "{error}");
}

#[test]
fn unreadable_entries_are_left_out_and_listed() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/valid");
    let folder = TempFolder::new("export");
    let path = folder.path().join("out.safetensors");
    for name in ["unknown-codec", "unknown-filter", "unknown-dtype"] {
        let checkpoint = Checkpoint::open(corpus.join(format!("{name}.tkeep"))).unwrap();
        let export = convert::export(&checkpoint, &path, Format::Safetensors).unwrap();
        let lost = losses(&export.notes).len();
        assert!(
            lost > 0 && export.tensors + lost >= checkpoint.names().count(),
            "{name}: {:?}",
            export.notes
        );
        assert_eq!(Foreign::open(&path).unwrap().tensors().len(), export.tensors);
    }
}

#[test]
fn a_record_that_cannot_be_read_does_not_end_an_export() {
    let folder = TempFolder::new("export");
    let path = folder.path().join("out.safetensors");
    let mut container = Container::new();
    container.tensor("a", "f32", &[2], &[1.0_f32.to_le_bytes(), 2.0_f32.to_le_bytes()].concat());
    std::mem::swap(&mut container.tensors, &mut container.records);
    let strange = Stored { codec: 77, filter: 0, bytes: vec![1; 15] };
    container.unreadable("r", 255, &[16], 16, &[strange]);
    std::mem::swap(&mut container.tensors, &mut container.records);
    let file = folder.path().join("made.tkeep");
    std::fs::write(&file, container.finish()).unwrap();
    let checkpoint = Checkpoint::open(&file).unwrap();
    assert_eq!(checkpoint.inspect().record_value("r").unwrap_err().kind(), ErrorKind::Unsupported);
    let export = convert::export(&checkpoint, &path, Format::Safetensors).unwrap();
    assert_eq!((export.tensors, losses(&export.notes)), (1, vec!["r"]));
    assert_eq!(Foreign::open(&path).unwrap().tensor("a").unwrap().elements::<f32>().unwrap(), [1.0, 2.0]);
}

/// Bytes of a tensor that can be read a limited number of times, and then fail.
#[derive(Debug)]
struct Failing {
    bytes: Vec<u8>,
    at: u64,
    reads: AtomicU32,
}

impl Blob for Failing {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let is_tensor = offset <= self.at && self.at < offset + buffer.len() as u64;
        if is_tensor && self.reads.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_err() {
            return Err(Error::new(ErrorKind::Io, "a bad sector"));
        }
        buffer.copy_from_slice(&self.bytes[offset as usize..][..buffer.len()]);
        Ok(())
    }
}

#[test]
fn a_repacked_file_has_no_name_before_it_was_compared() {
    let folder = TempFolder::new("export");
    let values: Vec<f32> = (0..200_000).map(|at| at as f32).collect();
    let snapshot =
        Snapshot::new().tensor("a", &values).unwrap().record("r", &7).unwrap().alias("b", "a").unwrap();
    let source = saved(&folder, &snapshot);
    let at = source.info("a").unwrap().offset;
    let bytes = std::fs::read(source.name()).unwrap();
    let path = folder.path().join("out.tkeep");
    std::fs::write(&path, b"mine").unwrap();
    let options = WriteOptions::new().codec(tensorkeep::Codec::Balanced);
    // The first read is for writing, the second for comparing.
    for (reads, succeeds) in [(0, false), (1, false), (2, true)] {
        let blob = Failing { bytes: bytes.clone(), at, reads: AtomicU32::new(reads) };
        let opened = OpenOptions::new().open_blob(Arc::new(blob), "failing").unwrap();
        let outcome = convert::repack(&opened, &path, &options);
        assert_eq!(outcome.is_ok(), succeeds, "{reads} reads: {outcome:?}");
        if !succeeds {
            assert_eq!(std::fs::read(&path).unwrap(), b"mine", "{reads} reads");
        }
        assert_eq!(files(&folder), ["out.tkeep", "source.tkeep"], "{reads} reads");
    }
    let again = Checkpoint::open(&path).unwrap();
    assert_eq!(again.tensor("b").unwrap().elements::<f32>().unwrap(), values);
    assert_eq!((again.info("b").unwrap().alias_of, again.record::<i32>("r").unwrap()), (Some("a"), 7));
}

#[test]
fn a_byte_that_is_no_truth_value_is_not_imported_as_one() {
    let folder = TempFolder::new("export");
    let out = folder.path().join("out.tkeep");
    let header = r#"{"ok":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]},"m":{"dtype":"BOOL","shape":[3],"data_offsets":[2,5]}}"#;
    let import = |data: &[u8]| {
        let foreign = Foreign::open(safetensors(&folder, header, data)).unwrap();
        convert::import(&foreign, &out, &WriteOptions::new())
    };
    let error = import(&[0, 1, 1, 0, 2]).unwrap_err();
    assert_eq!((error.kind(), error.tensor()), (ErrorKind::Damaged, Some("m")), "{error}");
    let text = error.to_string();
    assert!(text.contains("by-hand.safetensors") && text.contains("element 2"), "{text}");
    assert!(text.contains("expected 0 or 1, found 2"), "{text}");
    assert_eq!(files(&folder), ["by-hand.safetensors"]);
    import(&[0, 1, 1, 0, 1]).unwrap();
    assert_eq!(Checkpoint::open(&out).unwrap().tensor("m").unwrap().bytes(), [1, 0, 1]);
}
