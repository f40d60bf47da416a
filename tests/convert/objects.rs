//! Python's own objects as `weights_only=True` makes them: what torch reads is read with the same
//! values, and an attribute is never taken for an item.

use super::open;
use crate::pickles::*;
use tensorkeep::Value;

fn map<const N: usize>(pairs: [(&str, Value); N]) -> Value {
    Value::Map(pairs.map(|(key, value)| (key.to_owned(), value)).into())
}

fn ints(values: &[i64]) -> Value {
    Value::List(values.iter().map(|&value| Value::Int(value)).collect())
}

/// An ordered dict with these items and these attributes.
fn ordered(items: &[(&str, Pickle)], attributes: &[(&str, Pickle)]) -> Pickle {
    let set: Vec<Pickle> = items.iter().map(|(key, value)| [text(key), value.clone()].concat()).collect();
    let made = call("collections", "OrderedDict", &[]);
    [made, b"(".to_vec(), set.concat(), b"u".to_vec(), named(attributes), b"b".to_vec()].concat()
}

#[test]
fn an_attribute_never_replaces_an_item_of_its_name() {
    let item = |key: &str| vector("FloatStorage", key, 1);
    let storages: [(&str, &[u8]); 2] = [("0", &f32s(&[1.0])), ("1", &f32s(&[2.0]))];
    let attributes = [("w", item("1")), ("n", int(2)), ("more", int(3)), ("same", int(7))];
    let dict = ordered(&[("w", item("0")), ("n", int(1)), ("same", int(7))], &attributes);
    for (object, prefix) in [(named(&[("sd", dict.clone())]), "sd."), (dict, "")] {
        let opened = open(&object, &storages);
        assert_eq!(opened.f32s(&format!("{prefix}w")), [1.0]);
        assert_eq!(opened.f32s(&format!("{prefix}__dict__.w")), [2.0]);
        let records = opened.foreign.records();
        let value = |key: &str| match records.get("sd") {
            Some(Value::Map(map)) => map[key].clone(),
            _ => records[key].clone(),
        };
        let values = ["n", "__dict__.n", "more", "same"].map(value);
        assert_eq!(values, [1, 2, 3, 7].map(Value::Int));
        let mut noted: Vec<&str> = opened.foreign.notes().iter().map(|note| &*note.name).collect();
        noted.sort_unstable();
        assert_eq!(noted, [format!("{prefix}__dict__.n"), format!("{prefix}__dict__.w")]);
        opened.imported();
    }
    // What is made of an unknown object's arguments is not replaced by its attributes, either.
    let object =
        [call("mylib", "Made", &[int(5)]), named(&[("args", int(6)), ("b", int(7))]), b"b".to_vec()].concat();
    let opened = open(&named(&[("o", object)]), &[]);
    let expected = [("args", ints(&[5])), ("__dict__.args", Value::Int(6)), ("b", Value::Int(7))];
    assert_eq!(opened.foreign.records()["o"], map(expected));
}

#[test]
fn the_scale_of_a_quantised_tensor_is_not_its_attributes() {
    let sizes = |size| tuple(&[int(size)]);
    let quantizer = tuple(&[global("torch", "per_tensor_affine"), float(0.5), int(3)]);
    let hooks = call("collections", "OrderedDict", &[]);
    let parts = [storage("QUInt8Storage", "0", 2), int(0), sizes(2), sizes(1), quantizer, FALSE.to_vec()];
    let args = tuple(&[&parts[..], &[hooks]].concat());
    let attributes = named(&[("scale", int(7)), ("name", text("q")), ("qscheme", text("mine"))]);
    let object = call(
        "torch._tensor",
        "_rebuild_from_type_v2",
        &[global("torch._utils", "_rebuild_qtensor"), global("torch", "Tensor"), args, attributes],
    );
    let opened = open(&named(&[("w", object)]), &[("0", &[4, 5])]);
    let Value::Map(record) = &opened.foreign.records()["w"] else { panic!("{:?}", opened.foreign) };
    assert_eq!((&record["scale"], &record["zero_point"]), (&Value::Float(0.5), &Value::Int(3)));
    assert_eq!((&record["__dict__.scale"], &record["name"]), (&Value::Int(7), &Value::Text("q".to_owned())));
    assert_eq!(record["qscheme"], Value::Text("torch.per_tensor_affine".to_owned()));
    assert!(opened.foreign.notes().iter().any(|note| note.what.contains("__dict__.scale")));
}

