//! What torch does to a tensor when it loads it is done here, too: casts, bits, the byte order of
//! other machines; and archives without checksums are read.

use super::open;
use crate::pickles::*;
use std::path::PathBuf;
use tensorkeep::convert::{self, Foreign};
use tensorkeep::{Checkpoint, Dtype, ErrorKind, WriteOptions};
use test_support::TempFolder;
use zip::CompressionMethod::Stored;

fn cast(data: Pickle, dtype: &str) -> Pickle {
    let args = [data, global("torch", dtype), text("cpu"), FALSE.to_vec()];
    call("torch._utils", "_rebuild_device_tensor_from_cpu_tensor", &args)
}

#[test]
fn a_tensor_of_a_device_has_the_dtype_that_it_had_there() {
    let plain = vector("FloatStorage", "0", 2);
    let made = [cast(plain.clone(), "bfloat16"), b"q\x05".to_vec()].concat();
    let object = named(&[
        ("x", made),
        ("tied", b"h\x05".to_vec()),
        ("plain", plain.clone()),
        ("same", cast(plain.clone(), "float32")),
        ("after", cast(plain.clone(), "float16")),
        ("int", cast(plain, "int32")),
    ]);
    let opened = open(&object, &[("0", &f32s(&[1.5, 1.0 / 3.0]))]);
    let of = |name: &str| opened.foreign.tensors().iter().find(|tensor| tensor.name == name).unwrap().clone();
    let facts =
        ["x", "tied", "plain", "same", "after", "int"].map(|name| (of(name).dtype, of(name).alias_of));
    let alias = |name: &str| Some(name.to_owned());
    let f32 = Dtype::F32;
    let expected = [
        (Dtype::Bf16, None),
        (Dtype::Bf16, alias("x")),
        (f32, None),
        (f32, alias("plain")),
        (Dtype::F16, None),
        (f32, alias("plain")),
    ];
    assert_eq!(facts, expected);
    assert_eq!(opened.foreign.tensor("tied").unwrap().bytes(), [0xC0, 0x3F, 0xAB, 0x3E]);
    assert_eq!(opened.foreign.tensor("after").unwrap().bytes(), [0x00, 0x3E, 0x55, 0x35]);
    assert_eq!(opened.losses(), ["int"]);
    assert_eq!(opened.imported().tensor("x").unwrap().dtype(), Dtype::Bf16);
}

#[test]
fn a_bit_is_set_if_it_is_named_whatever_its_value() {
    let view = Strided { class: "FloatStorage", key: "0", offset: 0, shape: &[2], strides: &[1] };
    for value in [TRUE.to_vec(), int(1), int(0), NONE.to_vec()] {
        let object = named(&[("t", view.with(named(&[("neg", value)])))]);
        assert_eq!(open(&object, &[("0", &f32s(&[1.0, 2.0]))]).f32s("t"), [-1.0, -2.0]);
    }
}

