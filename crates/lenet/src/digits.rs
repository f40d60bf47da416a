//! Digits drawn with a pen: 28×28 images for machines without MNIST. Sample `i` is a function of
//! seed and `i` alone. Here are the glyphs, the variation between hands, and the drawing of lines.

use crate::net::SIDE;
use crate::rng::Rng;

/// Pixels of an image.
pub const PIXELS: usize = SIDE * SIDE;

/// A point in a glyph's box: both coordinates in 0..1, y downwards.
type Point = (f32, f32);
type Stroke = Vec<Point>;

/// Sample `index` of the set `seed`: pixels 0 (paper) to 255 (ink), row by row, and the digit.
pub fn sample(seed: u64, index: u64) -> ([u8; PIXELS], u8) {
    let mut rng = Rng::for_item(seed, index);
    // OK to cast: below 10.
    let digit = rng.below(10) as u8;
    let hand = Hand::draw(&mut rng);
    let mut ink = [0.0; PIXELS];
    for stroke in glyph(digit, &mut rng) {
        // Each stroke starts a little off, as if the pen had been lifted.
        let off = (rng.between(-0.05, 0.05), rng.between(-0.05, 0.05));
        let points: Stroke = stroke.iter().map(|&(x, y)| hand.place((x + off.0, y + off.1))).collect();
        for ends in points.windows(2) {
            line(&mut ink, ends[0], ends[1], hand.half_width);
        }
    }
    let noise = rng.between(0.0, 0.15);
    let pixels = ink.map(|ink| {
        let value = hand.darkness * ink + noise * rng.normal() as f32;
        // OK to cast: clamped to 0..=255, and never NaN.
        (value.clamp(0.0, 1.0) * 255.0).round() as u8
    });
    (pixels, digit)
}

/// How one person writes one digit: from the glyph's box to pixels, and the pen.
struct Hand {
    /// Pixels per unit along each axis.
    scale: Point,
    rotation: f32,
    shear: f32,
    shift: Point,
    /// Amplitude, frequency and phase of a wave that bends the strokes, one per axis.
    bends: [[f32; 3]; 2],
    half_width: f32,
    darkness: f32,
}

impl Hand {
    fn draw(rng: &mut Rng) -> Self {
        let height = rng.between(14.0, 22.0);
        let mut bend =
            || [rng.between(0.0, 0.07), rng.between(3.0, 9.0), rng.between(0.0, std::f32::consts::TAU)];
        let bends = [bend(), bend()];
        Self {
            scale: (height * rng.between(0.6, 1.0), height),
            rotation: rng.between(-0.3, 0.3),
            shear: rng.between(-0.3, 0.3),
            shift: (rng.between(-2.5, 2.5), rng.between(-2.5, 2.5)),
            bends,
            half_width: rng.between(0.6, 1.6),
            darkness: rng.between(0.75, 1.0),
        }
    }

    /// A glyph's point in pixels.
    fn place(&self, (x, y): Point) -> Point {
        let wave = |[amplitude, frequency, phase]: [f32; 3], along: f32| {
            amplitude * (frequency * along + phase).sin()
        };
        let (x, y) = (x + wave(self.bends[0], y) - 0.5, y + wave(self.bends[1], x) - 0.5);
        let (x, y) = (self.scale.0 * x, self.scale.1 * y);
        let x = x - self.shear * y;
        let (sin, cos) = self.rotation.sin_cos();
        let middle = (SIDE as f32 - 1.0) / 2.0;
        (middle + self.shift.0 + cos * x - sin * y, middle + self.shift.1 + sin * x + cos * y)
    }
}

