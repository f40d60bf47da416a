//! The extension module of the Python package: checkpoints and runs for `python/tensorkeep`, which
//! has everything that is about Python's types. It knows addresses, dtypes, names and plain values,
//! and neither torch nor numpy.
//!
//! All of it is private to the package: `tensorkeep._tensorkeep` has no promise of its own.

mod dlpack;
mod errors;
mod file;
mod loading;
mod memory;
mod options;
mod place;
mod progress;
mod ranks;
mod records;
mod store;
mod view;

use pyo3::prelude::*;
use std::ffi::OsString;

/// Runs the command line, and returns its exit code.
#[pyfunction]
fn command_line(py: Python<'_>, args: Vec<OsString>) -> u8 {
    py.detach(|| tensorkeep_cli::main_from(args))
}

/// Names that are nearly `wanted`, for messages.
#[pyfunction]
fn nearest_name(wanted: &str, names: Vec<String>) -> Option<String> {
    tensorkeep::inspect::nearest_name(wanted, names.iter().map(String::as_str)).map(str::to_owned)
}

/// The names that one of the patterns matches.
#[pyfunction]
fn matching_names(patterns: Vec<String>, names: Vec<String>) -> Vec<String> {
    let fits =
        |name: &String| patterns.iter().any(|pattern| tensorkeep::inspect::name_matches(pattern, name));
    names.into_iter().filter(fits).collect()
}

/// Checkpoints and runs, for the package's own modules.
#[pymodule(gil_used = false)]
fn _tensorkeep(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<file::File>()?;
    module.add_class::<view::View>()?;
    module.add_class::<ranks::Job>()?;
    module.add_class::<store::Store>()?;
    module.add_class::<store::Pending>()?;
    module.add_function(wrap_pyfunction!(file::open_file, module)?)?;
    module.add_function(wrap_pyfunction!(file::save_file, module)?)?;
    module.add_function(wrap_pyfunction!(store::find_in_run, module)?)?;
    module.add_function(wrap_pyfunction!(nearest_name, module)?)?;
    module.add_function(wrap_pyfunction!(matching_names, module)?)?;
    module.add_function(wrap_pyfunction!(command_line, module)?)
}
