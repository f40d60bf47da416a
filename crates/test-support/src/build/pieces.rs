//! The parts that a container is built from: checksums, dtypes, filters, frames.

/// CRC-32/ISO-HDLC, bit by bit.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// A MessagePack bin, in its shortest form.
pub fn bin(bytes: &[u8]) -> Vec<u8> {
    let len = bytes.len() as u32;
    let mut coded = match len {
        0..0x100 => vec![0xC4, len as u8],
        0x100..0x1_0000 => [vec![0xC5], (len as u16).to_be_bytes().to_vec()].concat(),
        _ => [vec![0xC6], len.to_be_bytes().to_vec()].concat(),
    };
    coded.extend_from_slice(bytes);
    coded
}

/// The alignment of an extent.
pub fn alignment(byte_len: u64) -> u64 {
    match byte_len {
        0..=8 => 8,
        9..=16 => 16,
        17..=32 => 32,
        33..=65535 => 64,
        _ => 4096,
    }
}

/// `planes` of SPEC.md, section 8.
pub fn planes(raw: &[u8], size: usize) -> Vec<u8> {
    let count = raw.len() / size;
    let mut filtered = raw.to_vec();
    for element in 0..count {
        for byte in 0..size {
            filtered[byte * count + element] = raw[element * size + byte];
        }
    }
    filtered
}

/// Codec 4 of SPEC.md, section 22, for words of `word` bytes: each plane as it is, or the frame
/// that `code` gives for its number and its bytes.
pub fn float_planes(raw: &[u8], word: usize, code: impl Fn(usize, &[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
    let count = raw.len() / word;
    let rotated: Vec<u8> = raw[..count * word]
        .chunks(word)
        .flat_map(|bytes| {
            let value = bytes.iter().rev().fold(0_u64, |value, &byte| value << 8 | u64::from(byte));
            let bits = 8 * word as u32;
            (value << 1 | value >> (bits - 1)).to_le_bytes()[..word].to_vec()
        })
        .collect();
    let planes = planes(&rotated, word);
    let (mut headers, mut stored) = (Vec::new(), Vec::new());
    for (number, plane) in planes.chunks(count).enumerate() {
        let frame = code(number, plane);
        let bytes = frame.as_deref().unwrap_or(plane);
        headers.push(u8::from(frame.is_some()));
        headers.extend((bytes.len() as u32).to_le_bytes());
        stored.extend_from_slice(bytes);
    }
    [&headers, &stored, &raw[count * word..]].concat()
}

/// Name, id and bytes per element, written down a second time.
pub const DTYPES: [(&str, u16, u64); 24] = [
    ("bool", 1, 1),
    ("u8", 2, 1),
    ("i8", 3, 1),
    ("u16", 4, 2),
    ("i16", 5, 2),
    ("u32", 6, 4),
    ("i32", 7, 4),
    ("u64", 8, 8),
    ("i64", 9, 8),
    ("f16", 10, 2),
    ("bf16", 11, 2),
    ("f32", 12, 4),
    ("f64", 13, 8),
    ("c64", 14, 8),
    ("c128", 15, 16),
    ("f8e4m3fn", 16, 1),
    ("f8e4m3fnuz", 17, 1),
    ("f8e5m2", 18, 1),
    ("f8e5m2fnuz", 19, 1),
    ("f8e8m0fnu", 20, 1),
    ("f8e4m3", 21, 1),
    ("f8e4m3b11fnuz", 22, 1),
    ("f8e3m4", 23, 1),
    ("opaque", 255, 1),
];

pub fn dtype_id(name: &str) -> u16 {
    DTYPES.iter().find(|dtype| dtype.0 == name).expect("a dtype of the format").1
}

pub fn header(file_id: [u8; 16]) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    bytes[0..8].copy_from_slice(&[0x89, 0x54, 0x4B, 0x50, 0x0D, 0x0A, 0x1A, 0x0A]);
    bytes[8..10].copy_from_slice(&1_u16.to_le_bytes());
    bytes[10..12].copy_from_slice(&1_u16.to_le_bytes());
    bytes[12..16].copy_from_slice(&4096_u32.to_le_bytes());
    bytes[40..56].copy_from_slice(&file_id);
    bytes[56..60].copy_from_slice(&4096_u32.to_le_bytes());
    bytes[60] = 1;
    seal_header(&mut bytes);
    bytes
}

/// Frames sections.
pub fn region(sections: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![0; 32];
    for (kind, payload) in sections {
        bytes.extend(section_header(*kind, payload));
        bytes.extend_from_slice(payload);
        pad(&mut bytes, 8);
    }
    pad(&mut bytes, 64);
    let len = bytes.len() as u64;
    bytes[0..8].copy_from_slice(b"TKPINDEX");
    bytes[8..16].copy_from_slice(&len.to_le_bytes());
    bytes[16..20].copy_from_slice(&(sections.len() as u32).to_le_bytes());
    seal(&mut bytes, 0, 28);
    bytes
}

pub fn section_header(kind: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 32];
    bytes[0..4].copy_from_slice(&kind.to_le_bytes());
    bytes[8..16].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes[16..20].copy_from_slice(&crc32(payload).to_le_bytes());
    seal(&mut bytes, 0, 28);
    bytes
}

pub fn pad(bytes: &mut Vec<u8>, align: u64) {
    bytes.resize(bytes.len().next_multiple_of(align as usize), 0);
}

/// Recomputes the checksum of `start..end`, which is stored at `end`.
pub fn seal(bytes: &mut [u8], start: usize, end: usize) {
    let crc = crc32(&bytes[start..end]);
    bytes[end..end + 4].copy_from_slice(&crc.to_le_bytes());
}

pub fn seal_header(bytes: &mut [u8]) {
    seal(bytes, 0, 4092);
}

pub fn seal_footer(bytes: &mut [u8]) {
    let start = bytes.len() - 128;
    seal(bytes, start, start + 116);
}

pub fn hex32(crc: u32) -> String {
    format!("{crc:08x}")
}
