//! Manifests and shards built byte by byte, as SPEC.md has them.

use super::{Columns, Container, dtype_id};

/// The columns of a manifest's section, and the flags of its container.
#[derive(Clone)]
pub struct Manifest(pub Columns);

/// A box and the rank that stores it.
pub type Boxed<'b> = (&'b [u64], &'b [u64], u32);

impl Manifest {
    pub fn new(save: &str) -> Self {
        let names = [
            "names",
            "name_ends",
            "dtypes",
            "dim_ends",
            "dims",
            "byte_lens",
            "layouts",
            "copies",
            "box_ends",
            "boxes",
            "owners",
            "layout_counts",
            "layout_firsts",
            "layout_steps",
            "member_ends",
            "members",
            "level_ends",
            "level_axes",
            "level_parts",
            "level_strides",
            "save",
            "shard_ranks",
            "shard_ids",
            "shard_lens",
            "shard_index_crcs",
        ];
        let mut columns = Columns(names.map(|name| (name, Vec::new())).to_vec());
        columns.put("save", save.as_bytes());
        Self(columns)
    }

    fn put32(&mut self, column: &str, number: u32) {
        self.0.put(column, &number.to_le_bytes());
    }

    fn put64s(&mut self, column: &str, numbers: &[u64]) {
        for number in numbers {
            self.0.put(column, &number.to_le_bytes());
        }
    }

    fn put_end(&mut self, ends: &str, column: &str, width: usize) {
        let end = self.0.get(column).len() / width;
        self.put32(ends, end as u32);
    }

    /// A tensor by the number of its layout. Tensors come sorted.
    pub fn tensor(&mut self, name: &str, dtype: &str, shape: &[u64], layout: u32, copy: u32) -> &mut Self {
        self.0.put("names", name.as_bytes());
        self.put_end("name_ends", "names", 1);
        self.0.put("dtypes", &dtype_id(dtype).to_le_bytes());
        self.put64s("dims", shape);
        self.put_end("dim_ends", "dims", 8);
        let element = super::DTYPES.iter().find(|(known, ..)| *known == dtype).unwrap().2;
        self.put64s("byte_lens", &[shape.iter().product::<u64>() * element]);
        self.put32("layouts", layout);
        self.put32("copies", copy);
        self.put_end("box_ends", "owners", 4);
        self
    }

    /// A tensor of explicit boxes: offsets, lengths, owner.
    pub fn boxed(&mut self, name: &str, dtype: &str, shape: &[u64], boxes: &[Boxed<'_>]) -> &mut Self {
        for (offsets, lens, owner) in boxes {
            self.put64s("boxes", offsets);
            self.put64s("boxes", lens);
            self.put32("owners", *owner);
        }
        self.tensor(name, dtype, shape, u32::MAX, 0)
    }

    /// A layout: count, first and step; members; axis, parts and stride of each level.
    pub fn layout(&mut self, ranks: [u32; 3], members: &[u32], levels: &[(u8, u32, u32)]) -> &mut Self {
        for (column, number) in ["layout_counts", "layout_firsts", "layout_steps"].into_iter().zip(ranks) {
            self.put32(column, number);
        }
        for member in members {
            self.put32("members", *member);
        }
        self.put_end("member_ends", "members", 4);
        for (axis, parts, stride) in levels {
            self.0.put("level_axes", &[*axis]);
            self.put32("level_parts", *parts);
            self.put32("level_strides", *stride);
        }
        self.put_end("level_ends", "level_axes", 1);
        self
    }

    /// A shard, by the bytes of its file.
    pub fn shard(&mut self, rank: u32, file: &[u8]) -> &mut Self {
        let footer = &file[file.len() - 128..];
        self.put32("shard_ranks", rank);
        self.0.put("shard_ids", &footer[64..80]);
        self.put64s("shard_lens", &[file.len() as u64]);
        self.0.put("shard_index_crcs", &footer[16..20]);
        self
    }

    /// A container with this section.
    pub fn container(&self) -> Container {
        let mut container = Container::new();
        container.set_flags([0, 0, 2]).sections.push((5, self.0.encode()));
        container
    }
}

/// A shard around a container: global name, whole shape and offsets of each of its tensors.
pub fn shard(
    container: &mut Container,
    save: &str,
    [rank, world]: [u32; 2],
    parts: &[(&str, &[u64], &[u64])],
) -> Columns {
    let names = ["save", "rank_world", "names", "name_ends", "dim_ends", "dims", "offsets"];
    let mut columns = Columns(names.map(|name| (name, Vec::new())).to_vec());
    columns.put("save", save.as_bytes());
    columns.put("rank_world", &[rank.to_le_bytes(), world.to_le_bytes()].concat());
    for (name, shape, offsets) in parts {
        columns.put("names", name.as_bytes());
        let end = columns.get("names").len() as u32;
        columns.put("name_ends", &end.to_le_bytes());
        for (column, numbers) in [("dims", shape), ("offsets", offsets)] {
            for number in *numbers {
                columns.put(column, &number.to_le_bytes());
            }
        }
        let end = (columns.get("dims").len() / 8) as u32;
        columns.put("dim_ends", &end.to_le_bytes());
    }
    container.set_flags([0, 1, 0]);
    container.sections.retain(|(kind, _)| *kind != 6);
    container.sections.push((6, columns.encode()));
    columns
}