/// A torch archive with this byte order, and the CRC-32 of its members in its directory.
fn archive(folder: &TempFolder, order: &str, object: &[u8], storages: &[(&str, &[u8])]) -> PathBuf {
    let path = torch(&folder.path().join("x.pt"), object, storages, Stored);
    let mut bytes = std::fs::read(&path).unwrap();
    if order != "little" {
        // "little" has two letters more, which this writer of archives would count.
        let options = zip::write::SimpleFileOptions::default().compression_method(Stored);
        let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let mut member = |name: &str, bytes: &[u8]| {
            archive.start_file(format!("a/{name}"), options).unwrap();
            std::io::Write::write_all(&mut archive, bytes).unwrap();
        };
        member("data.pkl", &[b"\x80\x02", object, b"."].concat());
        member("byteorder", order.as_bytes());
        storages.iter().for_each(|(key, bytes)| member(&format!("data/{key}"), bytes));
        bytes = archive.finish().unwrap().into_inner();
    }
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn a_file_of_a_big_endian_machine_is_read_as_by_torch() {
    let folder = TempFolder::new("convert-as-torch");
    let transposed = Strided { class: "ShortStorage", key: "1", offset: 0, shape: &[2, 2], strides: &[1, 2] };
    let other = Strided { class: "IntStorage", key: "1", offset: 0, shape: &[1], strides: &[1] };
    let object = named(&[
        ("f", vector("FloatStorage", "0", 2)),
        ("t", transposed.pickle()),
        ("c", vector("ComplexFloatStorage", "2", 1)),
        ("b", vector("ByteStorage", "3", 2)),
        ("other", other.pickle()),
    ]);
    let floats: Vec<u8> = [1.5_f32, -2.0].iter().flat_map(|value| value.to_be_bytes()).collect();
    let storages: [(&str, &[u8]); 4] =
        [("0", &floats), ("1", &[0, 1, 0, 2, 0, 3, 0, 4]), ("2", &floats), ("3", &[7, 8])];
    let foreign = Foreign::open(archive(&folder, "big", &object, &storages)).unwrap();
    let bytes = |name: &str| foreign.tensor(name).unwrap().bytes().to_vec();
    assert_eq!(bytes("f"), f32s(&[1.5, -2.0]));
    assert_eq!(bytes("c"), f32s(&[1.5, -2.0]));
    assert_eq!((bytes("t"), bytes("b")), (vec![1, 0, 3, 0, 2, 0, 4, 0], vec![7, 8]));
    let lost: Vec<&str> = foreign.notes().iter().filter(|note| note.loss).map(|note| &*note.name).collect();
    assert_eq!(lost, ["other"]);
    let error = Foreign::open(archive(&folder, "middle", &object, &storages)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

#[test]
fn an_archive_without_checksums_is_read_and_told() {
    let folder = TempFolder::new("convert-as-torch");
    let object = named(&[("w", vector("FloatStorage", "0", 2))]);
    let path = archive(&folder, "little", &object, &[("0", &f32s(&[1.0, 2.0]))]);
    let mut bytes = std::fs::read(&path).unwrap();
    let is_there = |bytes: &[u8], at: usize, signature: &[u8]| bytes[at..].starts_with(signature);
    for at in 0..bytes.len() - 4 {
        if is_there(&bytes, at, b"PK\x03\x04") {
            bytes[at + 14..at + 18].fill(0);
        } else if is_there(&bytes, at, b"PK\x01\x02") {
            bytes[at + 16..at + 20].fill(0);
        }
    }
    std::fs::write(&path, &bytes).unwrap();
    let foreign = Foreign::open(&path).unwrap();
    assert_eq!(foreign.tensor("w").unwrap().elements::<f32>().unwrap(), [1.0, 2.0]);
    assert!(foreign.notes().iter().any(|note| note.what.contains("damage")), "{:?}", foreign.notes());
    // Of one member without a checksum, damage is damage.
    let whole = std::fs::read(archive(&folder, "little", &object, &[("0", &f32s(&[1.0, 2.0]))])).unwrap();
    let entry = (0..whole.len()).rfind(|&at| is_there(&whole, at, b"PK\x01\x02")).unwrap();
    let mut bytes = whole;
    bytes[entry + 16..entry + 20].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    let error = Foreign::open(&path).unwrap().tensor("w").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
}

#[test]
fn a_bool_that_is_neither_0_nor_1_is_lost_alone() {
    let folder = TempFolder::new("convert-as-torch");
    let mask = vector("BoolStorage", "0", 3);
    let object = named(&[
        ("mask", [mask, b"q\x05".to_vec()].concat()),
        ("tied", b"h\x05".to_vec()),
        ("good", vector("BoolStorage", "1", 2)),
        ("w", vector("FloatStorage", "2", 1)),
    ]);
    let storages: [(&str, &[u8]); 3] = [("0", &[0, 1, 2]), ("1", &[1, 0]), ("2", &f32s(&[1.0]))];
    let path = torch(&folder.path().join("x.pt"), &object, &storages, Stored);
    let mut foreign = Foreign::open(path).unwrap();
    foreign.keep_odd_bools().unwrap();
    let out = folder.path().join("out.tkeep");
    convert::import(&foreign, &out, &WriteOptions::new()).unwrap();
    let imported = Checkpoint::open(out).unwrap();
    let mask = imported.tensor("tied").unwrap();
    assert_eq!((mask.dtype(), mask.bytes()), (Dtype::U8, &[0, 1, 2][..]));
    assert_eq!(imported.info("tied").unwrap().alias_of, Some("mask"));
    assert_eq!(imported.tensor("good").unwrap().dtype(), Dtype::Bool);
    let lost: Vec<&str> = foreign.notes().iter().filter(|note| note.loss).map(|note| &*note.name).collect();
    assert_eq!(lost, ["mask", "tied"]);
}
