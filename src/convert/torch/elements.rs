//! torch's element types, by the names of dtypes and of storage classes.

use crate::dtype::Dtype;

/// One of torch's element types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ElementType {
    /// Its name as a dtype, without `torch.`.
    pub name: &'static str,
    /// The class of a storage of such elements, if there is one.
    storage: &'static str,
    /// Our dtype; `Opaque` if there is no counterpart.
    pub dtype: Dtype,
    /// Bytes of one element, or of the elements that share a byte.
    pub width: usize,
    /// Elements of a row that share a byte; 1 except for quantised types below a byte.
    pub per_byte: usize,
}

const fn known(name: &'static str, storage: &'static str, dtype: Dtype) -> ElementType {
    ElementType { name, storage, dtype, width: dtype.size(), per_byte: 1 }
}

const fn opaque(name: &'static str, storage: &'static str, width: usize) -> ElementType {
    ElementType { name, storage, dtype: Dtype::Opaque, width, per_byte: 1 }
}

const fn packed(name: &'static str, storage: &'static str, per_byte: usize) -> ElementType {
    ElementType { per_byte, ..opaque(name, storage, 1) }
}

const ALL: &[ElementType] = &[
    known("bool", "BoolStorage", Dtype::Bool),
    known("uint8", "ByteStorage", Dtype::U8),
    known("int8", "CharStorage", Dtype::I8),
    known("uint16", "", Dtype::U16),
    known("int16", "ShortStorage", Dtype::I16),
    known("uint32", "", Dtype::U32),
    known("int32", "IntStorage", Dtype::I32),
    known("uint64", "", Dtype::U64),
    known("int64", "LongStorage", Dtype::I64),
    known("float16", "HalfStorage", Dtype::F16),
    known("bfloat16", "BFloat16Storage", Dtype::Bf16),
    known("float32", "FloatStorage", Dtype::F32),
    known("float64", "DoubleStorage", Dtype::F64),
    known("complex64", "ComplexFloatStorage", Dtype::C64),
    known("complex128", "ComplexDoubleStorage", Dtype::C128),
    known("float8_e4m3fn", "", Dtype::F8E4M3Fn),
    known("float8_e4m3fnuz", "", Dtype::F8E4M3FnUz),
    known("float8_e5m2", "", Dtype::F8E5M2),
    known("float8_e5m2fnuz", "", Dtype::F8E5M2FnUz),
    known("float8_e8m0fnu", "", Dtype::F8E8M0Fnu),
    // Quantised integers are integers; scale and zero point are kept beside them.
    known("qint8", "QInt8Storage", Dtype::I8),
    known("quint8", "QUInt8Storage", Dtype::U8),
    known("qint32", "QInt32Storage", Dtype::I32),
    packed("quint4x2", "QUInt4x2Storage", 2),
    packed("quint2x4", "QUInt2x4Storage", 4),
    opaque("complex32", "ComplexHalfStorage", 4),
    opaque("float4_e2m1fn_x2", "", 1),
    opaque("bits1x8", "", 1),
    opaque("bits2x4", "", 1),
    opaque("bits4x2", "", 1),
    opaque("bits8", "", 1),
    opaque("bits16", "", 2),
    opaque("uint1", "", 1),
    opaque("uint2", "", 1),
    opaque("uint3", "", 1),
    opaque("uint4", "", 1),
    opaque("uint5", "", 1),
    opaque("uint6", "", 1),
    opaque("uint7", "", 1),
    opaque("int1", "", 1),
    opaque("int2", "", 1),
    opaque("int3", "", 1),
    opaque("int4", "", 1),
    opaque("int5", "", 1),
    opaque("int6", "", 1),
    opaque("int7", "", 1),
];

/// Other constants of the module `torch` that occur in state: layouts, memory formats, kinds of
/// quantisation.
const CONSTANTS: &[&str] = &[
    "strided",
    "sparse_coo",
    "sparse_csr",
    "sparse_csc",
    "sparse_bsr",
    "sparse_bsc",
    "jagged",
    "contiguous_format",
    "preserve_format",
    "channels_last",
    "channels_last_3d",
    "per_tensor_affine",
    "per_tensor_symmetric",
    "per_channel_affine",
    "per_channel_symmetric",
    "per_channel_affine_float_qparams",
];

impl ElementType {
    /// Bytes without a type, for untyped storages.
    pub const BYTES: Self = known("uint8", "ByteStorage", Dtype::U8);

    pub fn of_dtype(name: &str) -> Option<Self> {
        ALL.iter().find(|element| element.name == name).copied()
    }

    pub fn of_storage(class: &str) -> Option<Self> {
        ALL.iter().find(|element| element.storage == class && !class.is_empty()).copied()
    }

    /// Bytes of the numbers in an element: two numbers for a complex one.
    pub fn part(self) -> usize {
        if self.is_complex() { self.width / 2 } else { self.width }
    }

    pub fn is_complex(self) -> bool {
        self.name.starts_with("complex")
    }

    /// Whether the sign of a number is its highest bit.
    pub fn is_float(self) -> bool {
        self.is_complex() || matches!(self.dtype, Dtype::F16 | Dtype::Bf16 | Dtype::F32 | Dtype::F64)
    }
}

/// Whether `torch.name` is a constant, not a function or class.
pub fn is_constant(name: &str) -> bool {
    CONSTANTS.contains(&name) || ElementType::of_dtype(name).is_some()
}
