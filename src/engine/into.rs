//! The places on which a run can be opened: a folder, by its path, or an engine.

use super::{Engine, Local};
use crate::error::Result;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A place that holds a run: the path of a folder, which becomes a [`Local`] engine and is created
/// if missing, or any [`Engine`].
pub trait IntoEngine {
    /// The engine.
    ///
    /// # Errors
    /// As [`Local::create`], for a path.
    fn into_engine(self) -> Result<Arc<dyn Engine>>;
}

impl<E: Engine + 'static> IntoEngine for E {
    fn into_engine(self) -> Result<Arc<dyn Engine>> {
        Ok(Arc::new(self))
    }
}

impl IntoEngine for &Path {
    fn into_engine(self) -> Result<Arc<dyn Engine>> {
        Local::create(self)?.into_engine()
    }
}

macro_rules! path {
    ($($kind:ty),*) => {$(
        impl IntoEngine for $kind {
            fn into_engine(self) -> Result<Arc<dyn Engine>> {
                Path::new(&self).into_engine()
            }
        }
    )*};
}

path!(&str, String, &String, PathBuf, &PathBuf);
