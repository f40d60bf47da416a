//! The metrics of one checkpoint, as it is shown: those that rank it, and those that are NaN or
//! infinite.

use crate::output;
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use tensorkeep::store::CheckpointMeta;

/// Each metric's value by name.
pub fn of(state: &CheckpointMeta) -> BTreeMap<&str, f64> {
    let all = state.not_finite.iter().chain(&state.metrics);
    all.map(|(name, value)| (name.as_str(), *value)).collect()
}

/// The value of one, if the checkpoint has it.
pub fn one(state: &CheckpointMeta, name: &str) -> Option<f64> {
    state.metrics.get(name).or_else(|| state.not_finite.get(name)).copied()
}

/// All on one line.
pub fn in_words(state: &CheckpointMeta) -> String {
    let one = |(name, value): (&str, f64)| format!("{name} {value:.5}");
    of(state).into_iter().map(one).collect::<Vec<_>>().join(", ")
}

/// An object of those that are wanted; what JSON has no number for is text.
pub fn in_json(state: &CheckpointMeta, is_wanted: impl Fn(&str) -> bool) -> Json {
    let wanted = of(state).into_iter().filter(|(name, _)| is_wanted(name));
    Json::Object(
        wanted.map(|(name, value)| (name.to_owned(), output::json_number(value))).collect::<Map<_, _>>(),
    )
}
