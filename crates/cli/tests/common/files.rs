//! Files of other formats, a folder for results, and the binary that makes them.

use serde_json::Value as Json;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub fn tensorkeep(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tensorkeep")).args(args).output().unwrap()
}

pub fn json(args: &[&str]) -> Json {
    let output = tensorkeep(args);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}: {output:?}"))
}

/// Made by torch, NumPy and the safetensors crate; the library's own tests have them too.
pub fn made(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/convert").join(name).display().to_string()
}

pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let nonce = u128::from_le_bytes(tensorkeep::engine::fresh_nonce());
        let folder = std::env::temp_dir().join(format!("tensorkeep-foreign-{name}-{nonce:032x}"));
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
