//! Recognises the format of a file by its first bytes; makes the error for unknown files.

use super::Format;
use super::blob::Archive;
use crate::engine::Blob;
use crate::error::{Error, ErrorKind, Result};
use crate::format::signatures::{self, HEAD};
use std::sync::Arc;

/// The kinds of files that can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Safetensors,
    /// JSON: an index of files with tensors.
    Index,
    Npy,
    /// `.npz` or torch's, depending on the archive's members.
    Zip,
    /// torch before 1.6.
    TorchPickles,
    /// The `.metadata` of torch's distributed checkpoints.
    Distributed,
    Gguf,
}

impl Kind {
    pub fn format(self) -> Format {
        match self {
            Self::Safetensors | Self::Index => Format::Safetensors,
            Self::Npy => Format::Npy,
            Self::Zip => Format::Npz,
            Self::TorchPickles | Self::Distributed => Format::Torch,
            Self::Gguf => Format::Gguf,
        }
    }
}

/// The first bytes of a file, [`HEAD`] of them or the whole file if it is shorter.
pub fn head(blob: &Arc<dyn Blob>) -> Result<Vec<u8>> {
    // OK to cast: at most HEAD.
    let mut head = vec![0; blob.len().min(HEAD as u64) as usize];
    blob.read_at(0, &mut head)?;
    Ok(head)
}

pub fn sniff(head: &[u8]) -> Option<Kind> {
    if head.starts_with(b"\x93NUMPY") {
        Some(Kind::Npy)
    } else if head.starts_with(b"GGUF") {
        Some(Kind::Gguf)
    } else if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        Some(Kind::Zip)
    } else if signatures::is_legacy_torch(head) {
        Some(Kind::TorchPickles)
    } else if signatures::is_dcp_metadata(head) {
        Some(Kind::Distributed)
    } else if is_json_object(head) {
        Some(Kind::Index)
    } else {
        (head.get(8) == Some(&b'{')).then_some(Kind::Safetensors)
    }
}

/// Whether it is JSON text and not a safetensors header: the header's length is below 2^56, so its
/// upper bytes are zeros, and text has none.
fn is_json_object(head: &[u8]) -> bool {
    head.first() == Some(&b'{') && !head.iter().take(8).any(|&byte| byte == 0)
}

/// Refuses an archive with bytes in front of it: of several archives, only the last would be read.
///
/// # Errors
/// `Foreign`, with the likely kind of file.
pub fn check_single(archive: &Archive) -> Result<()> {
    if archive.offset() == 0 {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Foreign, "several zip archives one behind the other")
        .expected("one archive from the first byte on")
        .found(format!("the last of them at byte {}", archive.offset()))
        .help("a .distcp of a torch distributed checkpoint (DCP) is like this: open its folder, with its .metadata"))
}

/// The error for an unknown format, with the kind of file if it is known, and advice.
pub fn unknown(head: &[u8]) -> Error {
    let error = Error::new(ErrorKind::Foreign, "not a format that can be read")
        .expected("tensorkeep, safetensors, .npy, .npz, torch's .pt, or GGUF");
    if head.is_empty() {
        return error.found("an empty file");
    }
    if let Some(kind) = signatures::of(head) {
        return error.found(kind.what).help(kind.help);
    }
    let bytes: Vec<String> = head.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    error.found(format!("first bytes {}", bytes.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_length_that_looks_like_a_brace_is_a_length() {
        for len in [b'{', b'}', b' ', 8] {
            assert_eq!(sniff(&[len, 0, 0, 0, 0, 0, 0, 0, b'{', b'"']), Some(Kind::Safetensors), "{len}");
            assert_eq!(
                sniff(&[len, b'{', b'{', 0, 0, 0, 0, 0, b'{', b'"']),
                Some(Kind::Safetensors),
                "{len}"
            );
        }
        assert_eq!(sniff(b"{\"weight_map\": {}}"), Some(Kind::Index));
        assert_eq!(sniff(b"{{{{{{{{{"), Some(Kind::Index));
        assert_eq!(sniff(b"{}"), Some(Kind::Index));
        assert_eq!(sniff(b"{"), Some(Kind::Index));
    }
}
