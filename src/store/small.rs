//! Small objects that have no checksum: an attempt's, and a run's identity. One wrong answer of a proxy or a network card
//! must not end a run, so what is not expected is asked for once more before it is believed.

use crate::engine::Engine;
use crate::error::{Error, Result};

/// What an object holds; asked for again where it is not as expected.
///
/// # Errors
/// `NotFound`; `Damaged` for more than `longest` bytes; whatever the engine says.
pub(super) fn read(
    engine: &dyn Engine,
    key: &str,
    longest: u64,
    is_expected: impl Fn(&[u8]) -> bool,
) -> Result<Vec<u8>> {
    match read_once(engine, key, longest) {
        Ok(bytes) if is_expected(&bytes) => Ok(bytes),
        Err(error) if !super::catalog::is_damage(&error) => Err(error),
        _ => read_once(engine, key, longest),
    }
}

/// What an object holds of which nothing is known: what two answers agree on.
///
/// # Errors
/// As [`read`].
pub(super) fn read_unknown(engine: &dyn Engine, key: &str, longest: u64) -> Result<Vec<u8>> {
    let first = read_once(engine, key, longest)?;
    read(engine, key, longest, |second| second == first)
}

fn read_once(engine: &dyn Engine, key: &str, longest: u64) -> Result<Vec<u8>> {
    let blob = engine.open(key)?;
    if blob.len() > longest {
        let error = Error::damaged("length of a small object").in_object(engine.describe(key));
        return Err(error.expected(format!("at most {longest}")).found(blob.len()));
    }
    // OK to cast: `longest` fits in memory.
    let mut bytes = vec![0; blob.len() as usize];
    blob.read_at(0, &mut bytes)?;
    Ok(bytes)
}
