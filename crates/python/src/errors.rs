//! The library's errors as Python's exceptions, and panics as an error that `except Exception`
//! catches. Which class is raised is decided in `tensorkeep/_errors.py`.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::any::Any;
use std::error::Error as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tensorkeep::{Error, Result};

/// The exception of an error, with its facts as attributes and its causes as notes.
pub fn exception(py: Python<'_>, error: &Error) -> PyErr {
    build(py, error).unwrap_or_else(|failed| failed)
}

fn build(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    let facts = PyDict::new(py);
    facts.set_item("object", error.object())?;
    facts.set_item("step", error.step())?;
    facts.set_item("tensor", error.tensor())?;
    facts.set_item("record", error.record())?;
    facts.set_item("byte", error.byte())?;
    facts.set_item("expected", error.expected_value())?;
    facts.set_item("found", error.found_value())?;
    facts.set_item("help", error.advice())?;
    facts.set_item("errno", error.raw_os_error())?;
    facts.set_item("causes", causes)?;
    let make = py.import("tensorkeep._errors")?.getattr("_make")?;
    Ok(PyErr::from_value(make.call1((error.kind().as_str(), error.to_string(), facts))?))
}

/// Lets other Python threads run while `act` does.
///
/// # Errors
/// The exception of what `act` returned, or `RuntimeError` when it panicked: pyo3 makes a panic
/// something that `except Exception` misses, and a trainer that catches its failed saves would end.
pub fn detached<T: Send>(py: Python<'_>, act: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    match py.detach(|| catch_unwind(AssertUnwindSafe(act))) {
        Ok(result) => result.map_err(|error| exception(py, &error)),
        Err(panic) => Err(panicked(&*panic)),
    }
}

/// The exception of a panic.
pub fn panicked(panic: &(dyn Any + Send)) -> PyErr {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
    PyRuntimeError::new_err(format!("a bug in tensorkeep: {text}"))
}
