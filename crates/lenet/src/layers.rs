//! The layers other than convolutions: fully connected, ReLU, 2×2 max-pooling, and the loss. Each
//! forward and backward.

use ndarray::{
    Array2, Array4, ArrayBase, ArrayView2, Axis, Data, Dimension, Ix1, Ix2, OwnedRepr, RawDataClone,
};
use tensorkeep::Stateful;

/// A fully connected layer; its weights may lie anywhere.
#[derive(Debug, Stateful)]
pub struct Linear<S: Data<Elem = f32> = OwnedRepr<f32>> {
    /// f32 [outputs, inputs].
    pub weight: ArrayBase<S, Ix2>,
    /// f32, one per output.
    pub bias: ArrayBase<S, Ix1>,
}

impl<S: Data<Elem = f32> + RawDataClone> Clone for Linear<S> {
    fn clone(&self) -> Self {
        Self { weight: self.weight.clone(), bias: self.bias.clone() }
    }
}

impl<S: Data<Elem = f32>> Linear<S> {
    /// f32 [samples, inputs] → f32 [samples, outputs]: x · Wᵀ + b.
    pub fn forward(&self, input: ArrayView2<'_, f32>) -> Array2<f32> {
        input.dot(&self.weight.t()) + &self.bias
    }

    /// Gradients of weight and bias, summed over the samples.
    pub fn parameter_gradient(&self, input: ArrayView2<'_, f32>, grad_output: &Array2<f32>) -> Linear {
        Linear { weight: grad_output.t().dot(&input), bias: grad_output.sum_axis(Axis(0)) }
    }

    /// Gradient of the input.
    pub fn input_gradient(&self, grad_output: &Array2<f32>) -> Array2<f32> {
        grad_output.dot(&self.weight)
    }
}

/// max(x, 0), in place; NaN stays NaN.
pub fn relu<D: Dimension>(values: &mut ndarray::Array<f32, D>) {
    values.mapv_inplace(|value| if value < 0.0 { 0.0 } else { value });
}

/// Clears the gradient where [`relu`] gave 0.
pub fn relu_backward<D: Dimension>(gradient: &mut ndarray::Array<f32, D>, output: &ndarray::Array<f32, D>) {
    gradient.zip_mut_with(output, |gradient, &output| {
        if output <= 0.0 {
            *gradient = 0.0;
        }
    });
}

/// The result of [`max_pool`].
pub struct Pooled {
    /// f32 [images, channels, height / 2, width / 2].
    pub output: Array4<f32>,
    /// Which of the four was the largest, row by row: 0 to 3; the first of equal ones.
    pub winners: Vec<u8>,
}

/// The largest of each 2×2 window of f32 [images, channels, height, width]; height and width must
/// be even.
pub fn max_pool(input: &Array4<f32>) -> Pooled {
    let (images, channels, height, width) = input.dim();
    assert!(height % 2 == 0 && width % 2 == 0, "an image of odd size {height}×{width}");
    let input = input.as_standard_layout();
    // OK because it was just brought into standard layout.
    let pixels = input.as_slice().expect("standard layout");
    let count = pixels.len() / 4;
    let (mut maxima, mut winners) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for rows in pixels.chunks_exact(2 * width) {
        let (upper, lower) = rows.split_at(width);
        for (upper, lower) in upper.chunks_exact(2).zip(lower.chunks_exact(2)) {
            let (mut largest, mut winner) = (upper[0], 0);
            for (place, &value) in [(1, &upper[1]), (2, &lower[0]), (3, &lower[1])] {
                if value > largest {
                    (largest, winner) = (value, place);
                }
            }
            maxima.push(largest);
            winners.push(winner);
        }
    }
    // OK because there is one maximum per 2×2 window.
    let output = Array4::from_shape_vec((images, channels, height / 2, width / 2), maxima);
    Pooled { output: output.expect("one per window"), winners }
}

/// Gives each window's gradient to its largest element.
pub fn max_pool_backward(grad_output: &Array4<f32>, winners: &[u8]) -> Array4<f32> {
    let (images, channels, height, width) = grad_output.dim();
    let mut pixels = vec![0.0; 4 * winners.len()];
    for (window, (&winner, &gradient)) in winners.iter().zip(grad_output).enumerate() {
        let (row, column) = (window / width, window % width);
        let (down, right) = (usize::from(winner / 2), usize::from(winner % 2));
        pixels[(2 * row + down) * 2 * width + 2 * column + right] = gradient;
    }
    // OK because there are four elements per window.
    Array4::from_shape_vec((images, channels, 2 * height, 2 * width), pixels).expect("four per window")
}

