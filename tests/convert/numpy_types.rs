//! NumPy's arrays of text, dates and records in torch's files keep NumPy's description of them, as
//! those in `.npy` files do. The files by NumPy itself are in tests/convert/torch/cases.

use super::{open, torch_folder};
use crate::pickles::*;
use tensorkeep::convert::{self, Foreign, Format};
use tensorkeep::{Dtype, Value};
use test_support::TempFolder;

fn losses(foreign: &Foreign) -> Vec<String> {
    foreign.notes().iter().filter(|note| note.loss).map(|note| note.what.clone()).collect()
}

fn dtype_in_record(foreign: &Foreign, name: &str) -> String {
    let Value::Map(record) = &foreign.records()[name] else { panic!("{:?}", foreign.records()) };
    record["dtype"].to_string()
}

/// A dtype as NumPy pickles it: its code and its state from the second item on.
fn dtype(code: &str, state: &[Pickle]) -> Pickle {
    let made = call("numpy", "dtype", &[text(code), FALSE.to_vec(), TRUE.to_vec()]);
    [made, tuple(&[&[int(3)], state].concat()), b"b".to_vec()].concat()
}

fn none() -> Pickle {
    NONE.to_vec()
}

/// A dtype without parts.
fn plain(code: &str, order: &str) -> Pickle {
    dtype(code, &[text(order), none(), none(), none(), int(-1), int(-1), int(0)])
}

/// A dtype of this many bytes with these fields: name, dtype, offset.
fn record(len: i32, fields: &[(&str, Pickle)]) -> Pickle {
    let names: Vec<_> = fields.iter().map(|(name, _)| text(name)).collect();
    let state = [text("|"), none(), tuple(&names), named(fields), int(len), int(1), int(16)];
    dtype(&format!("V{len}"), &state)
}

fn field(dtype: Pickle, offset: i32) -> Pickle {
    tuple(&[dtype, int(offset)])
}

/// An array of these bytes.
fn array(dtype: Pickle, shape: &[i32], bytes: &str) -> Pickle {
    let shape = tuple(&shape.iter().map(|&len| int(len)).collect::<Vec<_>>());
    let bytes = call("_codecs", "encode", &[text(bytes), text("latin1")]);
    let empty = call("numpy.core.multiarray", "_reconstruct", &[global("numpy", "ndarray"), int(0), none()]);
    [empty, tuple(&[int(1), shape, dtype, FALSE.to_vec(), bytes]), b"b".to_vec()].concat()
}

#[test]
fn arrays_of_text_dates_and_records_keep_their_meaning() {
    let folder = TempFolder::new("convert-numpy");
    for (file, descr, name, shape) in [
        ("16-numpy-text.pt", "'<U2'", "numpy.U2", &[1, 8][..]),
        ("16-numpy-text-big-endian.pt", "'>U2'", "numpy.>U2", &[1, 8]),
        ("16-numpy-days.pt", "'<M8[D]'", "numpy.M8[D]", &[1, 8]),
        ("16-numpy-seconds.pt", "'<M8[s]'", "numpy.M8[s]", &[1, 8]),
        ("16-numpy-text-columns.pt", "'<U1'", "numpy.U1", &[2, 2, 4]),
        (
            "16-numpy-fields.pt",
            "[('x', '<i4'), ('y', '<f8')]",
            "numpy.[('x', '<i4'), ('y', '<f8')]",
            &[1, 12],
        ),
    ] {
        let foreign = Foreign::open(torch_folder().join("cases").join(file)).unwrap();
        let key = "numpy.descr.a";
        assert_eq!(foreign.metadata().get(key).map(String::as_str), Some(descr), "{file}");
        assert_eq!(dtype_in_record(&foreign, "a"), format!("{name:?}"), "{file}");
        let tensor = foreign.tensor("a").unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (Dtype::Opaque, shape), "{file}");
        assert_eq!(losses(&foreign), Vec::<String>::new(), "{file}");
        // NumPy's own format has a place for all of it.
        let path = folder.path().join("a.npz");
        convert::export(&foreign, &path, Format::Npz).unwrap();
        let back = Foreign::open(&path).unwrap();
        assert_eq!(back.metadata()[key], descr, "{file}");
        assert_eq!(back.tensor("a").unwrap().bytes(), tensor.bytes(), "{file}");
    }
}

#[test]
fn column_major_text_is_brought_into_row_major_order() {
    let foreign = Foreign::open(torch_folder().join("cases/16-numpy-text-columns.pt")).unwrap();
    let letters: Vec<u8> = foreign.tensor("a").unwrap().bytes().iter().copied().step_by(4).collect();
    assert_eq!(letters, b"abcd");
}

