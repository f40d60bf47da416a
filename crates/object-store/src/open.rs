//! The engine at any URL.

use crate::ObjectStoreEngine;
use std::sync::Arc;
use tensorkeep::Result;
use tensorkeep::engine::{Engine, Local};

/// The engine at any URL: `file://` is a folder, whose engine is the library's own, which syncs
/// each commit.
///
/// # Errors
/// As [`ObjectStoreEngine::from_url`], and as [`Local::create`].
pub fn open(url: &str) -> Result<Arc<dyn Engine>> {
    match url.strip_prefix("file://") {
        Some(folder) => Ok(Arc::new(Local::create(folder)?)),
        None => Ok(Arc::new(ObjectStoreEngine::from_url(url)?)),
    }
}
