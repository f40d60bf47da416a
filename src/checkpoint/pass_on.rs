//! Passing a whole file on as it lies, every byte verified on its way.

use super::stretch::{MustBe, Window};
use super::{Checkpoint, footer, header};
use crate::engine::Upload;
use crate::error::{Error, Result};

impl Checkpoint {
    /// Appends the whole file as it lies to an upload, each byte verified before it is passed on. Memory is a few MiB, or
    /// one chunk where that is more. `moved` hears of each piece's length. The upload is to be dropped when this fails.
    ///
    /// # Errors
    /// `Damaged` with the first damage, `Io`, and what `upload` says.
    pub fn copy_into(&self, upload: &mut dyn Upload, mut moved: impl FnMut(u64)) -> Result<()> {
        let mut window = Window::default();
        let damaged = |error: Error| error.in_object(self.name());
        let header = self.bytes_at(0..header::LEN as u64, &mut window).map_err(damaged)?;
        if header::Header::decode(header).map_err(damaged)? != self.header {
            return Err(damaged(changed("header")));
        }
        upload.append(header)?;
        for stretch in self.stretches() {
            let bytes = self.verified_bytes(&stretch, &mut window)?;
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
        let end = self.byte_len();
        let bytes = self.bytes_at(end - footer::LEN as u64..end, &mut window).map_err(damaged)?;
        if bytes != self.footer.encode() {
            return Err(damaged(changed("footer")));
        }
        upload.append(bytes)
    }

    /// Whether both are the same bytes: the footers have the checksum of the index, and the index has all others.
    pub fn is_copy_of(&self, other: &Self) -> bool {
        self.header == other.header && self.footer == other.footer
    }
}

fn changed(what: &'static str) -> Error {
    Error::damaged(format!("the {what} is not what it was when the file was opened"))
        .help("somebody writes to this file: resume from an older checkpoint")
}