/// Mean cross-entropy of softmax(`logits`) f32 [samples, classes] against the labels, and its
/// gradient with respect to the logits.
pub fn softmax_cross_entropy(logits: &Array2<f32>, labels: &[u8]) -> (f32, Array2<f32>) {
    assert_eq!(logits.nrows(), labels.len(), "logits and labels");
    let samples = labels.len() as f32;
    let mut gradient = logits.clone();
    let mut loss = 0.0_f64;
    for (mut row, &label) in gradient.outer_iter_mut().zip(labels) {
        // Without the largest logit taken off, exp overflows.
        let largest = row.fold(f32::NEG_INFINITY, |largest, &logit| largest.max(logit));
        row.mapv_inplace(|logit| logit - largest);
        let right = row[usize::from(label)];
        row.mapv_inplace(f32::exp);
        let sum = row.sum();
        loss += f64::from(sum.ln() - right);
        row.mapv_inplace(|exp| exp / sum / samples);
        row[usize::from(label)] -= 1.0 / samples;
    }
    ((loss / f64::from(samples)) as f32, gradient)
}

/// The column of the largest element of each row; the first of equal ones.
pub fn argmax(logits: &Array2<f32>) -> Vec<u8> {
    let largest = |row: ndarray::ArrayView1<'_, f32>| {
        let keep_first = |best: usize, i: usize| if row[i] > row[best] { i } else { best };
        // OK to cast: labels are u8, so there are at most 256 classes.
        (1..row.len()).fold(0, keep_first) as u8
    };
    logits.outer_iter().map(largest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numeric::{assert_gradient, random, weighted_sum};
    use ndarray::{arr2, array};

    #[test]
    fn gradients_of_a_linear_layer_are_those_of_finite_differences() {
        let layer = Linear { weight: random((4, 5), 1), bias: random(4, 2) };
        let (input, probe) = (random((3, 5), 3), random((3, 4), 4));
        let value = |layer: &Linear, input: &Array2<f32>| weighted_sum(&layer.forward(input.view()), &probe);
        let written = layer.parameter_gradient(input.view(), &probe);
        assert_gradient(&written.weight, &layer.weight, 0.5, |weight| {
            value(&Linear { weight: weight.clone(), ..layer.clone() }, &input)
        });
        assert_gradient(&written.bias, &layer.bias, 0.5, |bias| {
            value(&Linear { bias: bias.clone(), ..layer.clone() }, &input)
        });
        assert_gradient(&layer.input_gradient(&probe), &input, 0.5, |input| value(&layer, input));
    }

    #[test]
    fn the_gradient_of_relu_is_that_of_finite_differences() {
        // No element within a step of the kink, where there is no derivative.
        let input = random((4, 6), 1).mapv(|value| value + 0.1_f32.copysign(value));
        let probe = random((4, 6), 2);
        let forward = |input: &Array2<f32>| {
            let mut output = input.clone();
            relu(&mut output);
            output
        };
        let mut gradient = probe.clone();
        relu_backward(&mut gradient, &forward(&input));
        assert_gradient(&gradient, &input, 0.05, |input| weighted_sum(&forward(input), &probe));
    }

    #[test]
    fn the_gradient_of_max_pooling_is_that_of_finite_differences() {
        // All elements further apart than a step, so that no winner changes.
        let mut order: Vec<f32> = (0..96).map(|i| i as f32 * 0.1 - 5.0).collect();
        crate::rng::Rng::new(1).shuffle(&mut order);
        let input = Array4::from_shape_vec((2, 2, 4, 6), order).unwrap();
        let pooled = max_pool(&input);
        let probe = random(pooled.output.raw_dim(), 2);
        let gradient = max_pool_backward(&probe, &pooled.winners);
        assert_gradient(&gradient, &input, 0.02, |input| weighted_sum(&max_pool(input).output, &probe));
    }

    #[test]
    fn the_first_of_equal_elements_wins() {
        let pooled = max_pool(&Array4::zeros((1, 1, 2, 4)));
        assert_eq!((pooled.output.dim(), &pooled.winners[..]), ((1, 1, 1, 2), &[0, 0][..]));
        assert_eq!(argmax(&arr2(&[[1.0, 3.0, 3.0], [0.0, 0.0, 0.0]])), [1, 0]);
    }

    #[test]
    fn the_gradient_of_the_loss_is_that_of_finite_differences() {
        let (logits, labels) = (random((3, 4), 1) * 3.0, [2, 0, 3]);
        let (_, gradient) = softmax_cross_entropy(&logits, &labels);
        assert_gradient(&gradient, &logits, 0.01, |logits| {
            f64::from(softmax_cross_entropy(logits, &labels).0)
        });
    }

    #[test]
    fn cross_entropy_of_equal_and_of_large_logits() {
        let (loss, _) = softmax_cross_entropy(&Array2::zeros((2, 10)), &[0, 9]);
        assert!((loss - 10.0_f32.ln()).abs() < 1e-6, "{loss}");
        let (loss, gradient) = softmax_cross_entropy(&array![[1000.0, 0.0]], &[0]);
        assert_eq!(loss, 0.0);
        assert!(gradient.iter().all(|g| g.is_finite()));
    }
}
