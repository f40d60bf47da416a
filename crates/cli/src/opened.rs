//! What is looked at: a checkpoint of ours, or a foreign file. Owns: one face for both, for the verbs that only look.

use std::ops::Range;
use std::path::Path;
use tensorkeep::convert::Foreign;
use tensorkeep::{Checkpoint, Dtype, Error, ErrorKind, Result, Scratch, Tensor, Value};

/// An open file.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a handful exist at a time")]
pub enum Opened {
    Own(Checkpoint),
    Foreign(Foreign),
}

/// What is known of one tensor without reading it.
#[derive(Clone, Debug)]
pub struct Meta {
    pub name: String,
    pub dtype: Result<Dtype, u16>,
    pub shape: Vec<u64>,
    pub byte_len: u64,
    pub stored_len: u64,
    pub chunks: usize,
    /// Where it lies; None in a foreign file.
    pub offset: Option<u64>,
    pub raw: bool,
    pub alias_of: Option<String>,
}

impl Meta {
    pub fn dtype_text(&self) -> String {
        self.dtype.map_or_else(|id| format!("unknown ({id})"), |dtype| dtype.to_string())
    }

    pub fn shape_text(&self) -> String {
        let dims: Vec<String> = self.shape.iter().map(u64::to_string).collect();
        format!("[{}]", dims.join(", "))
    }

    /// Elements, ours of unknown dtype counted as bytes.
    pub fn count(&self) -> u64 {
        self.byte_len / self.dtype.map_or(1, |dtype| dtype.size() as u64)
    }

    pub fn storage_text(&self) -> String {
        match &self.alias_of {
            Some(other) => format!("= {other}"),
            None if self.byte_len == 0 => "empty".to_owned(),
            None if self.raw => "raw".to_owned(),
            None => format!("{:.0} %", 100.0 * self.stored_len as f64 / self.byte_len as f64),
        }
    }
}

impl Opened {
    /// Opens a file of any format that is known, told by its content.
    ///
    /// # Errors
    /// As [`Checkpoint::open`] and [`Foreign::open`].
    pub fn file(path: &Path) -> Result<Self> {
        match Foreign::sniff(path)? {
            Some(_) => Foreign::open(path).map(Self::Foreign),
            None => Checkpoint::open(path).map(Self::Own),
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Self::Own(checkpoint) => checkpoint.name(),
            Self::Foreign(foreign) => foreign.name(),
        }
    }

    pub fn len_bytes(&self) -> u64 {
        match self {
            Self::Own(checkpoint) => checkpoint.len_bytes(),
            Self::Foreign(foreign) => foreign.len_bytes(),
        }
    }

    /// All tensors that a pattern wants.
    pub fn tensors(&self, only: Option<&str>) -> Vec<Meta> {
        let mut metas = match self {
            Self::Own(checkpoint) => own(checkpoint),
            Self::Foreign(foreign) => theirs(foreign),
        };
        metas.retain(|meta| crate::names::wanted(only, &meta.name));
        metas
    }

    /// As [`Checkpoint::visit_chunks_with`].
    pub fn visit(
        &self,
        name: &str,
        chunks: Range<usize>,
        scratch: &mut Scratch,
        visit: impl FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        match self {
            Self::Own(checkpoint) => checkpoint.visit_chunks_with(name, chunks, scratch, visit),
            Self::Foreign(foreign) => foreign.visit_chunks_with(name, chunks, scratch, visit),
        }
    }

    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        match self {
            Self::Own(checkpoint) => checkpoint.tensor(name),
            Self::Foreign(foreign) => foreign.tensor(name),
        }
    }

    /// Records by name; one that cannot be read is an error of its own.
    pub fn records(&self) -> Vec<(String, Result<Value>)> {
        match self {
            Self::Own(checkpoint) => {
                let mut left = RECORDS;
                checkpoint
                    .records()
                    .map(|name| (name.to_owned(), within(&mut left, checkpoint, name)))
                    .collect()
            }
            Self::Foreign(foreign) => {
                let text = |(key, text): (&String, &String)| (key.clone(), Value::Text(text.clone()));
                let metadata = Value::Map(foreign.metadata().iter().map(text).collect());
                let records = foreign.records().iter().map(|(name, value)| (name.clone(), Ok(value.clone())));
                let some = (!foreign.metadata().is_empty()).then(|| ("metadata".to_owned(), Ok(metadata)));
                records.chain(some).collect()
            }
        }
    }

    /// Records, or the first error.
    pub fn readable_records(&self) -> Result<Vec<(String, Value)>> {
        self.records().into_iter().map(|(name, value)| Ok((name, value?))).collect()
    }

    /// What the user should hear of besides.
    pub fn warnings(&self) -> Vec<String> {
        match self {
            Self::Own(checkpoint) => checkpoint.index_damage().map(mirror_used).into_iter().collect(),
            Self::Foreign(foreign) => {
                foreign.notes().iter().map(|note| format!("{}: {}", note.name, note.what)).collect()
            }
        }
    }
}

/// Bytes that all records together may take as values: as many as one of them may.
const RECORDS: usize = 256 << 20;

/// One record, if there is room for it beside those before.
fn within(left: &mut usize, checkpoint: &Checkpoint, name: &str) -> Result<Value> {
    let value = checkpoint.record_value(name)?;
    match left.checked_sub(held(&value)) {
        Some(less) => {
            *left = less;
            Ok(value)
        }
        None => Err(Error::new(ErrorKind::LimitExceeded, "bytes of all records' values in memory")
            .expected(format!("at most {RECORDS}"))
            .in_record(name)
            .in_object(checkpoint.name())),
    }
}

/// About how many bytes a value takes.
fn held(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::Text(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            Value::List(values) => values.iter().map(held).sum(),
            Value::Map(map) => map.iter().map(|(key, value)| 64 + key.len() + held(value)).sum(),
            Value::Pairs(pairs) => pairs.iter().map(|(key, value)| held(key) + held(value)).sum(),
            _ => 0,
        }
}

fn mirror_used(damage: &Error) -> String {
    format!("opened by the index's mirror: {damage}")
}

fn own(checkpoint: &Checkpoint) -> Vec<Meta> {
    let meta = |info: tensorkeep::TensorInfo<'_>| Meta {
        name: info.name.to_owned(),
        dtype: info.dtype,
        shape: info.shape.to_vec(),
        byte_len: info.byte_len,
        stored_len: info.stored_len,
        chunks: info.chunks,
        offset: Some(info.offset),
        raw: info.raw,
        alias_of: info.alias_of.map(str::to_owned),
    };
    checkpoint.tensors().map(meta).collect()
}

fn theirs(foreign: &Foreign) -> Vec<Meta> {
    let meta = |tensor: &tensorkeep::convert::ForeignTensor| Meta {
        name: tensor.name.clone(),
        dtype: Ok(tensor.dtype),
        shape: tensor.shape.iter().map(|&dim| dim as u64).collect(),
        byte_len: tensor.byte_len as u64,
        stored_len: tensor.byte_len as u64,
        chunks: tensor.chunks(),
        offset: None,
        raw: true,
        alias_of: tensor.alias_of.clone(),
    };
    foreign.tensors().iter().map(meta).collect()
}
