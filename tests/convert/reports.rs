//! Files from bug reports, made again with torch: tests/convert/torch/cases. The expected values
//! are those of `torch.load`.

use super::{neutral, torch_folder};
use serde_json::json;
use tensorkeep::convert::{Foreign, Format};
use tensorkeep::{Dtype, ErrorKind};

fn case(name: &str) -> Foreign {
    Foreign::open(torch_folder().join("cases").join(name)).unwrap_or_else(|error| panic!("{error}"))
}

fn f32s(foreign: &Foreign, name: &str) -> Vec<f32> {
    let tensor = foreign.tensor(name).unwrap_or_else(|error| panic!("{error}"));
    tensor.elements::<f32>().unwrap().to_vec()
}

fn names(foreign: &Foreign) -> Vec<&str> {
    let mut names: Vec<_> = foreign.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
    names.sort_unstable();
    names
}

fn losses(foreign: &Foreign) -> Vec<&str> {
    foreign.notes().iter().filter(|note| note.loss).map(|note| note.name.as_str()).collect()
}

#[test]
fn conjugated_and_negated_views_have_their_own_values() {
    let conj = case("13-conj.pt");
    let parts: Vec<f32> =
        conj.tensor("conj").unwrap().bytes().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    assert_eq!(parts, [1.0, -2.0, 3.0, 4.0]);
    assert_eq!(f32s(&conj, "neg"), [-2.0, 4.0]);
    assert_eq!(f32s(&case("13c-neg.pt"), "n"), [-1.0, -3.0]);
}

#[test]
fn keys_that_become_one_text_lose_nothing() {
    let keys = case("14-keys.pt");
    let records: Vec<_> =
        keys.records().iter().map(|(name, value)| (name.as_str(), neutral(value))).collect();
    let expected = [("(1, 2)", json!("c")), ("1", json!("e")), ("1~2", json!("b")), ("None", json!("d"))];
    assert_eq!(records, expected);
    assert_eq!(names(&keys).len(), 3);
    assert_eq!(losses(&keys), Vec::<&str>::new());
}

