//! State dicts and whole models: loaded all or nothing, rebuilt without naming sizes.
#![cfg(feature = "ndarray")]

use ndarray::{Array1, Array2};
use tensorkeep::{
    Checkpoint, Codec, ErrorKind, LoadOptions, Model, Result, Snapshot, StateDict, StateDictMut, Stateful,
    Tensor, WriteOptions, model::Registry,
};
use test_support::{Linear, LinearConfig, open};

/// The same tensors under another kind.
#[derive(Debug)]
struct Other(Linear);

impl Stateful for Other {
    fn state_dict(&self) -> Result<StateDict<'_>> {
        self.0.state_dict()
    }

    fn state_dict_mut(&mut self) -> Result<StateDictMut<'_>> {
        self.0.state_dict_mut()
    }
}

impl Model for Other {
    const KIND: &'static str = "other";
    type Config = LinearConfig;

    fn config(&self) -> LinearConfig {
        self.0.config()
    }

    fn from_config(config: &LinearConfig) -> Result<Self> {
        Linear::from_config(config).map(Self)
    }
}

fn saved<'a>(fill: impl FnOnce(Snapshot<'a>) -> Result<Snapshot<'a>>) -> Checkpoint {
    let snapshot = fill(Snapshot::new()).unwrap();
    open(&snapshot.to_bytes(&WriteOptions::new()).unwrap(), true).unwrap()
}

#[test]
fn a_state_dict_updates_a_new_net() {
    let net = Linear::new(3, 2, 0.5);
    let checkpoint = saved(|snapshot| snapshot.state_dict("", net.state_dict().unwrap()));
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["bias", "weight"]);
    let mut fresh = Linear::new(3, 2, 0.0);
    let report = checkpoint.load_state_dict("", &mut fresh).unwrap();
    assert_eq!(fresh, net);
    assert!(report.is_exact());
    assert_eq!(report.loaded, ["bias", "weight"]);
}

#[test]
fn a_whole_model_is_rebuilt_by_type_or_by_kind() {
    let net = Linear::new(7, 5, 0.25);
    let checkpoint = saved(|snapshot| snapshot.model(&net));
    assert_eq!(checkpoint.build::<Linear>().unwrap(), net);
    let error = checkpoint.build::<Other>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    let registry = Registry::<dyn std::fmt::Debug>::new()
        .with::<Linear>(|net| Box::new(net))
        .with::<Other>(|net| Box::new(net));
    assert_eq!(format!("{:?}", registry.build(&checkpoint).unwrap()), format!("{net:?}"));
    let error = Registry::<dyn std::fmt::Debug>::new()
        .with::<Other>(|net| Box::new(net))
        .build(&checkpoint)
        .unwrap_err();
    assert!(error.to_string().contains("expected one of other, found \"linear\""), "{error}");
}

#[test]
fn the_error_of_a_checkpoint_without_a_model_lists_it() {
    let net = Linear::new(1, 1, 0.0);
    let checkpoint = saved(|snapshot| snapshot.state_dict("", net.state_dict().unwrap()));
    let error = checkpoint.build::<Linear>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("Snapshot::model"), "{error}");
}

#[test]
fn all_differing_names_are_listed_and_nothing_changes() {
    let elements = Array2::<f32>::ones((2, 3));
    let short = Array1::<f32>::ones(1);
    let checkpoint = saved(|snapshot| snapshot.tensor("wieght", &elements).unwrap().tensor("bias", &short));
    let before = Linear::new(3, 2, 0.5);
    let mut net = before.clone();
    let error = checkpoint.load_state_dict("", &mut net).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("missing weight; unexpected wieght; mismatched bias (expected f32 [2], found f32 [1])"),
        "{text}"
    );
    assert!(text.contains("did you mean \"wieght\" by \"weight\"?"), "{text}");
    assert_eq!(net, before);
    let lenient = LoadOptions::strict().allow_missing().allow_unexpected().allow_mismatched();
    let error = lenient.load(&checkpoint, "", &mut net).unwrap_err();
    assert!(
        error.to_string().contains("no name matches") || error.to_string().contains("did you mean"),
        "{error}"
    );
}

