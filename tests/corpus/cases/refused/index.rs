//! Errors of the index region and its sections.

use super::{DAMAGED, reject, with_sections};
use crate::Case;
use crate::accepted::base;
use test_support::build::seal;

/// The base container around an altered index region; checksums over the whole region are right.
fn with_region(edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let container = base();
    let mut region = container.region();
    edit(&mut region);
    container.finish_with(&region)
}

pub(super) fn regions() -> Vec<Case> {
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
