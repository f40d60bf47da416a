//! Tensors of torch as views of storages: which bytes are theirs, which are aliases, and what
//! reading them takes.

use super::open;
use crate::pickles::*;
use tensorkeep::convert::Foreign;
use tensorkeep::{Dtype, ErrorKind, Value};
use test_support::TempFolder;
use zip::CompressionMethod::{Deflated, Stored};

#[test]
fn a_conjugated_view_is_no_alias_of_the_plain_one() {
    let view = Strided { class: "ComplexFloatStorage", key: "0", offset: 0, shape: &[2], strides: &[1] };
    let bit = |name: &str| named(&[(name, TRUE.to_vec())]);
    let negative = Strided { class: "FloatStorage", key: "1", offset: 0, shape: &[1], strides: &[1] };
    let object = named(&[
        ("conj", view.with(bit("conj"))),
        ("plain", view.pickle()),
        ("neg", negative.with(bit("neg"))),
    ]);
    let opened = open(&object, &[("0", &f32s(&[1.0, 2.0, 3.0, 4.0])), ("1", &f32s(&[5.0]))]);
    let bytes = |name: &str| opened.foreign.tensor(name).unwrap().bytes().to_vec();
    assert_eq!(bytes("conj"), f32s(&[1.0, -2.0, 3.0, -4.0]));
    assert_eq!(bytes("plain"), f32s(&[1.0, 2.0, 3.0, 4.0]));
    assert_eq!(opened.f32s("neg"), [-5.0]);
    assert!(opened.foreign.tensors().iter().all(|tensor| tensor.alias_of.is_none()));
    assert_eq!(opened.imported().tensor("conj").unwrap().bytes(), f32s(&[1.0, -2.0, 3.0, -4.0]));
}

#[test]
fn an_expanded_tensor_beyond_the_budget_is_lost_alone() {
    let mask = Strided { class: "FloatStorage", key: "0", offset: 0, shape: &[20 << 20], strides: &[0] };
    let object = named(&[("mask", mask.pickle()), ("plain", vector("FloatStorage", "1", 3))]);
    let storages: &[(&str, &[u8])] = &[("0", &f32s(&[1.0])), ("1", &f32s(&[0.0, 1.0, 2.0]))];
    let opened = open(&object, storages);
    assert_eq!(opened.losses(), ["mask"]);
    assert!(opened.foreign.notes()[0].what.contains("budget"), "{:?}", opened.foreign.notes());
    assert_eq!(opened.f32s("plain"), [0.0, 1.0, 2.0]);
    let path = opened.folder.path().join("x.pt");
    let whole = Foreign::open_within(path, 1 << 30).unwrap();
    assert_eq!(whole.tensors()[0].shape, [20 << 20]);
}

#[test]
fn many_views_of_one_storage_are_the_budgets_matter() {
    let len = 1 << 20;
    let view = |offset: i32| {
        Strided { class: "ByteStorage", key: "0", offset, shape: &[len - 100], strides: &[1] }.pickle()
    };
    let views: Vec<_> = (0..100).map(|offset| (text(&format!("t{offset}")), view(offset))).collect();
    let opened = open(&dict(&views), &[("0", &vec![7; len as usize])]);
    let kept = opened.foreign.tensors().len();
    assert!(
        (64..100).contains(&kept),
        "{kept} of 100 views of a mebibyte within 64 MiB and 8 times the file"
    );
    assert_eq!(opened.losses().len(), 100 - kept);
}

#[test]
fn a_tensor_beyond_its_storage_is_damage() {
    let folder = TempFolder::new("convert-torch");
    for (what, object) in [
        ("too long", vector("FloatStorage", "0", 4)),
        ("no storage", vector("FloatStorage", "9", 1)),
        (
            "overflow",
            Strided { class: "FloatStorage", key: "0", offset: i32::MAX, shape: &[3], strides: &[i32::MAX] }
                .pickle(),
        ),
    ] {
        let path =
            torch(&folder.path().join("x.pt"), &named(&[("w", object)]), &[("0", &f32s(&[1.0]))], Stored);
        let error = Foreign::open(path).unwrap_err();
        assert_eq!((error.kind(), error.tensor()), (ErrorKind::Damaged, Some("w")), "{what}: {error}");
    }
}

/// As torch wrote storages that are a part of another before 0.4: its key, where it begins, its
/// length.
#[test]
fn a_view_of_a_storage_begins_where_it_says() {
    let view = tuple(&[text("1"), int(2), int(3)]);
    let id = [text("storage"), global("torch", "FloatStorage"), text("0"), text("cpu"), int(5), view];
    let whole = Strided { class: "FloatStorage", key: "0", offset: 1, shape: &[2], strides: &[1] };
    let mut args = whole.args();
    args[0] = [tuple(&id), b"Q".to_vec()].concat();
    let of_the_view = call("torch._utils", "_rebuild_tensor_v2", &args);
    let object = named(&[("view", of_the_view), ("whole", whole.pickle())]);
    let opened = open(&object, &[("0", &f32s(&[0.0, 1.0, 2.0, 3.0, 4.0]))]);
    assert_eq!((opened.f32s("view"), opened.f32s("whole")), (vec![3.0, 4.0], vec![1.0, 2.0]));
}

