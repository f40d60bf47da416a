//! Nothing of its own: see `tests/models.rs`.