#[test]
fn allowed_differences_are_skipped_and_reported() {
    let weight = Array2::<f32>::ones((2, 3));
    let checkpoint = saved(|snapshot| snapshot.tensor("weight", &weight).unwrap().tensor("extra", &weight));
    let mut net = Linear::new(3, 2, 0.5);
    assert!(LoadOptions::strict().allow_missing().load(&checkpoint, "", &mut net).is_err());
    let report =
        LoadOptions::strict().allow_missing().allow_unexpected().load(&checkpoint, "", &mut net).unwrap();
    assert_eq!((report.missing, report.unexpected), (vec!["bias".to_owned()], vec!["extra".to_owned()]));
    assert_eq!(net.weight, weight);
    assert_eq!(net.bias, Array1::from_elem(2, 0.5));
}

#[test]
fn a_wrong_group_is_pointed_at() {
    let net = Linear::new(3, 2, 0.5);
    let checkpoint = saved(|snapshot| {
        snapshot
            .state_dict("model", net.state_dict().unwrap())
            .unwrap()
            .state_dict("ema", net.state_dict().unwrap())
    });
    let mut fresh = Linear::new(3, 2, 0.0);
    let error = checkpoint.load_state_dict("", &mut fresh).unwrap_err();
    assert!(error.to_string().contains("load the group"), "{error}");
    checkpoint.load_state_dict("ema", &mut fresh).unwrap();
    assert_eq!(fresh, net);
}

#[test]
fn a_group_may_be_joined_by_dots_as_torch_does() {
    let net = Linear::new(3, 2, 0.5);
    let checkpoint = saved(|snapshot| {
        snapshot
            .tensor("state_dict.module.weight", &net.weight)?
            .tensor("state_dict.module.bias", &net.bias)?
            .tensor("state_dict/other.bias", &net.bias)
    });
    for group in ["state_dict.module", "state_dict.module."] {
        let mut fresh = Linear::new(3, 2, 0.0);
        let report = checkpoint.load_state_dict(group, &mut fresh).unwrap();
        assert_eq!((report.loaded.len(), &fresh), (2, &net), "{group}");
        let mut in_place = Linear::new(3, 2, 0.0);
        LoadOptions::strict().in_place().load(&checkpoint, group, &mut in_place).unwrap();
        assert_eq!(in_place, net, "{group}");
    }
    // In a group whose names are joined by slashes, those are recognised; and the error suggests a
    // missing prefix.
    let mut fresh = Linear::new(3, 2, 0.0);
    let error = checkpoint.load_state_dict("state_dict", &mut fresh).unwrap_err();
    assert!(error.to_string().contains("load the group \"state_dict.module\""), "{error}");
    let error = checkpoint.load_state_dict("", &mut fresh).unwrap_err();
    assert!(error.to_string().contains("load the group \"state_dict.module\""), "{error}");
    assert_eq!(fresh, Linear::new(3, 2, 0.0));
}

/// A net as torch's wrappers name its tensors.
struct Wrapped(Linear);

impl Stateful for Wrapped {
    fn state_dict(&self) -> Result<StateDict<'_>> {
        StateDict::new().with("module.weight", &self.0.weight)?.with("module.bias", &self.0.bias)
    }

    fn state_dict_mut(&mut self) -> Result<StateDictMut<'_>> {
        StateDictMut::new().with("module.weight", &mut self.0.weight)?.with("module.bias", &mut self.0.bias)
    }
}