#[test]
fn a_square_matrix_and_its_transpose_are_no_aliases() {
    let square =
        |strides| Strided { class: "FloatStorage", key: "0", offset: 0, shape: &[2, 2], strides }.pickle();
    let object = named(&[("w", square(&[2, 1])), ("w.T", square(&[1, 2])), ("tied", square(&[2, 1]))]);
    let opened = open(&object, &[("0", &f32s(&[1.0, 2.0, 3.0, 4.0]))]);
    let alias_of = |at: usize| opened.foreign.tensors()[at].alias_of.as_deref();
    assert_eq!([alias_of(0), alias_of(1), alias_of(2)], [None, None, Some("w")]);
    assert_eq!(opened.f32s("w.T"), [1.0, 3.0, 2.0, 4.0]);
}

#[test]
fn one_storage_as_two_dtypes_is_two_tensors() {
    let object = named(&[("f", vector("FloatStorage", "0", 2)), ("i", vector("IntStorage", "0", 2))]);
    let opened = open(&object, &[("0", &f32s(&[1.0, 2.0]))]);
    let found: Vec<_> =
        opened.foreign.tensors().iter().map(|tensor| (tensor.dtype, tensor.alias_of.as_deref())).collect();
    assert_eq!(found, [(Dtype::F32, None), (Dtype::I32, None)]);
    assert_eq!(opened.foreign.tensor("i").unwrap().elements::<i32>().unwrap()[0], 0x3F80_0000);
}

#[test]
fn views_of_a_compressed_storage_take_linear_time() {
    const LEN: i32 = 4 << 20;
    let view = |number: i32| {
        let offset = number * 1000;
        Strided { class: "ByteStorage", key: "0", offset, shape: &[4], strides: &[1] }.pickle()
    };
    let views: Vec<_> = (0..2000).map(|number| (text(&format!("t{number}")), view(number))).collect();
    let bytes: Vec<u8> = (0..LEN).map(|at| (at / 1000) as u8).collect();
    let folder = TempFolder::new("convert-torch");
    let path = torch(&folder.path().join("x.pt"), &dict(&views), &[("0", &bytes)], Deflated);
    let foreign = Foreign::open(&path).unwrap();
    let started = std::time::Instant::now();
    for number in 0..2000_usize {
        let tensor = foreign.tensor(&format!("t{number}")).unwrap();
        assert_eq!(tensor.bytes(), [number as u8; 4], "t{number}");
    }
    // Inflated for each of them, it would be eight gigabytes.
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    let error = Foreign::open_within(&path, 6 << 20).unwrap_err();
    assert!(error.to_string().contains("compressed storage"), "{error}");
}

#[test]
fn a_view_that_reaches_far_reads_its_elements_alone() {
    // Each of them reaches from one end of a storage to the other.
    const LEN: i32 = 4 << 20;
    let view = |offset: i32| {
        Strided { class: "ByteStorage", key: "0", offset, shape: &[2], strides: &[LEN - 2001] }.pickle()
    };
    let views: Vec<_> = (0..2000).map(|offset| (text(&format!("t{offset}")), view(offset))).collect();
    let bytes: Vec<u8> = (0..LEN).map(|at| (at % 251) as u8).collect();
    let folder = TempFolder::new("convert-torch");
    for how in [Stored, Deflated] {
        let path = torch(&folder.path().join("x.pt"), &dict(&views), &[("0", &bytes)], how);
        let foreign = Foreign::open(&path).unwrap();
        let started = std::time::Instant::now();
        for offset in 0..2000_usize {
            let tensor = foreign.tensor(&format!("t{offset}")).unwrap();
            assert_eq!(tensor.bytes(), [bytes[offset], bytes[offset + LEN as usize - 2001]], "t{offset}");
        }
        assert!(started.elapsed().as_secs() < 10, "{how:?}: {:?}", started.elapsed());
    }
}

#[test]
fn quantised_elements_that_share_bytes_are_opaque() {
    let sizes = |sizes: &[i32]| tuple(&sizes.iter().map(|&size| int(size)).collect::<Vec<_>>());
    let quantised = |class: &str, key: &str, offset: i32, columns: i32| {
        let scheme = global("torch", "per_tensor_affine");
        let quantizer = tuple(&[scheme, float(0.5), int(3)]);
        let hooks = call("collections", "OrderedDict", &[]);
        let shape = (sizes(&[2, columns]), sizes(&[columns, 1]));
        let storage = storage(class, key, 4);
        let args = [storage, int(offset), shape.0, shape.1, quantizer, FALSE.to_vec(), hooks];
        call("torch._utils", "_rebuild_qtensor", &args)
    };
    let object = named(&[
        ("four", quantised("QUInt4x2Storage", "0", 0, 3)),
        ("two", quantised("QUInt2x4Storage", "1", 0, 4)),
        ("part", quantised("QUInt4x2Storage", "0", 1, 2)),
        ("dtype", global("torch", "quint4x2")),
    ]);
    // Each row begins at a byte of its own: three elements of 4 bits take two.
    let opened = open(&object, &[("0", &[1, 2, 3, 4]), ("1", &[5, 6])]);
    for (name, dtype, bytes) in [("four", "quint4x2", &[1, 2, 3, 4][..]), ("two", "quint2x4", &[5, 6])] {
        let tensor = opened.foreign.tensor(name).unwrap();
        assert_eq!((tensor.dtype(), tensor.bytes()), (Dtype::Opaque, bytes), "{name}");
        let Value::Map(said) = &opened.foreign.records()[name] else { panic!("{name}") };
        assert_eq!(said["dtype"], Value::Text(format!("torch.{dtype}")));
        assert_eq!((&said["scale"], &said["zero_point"]), (&Value::Float(0.5), &Value::Int(3)));
    }
    assert_eq!(opened.foreign.records()["dtype"], Value::Text("torch.quint4x2".to_owned()));
    assert_eq!(opened.losses(), ["part"]);
    assert!(opened.imported().tensor("four").is_ok());
}
