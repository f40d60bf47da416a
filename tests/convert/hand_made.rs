//! Pickles that torch would not write, or writes only with classes that a test should not need.

use super::open;
use crate::pickles::*;
use tensorkeep::convert::Foreign;
use tensorkeep::{Dtype, ErrorKind, Value};
use test_support::TempFolder;
use zip::CompressionMethod::{Deflated, Stored};

#[test]
fn an_alias_among_clashing_names_is_the_right_tensor() {
    let (first, second) = (vector("FloatStorage", "0", 2), vector("FloatStorage", "1", 2));
    let object = named(&[("a.b", first.clone()), ("a", named(&[("b", second)])), ("c", first)]);
    let opened = open(&object, &[("0", &f32s(&[1.0, 2.0])), ("1", &f32s(&[8.0, 9.0]))]);
    assert_eq!(opened.f32s("c"), [1.0, 2.0]);
    assert_eq!(opened.f32s("a.b~2"), [8.0, 9.0]);
    let imported = opened.imported();
    let c = imported.tensor("c").unwrap();
    assert_eq!(c.elements::<f32>().unwrap(), [1.0, 2.0]);
    assert_eq!(opened.foreign.tensors()[2].alias_of.as_deref(), Some("a.b"));
}

#[test]
fn a_pickle_that_unfolds_beyond_the_budget_is_refused() {
    let folder = TempFolder::new("convert-torch");
    let mebibyte = text(&"x".repeat(1 << 20));
    // One text, recalled a hundred times.
    let recalled = [b"](", &mebibyte[..], b"q\x00", &b"h\x00".repeat(100), b"e"].concat();
    // Sixteen million objects in one byte each.
    let nones = [b"](", &vec![b'N'; 16 << 20][..], b"e"].concat();
    // A key of a mebibyte with two thousand items that need a note.
    let noted = dict(&[(mebibyte, list(&vec![global("os", "system"); 2000]))]);
    for (what, object) in [("recalled", recalled), ("nones", nones), ("noted", noted)] {
        let path = torch(&folder.path().join("bomb.pt"), &object, &[], Deflated);
        let len = std::fs::metadata(&path).unwrap().len();
        assert!(len < 64 << 10, "{what}: {len}");
        let error = Foreign::open(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{what}: {error}");
        assert!(error.to_string().contains("budget"), "{what}: {error}");
        if what == "recalled" {
            assert!(Foreign::open_within(&path, 1 << 30).is_ok());
        }
    }
}

#[test]
fn a_tensor_of_many_axes_takes_memory_for_each_of_them() {
    // A shape is copied wherever its tensor is recalled, also a long one of ones.
    let ones = |rank: usize| [b"(".to_vec(), b"K\x01".repeat(rank), b"t".to_vec()].concat();
    let view = |rank: usize| {
        let hooks = call("collections", "OrderedDict", &[]);
        let parts = [storage("FloatStorage", "0", 1), int(0), ones(rank), ones(rank), FALSE.to_vec(), hooks];
        call("torch._utils", "_rebuild_tensor_v2", &parts)
    };
    let recalled = |object: Pickle, count: usize| {
        [b"](".to_vec(), object, b"q\x05".to_vec(), b"h\x05".repeat(count), b"e".to_vec()].concat()
    };
    let folder = TempFolder::new("convert-torch");
    let path = folder.path().join("axes.pt");
    let storages: [(&str, &[u8]); 1] = [("0", &f32s(&[1.0]))];
    let many = recalled(view(64), 100_000);
    let error = Foreign::open(torch(&path, &many, &storages, Deflated)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
    assert_eq!(open(&recalled(view(64), 9), &storages).foreign.tensors().len(), 10);
    // More than a tensor may have are lost alone.
    let object = named(&[("w", view(1)), ("long", view(65)), ("longer", recalled(view(100_000), 1000))]);
    let opened = open(&object, &storages);
    assert_eq!((opened.foreign.tensors().len(), opened.losses().len()), (1, 1002));
    opened.imported();
}

#[test]
fn the_bits_of_a_tensor_are_not_searched_again_and_again() {
    let bits: Vec<(Pickle, Pickle)> = (0..100_000).map(|_| (int(1), int(1))).collect();
    let view = Strided { class: "FloatStorage", key: "0", offset: 0, shape: &[1], strides: &[1] };
    let many =
        [b"](".to_vec(), view.with(dict(&bits)), b"q\x05".to_vec(), b"h\x05".repeat(20_000), b"e".to_vec()];
    let folder = TempFolder::new("convert-torch");
    let path = torch(&folder.path().join("x.pt"), &many.concat(), &[("0", &f32s(&[1.0]))], Deflated);
    let start = std::time::Instant::now();
    let error = Foreign::open(path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
}

fn text_value(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn map<const N: usize>(pairs: [(&str, Value); N]) -> Value {
    Value::Map(pairs.map(|(key, value)| (key.to_owned(), value)).into())
}

#[test]
fn a_key_that_is_set_twice_has_its_last_value() {
    let object = dict(&[
        (text("w"), vector("FloatStorage", "0", 2)),
        (int(1), text("int")),
        (text("w"), vector("FloatStorage", "1", 2)),
        (TRUE.to_vec(), text("true")),
        (float(1.0), text("float")),
    ]);
    let opened = open(&object, &[("0", &f32s(&[1.0, 2.0])), ("1", &f32s(&[8.0, 9.0]))]);
    assert_eq!(opened.f32s("w"), [8.0, 9.0]);
    assert_eq!(opened.foreign.tensors().len(), 1);
    assert_eq!(opened.foreign.records().len(), 1, "1, True and 1.0 are one key in Python");
    assert_eq!(opened.foreign.records()["1"], text_value("float"));
}

#[test]
fn outermost_keys_that_are_one_text_are_both_kept() {
    let object = dict(&[(int(1), text("int")), (text("1"), text("text")), (NONE.to_vec(), text("none"))]);
    let opened = open(&object, &[]);
    let records = opened.foreign.records();
    assert_eq!(records["1"], text_value("int"));
    assert_eq!(records["1~2"], text_value("text"));
    assert_eq!(records["None"], text_value("none"));
    assert!(opened.foreign.notes().iter().any(|note| note.name == "1~2"), "{:?}", opened.foreign.notes());
    assert_eq!(opened.losses(), Vec::<&str>::new());
}

#[test]
fn keys_of_every_kind_are_kept_apart_in_a_record() {
    let keys = dict(&[
        (int(1), text("int")),
        (text("1"), text("text")),
        (tuple(&[int(1), int(2)]), text("tuple")),
        (NONE.to_vec(), text("none")),
        (call("_codecs", "encode", &[text("\u{e9}b"), text("latin1")]), text("bytes")),
        (float(2.5), text("float")),
        (float(f64::NAN), text("nan")),
        (float(f64::NAN), text("another nan")),
    ]);
    let opened = open(&named(&[("keys", keys)]), &[]);
    let Value::Pairs(pairs) = &opened.foreign.records()["keys"] else { panic!("{:?}", opened.foreign) };
    let keys: Vec<String> = pairs.iter().map(|(key, _)| format!("{key:?}")).collect();
    let bytes = Value::Bytes(vec![0xE9, b'b']);
    let expected = [
        Value::Int(1),
        text_value("1"),
        text_value("(1, 2)"),
        Value::Null,
        bytes,
        Value::Float(2.5),
        Value::Float(f64::NAN),
    ];
    assert_eq!(keys[..7], expected.map(|key| format!("{key:?}")));
    assert_eq!(pairs.len(), 8);
    // A checkpoint can hold them, too.
    let imported = opened.imported();
    assert_eq!(
        format!("{:?}", imported.inspect().record_value("keys").unwrap()),
        format!("{:?}", Value::Pairs(pairs.clone()))
    );
}

#[test]
fn integers_beyond_64_bits_and_seeds_are_exact() {
    let seed = (1_u64 << 63) + 5;
    let state = 0x1234_5678_9abc_def0_1122_3344_5566_7788_u128;
    let object = named(&[
        ("seed", long(&[&seed.to_le_bytes()[..], &[0]].concat())),
        ("state", long(&state.to_le_bytes())),
        ("negative", long(&(-(1_i128 << 100)).to_le_bytes())),
    ]);
    let opened = open(&object, &[]);
    let records = opened.foreign.records();
    assert_eq!(records["seed"], Value::UInt(seed));
    assert_eq!(records["state"], map([("int", text_value(&format!("{state:#x}")))]));
    assert_eq!(records["negative"], map([("int", text_value(&format!("-{:#x}", 1_u128 << 100)))]));
    assert_eq!(opened.losses(), Vec::<&str>::new());
}

#[test]
fn one_tensor_that_is_not_known_does_not_take_the_others() {
    let strange = Strided { class: "StrangeStorage", key: "0", offset: 0, shape: &[2], strides: &[1] };
    let half = Strided { class: "ComplexHalfStorage", key: "0", offset: 0, shape: &[2], strides: &[1] };
    let object = named(&[
        ("strange", strange.pickle()),
        ("half", half.pickle()),
        ("no_shape", call("torch._utils", "_rebuild_tensor_v2", &[storage("FloatStorage", "1", 3), int(0)])),
        ("plain", vector("FloatStorage", "1", 3)),
    ]);
    let opened = open(&object, &[("0", &[1, 2, 3, 4, 5, 6, 7, 8]), ("1", &f32s(&[0.0, 1.0, 2.0]))]);
    assert_eq!(opened.losses(), ["strange", "no_shape"]);
    assert_eq!(opened.f32s("plain"), [0.0, 1.0, 2.0]);
    let half = opened.foreign.tensor("half").unwrap();
    assert_eq!((half.dtype(), half.bytes()), (Dtype::Opaque, &[1, 2, 3, 4, 5, 6, 7, 8][..]));
    let shape = Value::List(vec![Value::Int(2)]);
    assert_eq!(
        opened.foreign.records()["half"],
        map([("dtype", text_value("torch.complex32")), ("shape", shape)])
    );
}

#[test]
fn objects_are_their_attributes_and_items_and_a_note() {
    let extended = [
        global("mylib", "AttributeDict"),
        b")\x81".to_vec(),
        b"(".to_vec(),
        text("w"),
        vector("FloatStorage", "0", 1),
        text("lr"),
        float(0.5),
        b"u".to_vec(),
    ]
    .concat();
    let list =
        [global("mylib", "Items"), b")\x81".to_vec(), b"(".to_vec(), int(1), int(2), b"e".to_vec()].concat();
    let object = named(&[
        ("dict", extended),
        ("list", list),
        ("plain", object("mylib", "Config", named(&[("depth", int(18))]))),
        ("namespace", object("argparse", "Namespace", named(&[("lr", float(0.1))]))),
        ("made", call("pathlib", "PosixPath", &[text("a"), text("b")])),
        ("empty", [global("mylib", "Nothing"), b")\x81".to_vec()].concat()),
    ]);
    let opened = open(&object, &[("0", &f32s(&[3.0]))]);
    let records = opened.foreign.records();
    assert_eq!(opened.f32s("dict.w"), [3.0]);
    assert_eq!(records["dict"], map([("lr", Value::Float(0.5))]));
    assert_eq!(records["list"], Value::List(vec![Value::Int(1), Value::Int(2)]));
    assert_eq!(records["plain"], map([("depth", Value::Int(18))]));
    assert_eq!(records["namespace"], map([("lr", Value::Float(0.1))]));
    assert_eq!(records["made"], map([("args", Value::List(vec![text_value("a"), text_value("b")]))]));
    assert_eq!(opened.losses(), ["made", "empty"]);
    let noted: Vec<&str> = opened.foreign.notes().iter().map(|note| note.name.as_str()).collect();
    assert_eq!(noted, ["dict", "list", "plain", "made", "empty"]);
}

#[test]
fn cyclic_and_too_deep_items_are_lost_alone() {
    let own = b"]q\x05h\x05a".to_vec();
    let deep = [b"](".repeat(200), b"e".repeat(200)].concat();
    let opened = open(&named(&[("own", own), ("deep", deep), ("ok", int(5))]), &[]);
    assert_eq!(opened.foreign.records()["ok"], Value::Int(5));
    assert!(opened.losses().iter().any(|name| name.starts_with("own")), "{:?}", opened.losses());
    assert!(opened.losses().iter().any(|name| name.starts_with("deep")), "{:?}", opened.losses());
    opened.imported();
}

#[test]
fn many_records_of_one_name_take_linear_time() {
    // Characters that are not allowed in names: all of them become one name.
    let key = |number: u32| {
        text(
            &[number % 31 + 1, number / 31 % 31 + 1, number / 961 + 1]
                .map(|c| char::from_u32(c).unwrap())
                .iter()
                .collect::<String>(),
        )
    };
    let keys: Vec<_> = (0..20_000).map(|number| (key(number), int(1))).collect();
    let start = std::time::Instant::now();
    let opened = open(&dict(&keys), &[]);
    assert_eq!(opened.foreign.records().len(), 20_000);
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

#[test]
fn more_keys_than_a_checkpoint_has_records_are_one_record() {
    let keys: Vec<_> = (0..70_000).map(|number| (text(&format!("word{number}")), int(number))).collect();
    let opened = open(&dict(&keys), &[]);
    let Value::Map(map) = &opened.foreign.records()["torch"] else { panic!("{:?}", opened.foreign.notes()) };
    assert_eq!((map.len(), &map["word69999"]), (70_000, &Value::Int(69_999)));
    opened.imported();
}

#[test]
fn several_archives_in_one_file_are_refused() {
    let folder = TempFolder::new("convert-torch");
    let one = |value: f32| {
        let path = folder.path().join("one.pt");
        torch(&path, &vector("FloatStorage", "0", 1), &[("0", &f32s(&[value]))], Stored);
        std::fs::read(&path).unwrap()
    };
    let path = folder.path().join("weights.bin");
    std::fs::write(&path, [one(1.0), one(2.0)].concat()).unwrap();
    let error = Foreign::open(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Foreign, "{error}");
    assert!(error.to_string().contains("DCP"), "{error}");
}
