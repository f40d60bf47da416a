//! Passing a whole file on as it lies, every byte verified on its way.

use super::regions::{MustBe, Window};
use super::{Checkpoint, Inspect, footer, header};
use crate::engine::Upload;
use crate::error::{Error, Result};

impl Inspect<'_> {
    /// Appends the whole file as it lies to an upload, each byte verified before it is passed on.
    /// Memory is a few MiB, or one chunk where that is more. `moved` hears of each piece's length.
    /// The upload is to be dropped when this fails.
    ///
    /// # Errors
    /// `Damaged` with the first damage, `Io`, and what `upload` says.
    pub fn copy_into(&self, upload: &mut dyn Upload, mut moved: impl FnMut(u64)) -> Result<()> {
        let checkpoint = self.0;
        let mut window = Window::default();
        let damaged = |error: Error| error.in_object(checkpoint.name());
        let header = checkpoint.bytes_at(0..header::LEN as u64, &mut window).map_err(damaged)?;
        if header::Header::decode(header).map_err(damaged)? != checkpoint.header {
            return Err(damaged(changed("header")));
        }
        upload.append(header)?;
        for stretch in checkpoint.stretches() {
            let bytes = checkpoint.verified_bytes(&stretch, &mut window)?;
            moved(bytes.len() as u64);
            match stretch.must_be {
                MustBe::Chunk { chunk, .. } => upload.append_with_crc(bytes, chunk.crc)?,
                MustBe::Index => {
                    upload.begin_tail();
                    upload.append(bytes)?;
                }
                _ => upload.append(bytes)?,
            }
        }
        let end = checkpoint.byte_len();
        let bytes = checkpoint.bytes_at(end - footer::LEN as u64..end, &mut window).map_err(damaged)?;
        if bytes != checkpoint.footer.encode() {
            return Err(damaged(changed("footer")));
        }
        upload.append(bytes)
    }

    /// Whether both are the same bytes: the footers have the checksum of the index, and the index
    /// has all others.
    pub fn is_copy_of(&self, other: &Checkpoint) -> bool {
        self.0.header == other.header && self.0.footer == other.footer
    }
}

fn changed(what: &'static str) -> Error {
    Error::damaged(format!("the {what} is not what it was when the file was opened"))
        .help("somebody writes to this file: resume from an older checkpoint")
}
