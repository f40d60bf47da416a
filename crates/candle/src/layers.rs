//! What draws from a [`Generator`]: dropout, the order of the data, first weights.

use crate::generator::Generator;
use candle_core::{DType, Device, Shape, Tensor, Var};
use candle_nn::init::NormalOrUniform;
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, ModuleT, VarBuilder, VarMap};
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_distr::StandardNormal;
use std::sync::PoisonError;
use tensorkeep::{Result, StateDict, StateDictMut, Stateful};

/// [`candle_nn::Dropout`] with masks from a generator that a checkpoint records.
#[derive(Clone, Debug)]
pub struct Dropout {
    drop_p: f32,
    generator: Generator,
}

impl Dropout {
    /// Drops each element with probability `drop_p`, at least 0 and below 1.
    pub fn new(drop_p: f32, generator: &Generator) -> Self {
        Self { drop_p, generator: generator.clone() }
    }

    /// The input, or in training the input with elements dropped and the rest scaled.
    ///
    /// # Errors
    /// candle's, and one for a probability out of range.
    pub fn forward(&self, xs: &Tensor, train: bool) -> candle_core::Result<Tensor> {
        if !train {
            return Ok(xs.clone());
        }
        if !(0.0..1.0).contains(&self.drop_p) {
            candle_core::bail!("dropout probability has to be in [0, 1), got {}", self.drop_p)
        }
        let draws = self.generator.uniform(xs.elem_count());
        let kept: Vec<u8> = draws.into_iter().map(|draw| u8::from(draw >= self.drop_p)).collect();
        let scale = 1.0 / (1.0 - f64::from(self.drop_p));
        let mask = (Tensor::from_vec(kept, xs.shape(), xs.device())?.to_dtype(xs.dtype())? * scale)?;
        xs * mask
    }
}

impl ModuleT for Dropout {
    fn forward_t(&self, xs: &Tensor, train: bool) -> candle_core::Result<Tensor> {
        self.forward(xs, train)
    }
}

/// The order of the samples, drawn anew for every epoch, and the position in it.
///
/// It is state: the order of the current epoch is saved, too, so that a resumed epoch goes on
/// without a sample lost or seen twice.
#[derive(Clone, Debug)]
pub struct Shuffle {
    /// Of this epoch.
    order: Vec<u32>,
    /// In `order`.
    next: u64,
    /// Completed ones.
    epoch: u64,
    generator: Generator,
}

impl Shuffle {
    /// For so many samples. The first order is drawn by the first batch.
    pub fn new(samples: u32, generator: &Generator) -> Self {
        let order: Vec<u32> = (0..samples).collect();
        Self { next: 0, epoch: 0, order, generator: generator.clone() }
    }

    /// Completed epochs.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The indices of the next samples: `size` of them, or what is left of the epoch. None only
    /// without samples.
    pub fn next_batch(&mut self, size: usize) -> Vec<u32> {
        if self.next == 0 {
            self.order.shuffle(&mut *self.generator.rng());
        }
        // OK to cast: at most as many as there are samples. A checkpoint could say more.
        let from = (self.next as usize).min(self.order.len());
        let to = from.saturating_add(size.max(1)).min(self.order.len());
        self.next = to as u64;
        if to == self.order.len() {
            self.next = 0;
            self.epoch += 1;
        }
        self.order[from..to].to_vec()
    }
}

/// Its own state, with its generator's under `generator`.
impl Stateful for Shuffle {
    fn state_dict(&self) -> Result<StateDict<'_>> {
        StateDict::new()
            .with_field("order", &self.order)?
            .with_field("next", &self.next)?
            .with_field("epoch", &self.epoch)?
            .with_field("generator", &self.generator)
    }

    fn state_dict_mut(&mut self) -> Result<StateDictMut<'_>> {
        StateDictMut::new()
            .with_field("order", &mut self.order)?
            .with_field("next", &mut self.next)?
            .with_field("epoch", &mut self.epoch)?
            .with_field("generator", &mut self.generator)
    }
}

/// `VarBuilder::from_varmap` with first weights from a generator, so that two processes start from
/// the same bits. Distributions are candle's ([`Init`]).
pub fn seeded_var_builder(
    vars: &VarMap,
    generator: &Generator,
    dtype: DType,
    device: &Device,
) -> VarBuilder<'static> {
    let backend = Seeded { vars: vars.clone(), generator: generator.clone() };
    VarBuilder::from_backend(Box::new(backend), dtype, device.clone())
}