/// The strokes of a digit, in one of the ways people write it.
fn glyph(digit: u8, rng: &mut Rng) -> Vec<Stroke> {
    let variant = rng.below(2) == 0;
    match digit {
        0 => vec![arc((0.5, 0.5), (0.3, 0.42), -100.0, 260.0)],
        1 if variant => vec![vec![(0.5, 0.08), (0.5, 0.92)]],
        1 => vec![vec![(0.34, 0.26), (0.52, 0.08), (0.52, 0.92)]],
        2 => {
            let mut stroke = arc((0.49, 0.31), (0.27, 0.22), -170.0, 40.0);
            stroke.extend([(0.22, 0.9), (0.8, 0.9)]);
            vec![stroke]
        }
        3 => {
            let mut stroke = arc((0.46, 0.29), (0.27, 0.2), -150.0, 90.0);
            stroke.extend(arc((0.46, 0.7), (0.31, 0.21), -90.0, 150.0));
            vec![stroke]
        }
        4 if variant => vec![vec![(0.64, 0.92), (0.64, 0.08), (0.2, 0.62), (0.84, 0.62)]],
        4 => vec![vec![(0.27, 0.1), (0.24, 0.54), (0.78, 0.54)], vec![(0.72, 0.1), (0.68, 0.92)]],
        5 => {
            let mut stroke = vec![(0.76, 0.1), (0.33, 0.1), (0.29, 0.48)];
            stroke.extend(arc((0.47, 0.67), (0.29, 0.24), -130.0, 150.0));
            vec![stroke]
        }
        6 => {
            let mut stroke = arc((0.7, 0.66), (0.47, 0.58), -95.0, -180.0);
            stroke.extend(arc((0.49, 0.69), (0.26, 0.22), -180.0, 180.0));
            vec![stroke]
        }
        7 if variant => vec![vec![(0.22, 0.12), (0.78, 0.12), (0.42, 0.92)]],
        7 => vec![vec![(0.22, 0.12), (0.78, 0.12), (0.42, 0.92)], vec![(0.4, 0.52), (0.74, 0.52)]],
        8 => vec![arc((0.5, 0.29), (0.22, 0.2), 90.0, 450.0), arc((0.5, 0.7), (0.27, 0.21), -90.0, 270.0)],
        _ => {
            let mut stroke = arc((0.5, 0.32), (0.25, 0.23), 0.0, -360.0);
            stroke.push(if variant { (0.68, 0.92) } else { (0.74, 0.62) });
            if !variant {
                stroke.extend([(0.62, 0.86), (0.36, 0.9)]);
            }
            vec![stroke]
        }
    }
}

/// Part of an ellipse; degrees from the right, clockwise as y goes down.
fn arc(centre: Point, radii: Point, from: f32, to: f32) -> Stroke {
    let steps = ((to - from).abs() / 20.0).ceil().max(1.0);
    let at = |step: u8| {
        let angle = (from + (to - from) * f32::from(step) / steps).to_radians();
        (centre.0 + radii.0 * angle.cos(), centre.1 + radii.1 * angle.sin())
    };
    // OK to cast: at most 18 steps for a full turn.
    (0..=steps as u8).map(at).collect()
}

/// Inks the pixels near a line, with soft edges one pixel wide. Overlaps do not add up.
fn line(ink: &mut [f32; PIXELS], from: Point, to: Point, half_width: f32) {
    let reach = half_width + 1.0;
    let along = (to.0 - from.0, to.1 - from.1);
    let squared = (along.0 * along.0 + along.1 * along.1).max(f32::EPSILON);
    for y in covered(from.1, to.1, reach) {
        for x in covered(from.0, to.0, reach) {
            let to_pixel = (x as f32 - from.0, y as f32 - from.1);
            let nearest = ((to_pixel.0 * along.0 + to_pixel.1 * along.1) / squared).clamp(0.0, 1.0);
            let distance = (to_pixel.0 - nearest * along.0).hypot(to_pixel.1 - nearest * along.1);
            let amount = (half_width + 0.5 - distance).clamp(0.0, 1.0);
            let pixel = &mut ink[y * SIDE + x];
            *pixel = pixel.max(amount);
        }
    }
}

/// The pixels along one axis within `reach` of a line's ends; none where it lies outside the image.
fn covered(a: f32, b: f32, reach: f32) -> std::ops::Range<usize> {
    // Casts saturate: pixels left of the image become 0.
    let start = (a.min(b) - reach).ceil() as usize;
    let end = (a.max(b) + reach + 1.0).floor() as usize;
    start.min(SIDE)..end.min(SIDE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_a_function_of_seed_and_index() {
        let backwards: Vec<_> = (0..20).rev().map(|i| sample(5, i)).collect();
        let forwards: Vec<_> = (0..20).map(|i| sample(5, i)).collect();
        assert!(forwards.iter().eq(backwards.iter().rev()));
        assert_ne!(sample(5, 0), sample(6, 0));
        assert_ne!(sample(5, 0), sample(5, 1));
    }

    #[test]
    fn every_digit_is_drawn_with_ink_inside_the_image() {
        let mut seen = [0; 10];
        for i in 0..1000 {
            let (pixels, digit) = sample(1, i);
            seen[usize::from(digit)] += 1;
            let dark = pixels.iter().filter(|&&pixel| pixel > 128).count();
            assert!((8..400).contains(&dark), "sample {i}, a {digit}, has {dark} dark pixels");
        }
        assert!(seen.iter().all(|count| (60..140).contains(count)), "{seen:?}");
    }

    #[test]
    fn a_line_is_as_wide_as_its_pen_and_may_leave_the_image() {
        let mut ink = [0.0; PIXELS];
        line(&mut ink, (5.0, 10.0), (20.0, 10.0), 1.0);
        assert_eq!([8, 9, 10, 11, 12].map(|y| ink[y * SIDE + 12]), [0.0, 0.5, 1.0, 0.5, 0.0]);
        line(&mut ink, (-100.0, -100.0), (200.0, 150.0), 2.0);
    }
}
