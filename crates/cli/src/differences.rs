//! What `diff` finds, as values: for other programs, such as the Python package.

use crate::compare::{self, Distance, Tolerance, Verdict};
use crate::opened::Opened;
use std::collections::BTreeMap;
use tensorkeep::{Checkpoint, Result};

/// How one tensor differs.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// As `diff` has it: `differ`, `incompatible`, `only left` or `only right`; `close` where only
    /// the bytes differ and no number does.
    pub verdict: &'static str,
    /// The largest absolute difference; NaN where a number stands beside a NaN.
    pub largest: Option<f64>,
    /// `|a - b| / |a|`, Euclidean.
    pub relative: Option<f64>,
    /// Dtype and shape of both sides, where they are not compared.
    pub detail: Option<String>,
}

/// Compares all tensors of two checkpoints by name, and returns those that differ.
///
/// ```
/// use tensorkeep::{Checkpoint, Snapshot, Tensor, WriteOptions};
/// let saved = |values: &[f32]| -> tensorkeep::Result<Checkpoint> {
///     let snapshot = Snapshot::new().tensor("w", Tensor::from_elements(&[2], values)?)?;
///     Checkpoint::from_bytes(&snapshot.to_bytes(&WriteOptions::new())?)
/// };
/// let found = tensorkeep_cli::differences(saved(&[1.0, 2.0])?, saved(&[1.0, 2.5])?)?;
/// assert_eq!((found["w"].verdict, found["w"].largest), ("differ", Some(0.5)));
/// # Ok::<(), tensorkeep::Error>(())
/// ```
///
/// # Errors
/// What reading a tensor says, such as `Damaged`.
pub fn differences(left: Checkpoint, right: Checkpoint) -> Result<BTreeMap<String, Difference>> {
    let exactly = Tolerance { rtol: 0.0, atol: 0.0 };
    let verdicts = compare::all(&Opened::Own(left), &Opened::Own(right), None, exactly)?;
    let mut found = BTreeMap::new();
    for (name, verdict) in verdicts {
        let detail = match &verdict {
            Verdict::Equal => continue,
            Verdict::Incompatible(detail) => Some(detail.clone()),
            _ => None,
        };
        let (largest, relative) =
            (verdict.distance().map(Distance::max), verdict.distance().map(Distance::relative));
        let word = verdict.word();
        if let Verdict::Unreadable(error) = verdict {
            return Err(error);
        }
        found.insert(name, Difference { verdict: word, largest, relative, detail });
    }
    Ok(found)
}
