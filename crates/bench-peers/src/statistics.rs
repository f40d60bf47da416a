//! Many times as one figure: median, minimum and maximum.

use serde::{Deserialize, Serialize};

/// Of all times that were measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seconds {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Seconds {
    /// None for no times. For an even number the median is the mean of the middle two.
    pub fn of(mut all: Vec<f64>) -> Option<Self> {
        all.sort_by(f64::total_cmp);
        let (min, max) = (*all.first()?, *all.last()?);
        let (low, high) = (all[(all.len() - 1) / 2], all[all.len() / 2]);
        Some(Self { median: (low + high) / 2.0, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_does_not_depend_on_the_order() {
        let of = |all: &[f64]| Seconds::of(all.to_vec());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[7.0]), Some(Seconds { median: 7.0, min: 7.0, max: 7.0 }));
        assert_eq!(of(&[9.0, 1.0, 2.0]), Some(Seconds { median: 2.0, min: 1.0, max: 9.0 }));
        assert_eq!(of(&[4.0, 100.0, 1.0, 2.0]), Some(Seconds { median: 3.0, min: 1.0, max: 100.0 }));
    }
}
