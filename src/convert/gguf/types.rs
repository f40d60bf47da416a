//! ggml's element types, and the length in bytes of a tensor of each.

use crate::dtype::Dtype;

/// One type of `ggml.h`.
pub struct GgmlType {
    id: u32,
    pub name: &'static str,
    /// Elements in a block.
    block: u64,
    /// Bytes of a block, from `ggml-common.h`.
    block_bytes: u64,
    /// The dtype, if a block is one element.
    pub dtype: Option<Dtype>,
}

/// From this id on, forks of llama.cpp assign ids to their own types before upstream does: 42 is
/// Q2_0 upstream, has blocks of 128 elements in one fork, and was STQ1_0 in another. The tensor's
/// length must confirm the type.
const UNSETTLED_FROM: u32 = 42;

const fn plain(id: u32, name: &'static str, dtype: Dtype) -> GgmlType {
    GgmlType { id, name, block: 1, block_bytes: dtype.size() as u64, dtype: Some(dtype) }
}

const fn blocks(id: u32, name: &'static str, block: u64, block_bytes: u64) -> GgmlType {
    GgmlType { id, name, block, block_bytes, dtype: None }
}

const TYPES: &[GgmlType] = &[
    plain(0, "F32", Dtype::F32),
    plain(1, "F16", Dtype::F16),
    blocks(2, "Q4_0", 32, 18),
    blocks(3, "Q4_1", 32, 20),
    blocks(6, "Q5_0", 32, 22),
    blocks(7, "Q5_1", 32, 24),
    blocks(8, "Q8_0", 32, 34),
    // gguf-py's table says 40, because its sums are f32; ggml's are f16.
    blocks(9, "Q8_1", 32, 36),
    blocks(10, "Q2_K", 256, 84),
    blocks(11, "Q3_K", 256, 110),
    blocks(12, "Q4_K", 256, 144),
    blocks(13, "Q5_K", 256, 176),
    blocks(14, "Q6_K", 256, 210),
    blocks(15, "Q8_K", 256, 292),
    blocks(16, "IQ2_XXS", 256, 66),
    blocks(17, "IQ2_XS", 256, 74),
    blocks(18, "IQ3_XXS", 256, 98),
    blocks(19, "IQ1_S", 256, 50),
    blocks(20, "IQ4_NL", 32, 18),
    blocks(21, "IQ3_S", 256, 110),
    blocks(22, "IQ2_S", 256, 82),
    blocks(23, "IQ4_XS", 256, 136),
    plain(24, "I8", Dtype::I8),
    plain(25, "I16", Dtype::I16),
    plain(26, "I32", Dtype::I32),
    plain(27, "I64", Dtype::I64),
    plain(28, "F64", Dtype::F64),
    blocks(29, "IQ1_M", 256, 56),
    plain(30, "BF16", Dtype::Bf16),
    // 31 to 33 and 36 to 38 were Q4_0 and IQ4_NL with interleaved rows, and are no longer written.
    blocks(31, "Q4_0_4_4", 32, 18),
    blocks(32, "Q4_0_4_8", 32, 18),
    blocks(33, "Q4_0_8_8", 32, 18),
    blocks(34, "TQ1_0", 256, 54),
    blocks(35, "TQ2_0", 256, 66),
    blocks(36, "IQ4_NL_4_4", 32, 18),
    blocks(37, "IQ4_NL_4_8", 32, 18),
    blocks(38, "IQ4_NL_8_8", 32, 18),
    blocks(39, "MXFP4", 32, 17),
    blocks(40, "NVFP4", 64, 36),
    blocks(41, "Q1_0", 128, 18),
    blocks(42, "Q2_0", 64, 18),
];

impl GgmlType {
    /// The type with this id, if it is known.
    pub fn of(id: u32) -> Option<&'static Self> {
        TYPES.iter().find(|known| known.id == id)
    }

    /// Whether the id alone identifies the type.
    pub fn is_settled(&self) -> bool {
        self.id < UNSETTLED_FROM
    }

    /// Bytes of a tensor with these axes, fastest first; None when they are not a whole number of
    /// blocks, or overflow.
    pub fn byte_len(&self, dims: &[u64]) -> Option<u64> {
        let count = dims.iter().try_fold(1_u64, |count, &dim| count.checked_mul(dim))?;
        let rows_are_whole = dims.first().copied().unwrap_or(1).is_multiple_of(self.block);
        rows_are_whole.then(|| (count / self.block).checked_mul(self.block_bytes))?
    }
}
