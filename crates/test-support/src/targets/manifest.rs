//! Manifests and shards that lie with valid checksums: an edited one among the whole others, read
//! as one checkpoint.

use crate::build::{Container, Manifest, shard};
use crate::reseal::Pieces;
use crate::{edits, put};
use std::sync::LazyLock;
use tensorkeep::engine::Memory;
use tensorkeep::{CheckpointId, OpenOptions, Reader};

const SAVE: &str = "save";

/// The shards of two ranks: `rows` and `columns` by layouts, `flat` by boxes.
static SHARDS: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    let of = |rank: u32, last: (&[u64], &[u64])| {
        let mut container = Container::new();
        container.tensor("0", "u8", &[4, 2], &[1; 8]).tensor("1", "f32", &[2, 3], &[2; 24]);
        container.tensor("2", "u8", last.1, &vec![3; last.1.iter().product::<u64>() as usize]);
        let at = u64::from(rank);
        let parts: [(&str, &[u64], &[u64]); 3] =
            [("columns", &[4, 4], &[0, 2 * at]), ("rows", &[4, 3], &[2 * at, 0]), ("flat", &[2, 4], last.0)];
        shard(&mut container, SAVE, [rank, 2], &parts);
        container.finish()
    };
    [of(0, (&[0, 0], &[1, 4])), of(1, (&[1, 0], &[1, 4]))]
});

/// The manifest over these shards.
fn manifest_of(shards: &[Vec<u8>; 2]) -> Vec<u8> {
    let mut manifest = Manifest::new(SAVE);
    manifest.layout([2, 0, 1], &[], &[(0, 2, 1)]).layout([2, 0, 0], &[0, 1], &[(1, 2, 1)]);
    manifest.tensor("columns", "u8", &[4, 4], 1, 0);
    manifest.boxed("flat", "u8", &[2, 4], &[(&[0, 0], &[1, 4], 0), (&[1, 0], &[1, 4], 1)]);
    manifest.tensor("rows", "f32", &[4, 3], 0, 0);
    manifest.shard(0, &shards[0]).shard(1, &shards[1]);
    let mut container = manifest.container();
    container.tensor("own", "u8", &[3], &[7, 8, 9]).aliases(&[("tied", 3)]).finish()
}

/// The first byte says which file a program edits: the manifest, or a shard that the manifest then
/// knows by its new checksum. Whatever it does, reading ends with values or errors, within bounds.
pub fn manifest(input: &[u8]) {
    let [which, program @ ..] = input else { return };
    let edited = |file: &[u8]| edits::edited(&Pieces::of(file).expect("it is whole"), program);
    let mut shards = SHARDS.clone();
    let manifest = match which % 3 {
        2 => edited(&manifest_of(&shards)),
        rank => {
            let rank = usize::from(rank);
            shards[rank] = edited(&shards[rank]);
            // What an edit cut short is no file that a manifest could know.
            if shards[rank].len() < 128 {
                return;
            }
            manifest_of(&shards)
        }
    };
    let engine = Memory::new();
    let id = CheckpointId { attempt: 1, step: 1 };
    put(&engine, &format!("{id}.tkeep"), &manifest);
    for (rank, bytes) in shards.iter().enumerate() {
        put(&engine, &format!("shards/{rank}/{SAVE}-r{rank:05}.tkeep"), bytes);
    }
    let options = OpenOptions::new().budget(edits::budget(manifest.len()));
    match Reader::new(engine).options(options).checkpoint_by_id(id) {
        Ok(checkpoint) => drop(edits::read_all_of(&checkpoint, manifest.len())),
        Err(error) => drop(format!("{error}{error:?}")),
    }
}
