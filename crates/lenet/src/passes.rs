//! The net's computations: forward, backward, predictions.

use crate::layers::{
    Pooled, argmax, max_pool, max_pool_backward, relu, relu_backward, softmax_cross_entropy,
};
use crate::net::LeNet;
use ndarray::{Array2, Array4, ArrayView2, ArrayView4, Axis, Data};

/// Batch size where no gradient is needed: large enough to keep the products large, small enough to
/// stay in the cache.
const PREDICTED_TOGETHER: usize = 64;

/// The layers' outputs, kept for the backward pass.
struct Trace {
    pooled1: Pooled,
    pooled2: Pooled,
    features: Array2<f32>,
    hidden1: Array2<f32>,
    hidden2: Array2<f32>,
    logits: Array2<f32>,
}

impl<S: Data<Elem = f32>> LeNet<S> {
    /// f32 [images, channels, 28, 28] → logits f32 [images, classes].
    ///
    /// # Panics
    /// When the images have another size or number of channels.
    pub fn forward(&self, images: ArrayView4<'_, f32>) -> Array2<f32> {
        self.trace(images).logits
    }

    /// The most likely class of each image.
    ///
    /// # Panics
    /// As [`LeNet::forward`].
    pub fn predict(&self, images: ArrayView4<'_, f32>) -> Vec<u8> {
        let together = images.axis_chunks_iter(Axis(0), PREDICTED_TOGETHER);
        together.flat_map(|images| argmax(&self.forward(images))).collect()
    }

    /// The mean cross-entropy of the images' labels, and its gradient for every parameter, as a net
    /// of gradients.
    ///
    /// # Panics
    /// As [`LeNet::forward`], and when there is not one label per image.
    pub fn loss_and_gradient(&self, images: ArrayView4<'_, f32>, labels: &[u8]) -> (f32, LeNet) {
        let trace = self.trace(images);
        let (loss, grad_logits) = softmax_cross_entropy(&trace.logits, labels);
        let fc3 = self.fc3.parameter_gradient(trace.hidden2.view(), &grad_logits);
        let mut grad = self.fc3.input_gradient(&grad_logits);
        relu_backward(&mut grad, &trace.hidden2);
        let fc2 = self.fc2.parameter_gradient(trace.hidden1.view(), &grad);
        let mut grad = self.fc2.input_gradient(&grad);
        relu_backward(&mut grad, &trace.hidden1);
        let fc1 = self.fc1.parameter_gradient(trace.features.view(), &grad);
        let grad = self.fc1.input_gradient(&grad);

        let mut grad = unflatten(grad, &trace.pooled2.output);
        relu_backward(&mut grad, &trace.pooled2.output);
        let grad = max_pool_backward(&grad, &trace.pooled2.winners);
        let conv2 = self.conv2.parameter_gradient(trace.pooled1.output.view(), &grad);
        let mut grad = self.conv2.input_gradient(trace.pooled1.output.view(), &grad);
        relu_backward(&mut grad, &trace.pooled1.output);
        let grad = max_pool_backward(&grad, &trace.pooled1.winners);
        // Nothing uses the gradient of the images themselves.
        let conv1 = self.conv1.parameter_gradient(images, &grad);
        (loss, LeNet { config: self.config, conv1, conv2, fc1, fc2, fc3 })
    }

    fn trace(&self, images: ArrayView4<'_, f32>) -> Trace {
        // ReLU and max-pooling commute; pooling first leaves ReLU a quarter of the elements.
        let mut pooled1 = max_pool(&self.conv1.forward(images));
        relu(&mut pooled1.output);
        let mut pooled2 = max_pool(&self.conv2.forward(pooled1.output.view()));
        relu(&mut pooled2.output);
        let features = flatten(&pooled2.output).to_owned();
        let mut hidden1 = self.fc1.forward(features.view());
        relu(&mut hidden1);
        let mut hidden2 = self.fc2.forward(hidden1.view());
        relu(&mut hidden2);
        let logits = self.fc3.forward(hidden2.view());
        Trace { pooled1, pooled2, features, hidden1, hidden2, logits }
    }
}

/// [images, channels, height, width] as [images, features].
fn flatten(maps: &Array4<f32>) -> ArrayView2<'_, f32> {
    let images = maps.dim().0;
    // OK because pooling gives standard layout and an image is whole features.
    maps.view().into_shape_with_order((images, maps.len() / images.max(1))).expect("standard layout")
}

/// [images, features] in the shape of `maps`.
fn unflatten(features: Array2<f32>, maps: &Array4<f32>) -> Array4<f32> {
    // OK because `maps` is the array that was flattened; the product above may come in column
    // order, `to_shape` copies then.
    features.to_shape(maps.raw_dim()).expect("as many elements").into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Config, SIDE};
    use crate::numeric::random;
    use crate::rng::Rng;
    use ndarray::ArrayD;

    /// Small enough that every parameter can be moved.
    const SMALL: Config = Config { channels: 2, conv: [2, 3], hidden: [5, 4], classes: 3 };

    #[test]
    fn gradients_of_the_whole_net_are_those_of_finite_differences() {
        let net = LeNet::new(SMALL, &mut Rng::new(5)).unwrap();
        let images = random((4, 2, SIDE, SIDE), 6);
        let labels = [0, 1, 2, 1];
        let (_, gradient) = net.loss_and_gradient(images.view(), &labels);
        for (which, (name, written)) in gradient.parameters().into_iter().enumerate() {
            // Along the gradient itself a single number suffices, and kinks of ReLU hardly matter.
            let norm = written.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
            assert!(norm > 1e-4, "{name} has no gradient to test");
            let step = 2e-3;
            let at = |sign: f64| {
                let mut moved = net.clone();
                let mut values: ArrayD<f32> = moved.parameters()[which].1.to_owned();
                values
                    .zip_mut_with(&written, |value, &g| *value += (sign * step / norm * f64::from(g)) as f32);
                moved.parameters_mut()[which].1.assign(&values);
                f64::from(moved.loss_and_gradient(images.view(), &labels).0)
            };
            let measured = (at(1.0) - at(-1.0)) / (2.0 * step);
            assert!((measured - norm).abs() < 0.02 * norm, "{name}: measured {measured}, written {norm}");
        }
    }

    #[test]
    fn predictions_do_not_depend_on_how_many_are_made_together() {
        let net = LeNet::new(Config::default(), &mut Rng::new(5)).unwrap();
        let images = random((PREDICTED_TOGETHER + 3, 1, SIDE, SIDE), 6);
        assert_eq!(net.predict(images.view()), argmax(&net.forward(images.view())));
    }

    #[test]
    fn views_give_the_same_bits_as_owned_weights() {
        let net = LeNet::new(Config::default(), &mut Rng::new(5)).unwrap();
        let images = random((3, 1, SIDE, SIDE), 6);
        assert_eq!(net.view().forward(images.view()), net.forward(images.view()));
    }
}
