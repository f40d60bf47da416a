//! Errors of the file as a whole, its header, its footer, or the offsets in them.

use super::{DAMAGED, FOREIGN, NEWER, VERIFY, reject};
use crate::Case;
use crate::accepted::{base, with_flags};
use test_support::build::{seal_footer, seal_header};

pub(super) fn files() -> Vec<Case> {
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

pub(super) fn headers() -> Vec<Case> {
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

pub(super) fn footers() -> Vec<Case> {
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

pub(super) fn places() -> Vec<Case> {
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
    // The mirror moved one page back, and the footer with it.
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
