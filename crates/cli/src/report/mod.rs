//! A run as one HTML page.

use tensorkeep::{Reader, Result};

/// What the page says besides what the run says.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// The page's title.
    pub title: String,
    /// Two steps to compare; without them, the oldest and the newest.
    pub diff: Option<(u64, u64)>,
}

impl Options {
    /// A page of this title.
    pub fn titled(title: impl Into<String>) -> Self {
        Self { title: title.into(), diff: None }
    }
}

/// The page.
///
/// # Errors
/// What listing says.
pub fn html(_: &Reader, _: &Options) -> Result<String> {
    Ok(String::new())
}
