//! The optimizers beside candle's own, step by step, and resumed in the middle.

mod common;

use candle_core::{DType, Tensor, Var};
use candle_nn::{Optimizer, ParamsAdamW, SGD};
use common::{CPU, Net, stored, values};
use tensorkeep::{ErrorKind, Snapshot, Stateful};
use tensorkeep_candle::{AdamW, ParamsSgd, Sgd, Vars};

const ADAMW: ParamsAdamW = ParamsAdamW { lr: 0.01, beta1: 0.8, beta2: 0.95, eps: 1e-7, weight_decay: 0.1 };

/// Trains two nets from the same weights, one with each optimizer; equal bits after every step.
fn side_by_side<A: Optimizer, B: Optimizer>(ours: impl Fn(&Net) -> A, theirs: impl Fn(&Net) -> B) {
    let (a, b) = (Net::new(1), Net::new(1));
    let (mut ours, mut theirs) = (ours(&a), theirs(&b));
    for step in 0..20 {
        if step == 10 {
            ours.set_learning_rate(0.003);
            theirs.set_learning_rate(0.003);
        }
        ours.backward_step(&a.loss(step)).unwrap();
        theirs.backward_step(&b.loss(step)).unwrap();
        assert_eq!(values(&a.vars), values(&b.vars), "step {step}");
        assert_eq!(ours.learning_rate(), theirs.learning_rate());
    }
    assert_ne!(values(&a.vars), values(&Net::new(1).vars));
}

#[test]
fn adamw_is_candles_step_by_step() {
    let theirs = |net: &Net| candle_nn::AdamW::new(net.vars.all_vars(), ADAMW).unwrap();
    side_by_side(|net| AdamW::named(&net.vars, ADAMW).unwrap(), theirs);
}

#[test]
fn sgd_without_momentum_is_candles_step_by_step() {
    let params = ParamsSgd { lr: 0.05, ..Default::default() };
    let theirs = |net: &Net| SGD::new(net.vars.all_vars(), 0.05).unwrap();
    side_by_side(|net| Sgd::named(&net.vars, params.clone()).unwrap(), theirs);
}

/// Worked by hand: loss = 3 · p, so the gradient is 3.
#[test]
fn sgd_with_momentum_gives_the_numbers_of_torch() {
    let vars = candle_nn::VarMap::new();
    let p = Var::new(&[1.0_f64], CPU).unwrap();
    vars.data().lock().unwrap().insert("p".into(), p.clone());
    let mut sgd = Sgd::named(&vars, ParamsSgd { lr: 0.1, momentum: 0.5, weight_decay: 0.5 }).unwrap();
    let mut found = Vec::new();
    for _ in 0..2 {
        sgd.backward_step(&(p.as_tensor() * 3.0).unwrap().sum_all().unwrap()).unwrap();
        found.push(p.to_vec1::<f64>().unwrap()[0]);
    }
    // g = 3 + 0.5 · 1 = 3.5, b = 3.5, p = 0.65; g = 3 + 0.325, b = 1.75 + 3.325 = 5.075, p =
    // 0.1425.
    assert!((found[0] - 0.65).abs() < 1e-12 && (found[1] - 0.1425).abs() < 1e-12, "{found:?}");
    assert!((sgd.momentum_buffer("p").unwrap().to_vec1::<f64>().unwrap()[0] - 5.075).abs() < 1e-12);
    assert_eq!(sgd.steps(), 2);
}

#[derive(Stateful)]
struct Training<O> {
    model: Vars,
    optimizer: O,
}

/// Stops after 7 of 15 steps, and goes on in a new model and a new optimizer of other numbers.
fn resumed<O: Optimizer + Stateful>(new: impl Fn(&Net, f64) -> O) {
    let train = |net: &Net, optimizer: &mut O, steps: std::ops::Range<u64>| {
        for step in steps {
            optimizer.set_learning_rate(0.01 / (step + 1) as f64);
            optimizer.backward_step(&net.loss(step)).unwrap();
        }
    };
    let straight = Net::new(1);
    train(&straight, &mut new(&straight, 0.01), 0..15);

    let first = Net::new(1);
    let mut state = Training { model: Vars::of(&first.vars), optimizer: new(&first, 0.01) };
    train(&first, &mut state.optimizer, 0..7);
    let checkpoint = stored(Snapshot::new().state_dict("", state.state_dict().unwrap()).unwrap());
    let second = Net::new(9);
    let mut state = Training { model: Vars::of(&second.vars), optimizer: new(&second, 0.5) };
    checkpoint.load_state_dict("", &mut state).unwrap();
    assert_eq!(state.optimizer.learning_rate(), 0.01 / 7.0);
    train(&second, &mut state.optimizer, 7..15);
    assert_eq!(values(&second.vars), values(&straight.vars));
}

#[test]
fn adamw_resumed_is_adamw_that_never_stopped() {
    resumed(|net, lr| AdamW::named(&net.vars, ParamsAdamW { lr, ..ADAMW }).unwrap());
}

#[test]
fn sgd_resumed_is_sgd_that_never_stopped() {
    resumed(|net, lr| Sgd::named(&net.vars, ParamsSgd { lr, momentum: 0.9, weight_decay: 0.01 }).unwrap());
}

#[test]
fn state_is_named_after_parameters_as_torch_names_it() {
    let net = Net::new(1);
    let mut adamw = AdamW::named(&net.vars, ADAMW).unwrap();
    adamw.backward_step(&net.loss(0)).unwrap();
    let state = adamw.state_dict().unwrap();
    let names: Vec<&str> = state.names().collect();
    assert_eq!(names[..3], ["adamw.step", "adamw.lr", "adamw.beta1"]);
    assert!(names.contains(&"adamw.exp_avg.fc.weight") && names.contains(&"adamw.exp_avg_sq.conv.bias"));
    let (first, _) = adamw.moments("fc.weight").unwrap();
    assert!(first.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap() > 0.0);
    assert!(adamw.moments("fc.wieght").is_none());
}

/// `VarMap::all_vars` has another order in every process, so positions are no names.
#[test]
fn an_optimizer_without_names_trains_and_is_not_saved() {
    let net = Net::new(1);
    let mut unnamed = AdamW::new(net.vars.all_vars(), ADAMW).unwrap();
    unnamed.backward_step(&net.loss(0)).unwrap();
    let error = unnamed.state_dict().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.advice().unwrap().contains("named"), "{error}");
    assert!(unnamed.state_dict_mut().is_err());
    assert!(Sgd::new(net.vars.all_vars(), ParamsSgd::default()).unwrap().state_dict().is_err());
}

#[test]
fn integers_are_not_parameters() {
    let vars = candle_nn::VarMap::new();
    let count = Var::zeros(3, DType::U32, CPU).unwrap();
    vars.data().lock().unwrap().insert("count".into(), count);
    let adamw = AdamW::named(&vars, ADAMW).unwrap();
    assert!(adamw.moments("count").is_none());
    let _: &Tensor = vars.all_vars()[0].as_tensor();
}
