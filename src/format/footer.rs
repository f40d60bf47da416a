//! The footer, the last 128 bytes: the places of the index and its mirror, the file's length, and
//! its id again.

use super::{CLOSING_MAGIC, Flags, INDEX_ALIGN, MIRROR_ALIGN, checksum_error, crc32, header, le};
use crate::error::{Error, Result};
use crate::format::limits::Limits;
use std::ops::Range;

super::layout! { 128:
    INDEX_OFFSET = 0..8;
    INDEX_LENGTH = 8..16;
    INDEX_CRC = 16..20;
    ZEROS_1 = 20..24;
    MIRROR_OFFSET = 24..32;
    FILE_LENGTH = 32..40;
    COMPAT_FLAGS = 40..48;
    RO_COMPAT_FLAGS = 48..56;
    INCOMPAT_FLAGS = 56..64;
    FILE_ID = 64..80;
    GENERATION = 80..88;
    PREVIOUS_FOOTER = 88..96;
    CONTENT_ROOT = 96..112;
    ZEROS_2 = 112..116;
    FOOTER_CRC = 116..120;
    LAST_MAGIC = 120..128;
}

/// A valid footer of a file of a known length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Absolute offset of the index region.
    pub index_offset: u64,
    /// Length of the index region in bytes.
    pub index_len: u64,
    /// Checksum over the whole index region.
    pub index_crc: u32,
    /// Absolute offset of the index region's mirror, if the file has one.
    pub mirror_offset: Option<u64>,
    /// Length of the file in bytes, this footer included.
    pub file_len: u64,
    /// Feature flags, again.
    pub flags: Flags,
    /// The header's file id, again.
    pub file_id: [u8; 16],
}

