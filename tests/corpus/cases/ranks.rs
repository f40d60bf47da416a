//! Checkpoints of many ranks: manifests with their shards beside them, and shards by themselves.

use super::Case;
use super::accepted::ok;
use super::refused::{DAMAGED, READ, reject};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use test_support::build::{Container, Manifest, crc32, hex32, shard};

const SAVE: &str = "0001-0000000007-1-5b7711e0";

pub fn cases() -> Vec<Case> {
    [valid(), columns(), layouts(), boxes(), shards_of_manifests(), shards_by_themselves()]
        .into_iter()
        .flatten()
        .collect()
}

/// A whole tensor of a job.
struct Whole {
    name: &'static str,
    dtype: &'static str,
    size: usize,
    shape: &'static [u64],
}

impl Whole {
    fn raw(&self) -> Vec<u8> {
        let len = self.size * self.shape.iter().product::<u64>() as usize;
        (0..len).map(|i| (i * 7 + self.name.len()) as u8).collect()
    }

    /// The bytes of a box.
    fn cut(&self, offsets: &[u64], lens: &[u64]) -> Vec<u8> {
        let mut starts = vec![0_u64];
        for (axis, len) in self.shape.iter().enumerate() {
            let within = offsets[axis]..offsets[axis] + lens[axis];
            starts = starts.iter().flat_map(|at| within.clone().map(move |i| at * len + i)).collect();
        }
        let raw = self.raw();
        starts.iter().flat_map(|&at| raw[at as usize * self.size..][..self.size].to_vec()).collect()
    }
}

const COLUMNS: Whole = Whole { name: "columns", dtype: "u8", size: 1, shape: &[3, 4] };
const EMPTY: Whole = Whole { name: "empty", dtype: "f32", size: 4, shape: &[0, 3] };
const FLAT: Whole = Whole { name: "flat", dtype: "i16", size: 2, shape: &[3, 4] };
const PERMUTED: Whole = Whole { name: "permuted", dtype: "u8", size: 1, shape: &[4] };
const ROWS: Whole = Whole { name: "rows", dtype: "f32", size: 4, shape: &[5, 2] };
const STEP: Whole = Whole { name: "step", dtype: "i64", size: 8, shape: &[] };

