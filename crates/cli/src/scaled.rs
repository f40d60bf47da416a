//! Sums of squares and products of any f64s: a number and a power of 4 beside it, so that what lies
//! beyond 1e±154 neither becomes infinite nor vanishes.

/// `value` times 4 to the power `exponent`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scaled {
    value: f64,
    exponent: i32,
}

/// Squares of magnitudes between these, a block of them too, are sums of f64s like any other.
const PLAIN: std::ops::RangeInclusive<f64> = 1e-120..=1e140;

/// Whether numbers up to this magnitude can be squared and summed as they are.
pub fn is_plain(magnitude: f64) -> bool {
    magnitude == 0.0 || PLAIN.contains(&magnitude)
}

/// The power of 2 that brings a magnitude near 1; 0 for zero, NaN and infinities.
pub fn exponent_of(magnitude: f64) -> i32 {
    let exponent = |normal: f64| ((normal.to_bits() >> 52) & 0x7FF) as i32 - 1023;
    match magnitude.abs() {
        size if size == 0.0 || !size.is_finite() => 0,
        size if size < f64::MIN_POSITIVE => exponent(size * 2_f64.powi(64)) - 64,
        size => exponent(size),
    }
}

/// `value` times 2 to the power `by`, which rounds only where the result is below the smallest
/// normal number.
pub fn times_power_of_2(value: f64, by: i32) -> f64 {
    // One power of 2 may be beyond f64 where the product is not.
    let half = by / 2;
    value * 2_f64.powi(half.clamp(-1022, 1023)) * 2_f64.powi((by - half).clamp(-1022, 1023))
}

impl Scaled {
    /// A sum of products of numbers that were multiplied by 2 to the power `-exponent` each.
    pub fn new(value: f64, exponent: i32) -> Self {
        Self { value, exponent }
    }

    /// A sum that is one.
    pub fn plain(value: f64) -> Self {
        Self::new(value, 0)
    }

    pub fn square(value: f64) -> Self {
        let exponent = exponent_of(value);
        let near_1 = times_power_of_2(value, -exponent);
        Self::new(near_1 * near_1, exponent)
    }

    pub fn is_zero(self) -> bool {
        self.value == 0.0
    }

    pub fn plus(self, other: Self) -> Self {
        if other.is_zero() || self.value.is_nan() {
            return self;
        }
        if self.is_zero() || other.value.is_nan() {
            return other;
        }
        let exponent = self.magnitude().max(other.magnitude());
        // A term more than 1000 doublings below is less than any digit of the other.
        let at = |scaled: Self| times_power_of_2(scaled.value, (2 * (scaled.exponent - exponent)).max(-2040));
        Self::new(at(self) + at(other), exponent)
    }

    /// The exponent at which the value is near 1.
    fn magnitude(self) -> i32 {
        self.exponent + exponent_of(self.value) / 2
    }

    pub fn times(self, factor: f64) -> Self {
        Self::new(self.value * factor, self.exponent)
    }

    pub fn sqrt(self) -> f64 {
        times_power_of_2(self.value.sqrt(), self.exponent)
    }

    /// The square root of the quotient.
    pub fn sqrt_over(self, other: Self) -> f64 {
        let (near, exponent) = (self.value / other.value, self.exponent - other.exponent);
        if near.is_finite() && near > 0.0 {
            return times_power_of_2(near.sqrt(), exponent);
        }
        times_power_of_2(self.value.sqrt() / other.value.sqrt(), exponent)
    }

    /// A sum of products over the roots of two sums of squares: a cosine.
    pub fn over_roots(self, a: Self, b: Self) -> f64 {
        let cosine = self.value / (a.value.sqrt() * b.value.sqrt());
        times_power_of_2(cosine, 2 * self.exponent - a.exponent - b.exponent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_of_sums_of_squares_are_right_at_every_size() {
        for size in [5e-324, 1e-310, 1e-200, 1e-100, 1.0, 1e100, 1e200, f64::MAX] {
            let one = Scaled::square(size);
            assert!((one.sqrt() / size - 1.0).abs() < 1e-15, "{size:e}: {:e}", one.sqrt());
            if size < 1e300 {
                let five = Scaled::square(3.0 * size).plus(Scaled::square(4.0 * size));
                assert!((five.sqrt() / (5.0 * size) - 1.0).abs() < 1e-15, "{size:e}: {:e}", five.sqrt());
            }
            assert_eq!(one.sqrt_over(one), 1.0, "{size:e}");
            assert!((one.over_roots(one, one) - 1.0).abs() < 1e-15, "{size:e}");
            assert_eq!(one.plus(Scaled::default()), one);
        }
        let (large, small) = (Scaled::square(1e200), Scaled::square(1e-200));
        assert_eq!((large.plus(small).sqrt(), small.plus(large).sqrt()), (1e200, 1e200));
        assert!((small.sqrt_over(Scaled::square(1e-190)) - 1e-10).abs() < 1e-24);
    }

    #[test]
    fn powers_of_2_are_exact_where_f64_holds_them() {
        assert_eq!(times_power_of_2(5e-324, 1074), 1.0);
        assert_eq!(times_power_of_2(1.0, -1074), 5e-324);
        assert_eq!(times_power_of_2(f64::MAX, -1023 - 1), f64::MAX / 2_f64.powi(1023) / 2.0);
        assert_eq!([1.0, 3.0, 0.25, 5e-324, 0.0].map(exponent_of), [0, 1, -2, -1074, 0]);
    }
}
