//! Gradients by central finite differences, to test the analytic ones.

use crate::rng::Rng;
use ndarray::{Array, ArrayBase, Data, Dimension, ShapeBuilder};

/// Values in ±1 from a seed.
pub(crate) fn random<D: Dimension, Sh: ShapeBuilder<Dim = D>>(shape: Sh, seed: u64) -> Array<f32, D> {
    let mut rng = Rng::new(seed);
    Array::from_shape_simple_fn(shape, || rng.between(-1.0, 1.0))
}

/// Σ values · weights in f64: turns an output into a number whose gradient with respect to the
/// output is `weights`.
pub(crate) fn weighted_sum<D: Dimension>(values: &Array<f32, D>, weights: &Array<f32, D>) -> f64 {
    values.iter().zip(weights).map(|(&value, &weight)| f64::from(value) * f64::from(weight)).sum()
}

/// Fails when `gradient` differs from that of `objective` at `point`, element by element.
pub(crate) fn assert_gradient<S: Data<Elem = f32>, D: Dimension>(
    gradient: &ArrayBase<S, D>,
    point: &Array<f32, D>,
    step: f32,
    objective: impl Fn(&Array<f32, D>) -> f64,
) {
    assert_eq!(gradient.shape(), point.shape());
    let largest = gradient.iter().fold(0.0_f64, |largest, &g| largest.max(f64::from(g.abs())));
    assert!(largest > 1e-3, "a gradient of zeros tests nothing");
    for (i, &written) in gradient.iter().enumerate() {
        let at = |offset: f32| {
            let mut moved = point.as_standard_layout().into_owned();
            moved.as_slice_mut().expect("standard layout")[i] += offset;
            objective(&moved)
        };
        let measured = (at(step) - at(-step)) / (2.0 * f64::from(step));
        let difference = (measured - f64::from(written)).abs();
        assert!(difference < 2e-3 * largest.max(0.1), "element {i}: measured {measured}, written {written}");
    }
}
