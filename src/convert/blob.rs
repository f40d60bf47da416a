//! A blob as `Read + Seek`, for the zip reader, and the members of an archive. A member's claimed
//! length must be possible for its stored bytes, and none of its bytes is returned before its
//! checksum was verified.

use crate::buffer::Buffer;
use crate::engine::Blob;
use crate::error::{Error, ErrorKind, Result};
use crate::format::checksum_error;
use crate::sync::lock;
use std::collections::HashSet;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use zip::read::{ZipFile, ZipReadOptions};
use zip::{CompressionMethod, ZipArchive};

/// The best ratio of the deflate format: 258 bytes by 2 bits.
const DEFLATE_AT_BEST: u64 = 1032;
/// Bytes read at a time to verify a checksum.
const STRETCH: u64 = 1 << 20;

#[derive(Clone)]
pub struct Cursor {
    blob: Arc<dyn Blob>,
    at: u64,
    /// Whether the archive's checksums are compared.
    has_checksums: bool,
}

impl Cursor {
    pub fn new(blob: &Arc<dyn Blob>) -> Self {
        Self { blob: Arc::clone(blob), at: 0, has_checksums: true }
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

/// Opens an archive whose members are distinct.
///
/// # Errors
/// `Damaged` when two members have one name, or bytes in common.
pub fn archive(blob: &Arc<dyn Blob>) -> Result<Archive> {
    let mut archive = ZipArchive::new(Cursor::new(blob))
        .map_err(|error| damaged("the zip archive cannot be read", error))?;
    check_members(blob, &mut archive)?;
    Ok(archive)
}

/// The archive again, to be read without comparing checksums, if it has none: where they are turned
/// off, torch writes 0 for each member.
///
/// # Errors
/// `Damaged`.
pub fn without_checksums(archive: &Archive) -> Result<Option<Archive>> {
    let has_none = |number| archive.by_index_data(number).is_ok_and(|entry| entry.crc32() == 0);
    if !(0..archive.len()).all(has_none) {
        return Ok(None);
    }
    let cursor = Cursor { at: 0, has_checksums: false, ..archive.clone().into_inner() };
    ZipArchive::new(cursor).map(Some).map_err(|error| damaged("the zip archive cannot be read", error))
}

/// The bytes that an archive takes up: from its first member to the end of its last record. None
/// where its directory is not followed by the records that end an archive: the directory is then
/// another archive's than the file's last records.
///
/// # Errors
/// `Io`.
pub fn extent(archive: &Archive) -> Result<Option<Range<u64>>> {
    let blob = archive.clone().into_inner().blob;
    let entries = || (0..archive.len()).filter_map(move |number| archive.by_index_data(number).ok());
    let start = entries().map(|entry| entry.header_start()).min().unwrap_or(0);
    let last = entries().map(|entry| entry.central_header_start()).max();
    let end = match last {
        Some(at) => after_entry(&*blob, at)?.map(|(_, end)| end),
        None => Some(archive.central_directory_start()),
    };
    let Some(mut at) = end else { return Ok(None) };
    /// A longer record of large archives, and where that is.
    const LARGE: usize = 12;
    const LARGE_AT: u64 = 20;
    if let Some(large) = record::<LARGE>(&*blob, at, b"PK\x06\x06")? {
        let [.., a, b, c, d, e, f, g, h] = large;
        let len = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let next = at.checked_add(LARGE as u64).and_then(|at| at.checked_add(len));
        let Some(next) = next else { return Ok(None) };
        if record::<4>(&*blob, next, b"PK\x06\x07")?.is_none() {
            return Ok(None);
        }
        at = next + LARGE_AT;
    }
    /// The last record, with the length of the comment behind it.
    const LAST: usize = 22;
    let last = record::<LAST>(&*blob, at, b"PK\x05\x06")?;
    let end = last.map(|last| at + LAST as u64 + u64::from(u16::from_le_bytes([last[20], last[21]])));
    Ok(end.map(|end| start..end))
}

/// A record of this signature, if one begins here.
fn record<const LEN: usize>(blob: &dyn Blob, at: u64, signature: &[u8]) -> Result<Option<[u8; LEN]>> {
    if at.checked_add(LEN as u64).is_none_or(|end| end > blob.len()) {
        return Ok(None);
    }
    let mut bytes = [0; LEN];
    blob.read_at(at, &mut bytes)?;
    Ok(bytes.starts_with(signature).then_some(bytes))
}

/// The name in an entry of a directory, and where the next entry begins.
fn after_entry(blob: &dyn Blob, at: u64) -> Result<Option<(String, u64)>> {
    /// Fixed part of an entry: lengths of name, extra field and comment at 28.
    const ENTRY: usize = 46;
    let Some(entry) = record::<ENTRY>(blob, at, b"PK\x01\x02")? else { return Ok(None) };
    let len = |at: usize| usize::from(u16::from_le_bytes([entry[at], entry[at + 1]]));
    let mut name = vec![0; len(28)];
    let start = at + ENTRY as u64;
    if start + name.len() as u64 > blob.len() {
        return Ok(None);
    }
    blob.read_at(start, &mut name)?;
    let end = start + (len(28) + len(30) + len(32)) as u64;
    Ok(Some((String::from_utf8_lossy(&name).into_owned(), end)))
}

/// Checks that members are distinct: of two with the same name, readers differ in which they take,
/// and bytes shared by many members would be terabytes when all are read.
fn check_members(blob: &Arc<dyn Blob>, archive: &mut Archive) -> Result<()> {
    if archive.has_duplicate_names() {
        let name = first_twice(&**blob, archive.central_directory_start());
        let what = match name {
            Some(name) => format!("archive member {name:?} stands twice"),
            None => "an archive member stands twice".to_owned(),
        };
        return Err(
            Error::damaged(what).help("`unzip -l` lists both; keep one of them in an archive of its own")
        );
    }
    match archive.has_overlapping_files() {
        Ok(false) => Ok(()),
        Ok(true) => Err(Error::damaged("archive members share bytes")),
        Err(error) => Err(Error::damaged("an archive member cannot be found").because(error)),
    }
}

/// The first duplicate name in an archive's directory. The zip reader silently keeps the last of
/// equal names.
fn first_twice(blob: &dyn Blob, mut at: u64) -> Option<String> {
    let mut seen = HashSet::new();
    loop {
        let (name, next) = after_entry(blob, at).ok()??;
        at = next;
        if seen.contains(&name) {
            return Some(name);
        }
        seen.insert(name);
    }
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
/// `Damaged` for a name that is not text.
pub fn names(archive: &Archive) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for name in archive.file_names() {
        let name = name.map_err(|error| damaged("an archive member's name is no text", error))?;
        names.push(name.into_owned());
    }
    Ok(names)
}

/// One member: its bytes if it is stored uncompressed, and its length.
pub struct Member {
    pub stored: Option<Arc<dyn Blob>>,
    pub len: u64,
}

/// The bytes of a member stored uncompressed. The first read of any of them verifies the checksum
/// of all; it is verified only once.
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
        // Concurrent readers wait for the result.
        let mut compared = lock(&self.compared);
        if *compared {
            return Ok(());
        }
        let mut crc32 = crc32fast::Hasher::new();
        let mut at = 0;
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

/// Looks up a member.
///
/// # Errors
/// `Damaged` when its length is impossible, `Unsupported` for compression that NumPy and torch do
/// not use.
pub fn member(archive: &mut Archive, name: &str) -> Result<Member> {
    let Cursor { blob, has_checksums, .. } = archive.clone().into_inner();
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
        Arc::new(Stored {
            file: blob,
            name: name.to_owned(),
            start,
            len,
            crc32: file.crc32(),
            compared: Mutex::new(!has_checksums),
        })
    });
    Ok(Member { stored, len })
}

