//! A part is never taken for the whole: archives and other bytes behind an archive, members that
//! nothing reads, arrays beside a pickle.

use super::torch_folder;
use crate::pickles::*;
use std::io::Write as _;
use tensorkeep::convert::{Foreign, Format};
use tensorkeep::{Error, ErrorKind, Value};
use test_support::TempFolder;
use zip::CompressionMethod::Stored;

/// A torch archive of one tensor with this value.
fn one(folder: &TempFolder, value: f32) -> Vec<u8> {
    let path = folder.path().join("one.pt");
    torch(&path, &named(&[("w", vector("FloatStorage", "0", 1))]), &[("0", &f32s(&[value]))], Stored);
    std::fs::read(&path).unwrap()
}

/// The same archive with the longer records before its last one that torch writes. What looks for
/// the directory right before the last record does not find it there, and may find another's.
fn with_long_records(archive: &[u8]) -> Vec<u8> {
    let (archive, last) = archive.split_at(archive.len() - 22);
    let count = u64::from(u16::from_le_bytes([last[10], last[11]]));
    let number = |at: usize| u64::from(u32::from_le_bytes(*last[at..].first_chunk().unwrap()));
    let (len, start) = (number(12), number(16));
    let numbers =
        |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>();
    [
        archive,
        b"PK\x06\x06",
        &numbers(&[44]),
        &[45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &numbers(&[count, count, len, start]),
        b"PK\x06\x07\0\0\0\0",
        &numbers(&[archive.len() as u64]),
        &[1, 0, 0, 0],
        last,
    ]
    .concat()
}

fn opened(folder: &TempFolder, bytes: &[u8]) -> Result<Foreign, Error> {
    let path = folder.path().join("made.pt");
    std::fs::write(&path, bytes).unwrap();
    Foreign::open(path)
}

fn losses(foreign: &Foreign) -> Vec<String> {
    let losses = foreign.notes().iter().filter(|note| note.loss);
    losses.map(|note| format!("{}: {}", note.name, note.what)).collect()
}

#[test]
fn archives_of_one_length_are_refused_like_others() {
    let folder = TempFolder::new("convert-whole");
    let [a, b] = [1.0, 2.0].map(|value| with_long_records(&one(&folder, value)));
    assert_eq!(opened(&folder, &a).unwrap().tensors().len(), 1);
    let short = one(&folder, 3.0);
    for bytes in [[&*a, &b].concat(), [&*a, &b, &a].concat(), [&*a, &short].concat(), [&*short, &a].concat()]
    {
        let error = opened(&folder, &bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Foreign, "{error}");
        assert!(error.to_string().contains("several zip archives"), "{error}");
    }
}

#[test]
fn an_archive_whose_directory_begins_later_is_refused() {
    // The second archive's places are from the first byte of the file on, as of one that was
    // appended: only what stands before its first member tells.
    let folder = TempFolder::new("convert-whole");
    let (first, second) = (one(&folder, 1.0), one(&folder, 2.0));
    let moved = u32::try_from(first.len()).unwrap();
    let mut second = second;
    let add = |bytes: &mut [u8], at: usize| {
        let before = u32::from_le_bytes(*bytes[at..].first_chunk().unwrap());
        bytes[at..at + 4].copy_from_slice(&(before + moved).to_le_bytes());
    };
    let entries: Vec<usize> =
        (0..second.len() - 4).filter(|&at| second[at..].starts_with(b"PK\x01\x02")).collect();
    entries.into_iter().for_each(|at| add(&mut second, at + 42));
    let last = second.len() - 22;
    add(&mut second, last + 16);
    let error = opened(&folder, &[first, second].concat()).unwrap_err();
    assert!(error.to_string().contains("several zip archives"), "{error}");
}

#[test]
fn other_bytes_behind_a_file_of_torch_are_told() {
    let folder = TempFolder::new("convert-whole");
    let archive = one(&folder, 1.0);
    let legacy = std::fs::read(torch_folder().join("../legacy.pt")).unwrap();
    for (bytes, lost) in [
        ([&*archive, &legacy].concat(), legacy.len()),
        ([&*archive, &[0; 10]].concat(), 0),
        ([&*legacy, &archive].concat(), archive.len()),
        ([&*legacy, &legacy].concat(), legacy.len()),
        (legacy.clone(), 0),
    ] {
        let foreign = opened(&folder, &bytes).unwrap();
        assert_eq!(foreign.tensors().len(), 1, "the first is read, as by torch");
        let expected = if lost > 0 { vec![format!("{lost} bytes behind")] } else { vec![] };
        let losses = losses(&foreign);
        assert_eq!(losses.len(), expected.len(), "{losses:?}");
        assert!(losses.iter().zip(&expected).all(|(loss, what)| loss.contains(what)), "{losses:?}");
    }
}

/// A zip archive of these members.
fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let options = zip::write::SimpleFileOptions::default().compression_method(Stored);
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in members {
        if let Some(folder) = name.strip_suffix('/') {
            archive.add_directory(folder, options).unwrap();
            continue;
        }
        archive.start_file(*name, options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

fn pickled(object: &[u8]) -> Vec<u8> {
    [b"\x80\x02", object, b"."].concat()
}

#[test]
fn the_pickle_is_that_of_the_first_members_folder() {
    let folder = TempFolder::new("convert-whole");
    let (right, other) = (pickled(&named(&[("x", int(1))])), pickled(&named(&[("x", int(2))])));
    for members in [
        &[("t/extra/data.pkl", &*other), ("t/data.pkl", &*right), ("t/version", b"3")][..],
        &[("t/version", b"3"), ("a/data.pkl", &other), ("t/data.pkl", &right)],
    ] {
        let foreign = opened(&folder, &archive(members)).unwrap();
        assert_eq!(foreign.records()["x"], Value::Int(1));
        assert_eq!(losses(&foreign).len(), 1, "{:?}", foreign.notes());
    }
    let members = [("t/data.pkl", &*right), ("t/notes.txt", b"mine"), ("t/.data/serialization_id", b"1")];
    let foreign = opened(&folder, &archive(&members)).unwrap();
    assert_eq!(losses(&foreign), ["t/notes.txt: dropped: no part of what torch saves"]);
}

#[test]
fn arrays_beside_a_pickle_are_read() {
    let folder = TempFolder::new("convert-whole");
    let tensor = tensorkeep::Tensor::from_elements(&[2], &[1.0_f32; 2]).unwrap();
    let (array, _) = tensorkeep::convert::npy_bytes(&tensor).unwrap();
    let pickle = pickled(&named(&[("x", int(1))]));
    let members = [("a.npy", &*array), ("meta/data.pkl", &*pickle)];
    let foreign = opened(&folder, &archive(&members)).unwrap();
    assert_eq!((foreign.format(), foreign.tensors().len()), (Format::Npz, 1));
    assert_eq!(losses(&foreign), ["meta/data.pkl: dropped: not an array"]);
    // A folder is nothing that could be lost.
    let foreign = opened(&folder, &archive(&[("d/", b""), ("d/a.npy", &array)])).unwrap();
    assert_eq!((foreign.tensors().len(), losses(&foreign)), (1, vec![]));
}
