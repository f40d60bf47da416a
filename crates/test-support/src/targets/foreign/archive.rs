//! Zip archives written by hand, without a compressor: it would take most of a fuzz target's time,
//! and its branches would draw the fuzzer away from the reader.

/// An archive of these members, by name.
pub fn archive(members: &[(&str, &[u8])], is_deflated: bool) -> Vec<u8> {
    let (mut archive, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in members {
        let stored = if is_deflated { deflated(bytes) } else { bytes.to_vec() };
        let offset = archive.len() as u32;
        let facts = facts(name, bytes, stored.len(), is_deflated);
        archive.extend([b"PK\x03\x04", &facts[..], name.as_bytes(), &stored].concat());
        let version = [20, 0];
        // Comment, disk and attributes: none.
        let rest = [0; 10];
        directory.extend([b"PK\x01\x02", &version[..], &facts, &rest, &offset.to_le_bytes()].concat());
        directory.extend(name.bytes());
    }
    let count = (members.len() as u16).to_le_bytes();
    let (len, start) = ((directory.len() as u32).to_le_bytes(), (archive.len() as u32).to_le_bytes());
    let end = [b"PK\x05\x06", &[0; 4][..], &count, &count, &len, &start, &[0; 2]].concat();
    [archive, directory, end].concat()
}

/// The fields that a member's header and its entry in the directory have in common.
fn facts(name: &str, bytes: &[u8], stored_len: usize, is_deflated: bool) -> Vec<u8> {
    let method = if is_deflated { 8 } else { 0 };
    // Version, flags, method, time and date, which is 1980-01-01.
    let start = [20, 0, 0, 0, method, 0, 0, 0, 0x21, 0];
    let lens = [crc32fast::hash(bytes), stored_len as u32, bytes.len() as u32].map(u32::to_le_bytes);
    let name_and_extra = [name.len() as u16, 0].map(u16::to_le_bytes);
    [&start[..], lens.as_flattened(), name_and_extra.as_flattened()].concat()
}

/// A deflate stream of blocks that are stored.
fn deflated(bytes: &[u8]) -> Vec<u8> {
    const LONGEST: usize = u16::MAX as usize;
    let count = bytes.len().div_ceil(LONGEST).max(1);
    let mut stream = Vec::new();
    for number in 0..count {
        let block = &bytes[number * LONGEST..bytes.len().min((number + 1) * LONGEST)];
        let len = block.len() as u16;
        stream.push(u8::from(number + 1 == count));
        stream.extend([len.to_le_bytes(), (!len).to_le_bytes()].as_flattened());
        stream.extend(block);
    }
    stream
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tensorkeep::convert::Foreign;
    use tensorkeep::engine::Blob;
    use tensorkeep::tensor::{Buffer, Tensor};

    #[test]
    fn archives_by_hand_are_read() {
        let tensor = vec![7_u8; 150_000];
        let (npy, _) =
            tensorkeep::convert::npy_bytes(&Tensor::from_elements(&[150_000], &tensor).unwrap()).unwrap();
        for is_deflated in [false, true] {
            let bytes = archive(&[("a.npy", &npy), ("b.npy", &npy)], is_deflated);
            let bytes = Buffer::copy_of(&bytes).unwrap();
            let blob: Arc<dyn Blob> = Arc::new(crate::InMemory { bytes, mapped: false });
            let foreign = Foreign::open_blob(&blob, 8 << 20).unwrap();
            assert_eq!(foreign.tensor("b").unwrap().bytes(), tensor);
        }
    }
}
