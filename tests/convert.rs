//! Import and export of foreign formats, against files of the formats' own libraries
//! (tests/convert/make.py) and against the safetensors crate. Then the same files cut and flipped:
//! an error, never a panic. Files that lie are in convert_refused.rs.

use safetensors::SafeTensors;
use std::path::{Path, PathBuf};
use tensorkeep::convert::{self, Foreign, Format};
use tensorkeep::{Checkpoint, Dtype, ErrorKind, Progress, Snapshot, Value, WriteOptions};
use test_support::TempFolder;

const FILES: &[&str] = &[
    "f32.npy",
    "big_endian_columns.npy",
    "big_endian_complex.npy",
    "big_endian_complex.npz",
    "stored.npz",
    "deflated.npz",
    "with_text.npz",
    "state_dict.pt",
    "checkpoint.pt",
    "with_object.pt",
    "one.safetensors",
    "model-1-of-2.safetensors",
    "model.gguf",
    "aligned.gguf",
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/convert").join(name)
}

fn open(name: &str) -> Foreign {
    Foreign::open(fixture(name)).unwrap_or_else(|error| panic!("{name}: {error:?}"))
}

fn write(folder: &TempFolder, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Element i of a tensor, as in make.py.
fn values(name: &str, count: usize) -> Vec<i64> {
    (0..count as i64).map(|i| (i * 7 + name.len() as i64) % 31 - 15).collect()
}

fn f32s(foreign: &Foreign, name: &str) -> Vec<f32> {
    foreign.tensor(name).unwrap().elements::<f32>().unwrap().to_vec()
}

fn as_f32(values: &[i64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

fn losses(foreign: &Foreign) -> Vec<&str> {
    foreign.notes().iter().filter(|note| note.loss).map(|note| note.name.as_str()).collect()
}

#[test]
fn formats_are_recognised_by_content() {
    for name in FILES {
        let expected = match name.rsplit_once('.').unwrap().1 {
            "npy" => Format::Npy,
            "npz" => Format::Npz,
            "pt" => Format::Torch,
            "gguf" => Format::Gguf,
            _ => Format::Safetensors,
        };
        assert_eq!(open(name).format(), expected, "{name}");
        let folder = TempFolder::new("convert");
        let renamed = write(&folder, "weights.bin", &std::fs::read(fixture(name)).unwrap());
        assert_eq!(Foreign::open(renamed).unwrap().format(), expected, "{name}");
    }
}

#[test]
fn numpys_arrays_are_read_in_every_dtype_and_order() {
    assert_eq!(f32s(&open("f32.npy"), "array"), as_f32(&values("array", 15)));
    let columns = open("big_endian_columns.npy");
    let tensor = columns.tensor("array").unwrap();
    let expected: Vec<i16> = values("array", 15).iter().map(|&value| value as i16).collect();
    assert_eq!((tensor.shape(), tensor.elements::<i16>().unwrap()), (&[3, 5][..], &expected[..]));
    assert_eq!(columns.notes().len(), 1);
    for name in ["stored.npz", "deflated.npz"] {
        let npz = open(name);
        let flags: Vec<bool> = values("bool", 4).iter().map(|&value| value > 0).collect();
        assert_eq!(npz.tensor("bool").unwrap().elements::<bool>().unwrap(), flags);
        assert_eq!(npz.tensor("u64").unwrap().elements::<u64>().unwrap(), [0, 1, 2]);
        assert_eq!(
            npz.tensor("f64").unwrap().elements::<f64>().unwrap(),
            values("f64", 5).iter().map(|&v| v as f64).collect::<Vec<_>>()
        );
        let c64: Vec<[f32; 2]> = values("c64", 3).iter().map(|&value| [value as f32, 0.0]).collect();
        assert_eq!(npz.tensor("c64").unwrap().elements::<[f32; 2]>().unwrap(), c64);
        assert_eq!((npz.tensor("scalar").unwrap().shape().len(), f32s(&npz, "scalar")), (0, vec![1.5]));
        assert_eq!(npz.tensor("empty").unwrap().shape(), [0, 4]);
        assert_eq!(npz.tensor("nested/name").unwrap().dtype(), Dtype::I32);
    }
    assert_eq!(f32s(&open("deflated.npz"), "columns"), as_f32(&values("columns", 12)));
}

#[test]
fn each_half_of_a_big_endian_complex_number_is_swapped() {
    let pairs = |name: &str, count| -> Vec<[i64; 2]> {
        let imaginary = values(&format!("{name}imaginary"), count);
        values(name, count).into_iter().zip(imaginary).map(|(re, im)| [re, im]).collect()
    };
    let narrow: Vec<[f32; 2]> = pairs("array", 5).iter().map(|pair| pair.map(|part| part as f32)).collect();
    let tensor = open("big_endian_complex.npy").tensor("array").unwrap();
    assert_eq!(tensor.elements::<[f32; 2]>().unwrap(), narrow);
    let wide: Vec<[f64; 2]> = pairs("wide", 3).iter().map(|pair| pair.map(|part| part as f64)).collect();
    let tensor = open("big_endian_complex.npz").tensor("wide").unwrap();
    assert_eq!(tensor.elements::<[f64; 2]>().unwrap(), wide);
}

#[test]
fn text_of_numpy_is_kept_as_bytes_and_objects_are_refused() {
    let npz = open("with_text.npz");
    assert_eq!((losses(&npz), npz.tensors().len()), (vec![], 2));
    let text = npz.tensor("text").unwrap();
    assert_eq!(
        (text.dtype(), text.shape(), text.bytes()),
        (Dtype::Opaque, &[2, 4][..], &b"a\0\0\0b\0\0\0"[..])
    );
    assert_eq!(npz.metadata()["numpy.descr.text"], "'<U1'");
    let error = Foreign::open(fixture("objects.npy")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("pickle"), "{error}");
}

#[test]
fn a_state_dict_of_torch_keeps_aliases_views_and_dtypes() {
    let pt = open("state_dict.pt");
    let weight = as_f32(&values("fc.weight", 24));
    assert_eq!(f32s(&pt, "fc.weight"), weight);
    assert_eq!(f32s(&pt, "fc.row"), weight[12..18]);
    let transposed: Vec<f32> = (0..24).map(|i| weight[(i % 4) * 6 + i / 4]).collect();
    assert_eq!(f32s(&pt, "fc.transposed"), transposed);
    assert_eq!(f32s(&pt, "expanded"), [3.0; 4]);
    assert_eq!(pt.tensor("steps").unwrap().scalar::<i64>().unwrap(), 7);
    assert_eq!(pt.tensor("f8").unwrap().dtype(), Dtype::F8E4M3Fn);
    assert_eq!(pt.tensor("bf16").unwrap().dtype(), Dtype::Bf16);
    assert_eq!(pt.tensor("empty").unwrap().shape(), [0, 2]);
    let tied = pt.tensors().iter().find(|tensor| tensor.name == "fc.tied").unwrap();
    assert_eq!(tied.alias_of.as_deref(), Some("fc.weight"));
    assert_eq!(losses(&pt), Vec::<&str>::new());
}

#[test]
fn a_training_checkpoint_of_torch_becomes_tensors_and_records() {
    let pt = open("checkpoint.pt");
    assert_eq!(f32s(&pt, "model.weight"), as_f32(&values("model.weight", 4)));
    assert_eq!(pt.tensor("optimizer.state.0.exp_avg").unwrap().shape(), [2, 2]);
    assert_eq!(pt.records()["epoch"], Value::Int(3));
    assert_eq!(pt.records()["name"], Value::Text("run".to_owned()));
    let groups = pt.records()["optimizer"].to_string();
    assert!(groups.contains("lr: 0.25"), "{groups}");
    assert_eq!(losses(&pt), Vec::<&str>::new());
}

#[test]
fn an_object_in_a_pickle_is_listed_as_lost_and_never_made() {
    let pt = open("with_object.pt");
    assert_eq!(losses(&pt), ["object"]);
    assert!(pt.notes()[0].what.contains("__main__.Custom"), "{:?}", pt.notes());
    assert_eq!(f32s(&pt, "model.w"), [1.0, 1.0]);
    assert_eq!(f32s(&open("legacy.pt"), "w"), [1.0, 1.0]);
}

#[test]
fn gguf_is_read_and_its_quantised_blocks_stay_as_they_are() {
    let gguf = open("model.gguf");
    assert_eq!(f32s(&gguf, "f32"), as_f32(&values("f32", 96)));
    assert_eq!(gguf.tensor("f32").unwrap().shape(), [3, 32]);
    let blocks = gguf.tensor("q8").unwrap();
    assert_eq!((blocks.dtype(), blocks.shape()), (Dtype::Opaque, &[2 * 2 * 34][..]));
    assert_eq!(gguf.metadata()["gguf.type.q8"], "Q8_0 [2, 64]");
    let Value::Map(pairs) = &gguf.records()["gguf"] else { panic!() };
    assert_eq!(pairs["test.float"], Value::Float(0.5));
    assert_eq!(pairs["llama.block_count"], Value::Int(2));
}

#[test]
fn gguf_keeps_its_alignment_and_the_signs_of_its_integers() {
    let gguf = open("aligned.gguf");
    assert_eq!(f32s(&gguf, "f32"), as_f32(&values("f32", 15)));
    assert_eq!(gguf.tensor("f16").unwrap().bytes()[..4], [0x00, 0xCA, 0x00, 0xC5]);
    let Value::Map(pairs) = &gguf.records()["gguf"] else { panic!() };
    let integers = ["i8", "i16", "i32", "i64", "u8"].map(|kind| pairs[&format!("test.{kind}")].clone());
    assert_eq!(integers, [-7, -300, -70_000, -(1 << 40), 200].map(Value::Int));
}

#[test]
fn the_safetensors_crate_and_this_reader_agree() {
    for name in ["one.safetensors", "model-1-of-2.safetensors", "model-2-of-2.safetensors"] {
        let bytes = std::fs::read(fixture(name)).unwrap();
        let oracle = SafeTensors::deserialize(&bytes).unwrap();
        let foreign = open(name);
        assert_eq!(foreign.tensors().len(), oracle.len());
        for (tensor, view) in oracle.tensors() {
            let ours = foreign.tensor(&tensor).unwrap();
            assert_eq!((ours.bytes(), ours.shape()), (view.data(), view.shape()), "{name}: {tensor}");
        }
    }
    assert_eq!(open("one.safetensors").metadata()["format"], "pt");
}

#[test]
fn an_index_of_shards_opens_as_one_model() {
    let model = open("model.safetensors.index.json");
    assert_eq!(model.tensors().len(), 4);
    assert_eq!(f32s(&model, "f32"), as_f32(&values("f32", 15)));
    let folder = TempFolder::new("convert");
    let index = |text: &str| Foreign::open(write(&folder, "i.json", text.as_bytes()));
    assert!(
        index(r#"{"weight_map": {"a": "../../etc/passwd"}}"#).unwrap_err().to_string().contains("beside")
    );
    assert_eq!(
        index(r#"{"weight_map": {"a": "gone.safetensors"}}"#).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(index(r#"{"some": "json"}"#).unwrap_err().kind(), ErrorKind::Foreign);
    std::fs::copy(fixture("model-1-of-2.safetensors"), folder.path().join("s")).unwrap();
    let error = index(r#"{"weight_map": {"f32": "s", "missing": "s"}}"#).unwrap_err();
    assert_eq!((error.kind(), error.tensor()), (ErrorKind::Damaged, Some("missing")));
}

#[test]
fn every_file_becomes_a_checkpoint_with_the_same_bits() {
    for name in FILES {
        let foreign = open(name);
        let bytes = foreign.snapshot().unwrap().to_bytes(&WriteOptions::new()).unwrap();
        let checkpoint = Checkpoint::from_bytes(&bytes).unwrap();
        assert_eq!(checkpoint.names().count(), foreign.tensors().len());
        assert_eq!(convert::differences(&checkpoint, &foreign).unwrap(), Vec::<String>::new(), "{name}");
    }
}

fn training_checkpoint(folder: &TempFolder) -> Checkpoint {
    let weights: Vec<f32> = (0..600_000).map(|i| i as f32).collect();
    let (small, flags) = ([1.0_f64, 2.0], [true, false, true]);
    let mut snapshot = Snapshot::new().tensor("fc.weight", (&[600, 1000][..], &weights[..])).unwrap();
    snapshot = snapshot
        .tensor("b", &small[..])
        .unwrap()
        .tensor("flags", &flags[..])
        .unwrap()
        .alias("tied", "b")
        .unwrap();
    snapshot = snapshot.record("adam", &("adam", 0.1)).unwrap().metadata("note", "é\"").unwrap();
    snapshot = snapshot.metric("loss", 0.5).unwrap().progress(Progress::new(7));
    let path = folder.path().join("source.tkeep");
    snapshot.save(&path).unwrap();
    Checkpoint::open(path).unwrap()
}

#[test]
fn the_safetensors_crate_reads_exports() {
    let folder = TempFolder::new("convert");
    let checkpoint = training_checkpoint(&folder);
    let path = folder.path().join("out.safetensors");
    let export = convert::export(&checkpoint, &path, Format::Safetensors).unwrap();
    assert!(export.notes.iter().all(|note| !note.loss), "{:?}", export.notes);
    let bytes = std::fs::read(&path).unwrap();
    let oracle = SafeTensors::deserialize(&bytes).unwrap();
    for name in ["fc.weight", "b", "flags", "tied"] {
        assert_eq!(oracle.tensor(name).unwrap().data(), checkpoint.tensor(name).unwrap().bytes(), "{name}");
        let start = oracle.tensor(name).unwrap().data().as_ptr() as usize - bytes.as_ptr() as usize;
        assert_eq!(start % checkpoint.info(name).unwrap().dtype.unwrap().size(), 0);
    }
    let foreign = Foreign::open(&path).unwrap();
    assert_eq!(convert::differences(&checkpoint, &foreign).unwrap(), Vec::<String>::new());
    assert_eq!(foreign.records()["adam"], checkpoint.inspect().record_value("adam").unwrap());
    assert_eq!(foreign.metadata().iter().collect::<Vec<_>>(), [(&"note".to_owned(), &"é\"".to_owned())]);
    let back = Checkpoint::from_bytes(&foreign.snapshot().unwrap().to_bytes(&WriteOptions::new()).unwrap());
    let back = back.unwrap();
    assert_eq!(back.progress().unwrap(), Some(Progress::new(7)));
    assert_eq!(back.metrics().unwrap(), checkpoint.metrics().unwrap());
    assert_eq!(back.records().collect::<Vec<_>>(), checkpoint.records().collect::<Vec<_>>());
}

#[test]
fn an_npz_export_comes_back_and_lists_its_losses() {
    let folder = TempFolder::new("convert");
    let checkpoint = training_checkpoint(&folder);
    let path = folder.path().join("out.npz");
    let export = convert::export(&checkpoint, &path, Format::Npz).unwrap();
    let lost: Vec<&str> =
        export.notes.iter().filter(|note| note.loss).map(|note| note.name.as_str()).collect();
    assert_eq!(lost, ["adam", "tensorkeep.metadata", "tensorkeep.metrics", "tensorkeep.progress"]);
    assert_eq!(
        convert::differences(&checkpoint, &Foreign::open(&path).unwrap()).unwrap(),
        Vec::<String>::new()
    );
    let error = convert::export(&checkpoint, &folder.path().join("x.npy"), Format::Npy).unwrap_err();
    assert_eq!((error.kind(), folder.path().join("x.npy").exists()), (ErrorKind::Invalid, false));
    let error = convert::export(&checkpoint, &folder.path().join("x.pt"), Format::Torch).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn a_name_that_leads_out_of_a_folder_goes_into_no_archive() {
    let folder = TempFolder::new("convert");
    let path = folder.path().join("out.npz");
    for name in ["../../x", "a/../../x", "/x", "..\\x", "\\x", "C:x", "..", "layers.0/w", "a..b", "x.."] {
        let snapshot = Snapshot::new().tensor(name, &[1.0_f32][..]).unwrap();
        let file = write(&folder, "out.tkeep", &snapshot.to_bytes(&WriteOptions::new()).unwrap());
        let outcome = convert::export(&Checkpoint::open(&file).unwrap(), &path, Format::Npz);
        match name {
            "layers.0/w" | "a..b" | "x.." => assert!(Foreign::open(&path).unwrap().tensor(name).is_ok()),
            _ => {
                let error = outcome.unwrap_err();
                assert_eq!((error.kind(), error.tensor()), (ErrorKind::Unsupported, Some(name)));
                assert!(!path.exists(), "{name}");
            }
        }
    }
}

#[test]
fn other_bytes_are_seen_by_the_comparison() {
    let folder = TempFolder::new("convert");
    let checkpoint = training_checkpoint(&folder);
    let path = folder.path().join("out.safetensors");
    convert::export(&checkpoint, &path, Format::Safetensors).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let changed = Foreign::open(write(&folder, "changed", &bytes)).unwrap();
    assert_eq!(convert::differences(&checkpoint, &changed).unwrap(), ["flags: other bytes"]);
}

/// Opens, and reads everything: bytes or an error, for any file.
fn read_all(path: &Path) {
    let Ok(foreign) = Foreign::open(path) else { return };
    for tensor in foreign.tensors() {
        let _ = foreign.tensor(&tensor.name);
        let mut buffers = tensorkeep::inspect::Scratch::default();
        let _ = foreign.visit_chunks_with(&tensor.name, 0..2, &mut buffers, |_, _| Ok(()));
    }
    if let Ok(snapshot) = foreign.snapshot() {
        let _ = snapshot.to_bytes(&WriteOptions::new());
    }
}

#[test]
fn no_cut_of_any_file_panics() {
    let folder = TempFolder::new("convert");
    for name in FILES {
        let whole = std::fs::read(fixture(name)).unwrap();
        for len in (0..whole.len()).step_by(3) {
            read_all(&write(&folder, "cut", &whole[..len]));
        }
    }
}

#[test]
fn no_flipped_byte_of_any_file_panics() {
    let folder = TempFolder::new("convert");
    for name in FILES {
        let whole = std::fs::read(fixture(name)).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= [0x01, 0x80, 0xFF][at % 3];
            read_all(&write(&folder, "flipped", &bytes));
        }
    }
}
