//! Variables: saved and loaded, all or nothing, with errors that name what is wrong.

mod common;

use candle_core::{DType, Tensor, Var};
use candle_nn::VarMap;
use common::{CPU, Net, stored, values};
use tensorkeep::{ErrorKind, Snapshot, StateDictMut, Stateful};
use tensorkeep_candle::{AdamW, ParamsSgd, Sgd, Vars};

fn snapshot(vars: &Vars) -> Snapshot<'_> {
    Snapshot::new().state_dict("model", vars.state_dict().unwrap()).unwrap()
}

#[test]
fn a_model_comes_back_bit_for_bit_and_layers_see_it() {
    let trained = Net::new(1);
    let checkpoint = stored(snapshot(&Vars::of(&trained.vars)));
    let names: Vec<&str> = checkpoint.names().collect();
    let norm = ["bias", "running_mean", "running_var", "weight"].map(|name| format!("model/norm.{name}"));
    assert_eq!(names[..4], ["model/conv.bias", "model/conv.weight", "model/fc.bias", "model/fc.weight"]);
    assert_eq!(names[4..], norm);

    let net = Net::new(2);
    let images = Tensor::ones((2, 1, 6, 6), DType::F32, CPU).unwrap();
    let logits = |net: &Net| net.forward(&images, false).to_vec2::<f32>().unwrap();
    assert_ne!(logits(&net), logits(&trained));
    let report = checkpoint.load_state_dict("model", &mut Vars::of(&net.vars)).unwrap();
    assert_eq!(report.loaded.len(), 8);
    assert_eq!(logits(&net), logits(&trained));
    assert_eq!(values(&net.vars), values(&trained.vars));
}

#[test]
fn every_dtype_of_candle_that_checkpoints_have_comes_back() {
    for dtype in [
        DType::U8,
        DType::I16,
        DType::U32,
        DType::I32,
        DType::I64,
        DType::F16,
        DType::BF16,
        DType::F32,
        DType::F64,
    ] {
        let one = |value: f64| {
            let vars = VarMap::new();
            let tensor = Tensor::full(value, (3, 2), CPU).unwrap().to_dtype(dtype).unwrap();
            vars.data().lock().unwrap().insert("x".into(), Var::from_tensor(&tensor).unwrap());
            vars
        };
        let checkpoint = stored(snapshot(&Vars::of(&one(7.0))));
        let target = one(1.0);
        checkpoint.load_state_dict("model", &mut Vars::of(&target)).unwrap();
        let found = target.all_vars()[0].to_dtype(DType::F64).unwrap().flatten_all().unwrap();
        assert_eq!(found.to_vec1::<f64>().unwrap(), [7.0; 6], "{dtype:?}");
    }
}

#[test]
fn what_does_not_fit_changes_nothing_and_is_named() {
    let wrong = |change: &dyn Fn(&VarMap)| {
        let saved = Net::new(1);
        change(&saved.vars);
        let checkpoint = stored(snapshot(&Vars::of(&saved.vars)));
        let net = Net::new(2);
        let before = values(&net.vars);
        let error = checkpoint.load_state_dict("model", &mut Vars::of(&net.vars)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch);
        assert_eq!(values(&net.vars), before, "{error}");
        error.to_string()
    };
    let var = |dtype, shape: &[usize]| Var::zeros(shape, dtype, CPU).unwrap();
    let put = |vars: &VarMap, name: &str, var: Var| {
        vars.data().lock().unwrap().insert(name.to_owned(), var);
    };
    let renamed = wrong(&|vars| {
        let bias = vars.data().lock().unwrap().remove("fc.bias").unwrap();
        put(vars, "fc.bais", bias);
    });
    assert!(renamed.contains("missing fc.bias") && renamed.contains("unexpected fc.bais"), "{renamed}");
    assert!(renamed.contains("did you mean \"fc.bais\""), "{renamed}");
    let shape = wrong(&|vars| put(vars, "fc.weight", var(DType::F32, &[5, 47])));
    assert!(shape.contains("fc.weight (expected f32 [5, 48], found f32 [5, 47])"), "{shape}");
    let dtype = wrong(&|vars| put(vars, "norm.bias", var(DType::F16, &[3])));
    assert!(dtype.contains("norm.bias (expected f32 [3], found f16 [3])"), "{dtype}");
}

/// A damaged tensor is found before the first variable changes, also if it is the last one.
#[test]
fn damage_changes_nothing() {
    let saved = Net::new(1);
    let bytes = snapshot(&Vars::of(&saved.vars)).to_bytes(&Default::default()).unwrap();
    let checkpoint = tensorkeep::Checkpoint::from_bytes(&bytes).unwrap();
    let at = checkpoint.info("model/norm.weight").unwrap().offset as usize;
    let mut damaged = bytes;
    damaged[at] ^= 1;
    let net = Net::new(2);
    let before = values(&net.vars);
    let damaged = tensorkeep::Checkpoint::from_bytes(&damaged).unwrap();
    let error = damaged.load_state_dict("model", &mut Vars::of(&net.vars)).unwrap_err();
    assert_eq!((error.kind(), error.tensor()), (ErrorKind::Damaged, Some("model/norm.weight")));
    assert_eq!(values(&net.vars), before);
}

