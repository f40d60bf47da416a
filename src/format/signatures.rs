//! Recognises a foreign file by its first bytes: one table for every error that names its kind.

/// Number of first bytes that the table needs; a tar archive's magic is the last.
#[cfg(feature = "convert")]
pub const HEAD: usize = 512;

/// A kind of file, and advice for a user who gave it to tensorkeep.
#[derive(Debug)]
pub struct Signature {
    /// The kind, with its article.
    pub what: &'static str,
    /// Advice.
    pub help: &'static str,
    matches: Match,
}

#[derive(Debug)]
enum Match {
    /// Bytes at an offset.
    At(usize, &'static [u8]),
    /// Text after white space and a byte order mark, in any case.
    Text(&'static str),
    Test(fn(&[u8]) -> bool),
}

const fn signature(what: &'static str, matches: Match, help: &'static str) -> Signature {
    Signature { what, help, matches }
}

const CONVERTED: &str = "`tensorkeep import` makes a checkpoint of it";
const TORCH_AGAIN: &str = "load it with torch and save its state_dict again with torch 1.6 or later";
const DECOMPRESS: &str = "decompress it first";
const ONLY_WEIGHTS: &str = "save its weights as safetensors or .npz, which can be imported";

/// More specific ones first.
const SIGNATURES: &[Signature] = &[
    signature(
        "a tensorkeep container",
        Match::At(0, &super::MAGIC),
        "it needs no import: `show`, `export` and the other verbs take it as it is",
    ),
    signature(
        "a git-lfs pointer and not the file itself",
        Match::Text("version https://git-lfs"),
        "fetch the file with `git lfs pull`",
    ),
    signature(
        "an HTML page",
        Match::Test(is_html),
        "a download that asked for a login or met an error page: download the file again",
    ),
    signature("an XML document", Match::Text("<?xml"), "download the file again"),
    signature("an HDF5 file, as Keras and h5py write them", Match::At(0, b"\x89HDF\r\n\x1a\n"), ONLY_WEIGHTS),
    signature("a GGUF file", Match::At(0, b"GGUF"), CONVERTED),
    signature("a NumPy .npy file", Match::At(0, b"\x93NUMPY"), CONVERTED),
    signature("a zip archive (PyTorch .pt or NumPy .npz)", Match::At(0, b"PK\x03\x04"), CONVERTED),
    signature("an empty zip archive", Match::At(0, b"PK\x05\x06"), "look where it came from"),
    signature(
        "the .metadata of a torch distributed checkpoint (DCP)",
        Match::Test(is_dcp_metadata),
        "open the folder that it lies in",
    ),
    signature("a pickle that torch before 1.6 saved", Match::Test(is_legacy_torch), TORCH_AGAIN),
    signature(
        "a Python pickle",
        Match::Test(is_pickle),
        "load it with Python, and save the arrays by numpy.savez or the tensors by torch.save",
    ),
    signature("a torch file of 2017, which is a tar archive", Match::Test(is_torch_tar), TORCH_AGAIN),
    signature("a tar archive", Match::At(257, b"ustar"), "unpack it, and open what is in it"),
    signature("a safetensors file", Match::Test(is_safetensors), CONVERTED),
    signature("a TensorFlow Lite model", Match::At(4, b"TFL3"), ONLY_WEIGHTS),
    signature("a GGML file of before GGUF", Match::Test(is_old_ggml), "convert it with llama.cpp's scripts"),
    signature("gzip", Match::At(0, b"\x1f\x8b"), DECOMPRESS),
    signature("zstd", Match::At(0, b"\x28\xb5\x2f\xfd"), DECOMPRESS),
    signature("bzip2", Match::At(0, b"BZh"), DECOMPRESS),
    signature("xz", Match::At(0, b"\xfd7zXZ\0"), DECOMPRESS),
    signature("a 7z archive", Match::At(0, b"7z\xbc\xaf\x27\x1c"), DECOMPRESS),
    signature("a Parquet file", Match::At(0, b"PAR1"), ONLY_WEIGHTS),
    signature("an ONNX model", Match::Test(is_onnx), ONLY_WEIGHTS),
];

/// The kind of file that begins with these bytes: [`HEAD`] of them, or the whole file if it is
/// shorter.
pub fn of(head: &[u8]) -> Option<&'static Signature> {
    SIGNATURES.iter().find(|signature| match signature.matches {
        Match::At(offset, bytes) => head.get(offset..).is_some_and(|rest| rest.starts_with(bytes)),
        Match::Text(text) => begins_with_text(head, text),
        Match::Test(test) => test(head),
    })
}

/// The long integer that torch's own files begin with, as a pickle of protocol 2.
const LEGACY_TORCH: &[u8] = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.";

/// torch before 1.6: several pickles, followed by the storages.
pub fn is_legacy_torch(head: &[u8]) -> bool {
    is_pickle(head) && head[2..].starts_with(LEGACY_TORCH)
}

fn is_pickle(head: &[u8]) -> bool {
    matches!(head, [0x80, 1..=5, ..])
}

pub fn is_dcp_metadata(head: &[u8]) -> bool {
    let module = b"torch.distributed.checkpoint.metadata";
    is_pickle(head) && head.windows(module.len()).any(|window| window == module)
}

fn is_torch_tar(head: &[u8]) -> bool {
    let is_tar = head.get(257..).is_some_and(|rest| rest.starts_with(b"ustar"));
    is_tar
        && ["sys_info\0", "pickle\0", "storages\0", "tensors\0"]
            .iter()
            .any(|name| head.starts_with(name.as_bytes()))
}

fn is_safetensors(head: &[u8]) -> bool {
    matches!(head, [_, _, _, _, _, _, 0, 0, b'{', ..])
}

fn is_old_ggml(head: &[u8]) -> bool {
    [b"lmgg", b"fmgg", b"tjgg", b"algg"].iter().any(|magic| head.starts_with(*magic))
}

fn is_html(head: &[u8]) -> bool {
    begins_with_text(head, "<!doctype html") || begins_with_text(head, "<html")
}

/// A protobuf whose first field is a small version number, and whose second, the producer's name,
/// is text.
fn is_onnx(head: &[u8]) -> bool {
    let [0x08, 1..=32, 0x12, len, rest @ ..] = head else { return false };
    let name = rest.get(..usize::from(*len)).unwrap_or_default();
    *len < 0x80 && !name.is_empty() && name.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ')
}

fn begins_with_text(head: &[u8], text: &str) -> bool {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    head.get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_their_first_bytes() {
        let mut tar = b"sys_info\0".to_vec();
        tar.resize(257, 0);
        tar.extend(b"ustar  ");
        for (bytes, expected) in [
            (&b"version https://git-lfs.github.com/spec/v1\noid"[..], "git-lfs"),
            (b"\xef\xbb\xbf\n <!DOCTYPE HTML><html>", "HTML"),
            (b"<html lang=en>", "HTML"),
            (b"\x89HDF\r\n\x1a\n", "HDF5"),
            (b"\x08\x0a\x12\x07pytorch\x1a", "ONNX"),
            (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80", "torch before 1.6"),
            (b"\x80\x02ctorch.distributed.checkpoint.metadata\nMetadata\n", "DCP"),
            (b"\x80\x04\x95", "a Python pickle"),
            (&super::super::MAGIC, "tensorkeep"),
            (&tar, "2017"),
            (b"\x1f\x8b\x08", "gzip"),
        ] {
            let found = of(bytes).unwrap_or_else(|| panic!("{expected}")).what;
            assert!(found.contains(expected), "{found} for {expected}");
        }
        for unknown in [&b""[..], b"\x08\x0a\x12", b"some text"] {
            assert!(of(unknown).is_none(), "{unknown:?}");
        }
    }
}
