//! The convolution layer: im2col and a matrix product, forward and backward.
//!
//! One image at a time, in order, each product on one thread: sums are taken in the same order on
//! every run, so the same inputs give the same bits.

use ndarray::linalg::general_mat_mul;
use ndarray::{
    Array1, Array2, Array4, ArrayBase, ArrayView2, ArrayView4, Axis, CowArray, Data, Ix1, Ix2, Ix4,
    OwnedRepr, RawDataClone,
};
use std::ops::Range;
use tensorkeep::Stateful;

/// A convolution with stride 1 and square kernels; its weights may lie anywhere.
#[derive(Debug, Stateful)]
pub struct Conv2d<S: Data<Elem = f32> = OwnedRepr<f32>> {
    /// f32 [out channels, in channels, kernel, kernel].
    pub weight: ArrayBase<S, Ix4>,
    /// f32 [out channels].
    pub bias: ArrayBase<S, Ix1>,
    /// Zeros around the image, on each side.
    #[stateful(skip)]
    pub padding: usize,
}

impl<S: Data<Elem = f32> + RawDataClone> Clone for Conv2d<S> {
    fn clone(&self) -> Self {
        Self { weight: self.weight.clone(), bias: self.bias.clone(), padding: self.padding }
    }
}

impl<S: Data<Elem = f32>> Conv2d<S> {
    /// f32 [images, in channels, height, width] → f32 [images, out channels, height', width'] where
    /// height' = height + 2 · padding − kernel + 1.
    pub fn forward(&self, input: ArrayView4<'_, f32>) -> Array4<f32> {
        let geometry = self.geometry(&input);
        let kernels = self.kernels();
        let mut output = Array4::zeros(geometry.output_dim(input.dim().0, kernels.nrows()));
        let mut columns = geometry.columns();
        for (image, mut output) in input.outer_iter().zip(output.outer_iter_mut()) {
            geometry.gather(contiguous(&image.as_standard_layout()), contiguous_mut(&mut columns));
            for (mut plane, &bias) in output.outer_iter_mut().zip(&self.bias) {
                plane.fill(bias);
            }
            let mut output = output.into_shape_with_order((kernels.nrows(), geometry.pixels()));
            // OK because a whole image of a fresh array is contiguous.
            let output = output.as_mut().expect("contiguous");
            general_mat_mul(1.0, &kernels, &columns, 1.0, output);
        }
        output
    }

    /// Gradients of weight and bias, summed over the images.
    pub fn parameter_gradient(&self, input: ArrayView4<'_, f32>, grad_output: &Array4<f32>) -> Conv2d {
        let geometry = self.geometry(&input);
        let mut columns = geometry.columns();
        let mut kernels = Array2::zeros(self.kernels().dim());
        let mut bias = Array1::zeros(self.bias.len());
        for (image, grad) in input.outer_iter().zip(grad_output.outer_iter()) {
            geometry.gather(contiguous(&image.as_standard_layout()), contiguous_mut(&mut columns));
            let grad = planes(contiguous(&grad), bias.len());
            general_mat_mul(1.0, &grad, &columns.t(), 1.0, &mut kernels);
            bias += &grad.sum_axis(Axis(1));
        }
        // OK because the matrix was made with the weight's number of elements.
        let weight = kernels.into_shape_with_order(self.weight.raw_dim()).expect("as many elements");
        Conv2d { weight, bias, padding: self.padding }
    }

    /// Gradient of the input, in the shape of `input`.
    pub fn input_gradient(&self, input: ArrayView4<'_, f32>, grad_output: &Array4<f32>) -> Array4<f32> {
        let geometry = self.geometry(&input);
        let kernels = self.kernels();
        let mut grad_input = Array4::zeros(input.raw_dim());
        let mut columns = geometry.columns();
        for (mut image, grad) in grad_input.outer_iter_mut().zip(grad_output.outer_iter()) {
            let grad = planes(contiguous(&grad), kernels.nrows());
            general_mat_mul(1.0, &kernels.t(), &grad, 0.0, &mut columns);
            geometry.scatter(contiguous(&columns), contiguous_mut(&mut image));
        }
        grad_input
    }

    fn geometry(&self, input: &ArrayView4<'_, f32>) -> Geometry {
        let (_, channels, height, width) = input.dim();
        let (_, expected, kernel, _) = self.weight.dim();
        assert_eq!(channels, expected, "channels of the input and of the kernels");
        let (padded_height, padded_width) = (height + 2 * self.padding, width + 2 * self.padding);
        assert!(padded_height >= kernel && padded_width >= kernel, "an image smaller than the kernel");
        let (out_height, out_width) = (padded_height + 1 - kernel, padded_width + 1 - kernel);
        Geometry { channels, height, width, kernel, padding: self.padding, out_height, out_width }
    }

    /// The weight as [out channels, in channels · kernel · kernel].
    fn kernels(&self) -> CowArray<'_, f32, Ix2> {
        let (outputs, channels, height, width) = self.weight.dim();
        // OK because the number of elements is the same.
        self.weight.to_shape((outputs, channels * height * width)).expect("as many elements")
    }
}

/// Sizes of one convolution, and which input pixel stands under which tap of the kernel.
struct Geometry {
    channels: usize,
    height: usize,
    width: usize,
    kernel: usize,
    padding: usize,
    out_height: usize,
    out_width: usize,
}

impl Geometry {
    fn pixels(&self) -> usize {
        self.out_height * self.out_width
    }

    fn output_dim(&self, images: usize, channels: usize) -> (usize, usize, usize, usize) {
        (images, channels, self.out_height, self.out_width)
    }

    /// A matrix of zeros with a row per tap and a column per output pixel. Taps over the padding
    /// are never written.
    fn columns(&self) -> Array2<f32> {
        Array2::zeros((self.channels * self.kernel * self.kernel, self.pixels()))
    }