struct Seeded {
    vars: VarMap,
    generator: Generator,
}

impl Seeded {
    fn draw(&self, shape: &Shape, init: Init, dtype: DType, device: &Device) -> candle_core::Result<Var> {
        let (normal, scale, middle) = match init {
            Init::Const(_) => return init.var(shape, dtype, device),
            Init::Uniform { lo, up } => (false, (up - lo) / 2.0, (up + lo) / 2.0),
            Init::Randn { mean, stdev } => (true, stdev, mean),
            Init::Kaiming { dist, fan, non_linearity } => {
                let deviation = non_linearity.gain() / (fan.for_shape(shape) as f64).sqrt();
                match dist {
                    NormalOrUniform::Normal => (true, deviation, 0.0),
                    NormalOrUniform::Uniform => (false, 3_f64.sqrt() * deviation, 0.0),
                }
            }
        };
        let mut rng = self.generator.rng();
        let mut draw = || if normal { rng.sample(StandardNormal) } else { rng.random_range(-1.0..1.0) };
        let values: Vec<f64> = (0..shape.elem_count()).map(|_| middle + scale * draw()).collect();
        Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
    }
}

impl SimpleBackend for Seeded {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        init: Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        if !self.contains_tensor(name) {
            let var = self.draw(&shape, init, dtype, device)?;
            self.vars.data().lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), var);
        }
        self.vars.get(shape, name, init, dtype, device)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        match self.vars.data().lock().unwrap_or_else(PoisonError::into_inner).get(name) {
            Some(var) => Ok(var.as_tensor().clone()),
            None => candle_core::bail!("no variable {name}: first weights need a shape"),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.vars.data().lock().unwrap_or_else(PoisonError::into_inner).contains_key(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_nn::linear;

    const CPU: &Device = &Device::Cpu;

    #[test]
    fn dropout_drops_about_its_share_and_scales_the_rest() {
        let dropout = Dropout::new(0.25, &Generator::seeded(0));
        let ones = Tensor::ones(10_000, DType::F32, CPU).unwrap();
        let out = dropout.forward(&ones, true).unwrap().to_vec1::<f32>().unwrap();
        let dropped = out.iter().filter(|&&value| value == 0.0).count();
        assert!((2_300..2_700).contains(&dropped), "{dropped}");
        assert!(out.iter().all(|&value| value == 0.0 || value == 4.0 / 3.0));
        assert_eq!(dropout.forward(&ones, false).unwrap().to_vec1::<f32>().unwrap(), vec![1.0; 10_000]);
        assert!(Dropout::new(1.0, &Generator::seeded(0)).forward(&ones, true).is_err());
    }

    #[test]
    fn an_epoch_has_every_sample_once_and_epochs_differ() {
        let mut shuffle = Shuffle::new(10, &Generator::seeded(3));
        let mut epoch = || {
            let lens = [4, 4, 2].map(|len| {
                let batch = shuffle.next_batch(4);
                assert_eq!(batch.len(), len);
                batch
            });
            lens.concat()
        };
        let (first, second) = (epoch(), epoch());
        assert_ne!(first, second);
        for mut order in [first, second] {
            order.sort_unstable();
            assert_eq!(order, (0..10).collect::<Vec<_>>());
        }
        assert_eq!(shuffle.epoch(), 2);
        assert!(Shuffle::new(0, &Generator::seeded(3)).next_batch(4).is_empty());
    }

    #[test]
    fn first_weights_are_functions_of_the_seed() {
        let values = |seed| {
            let vars = VarMap::new();
            let builder = seeded_var_builder(&vars, &Generator::seeded(seed), DType::F32, CPU);
            let layer = linear(100, 50, builder.pp("fc")).unwrap();
            assert_eq!(vars.all_vars().len(), 2);
            layer.weight().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        assert_eq!(values(1), values(1));
        assert_ne!(values(1), values(2));
        // candle's linear: Kaiming, normal, √(2/100).
        let square = values(1).iter().map(|value| value * value).sum::<f32>() / 5000.0;
        assert!((square - 0.02).abs() < 0.002, "{square}");
    }
}
