//! The order of the data, and burn's random numbers, as functions of seed and epoch: what a resumed
//! run needs, since neither can be read out of burn.

use burn_core::data::dataloader::batcher::Batcher;
use burn_core::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn_core::data::dataset::{Dataset, DatasetError};
use burn_core::tensor::Device;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A loader whose order is a function of the seed and the epoch's number.
///
/// burn's own loader draws each epoch's order from a generator that a checkpoint cannot reach, so a
/// resumed run would see the first epoch's order again. This one is told the epoch at which the run
/// goes on.
///
/// At the beginning of each epoch it also seeds the device's generator (dropout, noise), with
/// another number for each epoch: burn lets it be seeded, and not read. So a run that is resumed
/// *between* epochs draws the same masks.
pub struct ShuffledLoader<I, O> {
    dataset: Arc<dyn Dataset<I>>,
    batcher: Arc<dyn Batcher<I, O>>,
    /// Of the dataset.
    samples: Range<usize>,
    batch_size: usize,
    seed: u64,
    /// The next one. Shared with the copies for devices: burn makes one before it iterates.
    epoch: Arc<AtomicU64>,
    device: Device,
}

impl<I, O> ShuffledLoader<I, O> {
    /// Batches of `batch_size` samples, at least 1; the last one may be smaller. `completed` is the
    /// number of epochs that the run has behind it:
    /// [`Run::completed_epochs`](crate::Run::completed_epochs).
    pub fn new(
        dataset: impl Dataset<I> + 'static,
        batcher: impl Batcher<I, O> + 'static,
        batch_size: usize,
        seed: u64,
        completed: u64,
    ) -> Self {
        Self {
            samples: 0..dataset.len(),
            dataset: Arc::new(dataset),
            batcher: Arc::new(batcher),
            batch_size: batch_size.max(1),
            seed,
            epoch: Arc::new(AtomicU64::new(completed)),
            device: Device::default(),
        }
    }

    fn with(&self, samples: Range<usize>, epoch: Arc<AtomicU64>, device: Device) -> Self {
        let (dataset, batcher) = (self.dataset.clone(), self.batcher.clone());
        Self { dataset, batcher, samples, batch_size: self.batch_size, seed: self.seed, epoch, device }
    }
}

/// The order of an epoch, and the seed of what is drawn in it.
fn plan(samples: Range<usize>, seed: u64, epoch: u64) -> (Vec<usize>, u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(epoch);
    let device_seed = rng.next_u64();
    let mut order: Vec<usize> = samples.collect();
    order.shuffle(&mut rng);
    (order, device_seed)
}

impl<I, O> DataLoader<O> for ShuffledLoader<I, O>
where
    I: Send + Sync + 'static,
    O: Send + 'static,
{
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<O> + 'a> {
        let epoch = self.epoch.fetch_add(1, Ordering::Relaxed);
        let (order, device_seed) = plan(self.samples.clone(), self.seed, epoch);
        self.device.seed(device_seed);
        Box::new(Epoch { loader: self, order, next: 0 })
    }

    fn num_items(&self) -> usize {
        self.samples.len()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<O>> {
        Arc::new(self.with(self.samples.clone(), self.epoch.clone(), device.clone()))
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<O>> {
        let samples = self.samples.start + start..(self.samples.start + end).min(self.samples.end);
        let epoch = AtomicU64::new(self.epoch.load(Ordering::Relaxed));
        Arc::new(self.with(samples, Arc::new(epoch), self.device.clone()))
    }
}

struct Epoch<'l, I, O> {
    loader: &'l ShuffledLoader<I, O>,
    order: Vec<usize>,
    next: usize,
}

impl<I, O> Iterator for Epoch<'_, I, O> {
    type Item = Result<O, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let indices =
            self.order[self.next..].iter().take(self.loader.batch_size).copied().collect::<Vec<_>>();
        if indices.is_empty() {
            return None;
        }
        self.next += indices.len();
        let items = self.loader.dataset.get_many(indices);
        Some(items.map(|items| self.loader.batcher.batch(items, &self.loader.device)))
    }
}

impl<I, O> DataLoaderIterator<O> for Epoch<'_, I, O> {
    fn progress(&self) -> Progress {
        Progress::new(self.next, self.order.len(), Some("items".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_functions_of_seed_and_epoch() {
        let order = |seed, epoch| plan(0..50, seed, epoch);
        assert_eq!(order(1, 3), order(1, 3));
        assert_ne!(order(1, 3).0, order(1, 4).0);
        assert_ne!(order(1, 3).1, order(1, 4).1);
        assert_ne!(order(1, 3).0, order(2, 3).0);
        let mut sorted = order(1, 3).0;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
    }
}