#[test]
fn an_optimizer_of_another_kind_changes_nothing() {
    let net = Net::new(1);
    let sgd = Sgd::named(&net.vars, ParamsSgd::default()).unwrap();
    let checkpoint = stored(Snapshot::new().state_dict("optimizer", sgd.state_dict().unwrap()).unwrap());
    let mut adamw = AdamW::named(&net.vars, Default::default()).unwrap();
    let error = checkpoint.load_state_dict("optimizer", &mut adamw).unwrap_err().to_string();
    assert!(error.contains("missing adamw.") && error.contains("unexpected sgd."), "{error}");
    assert_eq!(adamw.params().lr, 0.001);
}

/// Model and optimizer are one state: what does not fit in one leaves the other alone, too.
#[test]
fn a_model_is_untouched_when_its_optimizer_does_not_fit() {
    #[derive(Stateful)]
    struct With<O> {
        model: Vars,
        optimizer: O,
    }
    let saved = Net::new(1);
    let sgd = With {
        model: Vars::of(&saved.vars),
        optimizer: Sgd::named(&saved.vars, ParamsSgd::default()).unwrap(),
    };
    let checkpoint = stored(Snapshot::new().state_dict("", sgd.state_dict().unwrap()).unwrap());
    let net = Net::new(2);
    let before = values(&net.vars);
    let optimizer = AdamW::named(&net.vars, Default::default()).unwrap();
    let mut adamw = With { model: Vars::of(&net.vars), optimizer };
    assert!(checkpoint.load_state_dict("", &mut adamw).is_err());
    assert_eq!(values(&net.vars), before);
}

#[test]
fn a_dtype_that_one_side_lacks_is_an_error_by_name() {
    let vars = VarMap::new();
    let half = Tensor::zeros(2, DType::F32, CPU).unwrap().to_dtype(DType::F8E4M3).unwrap();
    vars.data().lock().unwrap().insert("scale".into(), Var::from_tensor(&half).unwrap());
    let mut vars = Vars::of(&vars);
    let saving = vars.state_dict().err().unwrap();
    assert_eq!(
        (saving.kind(), saving.tensor(), saving.found_value()),
        (ErrorKind::Unsupported, Some("scale"), Some("f8e4m3"))
    );
    let loading = vars.state_dict_mut().err().unwrap();
    assert_eq!((loading.kind(), loading.tensor()), (ErrorKind::Unsupported, Some("scale")));
}

#[test]
fn tied_weights_are_stored_once() {
    let vars = VarMap::new();
    let shared = Var::ones((64, 64), DType::F32, CPU).unwrap();
    for name in ["embedding.weight", "head.weight"] {
        vars.data().lock().unwrap().insert(name.into(), shared.clone());
    }
    let checkpoint = stored(snapshot(&Vars::of(&vars)));
    assert_eq!(checkpoint.info("model/head.weight").unwrap().alias_of, Some("model/embedding.weight"));
    checkpoint.load_state_dict("model", &mut Vars::of(&vars)).unwrap();
}

/// A view of a part of a larger tensor, and one in another memory order.
#[test]
fn tensors_in_any_memory_order_are_saved_as_they_read() {
    let all = Tensor::arange(0_u32, 24, CPU).unwrap().reshape((4, 6)).unwrap();
    for tensor in [all.narrow(0, 1, 2).unwrap(), all.t().unwrap(), all.narrow(1, 2, 3).unwrap()] {
        let vars = VarMap::new();
        vars.data().lock().unwrap().insert("x".into(), Var::from_tensor(&tensor).unwrap());
        let checkpoint = stored(snapshot(&Vars::of(&vars)));
        let expected: Vec<u32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(checkpoint.tensor("model/x").unwrap().elements::<u32>().unwrap(), expected);
    }
}

/// Weights that change behind a staged save do not change what was saved.
#[test]
fn a_staged_save_has_the_weights_of_its_call() {
    use tensorkeep::{Every, Progress, Store, StoreOptions, engine::Memory};
    let net = Net::new(1);
    let expected = values(&net.vars);
    let vars = Vars::of(&net.vars);
    let folder = Memory::new();
    let store = Store::open(folder, StoreOptions::new().save(Every::steps(1))).unwrap();
    store.resume().unwrap();
    store.stage(&snapshot(&vars).progress(Progress::new(1))).unwrap();
    for var in net.vars.all_vars() {
        var.set(&var.zeros_like().unwrap()).unwrap();
    }
    let reader = store.reader();
    store.close().unwrap();
    let saved = reader.latest().unwrap().unwrap();
    saved.load_state_dict("model", &mut Vars::of(&net.vars)).unwrap();
    assert_eq!(values(&net.vars), expected);
}

#[test]
fn an_empty_map_is_an_empty_state() {
    let mut vars = Vars::of(&VarMap::new());
    assert!(vars.state_dict().unwrap().is_empty());
    let _: StateDictMut<'_> = vars.state_dict_mut().unwrap();
}
