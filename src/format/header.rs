//! The header, the first 4096 bytes: magic, versions, feature flags and file id; and the error for
//! foreign files.

use super::{
    CHECKSUM_CRC32, Flags, MAGIC, READ_VERSION, WRITE_VERSION, checksum_error, crc32, le, signatures,
};
use crate::error::{Error, ErrorKind, Result};

super::layout! { 4096:
    FIRST_MAGIC = 0..8;
    READ_VERSION_FIELD = 8..10;
    WRITE_VERSION_FIELD = 10..12;
    HEADER_LENGTH = 12..16;
    COMPAT_FLAGS = 16..24;
    RO_COMPAT_FLAGS = 24..32;
    INCOMPAT_FLAGS = 32..40;
    FILE_ID = 40..56;
    ALIGNMENT = 56..60;
    CHECKSUM_ID = 60..61;
    ZEROS = 61..4092;
    HEADER_CRC = 4092..4096;
}

/// A valid header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The specification's version that the writer followed.
    pub write_version: u16,
    /// Feature flags.
    pub flags: Flags,
    /// The file's id, which differs between files; the footer repeats it.
    pub file_id: [u8; 16],
}

impl Header {
    /// The header of a file with this id, as this version writes it.
    pub fn new(file_id: [u8; 16]) -> Self {
        Self { write_version: WRITE_VERSION, flags: Flags::default(), file_id }
    }

    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; LEN];
        bytes[FIRST_MAGIC].copy_from_slice(&MAGIC);
        bytes[READ_VERSION_FIELD].copy_from_slice(&READ_VERSION.to_le_bytes());
        bytes[WRITE_VERSION_FIELD].copy_from_slice(&self.write_version.to_le_bytes());
        bytes[HEADER_LENGTH].copy_from_slice(&(LEN as u32).to_le_bytes());
        bytes[COMPAT_FLAGS].copy_from_slice(&self.flags.compat.to_le_bytes());
        bytes[RO_COMPAT_FLAGS].copy_from_slice(&self.flags.ro_compat.to_le_bytes());
        bytes[INCOMPAT_FLAGS].copy_from_slice(&self.flags.incompat.to_le_bytes());
        bytes[FILE_ID].copy_from_slice(&self.file_id);
        bytes[ALIGNMENT].copy_from_slice(&(super::PAGE as u32).to_le_bytes());
        bytes[CHECKSUM_ID].copy_from_slice(&[CHECKSUM_CRC32]);
        let crc = crc32(&bytes[..HEADER_CRC.start]);
        bytes[HEADER_CRC].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Decodes and validates the first bytes of a file. Fewer than [`LEN`] are a damaged or a
    /// foreign file.
    ///
    /// The checksum is at the same place in every version, so that damage is never taken for a
    /// newer version.
    ///
    /// # Errors
    /// `Foreign`, `Damaged`, `NewerVersion`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() {
            return Err(Error::damaged("the file is empty")
                .help("the save that made it was not tensorkeep's, or the disk lost it"));
        }
        // Up to four bytes may be anything (R103).
        let is_cut_within = bytes.len() > 4 && MAGIC.starts_with(bytes);
        if !bytes.starts_with(&MAGIC) && !is_cut_within {
            return Err(not_a_container(bytes));
        }
        let bytes = bytes.get(..LEN).ok_or_else(|| {
            Error::damaged("the file is cut short inside its header")
                .expected(format!("{LEN} bytes"))
                .found(bytes.len())
        })?;
        let (expected, found) = (le::u32(bytes, HEADER_CRC), crc32(&bytes[..HEADER_CRC.start]));
        if expected != found {
            return Err(checksum_error("checksum of the header", expected, found).at_byte(0));
        }
        check_read_version(le::u16(bytes, READ_VERSION_FIELD))?;
        let flags = Flags {
            compat: le::u64(bytes, COMPAT_FLAGS),
            ro_compat: le::u64(bytes, RO_COMPAT_FLAGS),
            incompat: le::u64(bytes, INCOMPAT_FLAGS),
        };
        flags.check()?;
        check_constants(bytes)?;
        check_zeros(bytes)?;
        Ok(Self {
            write_version: le::u16(bytes, WRITE_VERSION_FIELD),
            flags,
            file_id: le::array(bytes, FILE_ID),
        })
    }
}

fn check_read_version(found: u16) -> Result<()> {
    match found {
        // Not a version, so the meaning of its flags is unknown.
        0 => Err(Error::damaged("read version")
            .at_byte(READ_VERSION_FIELD.start as u64)
            .expected(READ_VERSION)
            .found(found)),
        1..=READ_VERSION => Ok(()),
        _ => Err(Error::new(ErrorKind::NewerVersion, "format version")
            .expected(format!("at most {READ_VERSION}"))
            .found(found)
            .help("update tensorkeep")),
    }
}

