//! The state of the job: weights that every rank holds, moments of which each holds its rows, a sum
//! over a cut by hand, and a generator of each rank's own.

use lenet::{Config, Dataset, LeNet, Rng, rng::SplitMix64};
use std::time::Instant;
use tensorkeep::layout::{Layout, TensorBox};
use tensorkeep::ranks::{AnotherWorld, Collective};
use tensorkeep::{Checkpoint, Result, Snapshot};

pub const SAVE_EVERY: u64 = 3;
/// Images of a step, over all ranks.
const BATCH: u64 = 24;
/// Elements of the sum that is cut by hand.
const SUMS: u64 = 21;

/// One parameter: all weights, and this rank's rows of the moments.
struct Parameter {
    name: &'static str,
    shape: Vec<u64>,
    weights: Vec<f32>,
    /// This rank's rows.
    rows: TensorBox,
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Parameter {
    /// Where this rank's rows are among the weights.
    fn own(&self) -> std::ops::Range<usize> {
        let row = self.shape[1..].iter().product::<u64>();
        let rows = self.rows.range(0);
        (rows.start * row) as usize..(rows.end * row) as usize
    }
}

/// The state of one rank.
pub struct Model {
    rank: u32,
    layout: Layout,
    parameters: Vec<Parameter>,
    /// Elements of a vector of [`SUMS`].
    sums: Vec<f32>,
    rng: u64,
}

fn cut(rank: u32, world: u32) -> std::ops::Range<u64> {
    let at = |rank: u32| u64::from(rank) * SUMS / u64::from(world);
    at(rank)..at(rank + 1)
}

impl Model {
    pub fn new(seed: u64, rank: u32, world: u32) -> Result<Self> {
        let net = LeNet::new(Config::default(), &mut Rng::new(seed))?;
        let layout = Layout::sharded(0, world)?;
        let mut parameters = Vec::new();
        for (name, array) in net.parameters() {
            let shape: Vec<u64> = array.shape().iter().map(|&len| len as u64).collect();
            let rows = layout.box_of(&shape, rank).unwrap_or_else(|| TensorBox::whole(&shape));
            let own = vec![0.0; rows.elements() as usize];
            let weights = array.iter().copied().collect();
            parameters.push(Parameter { name, shape, weights, rows, first: own.clone(), second: own });
        }
        let range = cut(rank, world);
        let rng = SplitMix64::new(seed ^ u64::from(rank) << 32 ^ u64::from(world)).next_u64();
        Ok(Self { rank, layout, parameters, sums: vec![0.0; (range.end - range.start) as usize], rng })
    }

    /// This rank's part of a checkpoint, whatever ranks saved it.
    pub fn load(checkpoint: &Checkpoint, seed: u64, rank: u32, world: u32) -> Result<Self> {
        let mut model = Self::new(seed, rank, world)?;
        for parameter in &mut model.parameters {
            let name = parameter.name;
            parameter.weights.copy_from_slice(checkpoint.tensor(name)?.elements()?);
            for (moment, own) in [("first", &mut parameter.first), ("second", &mut parameter.second)] {
                let rows = checkpoint.read_box(&format!("adam/{moment}.{name}"), &parameter.rows)?;
                own.copy_from_slice(rows.elements()?);
            }
        }
        let range = cut(rank, world);
        let own = TensorBox::new([range.start], [range.end - range.start])?;
        model.sums.copy_from_slice(checkpoint.read_box("sums", &own)?.elements()?);
        if let Some(rng) = checkpoint.rank_record("rng", rank, world)? {
            model.rng = rng;
        }
        Ok(model)
    }

    pub fn snapshot(&self) -> Result<Snapshot<'_>> {
        let world = self.layout.positions().count();
        let mut snapshot = Snapshot::new();
        for parameter in &self.parameters {
            let shape: Vec<usize> = parameter.shape.iter().map(|&len| len as usize).collect();
            let own: Vec<usize> = parameter.rows.lens().iter().map(|&len| len as usize).collect();
            snapshot = snapshot.tensor(parameter.name, (&shape[..], &parameter.weights[..]))?;
            for (moment, elements) in [("first", &parameter.first), ("second", &parameter.second)] {
                let name = format!("adam/{moment}.{}", parameter.name);
                snapshot =
                    snapshot.sharded(name, (&own[..], &elements[..]), &parameter.shape, &self.layout)?;
            }
        }
        let range = cut(self.rank, world);
        let own = TensorBox::new([range.start], [range.end - range.start])?;
        snapshot.part("sums", &self.sums, &[SUMS], &own)?.record("adam", &("betas", 0.9, 0.999))?.rank_record(
            "rng",
            &self.rng,
            AnotherWorld::None,
        )
    }