#[test]
fn archives_of_torchscript_give_their_tensors() {
    let script = case("02-script.pt");
    let expected = [
        "bn.bias",
        "bn.num_batches_tracked",
        "bn.running_mean",
        "bn.running_var",
        "bn.weight",
        "fc.bias",
        "fc.weight",
    ];
    assert_eq!(names(&script), expected);
    assert_eq!(script.tensor("fc.weight").unwrap().shape(), [3, 4]);
    let holder = case("02b-holder.ot");
    assert_eq!(f32s(&holder, "conv1|weight"), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    for foreign in [script, holder] {
        assert_eq!(losses(&foreign), Vec::<&str>::new());
        assert!(foreign.notes().iter().any(|note| note.what.contains("not run")), "{:?}", foreign.notes());
    }
}

#[test]
fn files_of_before_torch_1_6_are_read_and_those_of_2017_named() {
    let legacy = case("01-legacy.pth");
    assert_eq!(legacy.format(), Format::Torch);
    assert_eq!(legacy.tensors().len(), 9);
    assert_eq!(legacy.tensor("0.weight").unwrap().shape(), [3, 4]);
    let error = Foreign::open(torch_folder().join("cases/01b-tar.pth")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Foreign);
    assert!(error.to_string().contains("2017") && error.to_string().contains("torch 1.6"), "{error}");
}

#[test]
fn numbers_and_arrays_of_numpy_are_read() {
    let numpy = case("03-numpy.pt");
    assert_eq!(
        neutral(&numpy.records()["best_loss"]),
        json!({ "float": format!("{:016x}", 0.125_f64.to_bits()) })
    );
    assert_eq!(neutral(&numpy.records()["epoch"]), json!(7));
    assert_eq!(neutral(&numpy.records()["acc"]), json!({ "float": format!("{:016x}", 0.5_f64.to_bits()) }));
    assert_eq!(f32s(&numpy, "hist"), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(numpy.tensor("hist").unwrap().shape(), [2, 3]);
    let states = case("05-rng.pth");
    let key = states.tensor("numpy.1").unwrap();
    assert_eq!((key.dtype(), key.shape()), (Dtype::U32, &[624][..]));
    let zero = json!({ "float": "0000000000000000" });
    assert_eq!(neutral(&states.records()["numpy"]), json!(["MT19937", null, 624, 0, zero]));
    assert_eq!(losses(&states), Vec::<&str>::new());
}

#[test]
fn plain_types_of_python_are_read() {
    let namespace = case("04-namespace.pt");
    let lr = json!({ "float": format!("{:016x}", 0.1_f64.to_bits()) });
    let records: Vec<_> = namespace.records().values().map(neutral).collect();
    assert!(records.contains(&json!({ "map": { "lr": lr, "depth": 18, "name": "resnet" } })), "{records:?}");
    let bytes = case("15c-bytes.pt");
    let all: String = (0..=255).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(neutral(&bytes.records()["spm"]), json!({ "bytes": all }));
    assert_eq!(neutral(&bytes.records()["merges"]), json!(["a", "b"]));
    assert_eq!(neutral(&bytes.records()["vocab"]), json!({ "pairs": [[{ "bytes": "6162" }, 0]] }));
    assert_eq!(losses(&bytes), Vec::<&str>::new());
}

#[test]
fn a_pickled_module_gives_its_tensors_and_a_note() {
    let module = case("08-module.pt");
    assert_eq!(names(&module), ["anchors", "conv.bias", "conv.weight", "fc.weight"]);
    assert_eq!(module.tensor("conv.weight").unwrap().shape(), [2, 1, 3, 3]);
    assert!(module.notes()[0].what.contains("not run"), "{:?}", module.notes());
}

#[test]
fn dtypes_without_a_counterpart_stay_as_bytes_beside_the_rest() {
    for name in ["09b-complex32.pt", "09c-f4.pt"] {
        let opened = case(name);
        assert_eq!(f32s(&opened, "plain"), [0.0, 1.0, 2.0], "{name}");
        assert_eq!(
            opened.tensors().iter().filter(|tensor| tensor.dtype == Dtype::Opaque).count(),
            1,
            "{name}"
        );
        assert_eq!(losses(&opened), Vec::<&str>::new(), "{name}");
    }
}

#[test]
fn sparse_quantised_and_subclassed_tensors_are_read() {
    for (name, parts) in [
        ("10-sparse.pt", &["indices", "values"][..]),
        ("10b-csr.pt", &["crow_indices", "col_indices", "values"]),
    ] {
        let sparse = case(name);
        let values = sparse.tensors().iter().find(|tensor| tensor.name.ends_with(".values")).unwrap();
        assert_eq!(f32s(&sparse, &values.name), [3.0, 4.0, 5.0], "{name}");
        for part in parts {
            assert!(names(&sparse).iter().any(|name| name.ends_with(part)), "{name}: {:?}", names(&sparse));
        }
        let shape = sparse.records().values().map(neutral).find(|value| value["map"]["layout"].is_string());
        assert_eq!(shape.unwrap()["map"]["shape"], json!([2, 3]), "{name}");
    }
    let quantised = case("10c-quant.pt");
    assert_eq!(quantised.tensor("q").unwrap().elements::<i8>().unwrap(), [10, 20, 30, 40]);
    let record = neutral(&quantised.records()["q"]);
    assert_eq!(record["map"]["zero_point"], json!(10));
    assert_eq!(record["map"]["scale"], json!({ "float": format!("{:016x}", 0.1_f64.to_bits()) }));
    let subclass = case("12-subclass.pt");
    assert_eq!(f32s(&subclass, "sub"), [0.0, 1.0, 2.0, 3.0]);
    assert!(subclass.notes().iter().any(|note| note.what.contains("mymodels.My")), "{:?}", subclass.notes());
    assert_eq!(losses(&subclass), Vec::<&str>::new());
}

#[test]
fn a_folder_by_torchs_own_distributed_checkpoints_is_read() {
    for name in ["dcp", "dcp/.metadata", "dcp/__0_0.distcp"] {
        let opened = case(name);
        assert_eq!(opened.format(), Format::Torch);
        assert_eq!(names(&opened), ["b", "c", "w"], "{name}");
        assert_eq!(f32s(&opened, "w"), [0.0, 1.0, 2.0, 3.0], "{name}");
        assert_eq!(f32s(&opened, "b"), [0.0, 1.0, 2.0], "{name}");
        let c = opened.tensor("c").unwrap();
        assert_eq!((c.shape(), f32s(&opened, "c")), (&[2, 2][..], vec![1.0; 4]), "{name}");
        assert_eq!(losses(&opened), Vec::<&str>::new(), "{name}");
    }
}
