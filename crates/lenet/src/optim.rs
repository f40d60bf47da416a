//! Optimizers over named arrays: SGD with momentum, and Adam. The update, its moments and how they
//! are saved.

use ndarray::{ArrayD, ArrayViewD, ArrayViewMutD, Zip};
use serde::{Deserialize, Serialize};
use tensorkeep::{Error, ErrorKind, Result, StateDict, StateDictMut, Stateful};

/// Which optimizer, with its hyperparameters except the learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerKind {
    /// PyTorch `torch.optim.SGD`: g ← g + weight_decay · p; b ← momentum · b + g; p ← p − lr · b.
    Sgd {
        /// Factor of the last update that is kept.
        momentum: f64,
        /// L2 penalty.
        weight_decay: f64,
    },
    /// Kingma and Ba, "Adam", ICLR 2015, algorithm 1, with ε outside the root as in PyTorch
    /// `torch.optim.Adam`.
    Adam {
        /// Decay of the first and second moments.
        betas: (f64, f64),
        /// Keeps the denominator from 0.
        eps: f64,
    },
}

impl OptimizerKind {
    /// SGD with momentum 0.9 and no weight decay.
    pub const SGD: Self = Self::Sgd { momentum: 0.9, weight_decay: 0.0 };
    /// Adam with the paper's constants.
    pub const ADAM: Self = Self::Adam { betas: (0.9, 0.999), eps: 1e-8 };

    /// The name without the numbers.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sgd { .. } => "sgd",
            Self::Adam { .. } => "adam",
        }
    }

    /// Names of the moments kept for each parameter, as in PyTorch.
    fn moments(&self) -> &'static [&'static str] {
        match self {
            Self::Sgd { .. } => &["momentum"],
            Self::Adam { .. } => &["exp_avg", "exp_avg_sq"],
        }
    }
}

/// An optimizer's state without its tensors; its record in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hyper {
    /// Which one.
    pub kind: OptimizerKind,
    /// The learning rate before any schedule.
    pub lr: f64,
    /// Completed updates.
    pub step: u64,
}

/// An optimizer and its moments, which start at 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimizer {
    hyper: Hyper,
    /// Per parameter: its name, and one array of its shape per moment.
    moments: Vec<(String, Vec<ArrayD<f32>>)>,
}

impl Optimizer {
    /// For these parameters.
    pub fn new<'p>(
        kind: OptimizerKind,
        lr: f64,
        parameters: impl IntoIterator<Item = (&'static str, ArrayViewD<'p, f32>)>,
    ) -> Self {
        let zeros = |values: ArrayViewD<'_, f32>| {
            kind.moments().iter().map(|_| ArrayD::zeros(values.raw_dim())).collect()
        };
        let moments = parameters.into_iter().map(|(name, values)| (name.to_owned(), zeros(values))).collect();
        Self { hyper: Hyper { kind, lr, step: 0 }, moments }
    }

    /// The state without the tensors.
    pub fn hyper(&self) -> Hyper {
        self.hyper
    }

    /// Takes over the state from [`Optimizer::hyper`]; the moments come through [`Stateful`].
    ///
    /// # Errors
    /// `Mismatch` when it is of another kind of optimizer; nothing is changed then.
    pub fn restore(&mut self, hyper: Hyper) -> Result<()> {
        if hyper.kind.name() != self.hyper.kind.name() {
            return Err(Error::new(ErrorKind::Mismatch, "kind of optimizer")
                .expected(self.hyper.kind.name())
                .found(hyper.kind.name())
                .help("resume with the optimizer that the run was started with"));
        }
        self.hyper = hyper;
        Ok(())
    }

    /// One update of the parameters, in the order they were given to [`Optimizer::new`], at the
    /// rate `lr`.
    ///
    /// # Panics
    /// If a gradient has another shape than its parameter.
    pub fn step<'p, 'g>(
        &mut self,
        lr: f64,
        parameters: impl IntoIterator<Item = (&'static str, ArrayViewMutD<'p, f32>)>,
        gradients: impl IntoIterator<Item = (&'static str, ArrayViewD<'g, f32>)>,
    ) {
        self.hyper.step += 1;
        let pairs = parameters.into_iter().zip(gradients);
        for ((_, moments), ((_, parameter), (_, gradient))) in self.moments.iter_mut().zip(pairs) {
            match (self.hyper.kind, &mut moments[..]) {
                (OptimizerKind::Sgd { momentum, weight_decay }, [buffer]) => {
                    sgd(lr, [momentum, weight_decay], parameter, &gradient, buffer);
                }
                (OptimizerKind::Adam { betas, eps }, [first, second]) => {
                    let adam = AdamStep::new(lr, betas, eps, self.hyper.step);
                    adam.apply(parameter, &gradient, first, second);
                }
                (kind, moments) => unreachable!("{} with {} moments", kind.name(), moments.len()),
            }
        }
    }
}

fn sgd(
    lr: f64,
    [momentum, weight_decay]: [f64; 2],
    parameter: ArrayViewMutD<'_, f32>,
    gradient: &ArrayViewD<'_, f32>,
    buffer: &mut ArrayD<f32>,
) {
    let (lr, momentum, weight_decay) = (lr as f32, momentum as f32, weight_decay as f32);
    Zip::from(parameter).and(gradient).and(buffer).for_each(|value, &gradient, buffer| {
        *buffer = momentum * *buffer + (gradient + weight_decay * *value);
        *value -= lr * *buffer;
    });
}

