//! Exports `.npz` and `.npy`: arrays by name in a zip archive, or one array. They cannot hold
//! records and metadata.

use super::input::Item;
use super::{Input, Written};
use crate::convert::npy::{self, DESCR_KEY};
use crate::convert::{Format, Note};
use crate::dtype::Dtype;
use crate::engine::Upload;
use crate::error::{Error, ErrorKind, Result};
use crate::snapshot::METADATA;
use crate::tensor::Tensor;
use std::collections::BTreeMap;
use std::io::{self, Write};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A record that is not about the model: when and why it was saved.
const SAVE: &str = "tensorkeep.save";

/// A planned file: its arrays with their headers.
pub struct Plan<'c> {
    pub written: Vec<Written<'c>>,
    headers: Vec<Vec<u8>>,
    is_archive: bool,
    /// Approximate; an archive's directory is not counted.
    pub len: u64,
}

/// Plans a `.npz` or `.npy` file.
///
/// # Errors
/// `Invalid` when a `.npy` file would hold more than one tensor, `Unsupported` for a name or a
/// shape that the format cannot hold.
pub fn plan<'c>(
    input: Input<'c>,
    items: Vec<Item<'c>>,
    format: Format,
    notes: &mut Vec<Note>,
) -> Result<Plan<'c>> {
    let is_archive = format == Format::Npz;
    if !is_archive && items.len() != 1 {
        return Err(Error::invalid("a .npy file holds one tensor")
            .found(items.len())
            .help("export to .npz, or take one with `tensorkeep get`"));
    }
    let mut metadata = input.metadata()?;
    let mut written = Vec::new();
    let mut headers = Vec::new();
    let mut len = 0_u64;
    for item in items {
        if is_archive {
            check_member_name(item.target())?;
        }
        let descr = metadata.remove(&format!("{DESCR_KEY}{}", item.name));
        let array = array(item.name, item.dtype, &item.shape, descr.as_deref())?;
        let mut meaning = descr;
        if array.descr_is_left
            && let Some(descr) = meaning.take()
        {
            metadata.insert(format!("{DESCR_KEY}{}", item.name), descr);
        }
        notes.extend(array.note);
        len = len.saturating_add(item.byte_len).saturating_add(array.header.len() as u64);
        headers.push(array.header);
        let name = if is_archive { item.target().to_owned() } else { npy::ARRAY.to_owned() };
        written.push(Written { name, dtype: array.dtype, shape: item.shape.clone(), item, meaning });
    }
    drop_records(input, &metadata, notes);
    Ok(Plan { written, headers, is_archive, len })
}

/// A header, and the dtype with which the array will be read.
struct Array {
    header: Vec<u8>,
    dtype: Dtype,
    note: Option<Note>,
    /// Whether the original NumPy description of the elements no longer applies.
    descr_is_left: bool,
}

fn array(name: &str, dtype: Dtype, shape: &[usize], descr: Option<&str>) -> Result<Array> {
    if let Some(descr) = descr
        && dtype == Dtype::Opaque
        && let Some(header) = npy::header_of_bytes(descr, shape)
    {
        return Ok(Array { header, dtype, note: None, descr_is_left: false });
    }
    if let Some(header) = npy::header(dtype, shape) {
        return Ok(Array { header, dtype, note: None, descr_is_left: true });
    }
    let stand_in = if dtype.size() == 2 { Dtype::U16 } else { Dtype::U8 };
    let too_long =
        || Error::new(ErrorKind::Unsupported, "the shape is too long for a .npy header").in_tensor(name);
    let header = npy::header(stand_in, shape).ok_or_else(too_long)?;
    let note = Note::lost(name, format!("NumPy has no {dtype}: its bytes are written as {stand_in}"));
    Ok(Array { header, dtype: stand_in, note: Some(note), descr_is_left: true })
}

/// One tensor as the bytes of a `.npy` file, and a note if that loses anything.
///
/// # Errors
/// `Unsupported` for a shape that the header cannot hold.
pub fn npy_bytes(tensor: &Tensor<'_>) -> Result<(Vec<u8>, Option<Note>)> {
    let array = array(npy::ARRAY, tensor.dtype(), tensor.shape(), None)?;
    Ok(([&array.header, tensor.bytes()].concat(), array.note))
}

fn drop_records(input: Input<'_>, metadata: &BTreeMap<String, String>, notes: &mut Vec<Note>) {
    let mut dropped: Vec<&str> = input.record_names().into_iter().filter(|name| *name != SAVE).collect();
    dropped.extend((!metadata.is_empty()).then_some(METADATA));
    dropped.sort_unstable();
    notes.extend(
        dropped.iter().map(|name| Note::lost(*name, "record dropped: NumPy's files hold arrays only")),
    );
}

/// Unpacking tools treat an archive's names as paths, on any system: none may lead out of the
/// target folder.
fn check_member_name(name: &str) -> Result<()> {
    let mut parts = name.split(['/', '\\']);
    let is_drive = name.as_bytes().get(1) == Some(&b':');
    if !is_drive && !name.starts_with(['/', '\\']) && parts.all(|part| part != "..") {
        return Ok(());
    }
    let error = Error::new(ErrorKind::Unsupported, "a tensor cannot have this name in an .npz archive");
    Err(error
        .in_tensor(name)
        .found("a path that leads out of the folder into which the archive is unpacked")
        .help("export to safetensors, whose names are not paths"))
}

impl Plan<'_> {
    /// Writes the file.
    ///
    /// # Errors
    /// Errors of reading and writing.
    pub fn write(&self, input: Input<'_>, upload: &mut dyn Upload) -> Result<()> {
        if self.is_archive {
            return self.write_archive(input, upload);
        }
        for (written, header) in self.arrays() {
            upload.append(header)?;
            input.visit(&written.item, |_, bytes| upload.append(bytes))?;
        }
        Ok(())
    }

    fn arrays(&self) -> impl Iterator<Item = (&Written<'_>, &[u8])> {
        self.written.iter().zip(self.headers.iter().map(Vec::as_slice))
    }

    fn write_archive(&self, input: Input<'_>, upload: &mut dyn Upload) -> Result<()> {
        let mut out = AsWrite { upload, error: None };
        let mut archive = ZipWriter::new_stream(&mut out);
        let written = self.arrays().try_for_each(|(written, header)| {
            let large = written.item.byte_len >= u64::from(u32::MAX) - (1 << 20);
            let options =
                SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(large);
            archive.start_file(format!("{}.npy", written.name), options).map_err(zip_error)?;
            archive.write_all(header).map_err(zip_error)?;
            input.visit(&written.item, |_, bytes| archive.write_all(bytes).map_err(zip_error))
        });
        let written = written.and_then(|()| archive.finish().map(drop).map_err(zip_error));
        match out.error {
            Some(error) => Err(error),
            None => written,
        }
    }
}

/// Upload as `Write`. The upload's own error is kept, because `io::Error` would hide its kind.
struct AsWrite<'u> {
    upload: &'u mut dyn Upload,
    error: Option<Error>,
}

impl Write for AsWrite<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.upload.append(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                self.error = Some(error);
                Err(io::Error::other("the upload failed"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn zip_error(error: impl Into<io::Error>) -> Error {
    Error::io("writing the zip archive", error.into())
}
