//! Foreign files that lie, that are damaged where only some readers look, or that unfold beyond
//! their size are refused, and losses of an export are reported.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use tensorkeep::convert::{self, Foreign, Format};
use tensorkeep::{Checkpoint, Dtype, ErrorKind, Snapshot, Value, WriteOptions, inspect::Scratch};
use test_support::TempFolder;
use zip::CompressionMethod;

fn write(folder: &TempFolder, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// A zip archive of one member.
fn archive(folder: &TempFolder, member: &str, bytes: &[u8], how: CompressionMethod) -> PathBuf {
    let path = folder.path().join("archive");
    let mut archive = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    let options = zip::write::SimpleFileOptions::default().compression_method(how);
    archive.start_file(member, options).unwrap();
    archive.write_all(bytes).unwrap();
    archive.finish().unwrap();
    path
}

fn saved(folder: &TempFolder, snapshot: &Snapshot<'_>) -> Checkpoint {
    let bytes = snapshot.to_bytes(&WriteOptions::new()).unwrap();
    Checkpoint::open(write(folder, "source.tkeep", &bytes)).unwrap()
}

#[test]
fn tensors_of_safetensors_lie_end_to_end_and_fill_their_place() {
    let folder = TempFolder::new("convert");
    let outcome = |a: &str, b: &str| {
        let header = format!(r#"{{"a":{a},"b":{b}}}"#);
        Foreign::open(write(&folder, "two.safetensors", &safetensors(&header, &[7; 12])))
    };
    let tensor = |dtype: &str, shape: usize, start: u64, end: u64| {
        format!(r#"{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{start},{end}]}}"#)
    };
    let whole = outcome(&tensor("F32", 1, 8, 12), &tensor("U8", 8, 0, 8)).unwrap();
    assert_eq!(whole.tensor("a").unwrap().bytes(), [7; 4]);
    for (what, a, b) in [
        ("hole", tensor("U8", 4, 0, 4), tensor("U8", 4, 8, 12)),
        ("hole at the start", tensor("U8", 4, 4, 8), tensor("U8", 4, 8, 12)),
        ("overlap", tensor("U8", 8, 0, 8), tensor("U8", 8, 4, 12)),
        ("the same bytes twice", tensor("U8", 12, 0, 12), tensor("U8", 12, 0, 12)),
        ("bytes behind the last", tensor("U8", 4, 0, 4), tensor("U8", 4, 4, 8)),
        ("an end before its start", tensor("U8", 12, 0, 12), tensor("U8", 0, 12, 8)),
        ("a shape of more bytes", tensor("F32", 2, 0, 4), tensor("U8", 8, 4, 12)),
        ("a shape of fewer bytes", tensor("F32", 1, 0, 8), tensor("U8", 4, 8, 12)),
        ("no bytes for a shape", tensor("F32", 1, 0, 0), tensor("U8", 12, 0, 12)),
    ] {
        let error = outcome(&a, &b).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{what}");
        assert!(error.tensor().is_some() || what == "bytes behind the last", "{what}: {error}");
    }
}

#[test]
fn a_damaged_zip_member_is_refused_whichever_bytes_are_read() {
    let folder = TempFolder::new("convert");
    let elements = vec![3_u8; (2 << 20) + 100];
    let snapshot = Snapshot::new().tensor("a", &elements).unwrap();
    let path = folder.path().join("out.npz");
    convert::export(&saved(&folder, &snapshot), &path, Format::Npz).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    let visit = |path: &Path, piece: usize| {
        let foreign = Foreign::open(path).unwrap();
        foreign.visit_chunks_with("a", piece..piece + 1, &mut Scratch::default(), |_, _| Ok(()))
    };
    for piece in 0..3 {
        visit(&path, piece).unwrap();
    }
    bytes[middle] ^= 1;
    let path = write(&folder, "damaged.npz", &bytes);
    for piece in [2, 1, 0] {
        let error = visit(&path, piece).unwrap_err();
        assert_eq!((error.kind(), error.tensor()), (ErrorKind::Damaged, Some("a")), "piece {piece}: {error}");
    }
    assert_eq!(Foreign::open(&path).unwrap().tensor("a").unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn an_array_in_an_archive_is_as_long_as_its_header_says() {
    let folder = TempFolder::new("convert");
    let tensor = tensorkeep::Tensor::from_elements(&[5], &[1.0_f32; 5]).unwrap();
    let (array, _) = convert::npy_bytes(&tensor).unwrap();
    for how in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        let outcome = |bytes: &[u8]| Foreign::open(archive(&folder, "a.npy", bytes, how));
        assert_eq!(outcome(&array).unwrap().tensor("a").unwrap().bytes(), tensor.bytes());
        for (what, bytes) in [
            ("a byte more", [&array[..], &[0]].concat()),
            ("an element more", [&array[..], &[0; 4]].concat()),
            ("a byte less", array[..array.len() - 1].to_vec()),
            ("no bytes", array[..array.len() - 20].to_vec()),
        ] {
            let error = outcome(&bytes).unwrap_err();
            assert_eq!((error.kind(), error.tensor()), (ErrorKind::Damaged, Some("a")), "{what}");
        }
    }
}

#[test]
fn records_that_json_cannot_hold_are_left_out_and_said() {
    let folder = TempFolder::new("convert");
    let list = |value: Value| Value::List(vec![Value::Int(1), value]);
    let lost = [
        ("bytes", Value::Bytes(vec![1, 2])),
        ("infinity", list(Value::Float(f64::INFINITY))),
        ("keys", Value::Pairs(vec![(Value::Int(1), Value::Int(2))])),
        ("nan", list(Value::Float(f64::NAN))),
    ];
    let mut snapshot = Snapshot::new()
        .tensor("a", &[1.0_f32][..])
        .unwrap()
        .record("kept", &list(Value::Float(0.1)))
        .unwrap();
    for (name, value) in &lost {
        snapshot = snapshot.record(*name, value).unwrap();
    }
    let path = folder.path().join("out.safetensors");
    let export = convert::export(&saved(&folder, &snapshot), &path, Format::Safetensors).unwrap();
    let notes: Vec<(&str, bool)> = export.notes.iter().map(|note| (note.name.as_str(), note.loss)).collect();
    assert_eq!(notes, lost.each_ref().map(|(name, _)| (*name, true)));
    let foreign = Foreign::open(&path).unwrap();
    assert_eq!(foreign.records().keys().collect::<Vec<_>>(), ["kept"]);
    assert_eq!(foreign.records()["kept"], list(Value::Float(0.1)));
    assert_eq!(foreign.metadata().len(), 0, "{:?}", foreign.metadata());
    assert_eq!(foreign.tensor("a").unwrap().dtype(), Dtype::F32);
}

#[test]
fn lies_about_lengths_are_refused_before_memory_is_taken() {
    let folder = TempFolder::new("convert");
    let refused = |what: &str, bytes: &[u8]| {
        let error = Foreign::open(write(&folder, "lie", bytes)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Foreign), "{what}: {error:?}");
    };
    let safetensors = |json: &str| safetensors(json, b"");
    let tensor = |shape: &str, end: &str| {
        safetensors(&format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{end}]}}}}"#))
    };
    refused("header length", b"\xff\xff\xff\xff\xff\xff\xff\x7f{");
    refused("overflowing shape", &tensor("[18446744073709551615,18446744073709551615]", "4"));
    refused("end beyond the file", &tensor("[1099511627776]", "4398046511104"));
    refused("hole", &safetensors(r#"{"a":{"dtype":"U8","shape":[0],"data_offsets":[5,5]}}"#));
    refused(
        "twice",
        &safetensors(
            r#"{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#,
        ),
    );
    refused("nesting", &safetensors(&format!("{{\"a\":{}", "[".repeat(100_000))));
    let mut npy = b"\x93NUMPY\x01\x00".to_vec();
    let header = "{'descr': '<f8', 'fortran_order': True, 'shape': (9223372036854775807, 2), }";
    npy.extend((header.len() as u16).to_le_bytes());
    npy.extend(header.bytes());
    refused("npy shape", &npy);
    let gguf = |tensors: u64, pairs: u64, rest: &[u8]| {
        [&b"GGUF\x03\0\0\0"[..], &tensors.to_le_bytes(), &pairs.to_le_bytes(), rest].concat()
    };
    refused("gguf counts", &gguf(u64::MAX, 0, b""));
    refused("gguf pairs", &gguf(0, u64::MAX, b""));
    refused("gguf text", &gguf(0, 1, &[0xFF; 64]));
    let nested: Vec<u8> = [&[0; 8][..], &9_u32.to_le_bytes()]
        .concat()
        .into_iter()
        .chain((0..1000).flat_map(|_| [&9_u32.to_le_bytes()[..], &1_u64.to_le_bytes()].concat()))
        .collect();
    refused("gguf nesting", &gguf(0, 1, &nested));
}

#[test]
fn a_pickle_that_names_itself_again_and_again_ends() {
    // d = [[[...[], []], ...]: 60 lists, each twice in the next, is 2^60 objects to walk.
    let mut pickle = b"\x80\x02]q\x00".to_vec();
    for level in 0..60_u8 {
        pickle.extend([b']', b'q', level + 1, b'h', level, b'a', b'h', level, b'a']);
    }
    pickle.push(b'.');
    let folder = TempFolder::new("convert");
    let path = archive(&folder, "a/data.pkl", &pickle, CompressionMethod::Stored);
    let error = Foreign::open(path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
}

#[test]
fn what_the_reference_ignores_is_no_reason_to_refuse() {
    let folder = TempFolder::new("convert");
    for (depth, is_kept) in [(1, true), (30, true), (31, false), (100, false), (130, false), (10_000, false)]
    {
        let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let header =
            format!(r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":[0,4],"x":{nested},"y":1}}}}"#);
        let bytes = safetensors(&header, &[7; 4]);
        let opened = Foreign::open(write(&folder, "deep.safetensors", &bytes));
        let reference = safetensors::SafeTensors::deserialize(&bytes);
        assert_eq!(opened.is_ok(), reference.is_ok(), "{depth} deep: {:?}", reference.err());
        let Ok(foreign) = opened else { continue };
        let out = folder.path().join("out.tkeep");
        convert::import(&foreign, &out, &WriteOptions::new()).unwrap();
        let Value::Map(extra) =
            Checkpoint::open(&out).unwrap().inspect().record_value("safetensors").unwrap()
        else {
            panic!("{:?}", foreign.records())
        };
        let Value::Map(extra) = &extra["a"] else { panic!("{extra:?}") };
        assert_eq!((extra.contains_key("x"), &extra["y"]), (is_kept, &Value::Int(1)), "{depth} deep");
        let losses: Vec<_> = foreign.notes().iter().filter(|note| note.loss).collect();
        assert_eq!(losses.len(), usize::from(!is_kept), "{losses:?}");
        assert!(losses.iter().all(|note| note.name == "a" && note.what.contains("\"x\"")), "{losses:?}");
    }
}

#[test]
fn an_index_with_deep_metadata_is_read_and_the_loss_told() {
    let folder = TempFolder::new("convert");
    let header = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#;
    write(&folder, "s.safetensors", &safetensors(header, &[7; 4]));
    let nested = format!("{}{}", "[".repeat(60), "]".repeat(60));
    let index = format!(r#"{{"metadata":{{"x":{nested}}},"weight_map":{{"a":"s.safetensors"}}}}"#);
    let foreign = Foreign::open(write(&folder, "i.json", index.as_bytes())).unwrap();
    let losses: Vec<_> = foreign.notes().iter().filter(|note| note.loss).collect();
    assert!(losses.len() == 1 && losses[0].name == "index", "{losses:?}");
    convert::import(&foreign, &folder.path().join("out.tkeep"), &WriteOptions::new()).unwrap();
}

/// A `.npy` of records with one field, in a version's encoding.
fn npy_of_field(version: u8, name: &[u8]) -> Vec<u8> {
    let mut header =
        [b"{'descr': [('", name, b"', '<i4')], 'fortran_order': False, 'shape': (1,), }"].concat();
    header.push(b'\n');
    let len = (header.len() as u32).to_le_bytes();
    let len = if version == 1 { &len[..2] } else { &len };
    [b"\x93NUMPY", &[version, 0][..], len, &header, &[1, 0, 0, 0]].concat()
}

#[test]
fn names_of_fields_are_read_and_written_in_their_encoding() {
    let folder = TempFolder::new("convert");
    for (version, name, expected, again) in [
        (1, &b"\xe9"[..], "é", 1),
        (2, b"\xe9", "é", 1),
        (3, "é".as_bytes(), "é", 1),
        (3, "日本".as_bytes(), "日本", 3),
    ] {
        let bytes = npy_of_field(version, name);
        let foreign = Foreign::open(write(&folder, "a.npy", &bytes)).unwrap();
        let descr = format!("[('{expected}', '<i4')]");
        assert_eq!(foreign.metadata()["numpy.descr.array"], descr, "version {version}");
        let checkpoint = saved(&folder, &foreign.snapshot().unwrap());
        let out = folder.path().join("out.npy");
        convert::export(&checkpoint, &out, Format::Npy).unwrap();
        let written = std::fs::read(&out).unwrap();
        assert_eq!((written[6], (written.len() - 4) % 64), (again, 0), "version {version}");
        let back = Foreign::open(&out).unwrap();
        assert_eq!((&back.metadata()["numpy.descr.array"], back.notes().len()), (&descr, 1));
        if version == again {
            assert!(written.windows(name.len()).any(|bytes| bytes == name), "version {version}");
        }
    }
    let error = Foreign::open(write(&folder, "a.npy", &npy_of_field(3, b"\xe9"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
}
