//! Exports to other formats: compared before they replace anything, with every item of the original
//! restored, in one file or in shards, from checkpoints and from foreign files.
#![cfg(feature = "ndarray")]

mod failures;
mod foreign;
#[path = "../convert/pickles.rs"]
mod pickles;
mod to_safetensors;

use std::path::{Path, PathBuf};
use tensorkeep::convert::Note;
use tensorkeep::{Checkpoint, Snapshot};
use test_support::TempFolder;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/convert").join(name)
}

fn saved(folder: &TempFolder, snapshot: &Snapshot<'_>) -> Checkpoint {
    let path = folder.path().join("source.tkeep");
    snapshot.save(&path).unwrap();
    Checkpoint::open(path).unwrap()
}

/// A safetensors file of these entries and metadata, by hand.
fn safetensors(folder: &TempFolder, header: &str, data: &[u8]) -> PathBuf {
    let path = folder.path().join("by-hand.safetensors");
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat();
    std::fs::write(&path, bytes).unwrap();
    path
}

fn losses(notes: &[Note]) -> Vec<&str> {
    notes.iter().filter(|note| note.loss).map(|note| note.name.as_str()).collect()
}

fn files(folder: &TempFolder) -> Vec<String> {
    let names = std::fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<String> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