#[test]
fn the_prefix_of_a_wrapped_module_is_named_and_taken_away() {
    let net = Linear::new(3, 2, 0.5);
    for prefix in ["module.", "_orig_mod.", "module._orig_mod."] {
        let checkpoint = saved(|snapshot| {
            snapshot
                .tensor(format!("{prefix}weight"), &net.weight)?
                .tensor(format!("{prefix}bias"), &net.bias)
        });
        let mut fresh = Linear::new(3, 2, 0.0);
        let error = checkpoint.load_state_dict("", &mut fresh).unwrap_err().to_string();
        assert!(error.contains(&format!("LoadOptions::strip_prefix({prefix:?})")), "{error}");
        let options = LoadOptions::strict().strip_prefix(prefix);
        let report = options.clone().load(&checkpoint, "", &mut fresh).unwrap();
        assert_eq!((report.loaded.len(), report.is_exact(), &fresh), (2, true, &net));
        let mut in_place = Linear::new(3, 2, 0.0);
        options.clone().in_place().load(&checkpoint, "", &mut in_place).unwrap();
        assert_eq!(in_place, net);
        // One program loads both.
        let plain = saved(|snapshot| snapshot.state_dict("", net.state_dict()?));
        options.load(&plain, "", &mut Linear::new(3, 2, 0.0)).unwrap();
    }
    let plain = saved(|snapshot| snapshot.state_dict("", net.state_dict()?));
    let mut wrapped = Wrapped(Linear::new(3, 2, 0.0));
    let error = plain.load_state_dict("", &mut wrapped).unwrap_err().to_string();
    assert!(error.contains("LoadOptions::rename(\"\", \"module.\")"), "{error}");
    LoadOptions::strict().rename("", "module.").load(&plain, "", &mut wrapped).unwrap();
    assert_eq!(wrapped.0, net);
}

/// What torch's state dicts have and other frameworks' targets do not: a wrapper's prefix, and the
/// counts of batch norms.
#[test]
fn torchs_state_dicts_load_and_what_was_done_is_told() {
    let net = Linear::new(3, 2, 0.5);
    let torchs = |prefix: &str, count: &[i64]| {
        saved(|snapshot| {
            let (weight, bias) = (format!("m.{prefix}weight"), format!("m.{prefix}bias"));
            let snapshot = snapshot.tensor(weight, &net.weight)?.tensor(bias, &net.bias)?;
            snapshot.tensor(format!("m.{prefix}norm.num_batches_tracked"), count)
        })
    };
    let options = LoadOptions::strict().from_torch();
    for (prefix, stripped) in
        [("", None), ("module.", Some("module.")), ("_orig_mod.module.", Some("_orig_mod.module."))]
    {
        let mut fresh = Linear::new(3, 2, 0.0);
        let report = options.clone().load(&torchs(prefix, &[7]), "m", &mut fresh).unwrap();
        assert_eq!(fresh, net);
        assert_eq!((report.stripped, report.is_exact()), (stripped, true));
        assert_eq!(report.left_out, ["norm.num_batches_tracked"]);
        assert!(report.to_string().contains("left out norm.num_batches_tracked"), "{report}");
    }
    // A count is one number: a tensor that only has its name is unexpected.
    let mut fresh = Linear::new(3, 2, 0.0);
    let error = options.clone().load(&torchs("", &[7; 3]), "m", &mut fresh).unwrap_err();
    assert!(error.to_string().contains("unexpected norm.num_batches_tracked"), "{error}");
    assert_eq!(fresh, Linear::new(3, 2, 0.0));
    // A module's field can be called `module`: the prefix is its own name.
    let mut wrapped = Wrapped(Linear::new(3, 2, 0.0));
    let report = options.load(&torchs("module.", &[7]), "m", &mut wrapped).unwrap();
    assert_eq!((report.stripped, &wrapped.0), (None, &net));
}

#[test]
fn what_is_only_wrapped_is_not_allowed_to_be_missing() {
    let net = Linear::new(3, 2, 0.5);
    let half_wrapped =
        saved(|snapshot| snapshot.tensor("module.weight", &net.weight)?.tensor("bias", &net.bias));
    let mut fresh = Linear::new(3, 2, 0.0);
    let lenient = LoadOptions::strict().allow_missing().allow_unexpected();
    let error = lenient.clone().load(&half_wrapped, "", &mut fresh).unwrap_err().to_string();
    assert!(error.contains("LoadOptions::strip_prefix(\"module.\")"), "{error}");
    assert_eq!(fresh, Linear::new(3, 2, 0.0));
    // Others may be.
    let other = saved(|snapshot| snapshot.tensor("other.weight", &net.weight)?.tensor("bias", &net.bias));
    let report = lenient.load(&other, "", &mut fresh).unwrap();
    assert_eq!(
        (report.missing, report.unexpected),
        (vec!["weight".to_owned()], vec!["other.weight".to_owned()])
    );
}