/// A piece: its rank, tensor, offsets and lengths.
type Piece = (u32, &'static Whole, &'static [u64], &'static [u64]);

/// Of 17 ranks. `columns` is held by ranks 0 to 3 as 2 copies of 2 blocks, of which ranks 2 and 3
/// store theirs; `rows` are blocks of 2 rows on ranks 0 to 3, of which the last has none.
const PIECES: [Piece; 13] = [
    (2, &COLUMNS, &[0, 0], &[3, 2]),
    (3, &COLUMNS, &[0, 2], &[3, 2]),
    (0, &FLAT, &[0, 0], &[1, 4]),
    (0, &FLAT, &[1, 0], &[1, 1]),
    (3, &FLAT, &[1, 1], &[1, 3]),
    (3, &FLAT, &[2, 0], &[1, 4]),
    (3, &PERMUTED, &[0], &[2]),
    (1, &PERMUTED, &[2], &[2]),
    (0, &ROWS, &[0, 0], &[2, 2]),
    (1, &ROWS, &[2, 0], &[2, 2]),
    (2, &ROWS, &[4, 0], &[1, 2]),
    (16, &STEP, &[], &[]),
    (3, &EMPTY, &[0, 0], &[0, 3]),
];

/// The shards, as containers by rank, and what their tensors are parts of.
type Parts = Vec<(&'static str, &'static [u64], &'static [u64])>;

fn containers() -> BTreeMap<u32, (Container, Parts)> {
    let mut shards: BTreeMap<u32, (Container, Parts)> = BTreeMap::new();
    // A tensor without elements has no pieces.
    for (rank, whole, offsets, lens) in PIECES.into_iter().filter(|(_, _, _, lens)| !lens.contains(&0)) {
        let (container, parts) = shards.entry(rank).or_insert_with(|| (Container::new(), Vec::new()));
        container.file_id[0] = rank as u8;
        // Names in shards say nothing: these are numbers.
        let name = format!("{:02}", parts.len());
        container.tensor(&name, whole.dtype, lens, &whole.cut(offsets, lens));
        parts.push((whole.name, whole.shape, offsets));
    }
    for (rank, (container, parts)) in &mut shards {
        let id = container.file_id;
        container.front[40..56].copy_from_slice(&id);
        shard(container, SAVE, [*rank, 17], parts);
    }
    shards
}

fn files() -> BTreeMap<u32, Vec<u8>> {
    containers().into_iter().map(|(rank, (container, _))| (rank, container.finish())).collect()
}

fn key(rank: u32) -> String {
    format!("shards/{:x}/{SAVE}-r{rank:05}.tkeep", rank % 16)
}

/// The manifest of these shards.
fn manifest(files: &BTreeMap<u32, Vec<u8>>) -> Manifest {
    let mut manifest = Manifest::new(SAVE);
    manifest.layout([4, 0, 1], &[], &[(1, 2, 1)]);
    manifest.layout([1, 16, 1], &[], &[]);
    manifest.layout([2, 0, 0], &[3, 1], &[(0, 2, 1)]);
    manifest.layout([4, 0, 1], &[], &[(0, 4, 1)]);
    manifest.tensor("columns", "u8", COLUMNS.shape, 0, 1);
    manifest.tensor("empty", "f32", EMPTY.shape, 0, 0);
    let of = |(rank, _, offsets, lens): Piece| (offsets, lens, rank);
    let flat: Vec<_> = PIECES.into_iter().filter(|piece| piece.1.name == "flat").map(of).collect();
    manifest.boxed("flat", "i16", FLAT.shape, &flat);
    manifest.tensor("permuted", "u8", PERMUTED.shape, 2, 0);
    manifest.tensor("rows", "f32", ROWS.shape, 3, 0);
    manifest.tensor("step", "i64", STEP.shape, 1, 0);
    for (rank, file) in files {
        manifest.shard(*rank, file);
    }
    manifest
}

/// The container of a manifest, with a tensor and a record of its own and an alias of each kind.
fn whole(manifest: &Manifest) -> Container {
    let mut container = manifest.container();
    container.tensor("own", "u8", &[3], &[7, 8, 9]).record("lr", &[5], json!(5));
    container.aliases(&[("tied.own", 0), ("tied.rows", 5)]);
    container
}

fn tensors() -> Map<String, Value> {
    let mut tensors = Map::new();
    for whole in [&COLUMNS, &EMPTY, &FLAT, &PERMUTED, &ROWS, &STEP] {
        let crc = hex32(crc32(&whole.raw()));
        tensors.insert(
            whole.name.to_owned(),
            json!({ "dtype": whole.dtype, "shape": whole.shape, "crc32": crc }),
        );
    }
    let own = json!({ "dtype": "u8", "shape": [3], "crc32": hex32(crc32(&[7, 8, 9])) });
    tensors.insert("tied.rows".to_owned(), tensors["rows"].clone());
    tensors.insert("tied.own".to_owned(), own.clone());
    tensors.insert("own".to_owned(), own);
    tensors
}

/// A checkpoint of several files, all of whose tensors are readable.
fn whole_job(folder: &str, rules: &[&'static str], what: &'static str, bytes: Vec<u8>) -> Case {
    Case {
        file: format!("ranks/{folder}/manifest.tkeep"),
        rules: rules.to_vec(),
        expect: "ok",
        at: "",
        what,
        bytes,
        beside: files().into_iter().map(|(rank, file)| (key(rank), file)).collect(),
        facts: json!({ "tensors": tensors(), "records": { "lr": 5 } }),
    }
}

/// The same, of which these tensors are damaged.
fn without(mut case: Case, at: (&'static str, &'static str), lost: &[&str]) -> Case {
    (case.expect, case.at) = at;
    for name in lost {
        case.facts["tensors"][*name] =
            json!({ "shape": case.facts["tensors"][*name]["shape"], "error": "damaged" });
    }
    case
}

fn valid() -> Vec<Case> {
    vec![whole_job(
        "whole",
        &[
            "R155", "R156", "R157", "R158", "R159", "R160", "R161", "R162", "R163", "R164", "R165", "R167",
            "R172",
        ],
        "tensors of several layouts and of explicit boxes, over five shards",
        whole(&manifest(&files())).finish(),
    )]
}

type Change = fn(&mut Manifest);

/// Manifests that are refused when they are opened, whatever lies beside them.
fn refused(cases: &[(&str, &'static str, &'static str, Change)]) -> Vec<Case> {
    let files = files();
    let case = |(file, rule, what, change): &(&str, &'static str, &'static str, Change)| {
        let mut manifest = manifest(&files);
        change(&mut manifest);
        reject(&format!("manifest-{file}"), &[*rule], DAMAGED, what, whole(&manifest).finish())
    };
    cases.iter().map(case).collect()
}

fn columns() -> Vec<Case> {
    let files = files();
    let flagged = |flags: [u64; 3], with_section: bool| {
        let mut container = whole(&manifest(&files));
        container.set_flags(flags);
        if !with_section {
            container.sections.clear();
            container.aliases(&[("tied.own", 0)]);
        }
        container.finish()
    };
    let mut names = whole(&manifest(&files));
    names.front.truncate(4096);
    names.tensors = Container::new().tensors;
    names.tensor("rows", "u8", &[3], &[7, 8, 9]);
    names.records = Container::new().records;
    let mut alias = whole(&manifest(&files));
    alias.aliases(&[("rows", 0)]);
    let mut target = whole(&manifest(&files));
    target.aliases(&[("tied", 7)]);
    let mut cases = vec![
        reject("manifest-without-flag", &["R155"], DAMAGED, "pieces, and no flag", flagged([0; 3], true)),
        reject(
            "flag-without-manifest",
            &["R155"],
            DAMAGED,
            "a flag, and no pieces",
            flagged([0, 0, 2], false),
        ),
        reject("manifest-name-of-its-own", &["R157"], DAMAGED, "a name in both tables", names.finish()),
        reject("manifest-alias-of-a-piece", &["R157"], DAMAGED, "an alias that is a tensor", alias.finish()),
        reject("manifest-alias-target", &["R157"], DAMAGED, "an alias of no tensor", target.finish()),
    ];
    cases.extend(refused(&[
        ("column-length", "R156", "a column of another length", |m| m.0.get("copies").truncate(23)),
        ("column-missing", "R156", "a column less", |m| m.0.0.truncate(24)),
        ("names-order", "R156", "names that do not ascend", |m| m.0.get("names")[0] = b'z'),
        ("raw-length", "R156", "a raw length that is not the shape's", |m| m.0.set64("byte_lens", 0, 13)),
        ("ends", "R156", "ends that descend", |m| m.0.set32("dim_ends", 0, 5)),
    ]));
    cases
}

fn layouts() -> Vec<Case> {
    refused(&[
        ("step-0", "R158", "a step of 0", |m| m.0.set32("layout_steps", 0, 0)),
        ("no-positions", "R158", "a layout of no ranks", |m| m.0.set32("layout_counts", 1, 0)),
        ("rank-limit", "R158", "a rank beyond the limit", |m| m.0.set32("layout_firsts", 0, 1 << 20)),
        ("member-twice", "R158", "a rank with two positions", |m| m.0.set32("members", 1, 3)),
        ("members-count", "R158", "fewer members than positions", |m| m.0.set32("layout_counts", 2, 4)),
        ("members-first", "R158", "members and a progression", |m| m.0.set32("layout_firsts", 2, 1)),
        ("one-part", "R159", "a level of one part", |m| m.0.set32("level_parts", 0, 1)),
        ("stride-0", "R159", "a stride of 0", |m| m.0.set32("level_strides", 0, 0)),
        ("no-digit", "R159", "positions that are no multiple", |m| m.0.set32("level_parts", 2, 3)),
        ("axis", "R159", "a level of an axis that a tensor has not", |m| m.0.get("level_axes")[0] = 2),
        ("no-layout", "R156", "a layout that is not there", |m| m.0.set32("layouts", 0, 4)),
        ("copy", "R162", "a copy beyond those that are held", |m| m.0.set32("copies", 0, 2)),
    ])
}

fn boxes() -> Vec<Case> {
    let mut cases = refused(&[
        ("copy-of-boxes", "R163", "a copy of explicit boxes", |m| m.0.set32("copies", 2, 1)),
        ("overlap", "R163", "boxes that overlap", |m| m.0.set64("boxes", 6, 2)),
        ("hole", "R163", "boxes that leave a hole", |m| m.0.set64("boxes", 15, 3)),
        ("box-outside", "R163", "a box that leaves its tensor", |m| m.0.set64("boxes", 14, 2)),
        ("box-empty", "R163", "a box without elements", |m| m.0.set64("boxes", 7, 0)),
        ("box-beyond", "R163", "a box beyond 2^64", |m| m.0.set64("boxes", 14, u64::MAX)),
        ("box-order", "R163", "boxes that do not ascend", |m| {
            let boxes = m.0.get("boxes");
            boxes[..64].rotate_left(32);
        }),
    ]);
    let mut many = Manifest::new(SAVE);
    let boxes: Vec<(Vec<u64>, Vec<u64>)> = (0..512_u64)
        .map(|number| ((0..9).rev().map(|axis| number >> axis & 1).collect(), vec![1; 9]))
        .collect();
    let boxes: Vec<_> = boxes.iter().map(|(offsets, lens)| (&offsets[..], &lens[..], 0)).collect();
    many.boxed("w", "u8", &[2; 9], &boxes).shard(0, &files()[&0]);
    let bytes = many.container().finish();
    cases.push(reject("manifest-cut-axes", &["R163", "R99"], DAMAGED, "boxes that cut nine axes", bytes));
    cases
}

fn shards_of_manifests() -> Vec<Case> {
    let files = files();
    let whole_files = whole(&manifest(&files)).finish();
    let job = |folder, rules, what| whole_job(folder, rules, what, whole_files.clone());
    let mut cases = refused(&[
        ("box-without-shard", "R164", "a box's rank without a shard", |m| m.0.set32("owners", 0, 5)),
        ("shard-order", "R164", "ranks of shards that do not ascend", |m| m.0.set32("shard_ranks", 1, 0)),
        ("shard-limit", "R164", "a shard of a rank beyond the limit", |m| {
            m.0.set32("shard_ranks", 4, 1 << 20);
        }),
        ("save-slash", "R164", "a save's name that is a path", |m| m.0.get("save")[0] = b'/'),
        ("save-dot", "R164", "a save's name that is hidden", |m| m.0.get("save")[0] = b'.'),
        ("save-empty", "R164", "a save without a name", |m| m.0.get("save").clear()),
    ]);
    let mut missing = files.clone();
    missing.remove(&1);
    cases.push(reject(
        "manifest-owner-without-shard",
        &["R164"],
        DAMAGED,
        "a layout's rank without a shard",
        whole(&manifest(&missing)).finish(),
    ));
    let mut lost = job("lost-shard", &["R166"], "a shard that is not there");
    lost.beside.remove(&key(1));
    cases.push(without(lost, READ, &["permuted", "rows", "tied.rows"]));
    let mut another = job("another-shard", &["R166"], "another rank's shard in a shard's place");
    another.beside.insert(key(1), files[&2].clone());
    cases.push(without(another, READ, &["permuted", "rows", "tied.rows"]));
    let mut foreign = job("foreign-shard", &["R166"], "another kind of file in a shard's place");
    foreign.beside.insert(key(16), b"no container".to_vec());
    cases.push(without(foreign, READ, &["step"]));
    // The manifest knows these shards, and they are not what it says.
    let with_part = |folder, what, rank: u32, change: fn(&mut Container, &mut Parts), lost: &[&str]| {
        let mut files = files.clone();
        let (mut container, mut parts) = containers().remove(&rank).unwrap();
        change(&mut container, &mut parts);
        shard(&mut container, SAVE, [rank, 17], &parts);
        files.insert(rank, container.finish());
        let mut case = whole_job(folder, &["R167"], what, whole(&manifest(&files)).finish());
        case.beside.insert(key(rank), files[&rank].clone());
        without(case, READ, lost)
    };
    cases.push(with_part(
        "part-elsewhere",
        "a shard whose part begins elsewhere",
        1,
        |_, parts| parts[0].2 = &[0],
        &["permuted"],
    ));
    cases.push(with_part(
        "part-of-another-tensor",
        "a shard whose part is another tensor's",
        16,
        |_, parts| parts[0].0 = "stop",
        &["step"],
    ));
    cases.push(with_part(
        "part-of-another-shape",
        "a shard that knows another whole shape",
        1,
        |_, parts| parts[1].1 = &[6, 2],
        &["rows", "tied.rows"],
    ));
    cases.push(with_part(
        "part-of-another-dtype",
        "a shard whose part has another dtype",
        16,
        |container, _| {
            *container.tensors.get("dtypes") = 8_u16.to_le_bytes().to_vec();
        },
        &["step"],
    ));
    let mut flipped = job("damaged-shard", &["R168"], "a bit of the padding of a shard");
    let file = flipped.beside.get_mut(&key(2)).unwrap();
    file[4096 + 20] ^= 1;
    (flipped.expect, flipped.at) = ("ok", "verify");
    cases.push(flipped);
    let mut chunk = job("damaged-piece", &["R166", "R61"], "a bit of one piece");
    chunk.beside.get_mut(&key(2)).unwrap()[4096] ^= 1;
    cases.push(without(chunk, READ, &["columns"]));
    cases
}

fn shards_by_themselves() -> Vec<Case> {
    let (container, parts) = containers().remove(&0).unwrap();
    let with = |world: [u32; 2], parts: &[(&str, &[u64], &[u64])]| {
        let mut container = container.clone();
        shard(&mut container, SAVE, world, parts);
        container
    };
    let mut unflagged = container.clone();
    unflagged.set_flags([0; 3]);
    let mut flagged = container.clone();
    flagged.sections.clear();
    let rejected = |file: &str, rule, what, container: Container| {
        reject(&format!("shard-{file}"), &[rule], DAMAGED, what, container.finish())
    };
    let [first, second, third] = parts[..] else { panic!("three parts") };
    vec![
        ok("shard", &["R170", "R171", "R172"], "a shard by itself", &container),
        rejected("without-flag", "R170", "the section of a shard, and no flag", unflagged),
        rejected("without-section", "R170", "the flag of a shard, and no section", flagged),
        rejected("part-less", "R171", "a tensor that is no part", with([0, 17], &parts[..2])),
        rejected("part-twice", "R171", "a part that comes twice", with([0, 17], &[first, first, third])),
        rejected(
            "part-outside",
            "R171",
            "a box that leaves its tensor",
            with([0, 17], &[first, second, (third.0, &[1, 2], third.2)]),
        ),
        rejected(
            "axes",
            "R171",
            "a part of fewer axes",
            with([0, 17], &[first, second, (third.0, &[5], &[0])]),
        ),
        rejected("rank", "R171", "a rank that its world does not have", with([17, 17], &parts)),
        rejected("world", "R171", "a world beyond the limit", with([0, (1 << 20) + 1], &parts)),
        rejected(
            "name",
            "R171",
            "a part of a tensor without a name",
            with([0, 17], &[("", first.1, first.2), second, third]),
        ),
    ]
}
