//! The section of a shard, a container that holds what one rank stores: of which global tensor each
//! of its tensors is which box. And the names of shards.

use super::le;
use super::limits::Limits;
use super::table::{Table, check_name};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::TensorBox;
use std::collections::HashMap;

super::slices! {
    /// The columns of the section.
    Columns:
    save, rank_world, names, name_ends, dim_ends, dims, offsets,
}

/// Which part of which tensor each tensor of a shard is.
#[derive(Debug)]
pub struct Shard {
    /// What the names of the save's shards begin with.
    pub save: String,
    /// The rank that stored it.
    pub rank: u32,
    /// The number of ranks.
    pub world: u32,
    /// By the tensors' numbers.
    pub parts: Vec<Part>,
    /// The numbers of the parts, by name and offsets.
    places: HashMap<(String, Vec<u64>), u32>,
}

/// A box of a global tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The global tensor's name.
    pub name: String,
    /// Its whole shape.
    pub shape: Vec<u64>,
    /// The box.
    pub tensor_box: TensorBox,
}

impl Shard {
    /// Of these parts, in the order of the shard's tensors.
    ///
    /// # Errors
    /// `Invalid` for a bad name, or for a part that comes twice.
    pub fn new(save: &str, rank: u32, world: u32, parts: Vec<Part>) -> Result<Self> {
        check_save(save)?;
        if rank >= world || u64::from(world) > Limits::V1.ranks {
            return Err(Error::invalid("rank of a shard")
                .expected(format!("below {world} ranks, at most {}", Limits::V1.ranks))
                .found(rank));
        }
        let mut places = HashMap::with_capacity(parts.len());
        for (number, part) in parts.iter().enumerate() {
            check_name(&part.name)?;
            if !part.tensor_box.is_within(&part.shape) {
                return Err(Error::invalid("a box that leaves its tensor")
                    .expected(format!("within {:?}", part.shape))
                    .found(&part.tensor_box)
                    .in_tensor(&part.name));
            }
            // OK to cast: the table of tensors has as many.
            let key = (part.name.clone(), part.tensor_box.offsets().to_vec());
            if places.insert(key, number as u32).is_some() {
                return Err(Error::invalid("a part that is in its shard twice")
                    .found(&part.tensor_box)
                    .in_tensor(&part.name));
            }
        }
        Ok(Self { save: save.to_owned(), rank, world, parts, places })
    }

    /// The number of the tensor that is the part with these offsets.
    pub fn find(&self, name: &str, offsets: &[u64]) -> Option<usize> {
        // A key by value: a few hundred parts at most are looked for, each once a load.
        self.places.get(&(name.to_owned(), offsets.to_vec())).map(|&number| number as usize)
    }

    /// The payload of the section.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Encoded::default();
        for Part { name, shape, tensor_box } in &self.parts {
            bytes.names.extend_from_slice(name.as_bytes());
            bytes.name_ends.extend_from_slice(&(bytes.names.len() as u32).to_le_bytes());
            bytes.dims.extend(shape.iter().flat_map(|dim| dim.to_le_bytes()));
            bytes.dim_ends.extend_from_slice(&((bytes.dims.len() / 8) as u32).to_le_bytes());
            bytes.offsets.extend(tensor_box.offsets().iter().flat_map(|offset| offset.to_le_bytes()));
        }
        super::records::encode_trusted(&Columns {
            save: self.save.as_bytes(),
            rank_world: &[self.rank.to_le_bytes(), self.world.to_le_bytes()].concat(),
            names: &bytes.names,
            name_ends: &bytes.name_ends,
            dim_ends: &bytes.dim_ends,
            dims: &bytes.dims,
            offsets: &bytes.offsets,
        })
    }

    /// Decodes and validates the payload, for the table of the shard's tensors.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn decode<B: AsRef<[u8]>>(payload: &[u8], tensors: &Table<B>) -> Result<Self> {
        let damaged = |error: Error| error.with_kind(ErrorKind::Damaged);
        let columns = Columns::decode(payload)?;
        let count = tensors.len();
        let axes = columns.dims.len() / 8;
        for (name, found, expected) in [
            ("rank_world", columns.rank_world.len(), 8),
            ("name_ends", columns.name_ends.len(), count * 4),
            ("dim_ends", columns.dim_ends.len(), count * 4),
            ("dims", columns.dims.len(), axes * 8),
            ("offsets", columns.offsets.len(), axes * 8),
        ] {
            super::check_column(name, found, expected)?;
        }
        super::check_ends("name_ends", columns.name_ends, columns.names.len())?;
        super::check_ends("dim_ends", columns.dim_ends, axes)?;
        let numbers = |column: &[u8], range: std::ops::Range<usize>| -> Vec<u64> {
            range.map(|at| le::u64(column, at * 8..at * 8 + 8)).collect()
        };
        let mut parts = Vec::with_capacity(count);
        let table = tensors.columns();
        for number in 0..count {
            let name = &columns.names[super::span(columns.name_ends, number)];
            let name = std::str::from_utf8(name)
                .map_err(|error| Error::damaged("names that are not UTF-8").because(error))?;
            let range = super::span(columns.dim_ends, number);
            let (shape, offsets) = (numbers(columns.dims, range.clone()), numbers(columns.offsets, range));
            let lens: Vec<u64> = table.dims(number).collect();
            let part = || Error::damaged("a part of another shape").in_tensor(table.name(number));
            let tensor_box = TensorBox::new(offsets, lens).map_err(|error| part().because(error))?;
            parts.push(Part { name: name.to_owned(), shape, tensor_box });
        }
        let save = std::str::from_utf8(columns.save).unwrap_or_default();
        let (rank, world) = (le::u32(columns.rank_world, 0..4), le::u32(columns.rank_world, 4..8));
        Self::new(save, rank, world, parts).map_err(damaged)
    }
}

/// Bytes of columns that grow.
#[derive(Default)]
struct Encoded {
    names: Vec<u8>,
    name_ends: Vec<u8>,
    dim_ends: Vec<u8>,
    dims: Vec<u8>,
    offsets: Vec<u8>,
}

/// Bytes of a save's name at most.
const SAVE_BYTES: usize = 64;

/// What the names of a save's shards may begin with.
///
/// # Errors
/// `Invalid`.
pub fn check_save(save: &str) -> Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let fits = (1..=SAVE_BYTES).contains(&save.len()) && !save.starts_with('.');
    if fits && save.bytes().all(is_plain) {
        return Ok(());
    }
    Err(Error::invalid("what the names of shards begin with")
        .expected(format!("1 to {SAVE_BYTES} letters, digits, dots, dashes and underscores, no dot first"))
        .found(format!("{save:?}")))
}

/// The key of a rank's shard, beside its manifest. Sixteen folders, by the rank's last digit, so
/// that an object store can split them by load.
pub fn shard_key(save: &str, rank: u32) -> String {
    format!("shards/{:x}/{save}-r{rank:05}.tkeep", rank % 16)
}
