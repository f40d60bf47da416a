//! A blob as `Read + Seek`, for the zip reader, and the members of an archive. Owns: reading
//! members within bounds: what a member says of its own length is believed only as far as its
//! stored bytes can make true, and none of its bytes is handed out before its checksum was
//! compared.

use crate::buffer::Buffer;
use crate::engine::Blob;
use crate::error::{Error, ErrorKind, Result};
use crate::format::checksum_error;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex, PoisonError};
use zip::{CompressionMethod, ZipArchive};

/// The deflate format cannot do better: 258 bytes by 2 bits.
const DEFLATE_AT_BEST: u64 = 1032;
/// Bytes that are read at once to compare a checksum.
const STRETCH: u64 = 1 << 20;

#[derive(Clone)]
pub struct Cursor {
    blob: Arc<dyn Blob>,
    at: u64,
}

impl Cursor {
    pub fn new(blob: &Arc<dyn Blob>) -> Self {
        Self { blob: Arc::clone(blob), at: 0 }
    }
}

impl Read for Cursor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.blob.len().saturating_sub(self.at).min(buffer.len() as u64) as usize;
        self.blob.read_at(self.at, &mut buffer[..len]).map_err(io::Error::other)?;
        self.at += len as u64;
        Ok(len)
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.blob.len().checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

/// A part of a file as a file of its own.
#[derive(Debug)]
pub struct Section {
    file: Arc<dyn Blob>,
    start: u64,
    len: u64,
}

impl Section {
    /// `len` bytes of a file from `start` on; the caller has checked that it has them.
    pub fn new(file: &Arc<dyn Blob>, start: u64, len: u64) -> Self {
        Self { file: Arc::clone(file), start, len }
    }
}

impl Blob for Section {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.len) {
            return Err(Error::damaged("a read beyond the end of a part of the file").at_byte(self.start));
        }
        self.file.read_at(self.start + offset, buffer)
    }
}

pub type Archive = ZipArchive<Cursor>;

pub fn archive(blob: &Arc<dyn Blob>) -> Result<Archive> {
    ZipArchive::new(Cursor::new(blob)).map_err(|error| damaged("the zip archive cannot be read", error))
}

fn damaged(what: &'static str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::damaged(what).because(error)
}

fn unreadable(name: &str, error: impl Into<io::Error>) -> Error {
    Error::damaged(format!("archive member {name:?} cannot be read")).because(error.into())
}

/// The names of all members.
///
/// # Errors
/// `Damaged` for a name that is no text.
pub fn names(archive: &Archive) -> Result<Vec<String>> {
    let name = |name: Result<std::borrow::Cow<'_, str>, _>| {
        name.map(|name| name.into_owned())
            .map_err(|error| damaged("an archive member's name is no text", error))
    };
    archive.file_names().map(name).collect()
}

/// One member: its bytes when it is stored as it is, and how long it is.
pub struct Member {
    pub stored: Option<Arc<dyn Blob>>,
    pub len: u64,
}

/// The bytes of a member that lies in the file as it is. The first who reads any of them has the
/// checksum of all compared; a member is not read again for that.
#[derive(Debug)]
struct Stored {
    file: Arc<dyn Blob>,
    name: String,
    start: u64,
    len: u64,
    crc32: u32,
    compared: Mutex<bool>,
}

impl Stored {
    fn compare(&self) -> Result<()> {
        // Whoever comes meanwhile waits for the answer.
        let mut compared = self.compared.lock().unwrap_or_else(PoisonError::into_inner);
        if *compared {
            return Ok(());
        }
        let (mut crc32, mut at) = (crc32fast::Hasher::new(), 0);
        let mut buffer = Buffer::zeroed(self.len.min(STRETCH) as usize)?;
        while at < self.len {
            let stretch = &mut buffer[..(self.len - at).min(STRETCH) as usize];
            self.file.read_at(self.start + at, stretch)?;
            crc32.update(stretch);
            at += stretch.len() as u64;
        }
        let found = crc32.finalize();
        if found != self.crc32 {
            let what = format!("checksum of archive member {:?}", self.name);
            return Err(checksum_error(what, self.crc32, found).at_byte(self.start));
        }
        *compared = true;
        Ok(())
    }
}

impl Blob for Stored {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.compare()?;
        self.file.read_at(self.start.saturating_add(offset), buffer)
    }
}

/// What the archive says of a member.
///
/// # Errors
/// `Damaged` when its length cannot be true, `Unsupported` for compression that NumPy and torch do
/// not use.
pub fn member(archive: &mut Archive, name: &str) -> Result<Member> {
    let blob = archive.clone().into_inner().blob;
    let file_len = blob.len();
    let file = archive.by_name(name).map_err(|error| unreadable(name, error))?;
    let (len, stored_len) = (file.size(), file.compressed_size());
    let start = file.data_start().unwrap_or(u64::MAX);
    let possible = match file.compression() {
        CompressionMethod::Stored => len == stored_len,
        CompressionMethod::Deflated => len <= stored_len.saturating_mul(DEFLATE_AT_BEST),
        other => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("archive member {name:?} is compressed by {other}"),
            )
            .expected("stored or deflated, as NumPy and torch write them"));
        }
    };
    if !possible || start.checked_add(stored_len).is_none_or(|end| end > file_len) {
        return Err(Error::damaged(format!("archive member {name:?} cannot be {len} bytes"))
            .found(format!("{stored_len} stored bytes in a file of {file_len}")));
    }
    let stored = (file.compression() == CompressionMethod::Stored).then(|| -> Arc<dyn Blob> {
        let (name, crc32, compared) = (name.to_owned(), file.crc32(), Mutex::default());
        Arc::new(Stored { file: blob, name, start, len, crc32, compared })
    });
    Ok(Member { stored, len })
}

/// The first bytes of a member, as many as there are up to `most`.
pub fn head(archive: &mut Archive, name: &str, most: usize) -> Result<Vec<u8>> {
    let file = archive.by_name(name).map_err(|error| unreadable(name, error))?;
    let mut head = Vec::new();
    file.take(most as u64).read_to_end(&mut head).map_err(|error| unreadable(name, error))?;
    Ok(head)
}

/// `len` bytes of a member from `skip` on, its checksum compared.
pub fn read(archive: &mut Archive, name: &str, skip: u64, len: usize) -> Result<Buffer> {
    let wrong = |error| unreadable(name, error);
    let mut file = archive.by_name(name).map_err(|error| unreadable(name, error))?;
    io::copy(&mut (&mut file).take(skip), &mut io::sink()).map_err(wrong)?;
    let mut buffer = Buffer::zeroed(len)?;
    file.read_exact(&mut buffer).map_err(wrong)?;
    // The end of the member is where the zip reader compares its CRC.
    io::copy(&mut file, &mut io::sink()).map_err(wrong)?;
    Ok(buffer)
}
