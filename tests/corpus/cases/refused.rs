//! Files that every reader refuses, each for one reason.

use super::Case;
use super::accepted::{base, pattern, raw_chunk, with_flags, zstd_chunk};
use super::build::{Columns, Container, Stored, bin, region, seal, seal_footer, seal_header};
use serde_json::{Value, json};

pub fn reject(
    file: &str,
    rules: &[&'static str],
    (expect, at): (&'static str, &'static str),
    what: &'static str,
    bytes: Vec<u8>,
) -> Case {
    Case {
        file: format!("reject/{file}.tkeep"),
        rules: rules.to_vec(),
        expect,
        at,
        what,
        bytes,
        facts: json!({}),
    }
}

pub const DAMAGED: (&str, &str) = ("damaged", "open");
const FOREIGN: (&str, &str) = ("foreign", "open");
const NEWER: (&str, &str) = ("newer-version", "open");
pub const READ: (&str, &str) = ("damaged", "read");
const VERIFY: (&str, &str) = ("damaged", "verify");

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for part in [files, headers, footers, places, regions, tables, extents, chunks, aliases, records, budgets]
    {
        cases.extend(part());
    }
    cases
}

fn files() -> Vec<Case> {
    let whole = base().finish();
    let zip = [b"PK\x03\x04".to_vec(), vec![0; 60]].concat();
    let header = br#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let safetensors =
        [(header.len() as u64).to_le_bytes().to_vec(), header.to_vec(), vec![0, 0, 128, 63]].concat();
    let text_mode: Vec<u8> = String::from_utf8_lossy(&whole[4..8]).replace("\r\n", "\n").into_bytes();
    let text_mode = [&whole[..4], &text_mode, &whole[8..]].concat();
    vec![
        reject("empty-file", &["R103"], DAMAGED, "no bytes at all", vec![]),
        reject("zip", &["R6", "R103"], FOREIGN, "a zip archive", zip),
        reject("safetensors", &["R6", "R103"], FOREIGN, "a safetensors file", safetensors),
        reject("text", &["R6"], FOREIGN, "a text", b"step,loss\n1,0.5\n".to_vec()),
        reject("text-mode", &["R6", "R103"], DAMAGED, "carriage returns lost on the way", text_mode),
        reject("zeros", &["R103"], DAMAGED, "a file of zeros", vec![0; 8192]),
        reject("only-the-magic", &["R5", "R104"], DAMAGED, "8 bytes", whole[..8].to_vec()),
        reject("cut-in-header", &["R104", "R126"], DAMAGED, "100 bytes", whole[..100].to_vec()),
        reject("only-a-header", &["R5", "R105"], DAMAGED, "4096 bytes", whole[..4096].to_vec()),
        reject("cut-in-footer-only", &["R5"], DAMAGED, "4223 bytes", whole[..4223].to_vec()),
        reject(
            "cut-in-data",
            &["R14", "R126"],
            DAMAGED,
            "cut in the index",
            whole[..whole.len() / 2 + 2200].to_vec(),
        ),
        reject(
            "cut-by-one",
            &["R14", "R126"],
            DAMAGED,
            "the last byte is missing",
            whole[..whole.len() - 1].to_vec(),
        ),
        reject("appended", &["R4", "R14", "R126"], DAMAGED, "one byte too many", [&whole[..], &[0]].concat()),
        reject(
            "footer-twice",
            &["R24", "R126"],
            DAMAGED,
            "the footer once more behind the file",
            [&whole[..], &whole[whole.len() - 128..]].concat(),
        ),
    ]
}

fn with_header(edit: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = base().finish();
    edit(&mut bytes[..4096]);
    seal_header(&mut bytes);
    bytes
}

fn headers() -> Vec<Case> {
    let mut crc = base().finish();
    crc[45] ^= 1;
    let mut version_crc = base().finish();
    version_crc[8] = 2;
    vec![
        reject("header-crc", &["R7", "R125"], DAMAGED, "one bit of the header flipped", crc),
        reject(
            "header-crc-version",
            &["R94"],
            DAMAGED,
            "a flipped version is damage, not a newer version",
            version_crc,
        ),
        reject("read-version-0", &["R8"], DAMAGED, "read version 0", with_header(|header| header[8] = 0)),
        reject(
            "read-version-2",
            &["R95", "R104"],
            NEWER,
            "a newer read version, and lengths of its own",
            with_header(|header| (header[8], header[13], header[3000]) = (2, 0x20, 1)),
        ),
        reject(
            "header-length",
            &["R10"],
            DAMAGED,
            "header length 8192",
            with_header(|header| header[13] = 0x20),
        ),
        reject("header-alignment", &["R12"], DAMAGED, "alignment 512", with_header(|header| header[57] = 2)),
        reject("checksum-none", &["R13"], DAMAGED, "checksum id 0", with_header(|header| header[60] = 0)),
        reject("checksum-unknown", &["R13"], DAMAGED, "checksum id 2", with_header(|header| header[60] = 2)),
        reject(
            "header-zeros",
            &["R3"],
            DAMAGED,
            "a reserved byte of the header",
            with_header(|header| header[4091] = 1),
        ),
        reject(
            "header-file-id",
            &["R25"],
            DAMAGED,
            "header and footer of two files",
            with_header(|header| header[40] ^= 1),
        ),
        reject(
            "header-flags",
            &["R25"],
            DAMAGED,
            "a compat flag in the header alone",
            with_header(|header| header[16] = 1),
        ),
        reject("incompat-flag", &["R96"], NEWER, "an unknown incompat flag", with_flags(&base(), 32, 56, 1)),
        reject(
            "incompat-flag-high",
            &["R96"],
            NEWER,
            "the highest incompat flag",
            with_flags(&base(), 32, 56, 1 << 63),
        ),
    ]
}