#[test]
fn two_tensors_are_never_loaded_as_one() {
    let net = Linear::new(3, 2, 0.5);
    let checkpoint =
        saved(|snapshot| snapshot.state_dict("", net.state_dict()?)?.tensor("module.weight", &net.weight));
    let mut fresh = Linear::new(3, 2, 0.0);
    let options = LoadOptions::strict().strip_prefix("module.");
    let error = options.load(&checkpoint, "", &mut fresh).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("\"module.weight\" and \"weight\""), "{error}");
    assert_eq!(fresh, Linear::new(3, 2, 0.0));
}

#[test]
fn names_that_match_are_not_called_missing_for_their_dtypes() {
    let (half, steps) = ([half::bf16::ONE; 6], [3_i64, 4]);
    let checkpoint = saved(|snapshot| {
        snapshot.tensor("weight", Tensor::from_elements(&[2, 3], &half)?)?.tensor("bias", &steps[..])
    });
    let mut net = Linear::new(3, 2, 9.0);
    let error = checkpoint.load_state_dict("", &mut net).unwrap_err().to_string();
    assert!(error.contains("LoadOptions::cast_integers") && !error.contains("no name matches"), "{error}");
    LoadOptions::strict().cast_integers().load(&checkpoint, "", &mut net).unwrap();
    assert_eq!((net.weight, net.bias), (Array2::ones((2, 3)), ndarray::arr1(&[3.0, 4.0])));
}

#[test]
fn damage_in_the_last_tensor_leaves_the_whole_target_as_it_was() {
    let net = Linear::new(300, 200, 0.5);
    for codec in [Codec::Raw, Codec::Balanced] {
        let weight = Array2::from_shape_fn((200, 300), |(i, j)| ((i * j) as f32).sin());
        let net = Linear { weight, ..net.clone() };
        let snapshot = Snapshot::new().state_dict("", net.state_dict().unwrap()).unwrap();
        let mut bytes = snapshot.to_bytes(&WriteOptions::new().codec(codec)).unwrap();
        let offset = open(&bytes, false).unwrap().info("weight").unwrap().offset as usize;
        bytes[offset + 100] ^= 1;
        let mut target = Linear::new(300, 200, 0.0);
        for mapped in [false, true] {
            let error = open(&bytes, mapped).unwrap().load_state_dict("", &mut target).unwrap_err();
            assert_eq!((error.kind(), error.tensor()), (ErrorKind::Damaged, Some("weight")));
            assert_eq!(target, Linear::new(300, 200, 0.0));
        }
    }
}

#[test]
fn dtypes_are_cast_only_when_asked() {
    let half: Vec<half::f16> = (0..6).map(|i| half::f16::from_f32(i as f32 / 2.0)).collect();
    let double = [0.1_f64, 0.2];
    let checkpoint = saved(|snapshot| {
        snapshot
            .tensor("weight", Tensor::from_elements(&[2, 3], &half).unwrap())
            .unwrap()
            .tensor("bias", &double[..])
    });
    let mut net = Linear::new(3, 2, 9.0);
    let error = checkpoint.load_state_dict("", &mut net).unwrap_err();
    assert!(error.to_string().contains("expected f32 [2, 3], found f16 [2, 3]"), "{error}");
    LoadOptions::strict().cast().load(&checkpoint, "", &mut net).unwrap();
    assert_eq!(net.weight, ndarray::arr2(&[[0.0, 0.5, 1.0], [1.5, 2.0, 2.5]]));
    assert_eq!(net.bias, ndarray::arr1(&[0.1_f32, 0.2]));
}
