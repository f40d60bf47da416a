//! The limits of format version 1: one set of numbers for writer and reader, so that every written
//! file can be read.

/// The limits of format version 1; SPEC.md lists the same numbers and a test compares them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of one tensor, record or alias name.
    pub name_bytes: u64,
    /// Axes of one tensor.
    pub rank: u64,
    /// Tensors in one file; aliases likewise.
    pub tensors: u64,
    /// Records in one file.
    pub records: u64,
    /// Bytes of one record.
    pub record_bytes: u64,
    /// Nesting of one record: maps and lists within each other.
    pub record_depth: u64,
    /// Bytes of one tensor.
    pub tensor_bytes: u64,
    /// Bytes of the index region.
    pub index_bytes: u64,
    /// Sections in the index region.
    pub sections: u64,
    /// Smallest chunk, as a power of two of raw bytes.
    pub chunk_log2_min: u64,
    /// Largest chunk, as a power of two of raw bytes.
    pub chunk_log2_max: u64,
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Ranks of one job.
    pub ranks: u64,
    /// Layouts in one manifest.
    pub layouts: u64,
    /// Explicit boxes in one manifest.
    pub boxes: u64,
    /// Axes that the explicit boxes of one tensor may cut.
    pub cut_axes: u64,
}

impl Limits {
    /// Format version 1.
    pub const V1: Self = Self {
        name_bytes: 1024,
        rank: 64,
        tensors: 1 << 24,
        records: 1 << 16,
        record_bytes: 64 << 20,
        record_depth: 32,
        tensor_bytes: 1 << 60,
        index_bytes: (1 << 32) - 1,
        sections: 64,
        chunk_log2_min: 16,
        chunk_log2_max: 26,
        file_bytes: 1 << 62,
        ranks: crate::layout::RANKS as u64,
        layouts: 1 << 16,
        boxes: 1 << 24,
        cut_axes: crate::layout::CUT_AXES as u64,
    };

    /// Every limit by name, for the test that compares them with SPEC.md.
    pub fn named(&self) -> [(&'static str, u64); 16] {
        [
            ("name_bytes", self.name_bytes),
            ("rank", self.rank),
            ("tensors", self.tensors),
            ("records", self.records),
            ("record_bytes", self.record_bytes),
            ("record_depth", self.record_depth),
            ("tensor_bytes", self.tensor_bytes),
            ("index_bytes", self.index_bytes),
            ("sections", self.sections),
            ("chunk_log2_min", self.chunk_log2_min),
            ("chunk_log2_max", self.chunk_log2_max),
            ("file_bytes", self.file_bytes),
            ("ranks", self.ranks),
            ("layouts", self.layouts),
            ("boxes", self.boxes),
            ("cut_axes", self.cut_axes),
        ]
    }
}