#[test]
fn fields_keep_titles_shapes_and_the_bytes_between_them() {
    let pair = dtype("V4", &[text("|"), tuple(&[plain("i2", ">"), tuple(&[int(2)])]), none(), none()]);
    let inner = record(2, &[("é'", field(plain("u1", "|"), 0))]);
    let titled = tuple(&[plain("i1", "|"), int(1), text("a title")]);
    let fields = [("b", titled), ("pair", field(pair, 4)), ("in", field(inner, 10))];
    let opened = open(&named(&[("a", array(record(13, &fields), &[1], "0123456789abc"))]), &[]);
    assert_eq!(
        opened.foreign.metadata()["numpy.descr.a"],
        "[('', '|V1'), (('a title', 'b'), '|i1'), ('', '|V2'), ('pair', '>i2', (2,)), ('', '|V2'), \
         ('in', [('é\\'', '|u1'), ('', '|V1')]), ('', '|V1')]"
    );
    assert_eq!(losses(&opened.foreign), Vec::<String>::new());
    assert_eq!(opened.foreign.tensor("a").unwrap().shape(), [1, 13]);
}

#[test]
fn a_dtype_without_a_description_is_told_as_a_loss() {
    let overlapping = record(4, &[("a", field(plain("i4", "<"), 0)), ("b", field(plain("i2", "<"), 2))]);
    let beyond = record(2, &[("a", field(plain("i4", "<"), 0))]);
    let unknown = record(2, &[("a", field(text("i2"), 0))]);
    let unnamed = dtype("V2", &[text("|"), none(), tuple(&[text("gone")]), named(&[])]);
    let void_as_bf16 = plain("V2", "<");
    for (dtype, bytes) in
        [(overlapping, "0123"), (beyond, "01"), (unknown, "01"), (unnamed, "01"), (void_as_bf16, "01")]
    {
        let opened = open(&named(&[("a", array(dtype.clone(), &[1], bytes)), ("t", dtype)]), &[]);
        assert_eq!(losses(&opened.foreign).len(), 2, "{:?}", opened.foreign.notes());
        assert!(losses(&opened.foreign)[0].contains("description"), "{:?}", opened.foreign.notes());
        let tensor = opened.foreign.tensor("a").unwrap();
        assert_eq!((tensor.shape(), tensor.bytes()), (&[bytes.len()][..], bytes.as_bytes()));
    }
}

#[test]
fn records_within_records_end_at_the_budget() {
    // Each level has the one below it ten times.
    let mut object = [plain("u1", "|"), b"q\x00".to_vec()].concat();
    let mut len = 1;
    for level in 0..7_u8 {
        let below = [b'h', level];
        let names: Vec<String> = (0..10).map(|number| format!("f{number}")).collect();
        let fields: Vec<_> = (0..)
            .zip(&names)
            .map(|(number, name)| (name.as_str(), field(below.to_vec(), number * len)))
            .collect();
        len *= 10;
        object = [object, record(len, &fields), vec![b'q', level + 1]].concat();
    }
    let all = [object, array(b"h\x07".to_vec(), &[0], ""), b"q\x08".to_vec()].concat();
    let opened = open(&[all, named(&[("a", b"h\x08".to_vec())])].concat(), &[]);
    assert_eq!(losses(&opened.foreign).len(), 1, "{:?}", opened.foreign.notes());
}

#[test]
fn an_array_with_its_axes_in_another_order_is_brought_into_ours() {
    // NumPy 2 by protocol 5: np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1), of bytes.
    let bytes: String = (0..24).map(char::from).collect();
    let data = call("_codecs", "encode", &[text(&bytes), text("latin1")]);
    let array = |axes: &[i32]| {
        let shape = tuple(&[int(2), int(3), int(4)]);
        let axes = tuple(&axes.iter().map(|&axis| int(axis)).collect::<Vec<_>>());
        let args = [data.clone(), plain("u1", "|"), shape, text("K"), axes];
        call("numpy._core.numeric", "_frombuffer", &args)
    };
    let object = named(&[("a", array(&[2, 0, 1])), ("wrong", array(&[0, 0, 1])), ("short", array(&[0]))]);
    let opened = open(&object, &[]);
    let tensor = opened.foreign.tensor("a").unwrap();
    let expected: Vec<u8> = (0..4).flat_map(|k| (0..6).map(move |ij| ij * 4 + k)).collect();
    assert_eq!((tensor.shape(), tensor.bytes()), (&[4, 2, 3][..], &*expected));
    assert_eq!(opened.losses(), ["wrong", "short"]);
}
