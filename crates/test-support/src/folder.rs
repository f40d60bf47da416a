//! Folders of tests.

use std::path::{Path, PathBuf};

/// A folder that is removed after the test.
pub struct TempFolder(PathBuf);

impl TempFolder {
    pub fn new(name: &str) -> Self {
        Self::below(&std::env::temp_dir(), name)
    }

    /// In memory where possible, for tests that count calls: an fsync of a disk takes milliseconds.
    pub fn in_memory(name: &str) -> Self {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { Self::below(memory, name) } else { Self::new(name) }
    }

    fn below(parent: &Path, name: &str) -> Self {
        let nonce = u128::from_le_bytes(tensorkeep::engine::fresh_nonce());
        let path = parent.join(format!("tensorkeep-{name}-{nonce:032x}"));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// With a file in it.
    pub fn with(self, name: &str, bytes: &[u8]) -> Self {
        std::fs::write(self.0.join(name), bytes).unwrap();
        self
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Names of unpublished files, in a folder and those below it.
pub fn leftovers(folder: &Path) -> Vec<String> {
    let mut left = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            left.extend(leftovers(&entry.path()));
        } else if name.starts_with(".tmp") {
            left.push(name);
        }
    }
    left
}