/// The footer changed and sealed.
fn with_footer(edit: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = base().finish();
    let start = bytes.len() - 128;
    edit(&mut bytes[start..]);
    seal_footer(&mut bytes);
    bytes
}

fn add(footer: &mut [u8], at: usize, difference: i64) {
    let value = u64::from_le_bytes(footer[at..at + 8].try_into().unwrap());
    footer[at..at + 8].copy_from_slice(&value.wrapping_add_signed(difference).to_le_bytes());
}

fn footers() -> Vec<Case> {
    let mut crc = base().finish();
    let start = crc.len() - 128;
    crc[start + 70] ^= 1;
    let reserved = |at: usize| with_footer(|footer| footer[at] = 1);
    vec![
        reject("footer-crc", &["R15", "R125"], DAMAGED, "one bit of the footer flipped", crc),
        reject("footer-magic", &["R14"], DAMAGED, "the closing magic", with_footer(|footer| footer[127] = 0)),
        reject("footer-zeros-1", &["R3"], DAMAGED, "a reserved byte", reserved(23)),
        reject("footer-zeros-2", &["R3"], DAMAGED, "a reserved byte", reserved(112)),
        reject("generation", &["R26"], DAMAGED, "generation 1", reserved(80)),
        reject("previous-footer", &["R26"], DAMAGED, "a previous footer", reserved(95)),
        reject("content-root", &["R26"], DAMAGED, "a content root", reserved(111)),
        reject("footer-file-id", &["R25"], DAMAGED, "another file's footer", reserved(79)),
        reject("footer-flags", &["R25"], DAMAGED, "a compat flag in the footer alone", reserved(40)),
        reject(
            "footer-incompat",
            &["R96", "R105"],
            NEWER,
            "an incompat flag in the footer, found before the flags are compared",
            reserved(56),
        ),
    ]
}

fn places() -> Vec<Case> {
    let no_mirror = |edit: fn(&mut [u8])| {
        let mut container = base();
        container.mirror = false;
        let mut bytes = container.finish();
        let start = bytes.len() - 128;
        edit(&mut bytes[start..]);
        seal_footer(&mut bytes);
        bytes
    };
    let mirrored = base().finish();
    let length = |bytes: &[u8]| u64::from_le_bytes(bytes[bytes.len() - 120..][..8].try_into().unwrap());
    // The mirror moved a page back, and the footer with it.
    let mut far = mirrored.clone();
    let footer_start = far.len() - 128;
    let mirror_start = footer_start - length(&far) as usize;
    far.splice(mirror_start..mirror_start, vec![0; 4096]);
    let footer_start = footer_start + 4096;
    add(&mut far[footer_start..], 24, 4096);
    add(&mut far[footer_start..], 32, 4096);
    seal_footer(&mut far);
    let mut padding = mirrored.clone();
    padding[mirror_start - 1] = 1;
    let mut behind = mirrored.clone();
    behind.splice(mirrored.len() - 128..mirrored.len() - 128, vec![0; 64]);
    let start = behind.len() - 128;
    add(&mut behind[start..], 32, 64);
    seal_footer(&mut behind);
    let mut both = mirrored.clone();
    let index_start = u64::from_le_bytes(mirrored[mirrored.len() - 128..][..8].try_into().unwrap()) as usize;
    (both[index_start], both[mirror_start]) = (0, 0);
    vec![
        reject(
            "file-length",
            &["R24"],
            DAMAGED,
            "a length that is not the file's",
            with_footer(|footer| add(footer, 32, 1)),
        ),
        reject(
            "index-offset-unaligned",
            &["R16"],
            DAMAGED,
            "an index at 8 more",
            no_mirror(|footer| (add(footer, 0, 8), add(footer, 8, -8)).0),
        ),
        reject(
            "index-in-header",
            &["R16"],
            DAMAGED,
            "an index from within the header on",
            no_mirror(|footer| (add(footer, 0, -128), add(footer, 8, 128)).0),
        ),
        reject(
            "index-length",
            &["R17"],
            DAMAGED,
            "an index one byte shorter",
            no_mirror(|footer| add(footer, 8, -1)),
        ),
        reject(
            "index-length-wraps",
            &["R17", "R99"],
            DAMAGED,
            "an index as long as a u64 can say",
            no_mirror(|footer| footer[8..16].copy_from_slice(&(u64::MAX - 63).to_le_bytes())),
        ),
        reject(
            "index-crc",
            &["R18", "R106"],
            DAMAGED,
            "another checksum of the index, and no mirror",
            no_mirror(|footer| footer[16] ^= 1),
        ),
        reject("index-and-mirror", &["R106", "R125"], DAMAGED, "index and mirror damaged", both),
        reject(
            "mirror-unaligned",
            &["R19"],
            DAMAGED,
            "a mirror that begins 64 bytes early",
            with_footer(|footer| add(footer, 24, -64)),
        ),
        reject(
            "mirror-in-index",
            &["R19"],
            DAMAGED,
            "a mirror within the index",
            with_footer(|footer| add(footer, 24, -1024)),
        ),
        reject(
            "mirror-wraps",
            &["R19"],
            DAMAGED,
            "a mirror at the end of the u64s",
            with_footer(|footer| footer[24..32].copy_from_slice(&(u64::MAX - 511).to_le_bytes())),
        ),
        reject("mirror-far", &["R20"], DAMAGED, "a page between index and mirror", far),
        reject("mirror-padding", &["R20", "R123"], VERIFY, "a byte between index and mirror", padding),
        reject("before-footer", &["R23"], DAMAGED, "64 bytes between mirror and footer", behind),
    ]
}