/// Fields that have one value in this version.
fn check_constants(header: &[u8]) -> Result<()> {
    for (what, range, expected) in [
        ("header length", HEADER_LENGTH, LEN as u64),
        ("alignment", ALIGNMENT, super::PAGE),
        ("checksum id", CHECKSUM_ID, u64::from(CHECKSUM_CRC32)),
    ] {
        let start = range.start as u64;
        let found = header[range].iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
        if found != expected {
            return Err(Error::damaged(what).at_byte(start).expected(expected).found(found));
        }
    }
    Ok(())
}

fn check_zeros(header: &[u8]) -> Result<()> {
    let zeros = &header[ZEROS];
    // All at once first: a check byte by byte took a twentieth of opening a small file.
    if zeros.iter().fold(0, |all, byte| all | byte) == 0 {
        return Ok(());
    }
    let position = zeros.iter().take_while(|byte| **byte == 0).count();
    Err(Error::damaged("reserved byte of the header")
        .at_byte((ZEROS.start + position) as u64)
        .expected(0)
        .found(zeros[position]))
}

/// The error for other first bytes, with a guess at the kind of file.
fn not_a_container(bytes: &[u8]) -> Error {
    let text_mode = bytes.len() > 4 && bytes[..4] == MAGIC[..4];
    if text_mode {
        return Error::damaged("the magic's line ends are changed: the file was transferred in text mode")
            .at_byte(4)
            .help("copy it again, as binary");
    }
    if bytes.iter().take(64).all(|&byte| byte == 0) {
        return Error::damaged("the file begins with zeros")
            .at_byte(0)
            .help("the disk lost it: resume from an older checkpoint");
    }
    let first: Vec<String> = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let error = Error::new(ErrorKind::Foreign, "not a tensorkeep container")
        .at_byte(0)
        .expected("89 54 4b 50 0d 0a 1a 0a");
    if MAGIC.starts_with(bytes) {
        return error.found(format!("{}, and no more: possibly one that was cut short", first.join(" ")));
    }
    match signatures::of(bytes) {
        Some(kind) => {
            error.found(format!("{}, which looks like {}", first.join(" "), kind.what)).help(kind.help)
        }
        None => error.found(format!("{}, which looks like something else", first.join(" "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_a_header_is_seen() {
        let header = Header::new(*b"0123456789abcdef");
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes).unwrap(), header);
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let error = Header::decode(&bytes).unwrap_err();
            assert_ne!(error.kind(), ErrorKind::NewerVersion, "bit {bit}: damage is not a newer version");
        }
    }

    #[test]
    fn foreign_files_are_named() {
        let error = Header::decode(b"PK\x03\x04 and more of a zip file").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Foreign);
        assert!(error.to_string().contains("PyTorch"), "{error}");
        assert_eq!(Header::decode(b"").unwrap_err().kind(), ErrorKind::Damaged);
        assert_eq!(Header::decode(&[0; 5000]).unwrap_err().kind(), ErrorKind::Damaged);
        assert!(Header::decode(b"\x89TKP\n\x1a\n...").unwrap_err().to_string().contains("text mode"));
        assert!(Header::decode(b"\x89TKP\n").unwrap_err().to_string().contains("text mode"));
    }

    #[test]
    fn a_file_cut_within_its_magic_is_cut_short() {
        for len in 1..=MAGIC.len() {
            let error = Header::decode(&MAGIC[..len]).unwrap_err();
            let (kind, words) = match len {
                ..5 => (ErrorKind::Foreign, "possibly one that was cut short"),
                _ => (ErrorKind::Damaged, "cut short inside its header"),
            };
            assert!(error.kind() == kind && error.to_string().contains(words), "{len}: {error}");
        }
    }

    #[test]
    fn unknown_incompat_flags_are_refused_and_compat_flags_are_not() {
        let reseal = |mut bytes: Vec<u8>| {
            let crc = crc32(&bytes[..4092]);
            bytes[HEADER_CRC].copy_from_slice(&crc.to_le_bytes());
            Header::decode(&bytes)
        };
        let bytes = Header::new([0; 16]).encode();
        let with = |at: usize, value: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            reseal(bytes)
        };
        assert_eq!(with(8, 2).unwrap_err().kind(), ErrorKind::NewerVersion);
        assert_eq!(with(8, 0).unwrap_err().kind(), ErrorKind::Damaged);
        assert_eq!(with(32, 1).unwrap_err().kind(), ErrorKind::NewerVersion);
        assert_eq!(with(60, 0).unwrap_err().kind(), ErrorKind::Damaged);
        assert_eq!(with(100, 1).unwrap_err().kind(), ErrorKind::Damaged);
        assert_eq!(with(10, 9).unwrap().write_version, 9);
        assert_eq!(with(16, 1).unwrap().flags.compat, 1);
        assert_eq!(with(24, 1).unwrap().flags.ro_compat, 1);
    }
}
