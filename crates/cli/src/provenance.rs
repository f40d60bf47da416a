//! The metadata that says what a checkpoint was made of by a tool, and how.

/// What it was made of, and how.
pub const FROM: &str = "derived_from";
pub const BY: &str = "derived_by";

/// Whether a line of metadata says where a checkpoint comes from, which only these verbs write.
pub fn is_provenance(key: &str) -> bool {
    [FROM, BY].contains(&key)
}