/// The base container around an index region that was changed; checksums over the whole region are right.
fn with_region(edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let container = base();
    let mut region = container.region();
    edit(&mut region);
    container.finish_with(&region)
}

fn with_sections(edit: impl FnOnce(&mut Vec<(u32, Vec<u8>)>)) -> Vec<u8> {
    let container = base();
    let mut sections = container.payloads();
    edit(&mut sections);
    container.finish_with(&region(&sections))
}

fn regions() -> Vec<Case> {
    let preamble = |at: usize, value: u8| {
        with_region(|region| {
            region[at] = value;
            seal(region, 0, 28);
        })
    };
    let section = |at: usize, value: u8| {
        with_region(|region| {
            region[32 + at] = value;
            seal(region, 32, 60);
        })
    };
    vec![
        reject("region-magic", &["R27"], DAMAGED, "another magic", preamble(0, b't')),
        reject("region-length", &["R28"], DAMAGED, "another length", preamble(14, 1)),
        reject("region-zeros", &["R3"], DAMAGED, "a reserved byte of the preamble", preamble(20, 1)),
        reject(
            "preamble-crc",
            &["R29"],
            DAMAGED,
            "a preamble that its own checksum does not match",
            with_region(|region| region[28] ^= 1),
        ),
        reject("sections-65", &["R99"], DAMAGED, "65 sections", preamble(16, 65)),
        reject("sections-missing", &["R107"], DAMAGED, "one section more than there are", preamble(16, 3)),
        reject(
            "sections-fewer",
            &["R34", "R36"],
            DAMAGED,
            "one section fewer than there are",
            preamble(16, 1),
        ),
        reject(
            "section-header-crc",
            &["R31"],
            DAMAGED,
            "a section header that its checksum does not match",
            with_region(|region| region[60] ^= 1),
        ),
        reject("section-flags", &["R32"], DAMAGED, "a flag of a section", section(4, 1)),
        reject("section-zeros", &["R3"], DAMAGED, "a reserved byte of a section header", section(27, 1)),
        reject("payload-crc", &["R33"], DAMAGED, "another checksum of a payload", section(16, 0)),
        reject("payload-length", &["R33"], DAMAGED, "a payload longer than the region", section(15, 1)),
        reject(
            "section-padding",
            &["R30"],
            DAMAGED,
            "a byte between two sections",
            with_region(|region| {
                let len = u64::from_le_bytes(region[40..48].try_into().unwrap()) as usize;
                assert_eq!(region[64 + len], 0, "there is padding behind the first payload");
                region[64 + len] = 1;
            }),
        ),
        reject(
            "region-end",
            &["R34"],
            DAMAGED,
            "a byte behind the last section",
            with_region(|region| *region.last_mut().unwrap() = 1),
        ),
        reject(
            "region-slack",
            &["R34"],
            DAMAGED,
            "64 zeros too many behind the last section",
            with_region(|region| {
                region.resize(region.len() + 64, 0);
                let len = region.len() as u64;
                region[8..16].copy_from_slice(&len.to_le_bytes());
                seal(region, 0, 28);
            }),
        ),
        reject(
            "kind-twice",
            &["R35"],
            DAMAGED,
            "two tables of tensors",
            with_sections(|sections| sections.push(sections[0].clone())),
        ),
        reject(
            "unknown-kind-twice",
            &["R35"],
            DAMAGED,
            "two sections of one unknown kind",
            with_sections(|sections| sections.extend([(9, vec![1]), (9, vec![2])])),
        ),
        reject("unknown-kind-crc", &["R37"], DAMAGED, "a damaged section of an unknown kind", {
            let mut container = base();
            container.sections.push((9, vec![7; 8]));
            let mut region = container.region();
            let at = region.windows(8).position(|window| window == [7; 8]).unwrap();
            region[at] = 8;
            container.finish_with(&region)
        }),
        reject(
            "no-tensors",
            &["R36"],
            DAMAGED,
            "no table of tensors",
            with_sections(|sections| drop(sections.remove(0))),
        ),
        reject(
            "no-records",
            &["R36"],
            DAMAGED,
            "no table of records",
            with_sections(|sections| drop(sections.pop())),
        ),
    ]
}