#[test]
fn dicts_are_made_of_whatever_python_makes_them_of() {
    let pair = |key: &str, value: Pickle| tuple(&[text(key), value]);
    let tensor = vector("FloatStorage", "0", 1);
    let of = |argument: Pickle| call("collections", "OrderedDict", &[argument]);
    let (tuples, lists) = (
        of(tuple(&[pair("w", tensor.clone()), pair("v", int(5))])),
        of(list(&[list(&[text("w"), tensor.clone()]), pair("v", int(5))])),
    );
    for object in [tuples.clone(), lists, of(tuples)] {
        let opened = open(&named(&[("d", object)]), &[("0", &f32s(&[1.0]))]);
        assert_eq!(opened.f32s("d.w"), [1.0]);
        assert_eq!(opened.foreign.records()["d"], map([("v", Value::Int(5))]));
        assert_eq!(opened.losses(), Vec::<&str>::new());
    }
    let count = |argument| call("collections", "Counter", &[argument]);
    let object = named(&[
        ("counted", count(named(&[("a", int(2))]))),
        ("empty", count(list(&[]))),
        ("letters", count(list(&[text("a"), text("b"), text("a")]))),
        ("pairs", count(list(&[pair("a", text("b"))]))),
        (
            "missing",
            call("collections", "defaultdict", &[global("builtins", "list"), named(&[("a", int(1))])]),
        ),
    ]);
    let opened = open(&object, &[]);
    assert_eq!(opened.losses(), ["letters", "pairs"], "they are counted by code");
    assert_eq!(opened.foreign.records()["counted"], map([("a", Value::Int(2))]));
    assert_eq!(opened.foreign.records()["empty"], map([]));
    assert_eq!(opened.foreign.records()["missing"], map([("a", Value::Int(1))]));
    let begin = [global("collections", "OrderedDict"), b"(".to_vec()].concat().repeat(100_000);
    let deep = [begin, list(&[]), b"tR".repeat(100_000)].concat();
    assert_eq!(open(&named(&[("deep", deep), ("n", int(1))]), &[]).foreign.records()["n"], Value::Int(1));
}

#[test]
fn a_state_that_is_set_twice_is_both() {
    let dict = ordered(&[], &[("x", int(1)), ("y", int(1))]);
    let twice = [dict, named(&[("y", int(2))]), b"b".to_vec()].concat();
    let opened = open(&named(&[("d", twice)]), &[]);
    assert_eq!(opened.foreign.records()["d"], map([("x", Value::Int(1)), ("y", Value::Int(2))]));
}

#[test]
fn sets_numbers_and_bytes_are_those_of_python() {
    let object = named(&[
        ("set", call("builtins", "set", &[list(&[int(1), TRUE.to_vec(), int(1), int(2)])])),
        ("frozen", [b"(".to_vec(), int(3), int(3), b"\x91".to_vec()].concat()),
        ("deque", call("collections", "deque", &[list(&[int(1), int(1)])])),
        ("zeros", call("builtins", "bytearray", &[int(5)])),
        ("real", call("builtins", "complex", &[int(5)])),
    ]);
    let opened = open(&object, &[]);
    let records = opened.foreign.records();
    assert_eq!((&records["set"], &records["frozen"]), (&ints(&[1, 2]), &ints(&[3])));
    assert_eq!((&records["deque"], &records["zeros"]), (&ints(&[1, 1]), &Value::Bytes(vec![0; 5])));
    let parts = Value::List(vec![Value::Float(5.0), Value::Float(0.0)]);
    assert_eq!(records["real"], map([("complex", parts)]));
    // A terabyte of zeros is no reason to refuse the rest.
    let long = call("builtins", "bytearray", &[long(&(1_u64 << 40).to_le_bytes()[..6])]);
    let opened = open(&named(&[("long", long), ("n", int(1))]), &[]);
    assert_eq!((opened.losses(), &opened.foreign.records()["n"]), (vec!["long"], &Value::Int(1)));
}
