//! DLPack capsules of tensors in memory, in the old version and in version 1. The structs are those
//! of `dlpack.h`, which are a promise between libraries and do not change.
#![expect(unsafe_code, reason = "capsules hand pointers to other libraries, which give them back")]

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use std::any::Any;
use std::ffi::{CStr, c_void};
use std::sync::Arc;
use tensorkeep::Dtype;

/// What keeps the memory alive.
pub type Keeper = Arc<dyn Any + Send + Sync>;

/// One tensor in memory that is kept alive elsewhere.
///
/// `start` is the first of `len` bytes that belong to `keeper` and that nothing in Rust refers to
/// any more: they are Python's to read and to write.
#[derive(Clone)]
pub struct Place {
    pub start: *mut u8,
    pub len: usize,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
}

// SAFETY: the address of memory that is used by Python only, which has its own rules of who may
// write what at a time; nothing in Rust reads or writes through it.
unsafe impl Send for Place {}
// SAFETY: as above.
unsafe impl Sync for Place {}

#[repr(C)]
struct Device {
    kind: i32,
    id: i32,
}

#[repr(C)]
struct DataType {
    code: u8,
    bits: u8,
    lanes: u16,
}

#[repr(C)]
struct DlTensor {
    data: *mut c_void,
    device: Device,
    ndim: i32,
    dtype: DataType,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

#[repr(C)]
struct Managed {
    tensor: DlTensor,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Managed)>,
}

#[repr(C)]
struct Versioned {
    major: u32,
    minor: u32,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Versioned)>,
    flags: u64,
    tensor: DlTensor,
}

/// What a capsule keeps alive: the memory, and the arrays of shape and strides.
struct Context {
    _keeper: Keeper,
    _axes: Box<[i64]>,
}

const OLD: &CStr = c"dltensor";
const NEW: &CStr = c"dltensor_versioned";

/// DLPack's code and bits of a dtype.
fn type_code(dtype: Dtype) -> Option<(u8, u8)> {
    Some(match dtype {
        Dtype::I8 => (0, 8),
        Dtype::I16 => (0, 16),
        Dtype::I32 => (0, 32),
        Dtype::I64 => (0, 64),
        Dtype::U8 | Dtype::Opaque => (1, 8),
        Dtype::U16 => (1, 16),
        Dtype::U32 => (1, 32),
        Dtype::U64 => (1, 64),
        Dtype::F16 => (2, 16),
        Dtype::F32 => (2, 32),
        Dtype::F64 => (2, 64),
        Dtype::Bf16 => (4, 16),
        Dtype::C64 => (5, 64),
        Dtype::C128 => (5, 128),
        Dtype::Bool => (6, 8),
        Dtype::F8E3M4 => (7, 8),
        Dtype::F8E4M3 => (8, 8),
        Dtype::F8E4M3B11FnUz => (9, 8),
        Dtype::F8E4M3Fn => (10, 8),
        Dtype::F8E4M3FnUz => (11, 8),
        Dtype::F8E5M2 => (12, 8),
        Dtype::F8E5M2FnUz => (13, 8),
        Dtype::F8E8M0Fnu => (14, 8),
        _ => return None,
    })
}

/// A capsule over `place`, which `keeper` keeps alive until a consumer, or the capsule if it has
/// none, calls the deleter.
pub fn export<'py>(
    py: Python<'py>,
    keeper: Keeper,
    place: &Place,
    versioned: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let no_code = || PyBufferError::new_err(format!("DLPack has no {}", place.dtype));
    let (code, bits) = type_code(place.dtype).ok_or_else(no_code)?;
    let rank = place.shape.len();
    let mut axes: Box<[i64]> = vec![0; 2 * rank].into();
    let mut stride = 1_i64;
    for i in (0..rank).rev() {
        axes[i] = i64::try_from(place.shape[i])?;
        axes[rank + i] = stride;
        stride = stride.saturating_mul(axes[i].max(1));
    }
    let shape = axes.as_mut_ptr();
    let tensor = DlTensor {
        data: place.start.cast(),
        device: Device { kind: 1, id: 0 },
        ndim: i32::try_from(rank)?,
        dtype: DataType { code, bits, lanes: 1 },
        shape,
        strides: shape.wrapping_add(rank),
        byte_offset: 0,
    };
    let context = Box::into_raw(Box::new(Context { _keeper: keeper, _axes: axes })).cast();
    let (name, managed, destructor): (_, *mut c_void, ffi::PyCapsule_Destructor) = if versioned {
        let deleter = Some(free_versioned as unsafe extern "C" fn(*mut Versioned));
        let managed = Versioned { major: 1, minor: 0, context, deleter, flags: 0, tensor };
        (NEW, Box::into_raw(Box::new(managed)).cast(), drop_versioned)
    } else {
        let deleter = Some(free_managed as unsafe extern "C" fn(*mut Managed));
        (OLD, Box::into_raw(Box::new(Managed { tensor, context, deleter })).cast(), drop_managed)
    };
    // SAFETY: the pointer is not null, the name lives for ever, and the destructor frees what the
    // capsule points to unless a consumer has renamed it, as DLPack has it.
    unsafe {
        let capsule = ffi::PyCapsule_New(managed, name.as_ptr(), Some(destructor));
        Bound::from_owned_ptr_or_err(py, capsule)
    }
}

/// The deleter of an old capsule's tensor: called once, by its consumer.
unsafe extern "C" fn free_managed(managed: *mut Managed) {
    // SAFETY: `managed` and its context are the boxes that `export` made, and this is the one call
    // that takes them back.
    unsafe {
        let managed = Box::from_raw(managed);
        drop(Box::from_raw(managed.context.cast::<Context>()));
    }
}

/// As [`free_managed`], of version 1.
unsafe extern "C" fn free_versioned(managed: *mut Versioned) {
    // SAFETY: as in `free_managed`.
    unsafe {
        let managed = Box::from_raw(managed);
        drop(Box::from_raw(managed.context.cast::<Context>()));
    }
}

/// The destructor of an old capsule.
unsafe extern "C" fn drop_managed(capsule: *mut ffi::PyObject) {
    // SAFETY: the interpreter calls it with the capsule that `export` made. One that still has its
    // first name was not consumed, and what it points to is ours.
    unsafe {
        if ffi::PyCapsule_IsValid(capsule, OLD.as_ptr()) != 0 {
            free_managed(ffi::PyCapsule_GetPointer(capsule, OLD.as_ptr()).cast());
        }
    }
}

/// The destructor of a capsule of version 1.
unsafe extern "C" fn drop_versioned(capsule: *mut ffi::PyObject) {
    // SAFETY: as in `drop_managed`.
    unsafe {
        if ffi::PyCapsule_IsValid(capsule, NEW.as_ptr()) != 0 {
            free_versioned(ffi::PyCapsule_GetPointer(capsule, NEW.as_ptr()).cast());
        }
    }
}