/// The base container with lying columns of tensors.
fn with_tensors(edit: impl FnOnce(&mut Columns)) -> Vec<u8> {
    let mut container = base();
    edit(&mut container.tensors);
    container.finish()
}

/// The base container with another payload of the tensors' section.
fn with_payload(edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    with_sections(|sections| edit(&mut sections[0].1))
}

/// One tensor `a` that lies from its first column on.
pub fn one(edit: impl FnOnce(&mut Container)) -> Vec<u8> {
    let mut container = Container::new();
    edit(&mut container);
    container.finish()
}

fn tables() -> Vec<Case> {
    let mut cases = Vec::new();
    for column in [
        "name_ends",
        "dtypes",
        "dim_ends",
        "dims",
        "byte_lens",
        "offsets",
        "chunk_log2",
        "chunk_ends",
        "chunk_crcs",
    ] {
        cases.push(reject(
            &format!("column-{column}"),
            &["R42"],
            DAMAGED,
            "a column one byte short",
            with_tensors(|columns| {
                let column = columns.get(column);
                column.truncate(column.len() - 1);
            }),
        ));
    }
    for column in ["chunk_codecs", "chunk_filters", "chunk_stored"] {
        let payloads = |columns: &mut Columns| {
            columns.get(column).clear();
            with_sections(|sections| sections[0].1 = columns.encode())
        };
        cases.push(reject(
            &format!("column-{column}"),
            &["R43"],
            DAMAGED,
            "one codec column empty and the others in full",
            payloads(&mut base().tensors.clone()),
        ));
    }
    let overflow = |dims: [u64; 2], dtype: &'static str| {
        one(|container| {
            container.tensor("a", dtype, &dims, &[1; 16]);
        })
    };
    let name = |name: &[u8]| {
        one(|container| {
            container.tensor("x", "u8", &[1], &[1]);
            *container.tensors.get("names") = name.to_vec();
            container.tensors.set32("name_ends", 0, name.len() as u32);
        })
    };
    let two_names = |first: &str, second: &str| {
        one(|container| {
            container.tensor(first, "u8", &[1], &[1]).tensor(second, "u8", &[1], &[2]);
        })
    };
    cases.extend([
        reject(
            "table-not-a-map",
            &["R39"],
            DAMAGED,
            "a number for a table",
            with_payload(|payload| *payload = vec![1]),
        ),
        reject(
            "table-a-list",
            &["R39"],
            DAMAGED,
            "a list of columns for a map of columns",
            with_payload(|payload| {
                let columns = unless_raw_columns();
                *payload = vec![0x9D];
                columns.iter().for_each(|column| payload.extend(bin(column)));
            }),
        ),
        reject(
            "column-missing",
            &["R40"],
            DAMAGED,
            "no column chunk_crcs",
            with_tensors(|columns| columns.0.retain(|(name, _)| *name != "chunk_crcs")),
        ),
        reject(
            "column-of-text",
            &["R40"],
            DAMAGED,
            "names as text",
            with_payload(|payload| {
                // fixmap, fixstr "names", bin8 of 3 bytes: the bin becomes a str8.
                assert_eq!(&payload[..8], b"\x8D\xA5names\xC4");
                payload[7] = 0xD9;
            }),
        ),
        reject(
            "column-twice",
            &["R40", "R82"],
            DAMAGED,
            "a column that stands twice",
            with_tensors(|columns| columns.0.push(("names", b"abc".to_vec()))),
        ),
        reject(
            "table-trailing",
            &["R39"],
            DAMAGED,
            "a byte behind the table",
            with_payload(|payload| payload.push(0)),
        ),
        reject(
            "name-ends-descend",
            &["R44"],
            DAMAGED,
            "a name that ends before it begins",
            with_tensors(|columns| columns.set32("name_ends", 0, 3)),
        ),
        reject(
            "name-ends-short",
            &["R44", "R42"],
            DAMAGED,
            "bytes behind the last name",
            with_tensors(|columns| columns.put("names", b"d")),
        ),
        reject(
            "dim-ends-descend",
            &["R44"],
            DAMAGED,
            "axes that end before they begin",
            with_tensors(|columns| columns.set32("dim_ends", 0, 4)),
        ),
        reject(
            "dim-ends-short",
            &["R44"],
            DAMAGED,
            "an axis of no tensor",
            with_tensors(|columns| columns.put("dims", &[1; 8])),
        ),
        reject(
            "chunk-ends-descend",
            &["R44"],
            DAMAGED,
            "chunks that end before they begin",
            with_tensors(|columns| columns.set32("chunk_ends", 0, u32::MAX)),
        ),
        reject("name-empty", &["R45"], DAMAGED, "an empty name", name(b"")),
        reject("name-long", &["R45", "R99"], DAMAGED, "a name of 1025 bytes", name(&[b'x'; 1025])),
        reject("name-control", &["R45"], DAMAGED, "a name with a line end", name(b"a\nb")),
        reject("name-delete", &["R45"], DAMAGED, "a name with byte 7f", name(b"a\x7F")),
        reject("name-zero", &["R45"], DAMAGED, "a name with byte 0", name(b"a\0")),
        reject("name-not-utf-8", &["R45"], DAMAGED, "a name that is not UTF-8", name(b"a\xFF")),
        reject(
            "name-cut",
            &["R45"],
            DAMAGED,
            "a name that ends within a character",
            one(|container| {
                container.tensor("é", "u8", &[1], &[1]).tensor("ê", "u8", &[1], &[2]);
                container.tensors.set32("name_ends", 0, 1);
            }),
        ),
        reject("names-unsorted", &["R46"], DAMAGED, "b before a", two_names("b", "a")),
        reject("names-twice", &["R46"], DAMAGED, "a name that stands twice", two_names("a", "a")),
        reject(
            "rank-65",
            &["R47", "R99"],
            DAMAGED,
            "65 axes",
            one(|container| {
                container.tensor("a", "u8", &[1; 65], &[1]);
            }),
        ),
        reject(
            "byte-len",
            &["R48"],
            DAMAGED,
            "one byte less than shape and dtype say",
            with_tensors(|columns| columns.set64("byte_lens", 0, 23)),
        ),
        reject(
            "byte-len-of-nothing",
            &["R48"],
            DAMAGED,
            "bytes of a tensor without elements",
            one(|container| {
                container.tensor("a", "f32", &[2, 0], &[0; 8]);
            }),
        ),
        reject(
            "shape-overflow",
            &["R48"],
            DAMAGED,
            "2^32 times 2^32 and more",
            overflow([1 << 32, (1 << 32) + 2], "f64"),
        ),
        reject(
            "shape-wraps",
            &["R48"],
            DAMAGED,
            "axes whose product is 16 modulo 2^64",
            overflow([(1 << 60) + 1, 16], "u8"),
        ),
        reject(
            "bytes-wrap",
            &["R48"],
            DAMAGED,
            "2^61 + 2 elements of 8 bytes",
            overflow([(1 << 61) + 2, 1], "f64"),
        ),
        reject(
            "tensor-too-large",
            &["R99"],
            DAMAGED,
            "2^60 + 1 bytes of an unknown dtype",
            one(|container| {
                container.unreadable("a", 999, &[1], (1 << 60) + 1, &[raw_chunk(&[1])]);
            }),
        ),
        reject(
            "chunk-log2-15",
            &["R50"],
            DAMAGED,
            "chunks of 2^15 bytes",
            with_tensors(|columns| columns.get("chunk_log2")[0] = 15),
        ),
        reject(
            "chunk-log2-27",
            &["R50", "R99"],
            DAMAGED,
            "chunks of 2^27 bytes, of an empty tensor",
            with_tensors(|columns| columns.get("chunk_log2")[1] = 27),
        ),
        reject(
            "chunks-none",
            &["R51"],
            DAMAGED,
            "a tensor with bytes and without chunks",
            with_tensors(|columns| {
                (0..3).for_each(|i| columns.set32("chunk_ends", i, 0));
                for name in ["chunk_crcs", "chunk_codecs", "chunk_filters", "chunk_stored"] {
                    columns.get(name).clear();
                }
            }),
        ),
        reject(
            "chunks-of-nothing",
            &["R51", "R52"],
            DAMAGED,
            "a chunk of a tensor without bytes, whose checksum is 0",
            with_tensors(|columns| {
                columns.set32("chunk_ends", 1, 2);
                columns.set32("chunk_ends", 2, 3);
                columns.put("chunk_crcs", &[0; 4]);
                columns.put("chunk_codecs", &[0]);
                columns.put("chunk_filters", &[0]);
                columns.put("chunk_stored", &[0; 4]);
            }),
        ),
        reject(
            "offset-of-nothing",
            &["R52"],
            DAMAGED,
            "an offset of a tensor without bytes",
            with_tensors(|columns| columns.set64("offsets", 1, 4096)),
        ),
        reject(
            "record-of-floats",
            &["R49"],
            DAMAGED,
            "a record of dtype f32",
            one(|container| {
                container.record("r", &[1, 2, 3, 4], Value::Null);
                *container.records.get("dtypes") = 12_u16.to_le_bytes().to_vec();
                container.records.set64("dims", 0, 1);
            }),
        ),
        reject(
            "record-of-two-axes",
            &["R49"],
            DAMAGED,
            "a record with two axes",
            one(|container| {
                container.record("r", &[1], Value::Null);
                container.records.put("dims", &1_u64.to_le_bytes());
                container.records.set32("dim_ends", 0, 2);
            }),
        ),
        reject(
            "record-too-large",
            &["R49", "R99"],
            DAMAGED,
            "a record of 64 MiB and a byte",
            one(|container| {
                container.record("r", &[1], Value::Null);
                container.records.set64("dims", 0, (64 << 20) + 1);
                container.records.set64("byte_lens", 0, (64 << 20) + 1);
            }),
        ),
    ]);
    cases
}

