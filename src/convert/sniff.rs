//! Recognises the format of a file by its first bytes; makes the error for unknown files.

use super::blob::{self, Archive};
use super::{Format, Note};
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
        is_safetensors(head).then_some(Kind::Safetensors)
    }
}

/// Whether a header follows its length. The reference allows white space before it, where only a
/// length as the format has them tells such a file from others.
fn is_safetensors(head: &[u8]) -> bool {
    let Some((len, header)) = head.split_at_checked(8) else { return false };
    let first = header.iter().find(|byte| !b" \t\n\r".contains(byte));
    first == Some(&b'{') && (header.first() == first || len[4..] == [0; 4])
}

/// Whether it is JSON text and not a safetensors header: the header's length is below 2^56, so its
/// upper bytes are zeros, and text has none.
fn is_json_object(head: &[u8]) -> bool {
    head.first() == Some(&b'{') && !head.iter().take(8).any(|&byte| byte == 0)
}

/// Refuses an archive that is not the only one in its file, as only one of them would be read.
/// Notes other bytes behind it.
///
/// # Errors
/// `Foreign`, with the likely kind of file.
pub fn check_single(blob: &Arc<dyn Blob>, archive: &Archive) -> Result<Option<Note>> {
    /// More than an archive's longest comment, within which its last record is looked for.
    const LONGEST_REST: u64 = 1 << 17;
    let several = |found: String| {
        Error::new(ErrorKind::Foreign, "several zip archives one behind the other")
            .expected("one archive from the first byte on")
            .found(found)
            .help("a .distcp of a torch distributed checkpoint (DCP) is like this: open its folder, with its .metadata")
    };
    let Some(extent) = blob::extent(archive)? else {
        return Err(several("the list of contents of one and the end of another".to_owned()));
    };
    let start = archive.offset().max(extent.start);
    if start > 0 {
        return Err(several(format!("the last of them at byte {start}")));
    }
    let len = blob.len().saturating_sub(extent.end);
    // OK to cast: at most LONGEST_REST.
    let mut rest = vec![0; len.min(LONGEST_REST) as usize];
    blob.read_at(extent.end, &mut rest)?;
    if len > LONGEST_REST || rest.windows(4).any(|bytes| bytes == b"PK\x05\x06") {
        return Err(several(format!("another one behind the first, at byte {}", extent.end)));
    }
    let is_padding = rest.iter().all(|&byte| byte == 0);
    let note = Note::lost("the end of the file", format!("dropped: {len} bytes behind the archive"));
    Ok((!is_padding).then_some(note))
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
        assert_eq!(sniff(b"\x20\0\0\0\0\0\0\0 \n{"), Some(Kind::Safetensors));
        assert_eq!(sniff(b"some text {"), None);
        assert_eq!(sniff(b"{\"weight_map\": {}}"), Some(Kind::Index));
        assert_eq!(sniff(b"{{{{{{{{{"), Some(Kind::Index));
        assert_eq!(sniff(b"{}"), Some(Kind::Index));
        assert_eq!(sniff(b"{"), Some(Kind::Index));
    }
}
