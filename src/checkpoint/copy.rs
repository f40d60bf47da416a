//! Copying a whole file byte for byte, each byte verified on its way.

use super::regions::{MustBe, Window};
use super::{Checkpoint, Inspect, footer, header};
use crate::engine::Upload;
use crate::error::{Error, Result};

impl<'c> Inspect<'c> {
    /// Appends the whole file, byte for byte, to an upload; each byte is verified before it is
    /// appended. Needs a few MiB of memory, or one chunk if that is more. `moved` is called with
    /// the length of each piece. If this fails, drop the upload. Of a checkpoint of many ranks this
    /// is the manifest: copy its [`shard_files`](Inspect::shard_files) first.
    ///
    /// # Errors
    /// `Damaged` with the first damage, `Io`, and any error of `upload`.
    pub fn copy_into(&self, upload: &mut dyn Upload, mut moved: impl FnMut(u64)) -> Result<()> {
        let checkpoint = self.0;
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

    /// Length of the file itself, without shards.
    pub fn file_len(&self) -> u64 {
        self.0.footer.file_len
    }

    /// The shards of a manifest, each as a file by itself, with its key beside the manifest's.
    pub fn shard_files(&self) -> impl Iterator<Item = Result<(String, &'c Checkpoint)>> + use<'c> {
        let checkpoint = self.0;
        let keys = self.shard_keys().into_iter().enumerate();
        keys.map(move |(number, key)| Ok((key, checkpoint.shard(number)?)))
    }

    /// Whether both have the same bytes: the footer holds the checksum of the index, and the index
    /// holds all others.
    pub fn is_copy_of(&self, other: &Checkpoint) -> bool {
        self.0.header == other.header && self.0.footer == other.footer
    }
}

fn changed(what: &'static str) -> Error {
    Error::damaged(format!("the {what} is not what it was when the file was opened"))
        .help("another program writes to this file: resume from an older checkpoint")
}