/// The tensors' columns of the base container, as they are written when every chunk is raw.
fn unless_raw_columns() -> Vec<Vec<u8>> {
    let coded = ["chunk_codecs", "chunk_filters", "chunk_stored"];
    let columns = base().tensors.0;
    columns.into_iter().map(|(name, column)| if coded.contains(&name) { vec![] } else { column }).collect()
}

fn extents() -> Vec<Case> {
    let two = |edit: fn(&mut Container)| {
        one(|container| {
            container.tensor("a", "u8", &[8], &[1; 8]).tensor("b", "u8", &[8], &[2; 8]);
            edit(container);
        })
    };
    let mut padding = base().finish();
    assert_eq!(padding[4096 + 24 + 8 + 4], 0);
    padding[4096 + 24 + 8 + 5] = 1;
    vec![
        reject(
            "extent-unaligned",
            &["R54"],
            DAMAGED,
            "an extent that begins 4 bytes late",
            two(|container| container.tensors.set64("offsets", 1, 4108)),
        ),
        reject(
            "extent-unaligned-page",
            &["R54"],
            DAMAGED,
            "64 KiB that do not begin on a page",
            one(|container| {
                container.tensor("a", "u8", &[1], &[1]);
                container.tensor_in("b", "u8", &[65536], &[0; 65536], 20, |_| Stored {
                    codec: 2,
                    filter: 0,
                    bytes: vec![0],
                });
                container.tensors.set64("offsets", 1, 4160);
                container.front.truncate(4160);
                container.front.push(0);
            }),
        ),
        reject(
            "extent-overlap",
            &["R55"],
            DAMAGED,
            "two tensors in one place",
            two(|container| container.tensors.set64("offsets", 1, 4096)),
        ),
        reject(
            "extent-order",
            &["R55"],
            DAMAGED,
            "the second tensor before the first",
            two(|container| {
                container.tensors.set64("offsets", 0, 4104);
                container.tensors.set64("offsets", 1, 4096);
            }),
        ),
        reject(
            "extent-in-header",
            &["R55"],
            DAMAGED,
            "a tensor within the header",
            two(|container| container.tensors.set64("offsets", 0, 0)),
        ),
        reject(
            "extent-in-index",
            &["R57"],
            DAMAGED,
            "a tensor within the index",
            two(|container| container.tensors.set64("offsets", 1, 4160)),
        ),
        reject(
            "extent-wraps",
            &["R57"],
            DAMAGED,
            "an extent at the end of the u64s",
            two(|container| container.tensors.set64("offsets", 1, u64::MAX - 7)),
        ),
        reject(
            "extent-gap",
            &["R56"],
            DAMAGED,
            "4096 bytes between two extents",
            one(|container| {
                container.tensor("a", "u8", &[8], &[1; 8]);
                container.front.resize(4096 + 8 + 4096, 0);
                container.tensor("b", "u8", &[8], &[2; 8]);
            }),
        ),
        reject(
            "extent-gap-first",
            &["R56"],
            DAMAGED,
            "4096 bytes between the header and the first extent",
            one(|container| {
                container.front.resize(4096 + 4096, 0);
                container.tensor("a", "u8", &[8], &[1; 8]);
            }),
        ),
        reject(
            "record-before-tensor",
            &["R55"],
            DAMAGED,
            "a record whose extent lies before a tensor's",
            one(|container| {
                container.record("r", &[1], Value::Null).tensor("a", "u8", &[8], &[1; 8]);
            }),
        ),
        reject(
            "slack-before-index",
            &["R57"],
            DAMAGED,
            "64 bytes between the last extent and the index",
            one(|container| {
                container.tensor("a", "u8", &[64], &[1; 64]);
                container.front.resize(container.front.len() + 64, 0);
            }),
        ),
        reject(
            "padding",
            &["R58", "R123", "R110", "R93"],
            VERIFY,
            "a byte of padding that is not zero; every tensor is readable",
            padding,
        ),
    ]
}