    /// One step: gradients of this rank's images, their sum in the order of the ranks, this rank's
    /// rows of the weights, and all rows.
    pub fn step(
        &mut self,
        images: &Dataset,
        step: u64,
        ranks: &dyn Collective,
        soon: impl Fn() -> Instant,
    ) -> Result<()> {
        let gradient = self.gradient(images, step)?;
        let sum = together(ranks, &gradient, &soon, |all| {
            let mut sum = vec![0.0_f32; gradient.len()];
            for part in all {
                sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
            }
            sum
        })?;
        let mut at = 0;
        let bias = |beta: f32| 1.0 - beta.powi(step as i32 + 1);
        for parameter in &mut self.parameters {
            let own = parameter.own();
            let gradient = &sum[at..at + parameter.weights.len()][own.clone()];
            at += parameter.weights.len();
            let moments = parameter.first.iter_mut().zip(&mut parameter.second);
            for ((weight, (first, second)), gradient) in
                parameter.weights[own].iter_mut().zip(moments).zip(gradient)
            {
                let gradient = gradient / BATCH as f32;
                *first = 0.9 * *first + 0.1 * gradient;
                *second = 0.999 * *second + 0.001 * gradient * gradient;
                *weight -= 0.002 * (*first / bias(0.9)) / ((*second / bias(0.999)).sqrt() + 1e-8);
            }
        }
        for (sum, gradient) in self.sums.iter_mut().zip(&gradient) {
            *sum += gradient;
        }
        self.exchange_rows(ranks, &soon)
    }

    /// Gradients of all parameters, one behind the other. A little noise makes the generator count.
    fn gradient(&mut self, images: &Dataset, step: u64) -> Result<Vec<f32>> {
        let world = u64::from(self.layout.positions().count());
        let mine = (0..BATCH).filter(|image| image % world == u64::from(self.rank));
        let indices: Vec<u32> =
            mine.map(|image| ((step * BATCH + image) % images.len() as u64) as u32).collect();
        if indices.is_empty() {
            return Ok(vec![0.0; self.parameters.iter().map(|parameter| parameter.weights.len()).sum()]);
        }
        let (mut pixels, labels) = images.batch(&indices);
        let mut generator = SplitMix64::new(self.rng);
        self.rng = generator.next_u64();
        pixels.mapv_inplace(|pixel| pixel + (generator.next_u64() >> 40) as f32 * 1e-9);
        let mut net = LeNet::zeros(Config::default())?;
        for ((_, mut array), parameter) in net.parameters_mut().into_iter().zip(&self.parameters) {
            array.iter_mut().zip(&parameter.weights).for_each(|(to, from)| *to = *from);
        }
        let (_, gradient) = net.loss_and_gradient(pixels.view(), &labels);
        let count = indices.len() as f32;
        Ok(gradient
            .parameters()
            .into_iter()
            .flat_map(|(_, array)| array.into_iter().map(|g| g * count).collect::<Vec<_>>())
            .collect())
    }

    /// Every rank's rows of the weights, to every rank.
    fn exchange_rows(&mut self, ranks: &dyn Collective, soon: &impl Fn() -> Instant) -> Result<()> {
        let own: Vec<f32> = self
            .parameters
            .iter()
            .flat_map(|parameter| parameter.weights[parameter.own()].to_vec())
            .collect();
        let (layout, parameters) = (&self.layout, &self.parameters);
        let all = together(ranks, &own, soon, |all| {
            let mut rest: Vec<std::slice::Iter<'_, f32>> = all.iter().map(|rows| rows.iter()).collect();
            let mut weights = Vec::new();
            for parameter in parameters {
                for (rank, rows) in (0..).zip(&mut rest) {
                    let count = layout.box_of(&parameter.shape, rank).map_or(0, |own| own.elements());
                    weights.extend(rows.by_ref().take(count as usize).copied());
                }
            }
            weights
        })?;
        let mut rest = &all[..];
        for parameter in &mut self.parameters {
            let (own, later) = rest.split_at(parameter.weights.len());
            parameter.weights.copy_from_slice(own);
            rest = later;
        }
        Ok(())
    }
}

/// What rank 0 makes of all ranks' numbers, on every rank.
fn together(
    ranks: &dyn Collective,
    own: &[f32],
    soon: &impl Fn() -> Instant,
    make: impl FnOnce(Vec<Vec<f32>>) -> Vec<f32>,
) -> Result<Vec<f32>> {
    let bytes = |floats: &[f32]| floats.iter().flat_map(|float| float.to_le_bytes()).collect::<Vec<u8>>();
    let floats = |bytes: &[u8]| -> Vec<f32> {
        bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
    };
    let all = ranks.gather(&bytes(own), soon())?;
    let made = all.map(|all| bytes(&make(all.iter().map(|bytes| floats(bytes)).collect())));
    Ok(floats(&ranks.broadcast(made.as_deref(), soon())?))
}