impl Footer {
    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; LEN];
        bytes[INDEX_OFFSET].copy_from_slice(&self.index_offset.to_le_bytes());
        bytes[INDEX_LENGTH].copy_from_slice(&self.index_len.to_le_bytes());
        bytes[INDEX_CRC].copy_from_slice(&self.index_crc.to_le_bytes());
        bytes[MIRROR_OFFSET].copy_from_slice(&self.mirror_offset.unwrap_or(0).to_le_bytes());
        bytes[FILE_LENGTH].copy_from_slice(&self.file_len.to_le_bytes());
        bytes[COMPAT_FLAGS].copy_from_slice(&self.flags.compat.to_le_bytes());
        bytes[RO_COMPAT_FLAGS].copy_from_slice(&self.flags.ro_compat.to_le_bytes());
        bytes[INCOMPAT_FLAGS].copy_from_slice(&self.flags.incompat.to_le_bytes());
        bytes[FILE_ID].copy_from_slice(&self.file_id);
        bytes[LAST_MAGIC].copy_from_slice(&CLOSING_MAGIC);
        let crc = crc32(&bytes[..FOOTER_CRC.start]);
        bytes[FOOTER_CRC].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Decodes and validates the last [`LEN`] bytes of a file of `file_len` bytes.
    ///
    /// # Errors
    /// `Damaged`, `NewerVersion`.
    pub fn decode(bytes: &[u8; LEN], file_len: u64) -> Result<Self> {
        let start = file_len.saturating_sub(LEN as u64);
        if bytes[LAST_MAGIC] != CLOSING_MAGIC {
            return Err(Error::damaged("no closing magic: the file is cut short or overwritten")
                .at_byte(start + LAST_MAGIC.start as u64)
                .help("resume from an older checkpoint"));
        }
        let (expected, found) = (le::u32(bytes, FOOTER_CRC), crc32(&bytes[..FOOTER_CRC.start]));
        if expected != found {
            return Err(checksum_error("checksum of the footer", expected, found).at_byte(start));
        }
        let flags = Flags {
            compat: le::u64(bytes, COMPAT_FLAGS),
            ro_compat: le::u64(bytes, RO_COMPAT_FLAGS),
            incompat: le::u64(bytes, INCOMPAT_FLAGS),
        };
        flags.check()?;
        for reserved in [ZEROS_1, GENERATION, PREVIOUS_FOOTER, CONTENT_ROOT, ZEROS_2] {
            if bytes[reserved.clone()].iter().any(|&byte| byte != 0) {
                return Err(Error::damaged("reserved bytes of the footer")
                    .at_byte(start + reserved.start as u64)
                    .expected("zeros"));
            }
        }
        let footer = Self {
            index_offset: le::u64(bytes, INDEX_OFFSET),
            index_len: le::u64(bytes, INDEX_LENGTH),
            index_crc: le::u32(bytes, INDEX_CRC),
            mirror_offset: Some(le::u64(bytes, MIRROR_OFFSET)).filter(|&offset| offset != 0),
            file_len: le::u64(bytes, FILE_LENGTH),
            flags,
            file_id: le::array(bytes, FILE_ID),
        };
        footer.check_places(file_len)?;
        Ok(footer)
    }

    /// Index, mirror and footer follow each other, aligned, and end at the end of the file.
    fn check_places(&self, file_len: u64) -> Result<()> {
        if self.file_len != file_len {
            return Err(Error::damaged("length of the file").expected(self.file_len).found(file_len));
        }
        let footer_start = file_len - LEN as u64;
        let in_order = |from: u64, start: u64, align: u64| {
            start >= from
                && start.is_multiple_of(align)
                && start.checked_add(self.index_len).is_some_and(|end| end <= footer_start)
        };
        let fits = file_len <= Limits::V1.file_bytes
            && self.index_len <= Limits::V1.index_bytes
            && self.index_len.is_multiple_of(INDEX_ALIGN)
            && in_order(header::LEN as u64, self.index_offset, INDEX_ALIGN)
            && self
                .mirror_offset
                .is_none_or(|mirror| in_order(self.index_offset + self.index_len, mirror, MIRROR_ALIGN))
            && self.padding().end.saturating_sub(self.padding().start) < MIRROR_ALIGN;
        let tail_start = self.mirror_offset.unwrap_or(self.index_offset).saturating_add(self.index_len);
        if fits && tail_start == footer_start {
            return Ok(());
        }
        Err(Error::damaged("place of the index")
            .at_byte(footer_start)
            .expected(format!("index, mirror and footer behind each other, ending at {file_len}"))
            .found(format!(
                "index {}+{}, mirror at {}",
                self.index_offset,
                self.index_len,
                self.mirror_offset.unwrap_or(0)
            )))
    }

    /// The padding between the index and its mirror: zeros.
    pub fn padding(&self) -> Range<u64> {
        let index_end = self.index_offset.saturating_add(self.index_len);
        index_end..self.mirror_offset.unwrap_or(index_end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footer() -> Footer {
        Footer {
            index_offset: 8192,
            index_len: 640,
            index_crc: 7,
            mirror_offset: Some(9216),
            file_len: 9216 + 640 + 128,
            flags: Flags::default(),
            file_id: [9; 16],
        }
    }

    fn decode(footer: &Footer) -> Result<Footer> {
        Footer::decode(footer.encode()[..].try_into().unwrap(), footer.file_len)
    }

    #[test]
    fn every_flipped_bit_of_a_footer_is_seen() {
        let footer = footer();
        assert_eq!(decode(&footer).unwrap(), footer);
        let bytes: [u8; LEN] = footer.encode()[..].try_into().unwrap();
        for bit in 0..LEN * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Footer::decode(&bytes, footer.file_len).is_err(), "bit {bit}");
        }
        assert!(Footer::decode(&bytes, footer.file_len + 1).is_err(), "a file that grew");
    }

    #[test]
    fn an_index_that_is_not_where_it_must_be_is_refused() {
        let valid = footer();
        for wrong in [
            Footer { index_offset: 0, ..valid },
            Footer { index_offset: 8193, ..valid },
            Footer { index_len: u64::MAX - 63, ..valid },
            Footer { index_len: 641, ..valid },
            Footer { mirror_offset: Some(8192), ..valid },
            Footer { mirror_offset: Some(u64::MAX - 511), ..valid },
            Footer { mirror_offset: None, ..valid },
            Footer { index_offset: 1 << 63, ..valid },
        ] {
            assert!(decode(&wrong).is_err(), "{wrong:?}");
        }
    }
}