/// Adam's factors at one step, as f32.
struct AdamStep {
    rate: f32,
    correction: f32,
    keep: [f32; 2],
    take: [f32; 2],
    eps: f32,
}

impl AdamStep {
    /// Computed in f64: 1 − 0.999 loses digits that matter in f32.
    fn new(lr: f64, (beta1, beta2): (f64, f64), eps: f64, step: u64) -> Self {
        let step = step as f64;
        Self {
            rate: (lr / (1.0 - beta1.powf(step))) as f32,
            correction: (1.0 - beta2.powf(step)).sqrt() as f32,
            keep: [beta1 as f32, beta2 as f32],
            take: [(1.0 - beta1) as f32, (1.0 - beta2) as f32],
            eps: eps as f32,
        }
    }

    fn apply(
        &self,
        parameter: ArrayViewMutD<'_, f32>,
        gradient: &ArrayViewD<'_, f32>,
        first: &mut ArrayD<f32>,
        second: &mut ArrayD<f32>,
    ) {
        let Self { rate, correction, keep, take, eps } = *self;
        Zip::from(parameter).and(gradient).and(first).and(second).for_each(
            |value, &gradient, first, second| {
                *first = keep[0] * *first + take[0] * gradient;
                *second = keep[1] * *second + take[1] * gradient * gradient;
                *value -= rate * *first / (second.sqrt() / correction + eps);
            },
        );
    }
}

impl Stateful for Optimizer {
    fn state_dict(&self) -> Result<StateDict<'_>> {
        let mut state = StateDict::new();
        for (i, moment) in self.hyper.kind.moments().iter().enumerate() {
            for (name, moments) in &self.moments {
                state = state.with(format!("{moment}.{name}"), &moments[i])?;
            }
        }
        Ok(state)
    }

    fn state_dict_mut(&mut self) -> Result<StateDictMut<'_>> {
        let mut state = StateDictMut::new();
        let names = self.hyper.kind.moments();
        for (name, moments) in &mut self.moments {
            for (moment, values) in names.iter().zip(moments) {
                state = state.with(format!("{moment}.{name}"), values)?;
            }
        }
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array1, arr1};

    /// Values after each update with the gradients given.
    fn run(kind: OptimizerKind, lr: f64, start: f32, gradients: &[f32]) -> Vec<f32> {
        let mut value = arr1(&[start]);
        let mut optimizer = Optimizer::new(kind, lr, [("p", value.view().into_dyn())]);
        let mut step = |&gradient: &f32| {
            let gradient = arr1(&[gradient]);
            let parameters = [("p", value.view_mut().into_dyn())];
            optimizer.step(lr, parameters, [("p", gradient.view().into_dyn())]);
            value[0]
        };
        gradients.iter().map(&mut step).collect()
    }

    #[test]
    fn sgd_gives_the_numbers_worked_by_hand() {
        // g' = g + 0.5 p: 2 → b 2 → p 0.8; then g' = 1.4, b = 0.5·2 + 1.4 = 2.4 → p 0.56.
        let found = run(OptimizerKind::Sgd { momentum: 0.5, weight_decay: 0.5 }, 0.1, 1.0, &[1.5, 1.0]);
        assert!(found.iter().zip([0.8, 0.56]).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}");
    }

    #[test]
    fn adams_first_update_is_the_learning_rate() {
        for gradient in [1e-3, 1.0, 1e3] {
            let found = run(OptimizerKind::ADAM, 0.01, 1.0, &[gradient]);
            assert!((found[0] - 0.99).abs() < 1e-4, "{found:?}");
        }
    }

    #[test]
    fn adam_gives_the_numbers_of_its_formula_in_f64() {
        let gradients = [0.5_f32, -0.25, 1.0, 0.125];
        let (mut value, mut first, mut second) = (1.0_f64, 0.0, 0.0);
        let mut expected = Vec::new();
        for (t, gradient) in (1..).zip(gradients.map(f64::from)) {
            first = 0.9 * first + 0.1 * gradient;
            second = 0.999 * second + 0.001 * gradient * gradient;
            let (first, second) = (first / (1.0 - 0.9_f64.powi(t)), second / (1.0 - 0.999_f64.powi(t)));
            value -= 0.01 * first / (second.sqrt() + 1e-8);
            expected.push(value as f32);
        }
        let found = run(OptimizerKind::ADAM, 0.01, 1.0, &gradients);
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} {expected:?}");
    }

    #[test]
    fn moments_are_named_after_their_parameters() {
        let value = Array1::<f32>::zeros(3);
        let of = |kind| Optimizer::new(kind, 0.1, [("fc.bias", value.view().into_dyn())]);
        let (mut sgd, adam) = (of(OptimizerKind::SGD), of(OptimizerKind::ADAM));
        let names = adam.state_dict().unwrap().names().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(names, ["exp_avg.fc.bias", "exp_avg_sq.fc.bias"]);
        assert_eq!(sgd.state_dict().unwrap().names().collect::<Vec<_>>(), ["momentum.fc.bias"]);
        let error = sgd.restore(adam.hyper()).unwrap_err();
        assert!(error.to_string().contains("expected sgd, found adam"), "{error}");
    }
}