fn chunks() -> Vec<Case> {
    let raw = pattern(4096);
    let coded = |stored: Stored| {
        one(|container| {
            container.tensor_in("a", "f32", &[1024], &raw, 20, |_| stored.clone());
        })
    };
    let stored = |codec: u8, filter: u8, bytes: &[u8]| Stored { codec, filter, bytes: bytes.to_vec() };
    let good = zstd_chunk(0, &raw).bytes;
    let mut bomb = zstd::bulk::compress(&vec![0; 1 << 20], 3).unwrap();
    bomb.truncate(4000);
    let mut with_dictionary = zstd::bulk::Compressor::with_dictionary(3, &raw[..512]).unwrap();
    let with_dictionary = with_dictionary.compress(&raw).unwrap();
    let damaged = |edit: fn(&mut Container)| {
        let mut container = Container::new();
        container.tensor("a", "u8", &[8], &[1; 8]).tensor("b", "u8", &[8], &[2; 8]).aliases(&[("c", 0)]);
        let mut facts = container.expected_tensors.clone();
        for name in ["a", "c"] {
            facts[name] = json!({ "dtype": "u8", "shape": [8], "error": "damaged" });
        }
        edit(&mut container);
        (container.finish(), Value::Object(facts))
    };
    let (flipped, facts_flipped) = damaged(|container| container.front[4096 + 3] ^= 0x10);
    let (zeroed, facts_zeroed) = damaged(|container| container.tensors.set32("chunk_crcs", 0, 0));
    let (both_zeroed, facts_both) = damaged(|container| {
        container.tensors.set32("chunk_crcs", 0, 0);
        container.front[4096..4104].fill(0);
    });
    vec![
        reject(
            "chunk-flipped",
            &["R61", "R122", "R108", "R79"],
            READ,
            "one bit of one tensor flipped; the other tensor is readable",
            flipped,
        )
        .with("tensors", facts_flipped),
        reject("chunk-crc-zeroed", &["R61"], READ, "a checksum of 0 is no exception", zeroed)
            .with("tensors", facts_zeroed),
        reject("chunk-and-crc-zeroed", &["R61"], READ, "zeroed bytes under a zeroed checksum", both_zeroed)
            .with("tensors", facts_both),
        reject("raw-with-filter", &["R62"], DAMAGED, "a raw chunk behind a filter", {
            let mut container = base();
            container.tensors.get("chunk_filters")[0] = 1;
            container.tensors.get("chunk_codecs")[0] = 0;
            container
                .finish_with(&region(&[(1, container.tensors.encode()), (2, container.records.encode())]))
        }),
        reject("raw-short", &["R62"], DAMAGED, "a raw chunk with a stored length of its own", {
            let mut container = base();
            container.tensors.set32("chunk_stored", 0, 23);
            container
                .finish_with(&region(&[(1, container.tensors.encode()), (2, container.records.encode())]))
        }),
        reject(
            "fill-short",
            &["R63"],
            DAMAGED,
            "a fill of 3 bytes for elements of 4",
            coded(stored(2, 0, &[1; 3])),
        ),
        reject(
            "fill-long",
            &["R63"],
            DAMAGED,
            "a fill of 8 bytes for elements of 4",
            coded(stored(2, 0, &[1; 8])),
        ),
        reject("fill-nothing", &["R63"], DAMAGED, "a fill of no bytes", coded(stored(2, 0, &[]))),
        reject("fill-with-filter", &["R63"], DAMAGED, "a fill behind a filter", coded(stored(2, 1, &[1; 4]))),
        reject(
            "coded-not-smaller",
            &["R65"],
            DAMAGED,
            "a zstd chunk as long as what it decodes to",
            coded(stored(1, 0, &raw)),
        ),
        reject("coded-nothing", &["R65"], DAMAGED, "a zstd chunk of no bytes", coded(stored(1, 0, &[]))),
        reject(
            "unknown-codec-nothing",
            &["R65"],
            DAMAGED,
            "a chunk of an unknown codec and of no bytes",
            coded(stored(200, 0, &[])),
        ),
        reject("zstd-garbage", &["R66"], READ, "a zstd chunk that is none", coded(stored(1, 0, &[9; 100]))),
        reject(
            "zstd-cut",
            &["R67"],
            READ,
            "a frame without its last byte, under a right checksum",
            coded(stored(1, 0, &good[..good.len() - 1])),
        ),
        reject(
            "zstd-short",
            &["R67"],
            READ,
            "a frame of one byte less",
            coded(stored(1, 0, &zstd_chunk(0, &raw[1..]).bytes)),
        ),
        reject(
            "zstd-two-frames",
            &["R66"],
            READ,
            "two frames in one chunk",
            coded(stored(
                1,
                0,
                &[zstd_chunk(0, &raw[..1000]).bytes, zstd_chunk(0, &raw[1000..]).bytes].concat(),
            )),
        ),
        reject(
            "zstd-dictionary",
            &["R66"],
            READ,
            "a frame that asks for a dictionary",
            coded(stored(1, 0, &with_dictionary)),
        ),
        reject(
            "zstd-bomb",
            &["R67", "R102"],
            READ,
            "a frame of a mebibyte for a chunk of 4096 bytes",
            coded(stored(1, 1, &bomb)),
        ),
        reject(
            "bool-of-two",
            &["R75"],
            READ,
            "a truth value of 2",
            one(|container| {
                container.tensor("a", "bool", &[2], &[1, 2]);
            }),
        ),
        reject(
            "unsupported-dtype",
            &["R72", "R108"],
            ("unsupported", "read"),
            "a tensor of a dtype to come, which a caller asks for",
            one(|container| {
                container.unreadable("a", 24, &[1], 1, &[raw_chunk(&[1])]);
            }),
        ),
        reject(
            "unsupported-codec",
            &["R70", "R108"],
            ("unsupported", "read"),
            "a tensor of a codec to come, which a caller asks for",
            coded(stored(3, 0, &[1; 9])),
        ),
    ]
}

