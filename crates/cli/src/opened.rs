//! What a verb looks at: one type for a checkpoint of ours and a foreign file.

use crate::numbers;
use crate::output;
use crate::place::Place;
use std::collections::BTreeMap;
use std::ops::Range;
use tensorkeep::convert::Foreign;
use tensorkeep::{Checkpoint, Dtype, Error, ErrorKind, Result, Snapshot, Tensor, Value, inspect::Scratch};

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
    /// Bytes of each chunk but the last.
    pub chunk_len: u64,
    /// Where it lies; None in a foreign file, and in shards.
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

    /// Bytes of an element, ours of unknown dtype counted as bytes.
    pub fn width(&self) -> u64 {
        self.dtype.map_or(1, |dtype| dtype.size() as u64)
    }

    /// Elements.
    pub fn count(&self) -> u64 {
        self.byte_len / self.width()
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
    pub fn name(&self) -> &str {
        match self {
            Self::Own(checkpoint) => checkpoint.name(),
            Self::Foreign(foreign) => foreign.name(),
        }
    }

    pub fn byte_len(&self) -> u64 {
        match self {
            Self::Own(checkpoint) => checkpoint.inspect().byte_len(),
            Self::Foreign(foreign) => foreign.byte_len(),
        }
    }

    /// All tensors.
    pub fn tensors(&self) -> Vec<Meta> {
        match self {
            Self::Own(checkpoint) => own(checkpoint),
            Self::Foreign(foreign) => theirs(foreign),
        }
    }

    /// All tensors that a pattern wants; without one all, also none.
    ///
    /// # Errors
    /// `NotFound` when there is none that it wants.
    pub fn wanted(&self, only: Option<&str>) -> Result<Vec<Meta>> {
        let all = self.tensors();
        let Some(pattern) = only else { return Ok(all) };
        let (wanted, others): (Vec<Meta>, Vec<Meta>) =
            all.into_iter().partition(|meta| tensorkeep::inspect::name_matches(pattern, &meta.name));
        if !wanted.is_empty() {
            return Ok(wanted);
        }
        let names = others.iter().map(|meta| meta.name.as_str());
        let error = Error::new(ErrorKind::NotFound, format!("no tensor matches {pattern:?}"));
        let is_plain = !pattern.is_empty() && !pattern.contains(['*', '?']);
        let within = names.clone().filter(|name| is_plain && name.contains(pattern)).count();
        let error = match tensorkeep::inspect::nearest_name(pattern, names) {
            _ if within > 0 => {
                let names = output::count(within, "name");
                error.help(format!("it is within {names}: did you mean {:?}?", format!("*{pattern}*")))
            }
            Some(like) => error.help(format!("did you mean {like:?}?")),
            None => {
                error.help("* stands for any text and ? for one character; `tensorkeep show` lists the names")
            }
        };
        Err(error.in_object(self.name()))
    }

    /// What is known of one tensor.
    ///
    /// # Errors
    /// `NotFound`, with the nearest name.
    pub fn meta(&self, name: &str) -> Result<Meta> {
        let found = match self {
            Self::Own(checkpoint) => checkpoint.info(name).map(own_meta)?,
            Self::Foreign(foreign) => match foreign.tensors().iter().find(|tensor| tensor.name == name) {
                Some(tensor) => their_meta(tensor),
                // Says which name is nearest, and reads nothing.
                None => {
                    let nothing = || Error::new(ErrorKind::NotFound, format!("no tensor {name:?}"));
                    return Err(foreign.tensor(name).err().unwrap_or_else(nothing));
                }
            },
        };
        Ok(found)
    }

    /// As [`Checkpoint::visit_chunks_with`]; and a truth value that is none is damage, because its
    /// bytes are viewed here.
    pub fn visit(
        &self,
        meta: &Meta,
        chunks: Range<usize>,
        scratch: &mut Scratch,
        mut visit: impl FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut checked = |offset: u64, bytes: &[u8]| {
            meta.dtype.map_or(Ok(()), |dtype| numbers::check_bools(dtype, offset, bytes))?;
            visit(offset, bytes)
        };
        let read = match self {
            Self::Own(checkpoint) => {
                checkpoint.inspect().visit_chunks_with(&meta.name, chunks, scratch, &mut checked)
            }
            Self::Foreign(foreign) => foreign.visit_chunks_with(&meta.name, chunks, scratch, &mut checked),
        };
        read.map_err(|error| error.in_tensor(&meta.name).in_object(self.name()))
    }

    /// Records by name; one that cannot be read is an error of its own.
    pub fn records(&self) -> Vec<(String, Result<Value>)> {
        match self {
            Self::Own(checkpoint) => {
                let mut left = Left { bytes: RECORDS, values: RECORDS };
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

    /// One tensor.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`] and [`Foreign::tensor`].
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        match self {
            Self::Own(checkpoint) => checkpoint.tensor(name),
            Self::Foreign(foreign) => foreign.tensor(name),
        }
    }

    /// Everything in it, to be written otherwise; tensors are read when it is their turn.
    ///
    /// # Errors
    /// As [`Inspect::to_snapshot`](tensorkeep::inspect::Inspect::to_snapshot) and
    /// [`Foreign::snapshot`].
    pub fn snapshot(&self) -> Result<Snapshot<'_>> {
        match self {
            Self::Own(checkpoint) => checkpoint.inspect().to_snapshot(),
            Self::Foreign(foreign) => foreign.snapshot(),
        }
    }

    /// Names of all records.
    pub fn record_names(&self) -> Vec<&str> {
        match self {
            Self::Own(checkpoint) => checkpoint.records().collect(),
            Self::Foreign(foreign) => foreign.records().keys().map(String::as_str).collect(),
        }
    }

    /// Text by key.
    ///
    /// # Errors
    /// As [`Checkpoint::metadata`].
    pub fn metadata(&self) -> Result<BTreeMap<String, String>> {
        match self {
            Self::Own(checkpoint) => checkpoint.metadata(),
            Self::Foreign(foreign) => Ok(foreign.metadata().clone()),
        }
    }

    /// Bytes of all records, by the index.
    pub fn records_len(&self) -> u64 {
        match self {
            Self::Own(checkpoint) => {
                checkpoint.records().filter_map(|name| checkpoint.inspect().record_len(name).ok()).sum()
            }
            Self::Foreign(_) => 0,
        }
    }

    /// For verbs that look at every byte: a bool that is neither 0 nor 1, which other programs read
    /// as true, costs its tensor the name of its dtype, and no others anything.
    ///
    /// # Errors
    /// `Io`.
    pub fn keep_odd_bools(&mut self) -> Result<()> {
        match self {
            Self::Own(_) => Ok(()),
            Self::Foreign(foreign) => foreign.keep_odd_bools(),
        }
    }

    /// What the user should hear of besides.
    pub fn warnings(&self) -> Vec<String> {
        match self {
            Self::Own(checkpoint) => {
                checkpoint.inspect().index_damage().map(mirror_used).into_iter().collect()
            }
            Self::Foreign(foreign) => {
                foreign.notes().iter().map(|note| format!("{}: {}", note.name, note.what)).collect()
            }
        }
    }
}

/// Bytes that all records together may have, and take as values: as many as one of them may.
const RECORDS: u64 = 256 << 20;

/// The rest of that budget.
struct Left {
    bytes: u64,
    values: u64,
}

/// One record, if there is room for it beside those before. Its length counts before it is read: it
/// may be made of nothing.
fn within(left: &mut Left, checkpoint: &Checkpoint, name: &str) -> Result<Value> {
    let too_many = || {
        Error::new(ErrorKind::LimitExceeded, "bytes of all records in memory")
            .expected(format!("at most {RECORDS}"))
            .in_record(name)
            .in_object(checkpoint.name())
    };
    left.bytes = left.bytes.checked_sub(checkpoint.inspect().record_len(name)?).ok_or_else(too_many)?;
    let value = checkpoint.inspect().record_value(name)?;
    left.values = left.values.checked_sub(held(&value) as u64).ok_or_else(too_many)?;
    Ok(value)
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
    checkpoint.tensors().map(own_meta).collect()
}

fn own_meta(info: tensorkeep::TensorInfo<'_>) -> Meta {
    Meta {
        name: info.name.to_owned(),
        dtype: info.dtype,
        shape: info.shape.to_vec(),
        byte_len: info.byte_len,
        stored_len: info.stored_len,
        chunks: info.chunks,
        chunk_len: info.chunk_len,
        offset: (info.pieces == 0).then_some(info.offset),
        raw: info.raw,
        alias_of: info.alias_of.map(str::to_owned),
    }
}

fn theirs(foreign: &Foreign) -> Vec<Meta> {
    foreign.tensors().iter().map(their_meta).collect()
}

fn their_meta(tensor: &tensorkeep::convert::ForeignTensor) -> Meta {
    Meta {
        name: tensor.name.clone(),
        dtype: Ok(tensor.dtype),
        shape: tensor.shape.iter().map(|&dim| dim as u64).collect(),
        byte_len: tensor.byte_len as u64,
        stored_len: tensor.byte_len as u64,
        chunks: tensor.chunks(),
        chunk_len: tensor.chunk_len() as u64,
        offset: None,
        raw: true,
        alias_of: tensor.alias_of.clone(),
    }
}

/// Whether an error is about one tensor or record, so that the others can be shown beside it.
pub fn is_of_one(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Damaged | ErrorKind::Foreign | ErrorKind::Unsupported | ErrorKind::LimitExceeded
    )
}

/// Separates errors of one tensor, which are shown in its row, from those that end a verb.
///
/// # Errors
/// Errors that are not about one tensor.
pub fn is_of_one_tensor<T>(read: Result<T>) -> Result<Result<T>> {
    match read {
        Err(error) if !is_of_one(&error) => Err(error),
        read => Ok(read),
    }
}

/// Whether an error is about one file of a folder, such as a link that leads nowhere, so that its
/// neighbours can be shown beside it. A store that does not answer will not answer for them,
/// either.
pub fn is_of_one_file(place: &Place, error: &Error) -> bool {
    error.kind() == ErrorKind::Io && !place.is_url()
}
