//! Memory of loaded tensors, to be shared with frameworks: by the buffer protocol, and by DLPack
//! (`dlpack.rs`). All of it is this process's own and may be written: pages of a private mapping,
//! or buffers.
#![expect(unsafe_code, reason = "the buffer protocol and the addresses of tensors in memory")]

use crate::dlpack::{self, Keeper, Place};
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::ffi::c_int;
use std::sync::Arc;

/// A tensor's memory.
///
/// Speaks the buffer protocol (as bytes) and DLPack, both writable.
#[pyclass(frozen, module = "tensorkeep._tensorkeep")]
pub struct View {
    place: Place,
    keeper: Keeper,
}

impl View {
    pub fn new(place: Place, keeper: Keeper) -> Self {
        Self { place, keeper }
    }
}

#[pymethods]
impl View {
    /// The name of the dtype: `"f32"`, `"bf16"`.
    #[getter]
    fn dtype(&self) -> &'static str {
        self.place.dtype.name()
    }

    /// Lengths of the axes.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.place.shape)
    }

    /// Length in bytes.
    #[getter]
    fn nbytes(&self) -> usize {
        self.place.len
    }

    /// A DLPack capsule over this memory.
    #[pyo3(signature = (*, stream=None, max_version=None, dl_device=None, copy=None))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        stream: Option<Bound<'py, PyAny>>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(i32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if stream.is_some_and(|stream| !stream.is_none()) || dl_device.is_some_and(|device| device != (1, 0))
        {
            return Err(PyBufferError::new_err("this memory is the CPU's, which has no streams"));
        }
        if copy == Some(true) {
            return Err(PyBufferError::new_err("a view makes no copies; copy what was made of it"));
        }
        let versioned = max_version.is_some_and(|(major, _)| major >= 1);
        dlpack::export(py, Arc::clone(&self.keeper), &self.place, versioned)
    }

    /// `(1, 0)`: the CPU.
    fn __dlpack_device__(&self) -> (i32, i32) {
        (1, 0)
    }

    /// # Safety
    /// Called by the interpreter with a view to fill.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no view"));
        }
        let Place { start, len, .. } = slf.get().place;
        let len = isize::try_from(len)?;
        // SAFETY: `view` is not null, and the interpreter's to fill. The memory lives as long as
        // `slf`, to which the filled view holds a reference.
        let filled = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start.cast(), len, 0, flags) };
        if filled == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }

    fn __repr__(&self) -> String {
        format!("View({} {:?}, {} bytes)", self.place.dtype, self.place.shape, self.place.len)
    }
}