fn by_name<'a>(archive: &'a mut Archive, name: &str) -> Result<ZipFile<'a, Cursor>> {
    let options = ZipReadOptions::new().ignore_crc32(!archive.clone().into_inner().has_checksums);
    archive.by_name_with_options(name, options).map_err(|error| unreadable(name, error))
}

/// The first bytes of a member, up to `most`.
pub fn head(archive: &mut Archive, name: &str, most: usize) -> Result<Vec<u8>> {
    let file = by_name(archive, name)?;
    let mut head = Vec::new();
    file.take(most as u64).read_to_end(&mut head).map_err(|error| unreadable(name, error))?;
    Ok(head)
}

/// `len` bytes of a member from `skip` on, its checksum verified.
pub fn read(archive: &mut Archive, name: &str, skip: u64, len: usize) -> Result<Buffer> {
    let wrong = |error| unreadable(name, error);
    let mut file = by_name(archive, name)?;
    io::copy(&mut (&mut file).take(skip), &mut io::sink()).map_err(wrong)?;
    let mut buffer = Buffer::zeroed(len)?;
    file.read_exact(&mut buffer).map_err(wrong)?;
    // The zip reader verifies the CRC at the end of the member.
    io::copy(&mut file, &mut io::sink()).map_err(wrong)?;
    Ok(buffer)
}
