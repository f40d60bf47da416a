//! Where a run is: a folder, or a URL in a build with object stores (the feature `object-store`).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tensorkeep::Result;
use tensorkeep::engine::{Engine, IntoEngine as _, Local};
#[cfg(not(feature = "object-store"))]
use tensorkeep::{Error, ErrorKind};

/// The engine of a run that is written to: a folder is created where missing.
///
/// # Errors
/// As `Local::create`, and as `ObjectStoreEngine::from_url`.
pub fn to_write(place: &Path, deadline: Duration) -> Result<Arc<dyn Engine>> {
    match url(place) {
        Some(url) => over_the_network(url, Some(deadline)),
        None => place.into_engine(),
    }
}

/// The engine of a run that is read.
///
/// # Errors
/// `NotFound` for a folder that is not there; and as [`to_write`].
pub fn to_read(place: &Path) -> Result<Arc<dyn Engine>> {
    match url(place) {
        Some(url) => over_the_network(url, None),
        None => Local::open(place)?.into_engine(),
    }
}

fn url(place: &Path) -> Option<&str> {
    place.to_str().filter(|text| text.contains("://"))
}

#[cfg(feature = "object-store")]
fn over_the_network(url: &str, deadline: Option<Duration>) -> Result<Arc<dyn Engine>> {
    let engine = tensorkeep_object_store::ObjectStoreEngine::from_url(url)?;
    match deadline {
        // A year, where nobody wants one: the engine adds it to the present instant.
        Some(deadline) => engine.with_deadline(deadline.min(Duration::from_secs(31_536_000))).into_engine(),
        None => engine.into_engine(),
    }
}

#[cfg(not(feature = "object-store"))]
fn over_the_network(url: &str, _deadline: Option<Duration>) -> Result<Arc<dyn Engine>> {
    let error = Error::new(ErrorKind::Unsupported, "this build of the package has no object stores");
    let help = "build it with `maturin build --features object-store`, or save to a folder and copy that";
    Err(error.in_object(url).help(help))
}