fn aliases() -> Vec<Case> {
    let with = |names: &[u8], ends: &[u32], targets: &[u32]| {
        let mut container = base();
        container.aliases = Some(Columns::aliases(names, ends, targets));
        container.finish()
    };
    vec![
        reject("aliases-unsorted", &["R77"], DAMAGED, "y before x", with(b"yx", &[1, 2], &[0, 0])),
        reject("aliases-twice", &["R77"], DAMAGED, "x and x", with(b"xx", &[1, 2], &[0, 0])),
        reject("alias-of-a-name", &["R77"], DAMAGED, "the name of a tensor", with(b"c", &[1], &[0])),
        reject(
            "alias-cycle",
            &["R78"],
            DAMAGED,
            "x for y and y for x, as if aliases were numbered behind the tensors",
            with(b"xy", &[1, 2], &[4, 3]),
        ),
        reject("alias-target", &["R78"], DAMAGED, "an alias of no tensor", with(b"x", &[1], &[u32::MAX])),
        reject("alias-ends", &["R76"], DAMAGED, "bytes behind the last alias", with(b"xy", &[1], &[0])),
        reject("alias-past", &["R76"], DAMAGED, "an alias longer than the names", with(b"x", &[9], &[0])),
        reject("alias-targets", &["R76"], DAMAGED, "a target too many", with(b"x", &[1], &[0, 0])),
        reject("alias-empty", &["R76"], DAMAGED, "an empty alias", with(b"", &[0], &[0])),
        reject("alias-control", &["R76"], DAMAGED, "an alias with a tab", with(b"\t", &[1], &[0])),
        reject("aliases-not-a-map", &["R76"], DAMAGED, "nil for aliases", {
            with_sections(|sections| sections.push((3, vec![0xC0])))
        }),
    ]
}