    /// im2col: the matrix whose product with the kernels is the convolution.
    fn gather(&self, image: &[f32], columns: &mut [f32]) {
        self.for_each_run(|in_image, in_columns| columns[in_columns].copy_from_slice(&image[in_image]));
    }

    /// col2im: its transpose, each tap added to the pixel it was taken from.
    fn scatter(&self, columns: &[f32], image: &mut [f32]) {
        self.for_each_run(|in_image, in_columns| {
            for (pixel, tap) in image[in_image].iter_mut().zip(&columns[in_columns]) {
                *pixel += tap;
            }
        });
    }

    /// Visits the runs of pixels that are contiguous both in the image and in the matrix, always in
    /// the same order.
    fn for_each_run(&self, mut visit: impl FnMut(Range<usize>, Range<usize>)) {
        for tap in 0..self.channels * self.kernel * self.kernel {
            let (kernel_x, rest) = (tap % self.kernel, tap / self.kernel);
            let (kernel_y, channel) = (rest % self.kernel, rest / self.kernel);
            let columns = inside(kernel_x, self.padding, self.width, self.out_width);
            for y in inside(kernel_y, self.padding, self.height, self.out_height) {
                let image_row = (channel * self.height + y + kernel_y - self.padding) * self.width;
                let image_start = image_row + columns.start + kernel_x - self.padding;
                let matrix_row = tap * self.pixels() + y * self.out_width;
                visit(
                    image_start..image_start + columns.len(),
                    matrix_row + columns.start..matrix_row + columns.end,
                );
            }
        }
    }
}

/// The output positions whose tap at `kernel` lies inside an axis of `len` pixels and not on its
/// padding.
fn inside(kernel: usize, padding: usize, len: usize, out_len: usize) -> Range<usize> {
    let start = padding.saturating_sub(kernel).min(out_len);
    let end = (len + padding).saturating_sub(kernel).min(out_len);
    start..end.max(start)
}

/// One image's output gradient as [channels, pixels].
fn planes(elements: &[f32], channels: usize) -> ArrayView2<'_, f32> {
    // OK because an image is whole channels.
    ArrayView2::from_shape((channels, elements.len() / channels), elements).expect("whole channels")
}

/// OK because everything here is fresh or was brought into standard layout.
fn contiguous<S: Data<Elem = f32>, D: ndarray::Dimension>(array: &ArrayBase<S, D>) -> &[f32] {
    array.as_slice().expect("standard layout")
}

/// As [`contiguous`].
fn contiguous_mut<S: ndarray::DataMut<Elem = f32>, D: ndarray::Dimension>(
    array: &mut ArrayBase<S, D>,
) -> &mut [f32] {
    array.as_slice_mut().expect("standard layout")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numeric::{assert_gradient, random, weighted_sum};

    fn layer(padding: usize) -> Conv2d {
        Conv2d { weight: random((3, 2, 3, 3), 1), bias: random(3, 2), padding }
    }

    /// The definition, without im2col.
    fn direct(layer: &Conv2d, input: &Array4<f32>) -> Array4<f32> {
        let (images, channels, height, width) = input.dim();
        let grow = 2 * layer.padding + 1 - 3;
        Array4::from_shape_fn((images, 3, height + grow, width + grow), |(n, o, y, x)| {
            let mut sum = layer.bias[o];
            for c in 0..channels {
                for (ky, kx) in (0..9).map(|tap| (tap / 3, tap % 3)) {
                    let at = |p: usize, k: usize| (p + k).checked_sub(layer.padding);
                    let pixel = at(y, ky).zip(at(x, kx)).and_then(|(y, x)| input.get((n, c, y, x)));
                    sum += pixel.unwrap_or(&0.0) * layer.weight[(o, c, ky, kx)];
                }
            }
            sum
        })
    }

    #[test]
    fn convolution_matches_its_definition_with_and_without_padding() {
        for padding in [1, 2] {
            let (layer, input) = (layer(padding), random((2, 2, 5, 6), 3));
            let (found, expected) = (layer.forward(input.view()), direct(&layer, &input));
            assert_eq!(found.dim(), expected.dim());
            assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5));
        }
        assert_eq!(layer(0).forward(random((1, 2, 5, 6), 3).view()).dim(), (1, 3, 3, 4));
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        for padding in [0, 2] {
            let (layer, input) = (layer(padding), random((2, 2, 5, 4), 3));
            let probe = random(layer.forward(input.view()).raw_dim(), 4);
            let value =
                |layer: &Conv2d, input: &Array4<f32>| weighted_sum(&layer.forward(input.view()), &probe);
            let written = layer.parameter_gradient(input.view(), &probe);
            // Linear in each of them: a large step loses nothing and hides rounding.
            assert_gradient(&written.weight, &layer.weight, 0.5, |weight| {
                value(&Conv2d { weight: weight.clone(), ..layer.clone() }, &input)
            });
            assert_gradient(&written.bias, &layer.bias, 0.5, |bias| {
                value(&Conv2d { bias: bias.clone(), ..layer.clone() }, &input)
            });
            let written = layer.input_gradient(input.view(), &probe);
            assert_gradient(&written, &input, 0.5, |input| value(&layer, input));
        }
    }

    #[test]
    fn an_input_in_another_memory_order_gives_the_same_bits() {
        let input = random((2, 2, 6, 6), 5);
        let mut transposed = input.view().permuted_axes([0, 1, 3, 2]).as_standard_layout().into_owned();
        transposed.swap_axes(2, 3);
        assert!(!transposed.is_standard_layout());
        assert_eq!(layer(1).forward(input.view()), layer(1).forward(transposed.view()));
    }
}
