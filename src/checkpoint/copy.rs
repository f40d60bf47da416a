//! Copying a whole file byte for byte, each byte verified on its way.

use super::regions::{MustBe, Window};
use super::{Checkpoint, Inspect, footer, header};
use crate::engine::Upload;
use crate::error::{Error, ErrorKind, Result};

impl Inspect<'_> {
    /// Appends the whole file, byte for byte, to an upload; each byte is verified before it is
    /// appended. Needs a few MiB of memory, or one chunk if that is more. `moved` is called with
    /// the length of each piece. If this fails, drop the upload.
    ///
    /// # Errors
    /// `Damaged` with the first damage, `Io`, and any error of `upload`.
    pub fn copy_into(&self, upload: &mut dyn Upload, mut moved: impl FnMut(u64)) -> Result<()> {
        let checkpoint = self.0;
        if self.shards() > 0 {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "a checkpoint of many files is not copied as one",
            )
            .help("copy its folder, or make one file of it with `repack`")
            .in_object(checkpoint.name()));
        }
        let mut window = Window::default();
        let damaged = |error: Error| error.in_object(checkpoint.name());
        let header = checkpoint.bytes_at(0..header::LEN as u64, &mut window).map_err(damaged)?;
        if header::Header::decode(header).map_err(damaged)? != checkpoint.header {
            return Err(damaged(changed("header")));
        }
        upload.append(header)?;
        for region in checkpoint.regions() {
            let bytes = checkpoint.verified_bytes(&region, &mut window)?;
            moved(bytes.len() as u64);
            match region.must_be {
                MustBe::Chunk { chunk, .. } => upload.append_with_crc(bytes, chunk.crc)?,
                MustBe::Index => {
                    upload.begin_tail();
                    upload.append(bytes)?;
                }
                _ => upload.append(bytes)?,
            }
        }
        let end = checkpoint.footer.file_len;
        let bytes = checkpoint.bytes_at(end - footer::LEN as u64..end, &mut window).map_err(damaged)?;
        if bytes != checkpoint.footer.encode() {
            return Err(damaged(changed("footer")));
        }
        upload.append(bytes)
    }

    /// Whether both have the same bytes: the footer holds the checksum of the index, and the index
    /// holds all others.
    pub fn is_copy_of(&self, other: &Checkpoint) -> bool {
        self.0.header == other.header && self.0.footer == other.footer
    }
}

fn changed(what: &'static str) -> Error {
    Error::damaged(format!("the {what} is not what it was when the file was opened"))
        .help("somebody writes to this file: resume from an older checkpoint")
}
