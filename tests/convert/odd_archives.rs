//! Archives of torch's that only a strict reader would refuse are read, and those of which two
//! readers would read different values are refused or told.

use super::{open, torch_folder};
use crate::pickles::*;
use std::path::PathBuf;
use tensorkeep::convert::Foreign;
use tensorkeep::{ErrorKind, Value};
use test_support::TempFolder;
use zip::CompressionMethod::{Deflated, Stored};

#[test]
fn an_empty_view_may_begin_beyond_its_storage() {
    // torch.zeros(4, 0)[3], a view with strides, and one whose offset overflows in bytes.
    let view = |offset: i32, shape: &[i32], strides: &[i32]| {
        Strided { class: "FloatStorage", key: "1", offset, shape, strides }.pickle()
    };
    let object = named(&[
        ("w", vector("FloatStorage", "0", 2)),
        ("row", view(3, &[0], &[1])),
        ("far", view(i32::MAX, &[2, 0, 3], &[i32::MAX, 1, i32::MAX])),
    ]);
    let storages: [(&str, &[u8]); 2] = [("0", &f32s(&[1.0, 2.0])), ("1", &[])];
    let folder = TempFolder::new("convert-torch");
    for how in [Stored, Deflated] {
        let path = torch(&folder.path().join("x.pt"), &object, &storages, how);
        let foreign = Foreign::open(&path).unwrap();
        assert_eq!(foreign.tensor("w").unwrap().elements::<f32>().unwrap(), [1.0, 2.0]);
        let far = foreign.tensor("far").unwrap();
        assert_eq!((far.shape(), far.bytes().len()), (&[2, 0, 3][..], 0));
        assert_eq!(foreign.tensor("row").unwrap().shape(), [0]);
        assert!(foreign.notes().iter().all(|note| !note.loss), "{:?}", foreign.notes());
    }
    let full = view(3, &[1], &[1]);
    let path = torch(&folder.path().join("x.pt"), &named(&[("e", full)]), &storages, Stored);
    assert_eq!(Foreign::open(path).unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn large_integers_are_the_same_in_every_protocol() {
    let records = |name: &str| {
        let foreign = Foreign::open(torch_folder().join("cases").join(name)).unwrap();
        assert!(foreign.notes().is_empty(), "{name}: {:?}", foreign.notes());
        foreign.records().clone()
    };
    let expected = records("17-integer-2.pt");
    let Value::Map(rng) = &expected["rng"] else { panic!("{expected:?}") };
    assert_eq!(rng["int"], Value::Text(format!("0x1{}", "0".repeat(50))));
    for name in ["17-integer-0.pt", "17-integer-1.pt"] {
        assert_eq!(records(name), expected, "{name}");
    }
    // Equal keys of a dict are one key, whatever wrote them.
    let decimal = [b"L", &(1_i128 << 100).to_string().into_bytes()[..], b"L\n"].concat();
    let binary = long(&[&[0; 12][..], &[16]].concat());
    let opened = open(&named(&[("d", dict(&[(decimal, text("a")), (binary, text("b"))]))]), &[]);
    let Value::Map(pairs) = &opened.foreign.records()["d"] else { panic!("{:?}", opened.foreign) };
    assert_eq!(pairs.len(), 1);
}

/// An archive with members that its writer would refuse: names are written with `?` for one letter,
/// which is replaced afterwards.
fn archive(folder: &TempFolder, members: &[(&str, &[u8])], letter: u8) -> PathBuf {
    use std::io::Write as _;
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(Stored);
    for (name, bytes) in members {
        archive.start_file(*name, options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    let mut bytes = archive.finish().unwrap().into_inner();
    for byte in &mut bytes {
        *byte = if *byte == b'?' { letter } else { *byte };
    }
    let path = folder.path().join("made.pt");
    std::fs::write(&path, bytes).unwrap();
    path
}

fn model(value: &str) -> Pickle {
    [b"\x80\x02", &named(&[("a", vector("FloatStorage", "0", 1)), ("v", text(value))])[..], b"."].concat()
}

#[test]
fn a_member_that_stands_twice_is_refused_by_name() {
    let folder = TempFolder::new("convert-torch");
    let (pickle, one, two) = (model("x"), f32s(&[1.0]), f32s(&[2.0]));
    for (first, second) in [("x/data/0", "x/data/?"), ("x/data.pkl", "x/data.pk?")] {
        let letter = if first.ends_with('l') { b'l' } else { b'0' };
        let other: &[u8] = if letter == b'l' { &pickle } else { &two };
        let mut members: Vec<(&str, &[u8])> = vec![("x/data.pkl", &pickle), ("x/data/0", &one)];
        assert!(Foreign::open(archive(&folder, &members, letter)).is_ok());
        members.push((second, other));
        let error = Foreign::open(archive(&folder, &members, letter)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        assert!(error.to_string().contains(&format!("{first:?} stands twice")), "{error}");
    }
}

#[test]
fn a_second_pickle_in_an_archive_is_told_as_a_loss() {
    let folder = TempFolder::new("convert-torch");
    let (first, second, bytes) = (model("first"), model("second"), f32s(&[1.0]));
    let members: [(&str, &[u8]); 4] =
        [("x/data.pkl", &first), ("x/data/0", &bytes), ("y/data.pkl", &second), ("y/data/0", &bytes)];
    let foreign = Foreign::open(archive(&folder, &members, b'?')).unwrap();
    assert_eq!(foreign.records()["v"], Value::Text("first".to_owned()));
    let losses: Vec<_> = foreign.notes().iter().filter(|note| note.loss).collect();
    assert!(losses.len() == 1 && losses[0].name == "y/data.pkl", "{:?}", foreign.notes());
}