fn records() -> Vec<Case> {
    let record = |bytes: &[u8]| {
        one(|container| {
            container.record("bad", bytes, Value::Null).record("good", &[0x01], json!(1));
            container.tensor("a", "u8", &[0], &[]);
        })
    };
    let nested = [vec![0x91; 33], vec![1]].concat();
    let cases: [(&str, &'static str, &'static str, &[u8]); 13] = [
        ("record-deep", "R81", "33 lists, one in the other", &nested),
        ("record-trailing", "R80", "a byte behind the value", &[1, 1]),
        ("record-no-value", "R80", "no bytes", &[]),
        ("record-cut", "R80", "a value that ends early", &[0xCB, 0, 0]),
        ("record-key-twice", "R82", "a key that stands twice", &[0x82, 0xA1, b'a', 1, 0xA1, b'a', 2]),
        (
            "record-key-twice-long",
            "R82",
            "a key that stands twice, once in a longer form",
            &[0x82, 0xA1, b'a', 1, 0xD9, 1, b'a', 2],
        ),
        ("record-number-twice", "R82", "a number as a key, twice", &[0x82, 7, 1, 7, 2]),
        ("record-key-list", "R83", "a list as a key", &[0x81, 0x90, 1]),
        ("record-key-map", "R83", "a map as a key", &[0x81, 0x80, 1]),
        ("record-text", "R84", "text that is not UTF-8", &[0xA1, 0xFF]),
        ("record-count", "R85", "a list of 2^32 - 1 items", &[0xDD, 0xFF, 0xFF, 0xFF, 0xFF]),
        ("record-length", "R85", "bytes of 2^32 - 1", &[0xC6, 0xFF, 0xFF, 0xFF, 0xFF]),
        ("record-marker", "R86", "the unused marker", &[0xC1]),
    ];
    let also = ["R87"];
    cases
        .map(|(file, rule, what, bytes)| {
            let rules: Vec<&'static str> = [rule].into_iter().chain(also).collect();
            reject(file, &rules, READ, what, record(bytes)).with("records", json!({ "good": 1 }))
        })
        .into()
}

fn budgets() -> Vec<Case> {
    let large = one(|container| {
        container.tensor_in("a", "f32", &[1 << 22], &vec![0; 1 << 24], 24, |_| Stored {
            codec: 2,
            filter: 0,
            bytes: vec![0; 4],
        });
    });
    vec![
        reject(
            "budget-tensor",
            &["R101", "R102", "R108"],
            ("limit-exceeded", "read"),
            "16 MiB out of 4 bytes, within a budget of a mebibyte",
            large.clone(),
        )
        .with("budget", 1 << 20),
        reject(
            "budget-index",
            &["R101"],
            ("limit-exceeded", "open"),
            "an index beyond a budget of 100 bytes",
            large,
        )
        .with("budget", 100),
    ]
}
