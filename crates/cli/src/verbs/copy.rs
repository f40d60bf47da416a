//! `cp`, `repack` and `salvage`: checkpoints written again, as they are, otherwise, or as far as they are intact.

use crate::args::Output;
use crate::exit::Exit;
use crate::target::Target;
use crate::{Done, output, parallel};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use tensorkeep::engine::{Blob, Engine, Local, replace_file};
use tensorkeep::{Checkpoint, Codec, Error, ErrorKind, Name, OpenOptions, Reader, Result, WriteOptions};

/// Bytes moved at a time.
const PIECE: usize = 4 << 20;

/// Copies byte for byte; nothing that does not verify is published under a checkpoint's name.
pub fn cp(source: &str, target: &Path, force: bool, json: bool) -> Done {
    let parsed = Target::parse(source)?;
    let busy = parallel::busy("copying", true);
    let copied = match &parsed {
        Target::File(path) => vec![copy_file(path, target, force)?],
        Target::Run(path, None) => copy_run(path, target)?,
        Target::Run(..) => {
            let (path, _, name) = parsed.in_run()?;
            let file = path.join(format!("{name}.tkeep"));
            match target.is_dir() {
                true => vec![copy_file(&file, &target.join(format!("{name}.tkeep")), force)?],
                false => vec![copy_file(&file, target, force)?],
            }
        }
    };
    drop(busy);
    let bytes = copied.iter().map(|(_, bytes)| bytes).sum();
    if json {
        let names: Vec<&str> = copied.iter().map(|(name, _)| name.as_str()).collect();
        output::print_json(
            "cp",
            json!({ "source": source, "target": target.display().to_string(), "copied": names, "bytes": bytes }),
        )?;
    } else {
        let what = if copied.len() == 1 {
            "1 checkpoint".to_owned()
        } else {
            format!("{} checkpoints", copied.len())
        };
        output::print(format!("{}: {what}, {}, verified", target.display(), output::size(bytes)))?;
    }
    Ok(Exit::Ok)
}

fn copy_file(source: &Path, target: &Path, force: bool) -> Result<(String, u64)> {
    output::check_free(target, force)?;
    Checkpoint::open(source)?.verify()?;
    let blob = FileBlob::open(source)?;
    replace_file(target, Some(blob.len()), |upload| pieces(&blob, |bytes| upload.append(bytes)))?;
    Checkpoint::open(target)?.verify()?;
    Ok((target.display().to_string(), blob.len()))
}

/// A file of any name, read in pieces.
struct FileBlob(std::fs::File, u64, String);

impl FileBlob {
    fn open(path: &Path) -> Result<Self> {
        let wrong = |error| Error::io("opening for reading", error).in_object(path.display());
        let file = std::fs::File::open(path).map_err(wrong)?;
        let len = file.metadata().map_err(wrong)?.len();
        Ok(Self(file, len, path.display().to_string()))
    }

    fn len(&self) -> u64 {
        self.1
    }
}

fn pieces(blob: &FileBlob, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    use std::os::unix::fs::FileExt;
    let mut piece = vec![0; PIECE.min(blob.1 as usize)];
    let mut at = 0;
    while at < blob.1 {
        let len = (blob.1 - at).min(PIECE as u64) as usize;
        blob.0
            .read_exact_at(&mut piece[..len], at)
            .map_err(|error| Error::io("reading", error).in_object(&blob.2))?;
        take(&piece[..len])?;
        at += len as u64;
    }
    Ok(())
}

/// Every checkpoint that is not there yet, oldest first, under the target's lock; pins too.
fn copy_run(source: &Path, target: &Path) -> Result<Vec<(String, u64)>> {
    let (from, to) = (Local::open(source)?, Local::create(target)?);
    let _lock = to.lock(&format!("tensorkeep cp, process {}", std::process::id()))?;
    let infos = Reader::new(Local::open(source)?).list()?;
    let mut copied = Vec::new();
    for info in &infos {
        let blob = from.open(&info.key)?;
        let checkpoint =
            Checkpoint::from_blob(Arc::clone(&blob), from.describe(&info.key), OpenOptions::new())?;
        checkpoint.verify()?;
        if !is_there(&to, info.name, &info.key, checkpoint.file_id())? {
            copy_object(&*blob, &to, &info.key, checkpoint.file_id())?;
            copied.push((info.name.to_string(), info.len));
        }
        if info.pinned {
            info.name.pin(&to)?;
        }
    }
    Ok(copied)
}

/// Whether the very same checkpoint is there. Another one under its name is an error: nothing is overwritten.
fn is_there(to: &Local, name: Name, key: &str, file_id: [u8; 16]) -> Result<bool> {
    let blob = match to.open(key) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        blob => blob?,
    };
    let there = Checkpoint::from_blob(blob, to.describe(key), OpenOptions::new())?;
    if there.file_id() == file_id {
        return Ok(true);
    }
    Err(Error::new(ErrorKind::AlreadyExists, format!("another checkpoint is named {name}"))
        .in_object(to.describe(key)))
}

fn copy_object(blob: &dyn Blob, to: &Local, key: &str, nonce: [u8; 16]) -> Result<()> {
    let mut upload = to.create(key, Some(blob.len()))?;
    let mut piece = vec![0; PIECE.min(blob.len() as usize)];
    let mut at = 0;
    while at < blob.len() {
        let len = (blob.len() - at).min(PIECE as u64) as usize;
        blob.read_at(at, &mut piece[..len])?;
        upload.append(&piece[..len])?;
        at += len as u64;
    }
    Ok(upload.commit(nonce)?)
}

/// `raw`, `zstd` or `zstd:LEVEL`.
pub fn parse_codec(text: &str) -> Result<Codec> {
    let level = match text.split_once(':') {
        None if text == "raw" => return Ok(Codec::Raw),
        None if text == "zstd" => Some(3),
        Some(("zstd", level)) => level.parse().ok(),
        _ => None,
    };
    let wrong =
        || Error::new(ErrorKind::Invalid, format!("codec {text:?}")).expected("raw, zstd or zstd:LEVEL");
    level.map(Codec::Zstd).ok_or_else(wrong)
}

pub fn repack(target: &str, output: &Output, codec: &str, json: bool) -> Done {
    let codec = parse_codec(codec)?;
    output::check_free(&output.output, output.force)?;
    let busy = parallel::busy("repacking", true);
    let checkpoint = Target::parse(target)?.open()?;
    let written = checkpoint.to_snapshot()?.save_with(&output.output, &WriteOptions::new().codec(codec))?;
    let again = Checkpoint::open(&output.output)?;
    same_bytes(&checkpoint, &again)?;
    drop(busy);
    let (before, after) = (checkpoint.len_bytes(), written.len);
    if json {
        let path = output.output.display().to_string();
        output::print_json(
            "repack",
            json!({ "source": checkpoint.name(), "output": path, "bytes_before": before, "bytes": after }),
        )?;
    } else {
        let share = 100.0 * after as f64 / before as f64;
        output::print(format!(
            "{}: {} instead of {} ({share:.0} %), compared bit for bit",
            output.output.display(),
            output::size(after),
            output::size(before)
        ))?;
    }
    Ok(Exit::Ok)
}

/// Every tensor, read from both.
fn same_bytes(left: &Checkpoint, right: &Checkpoint) -> Result<()> {
    for info in left.tensors() {
        let theirs = right.tensor(info.name)?;
        let mut same = theirs.bytes().len() as u64 == info.byte_len;
        left.visit_chunks(info.name, 0..info.chunks, |start, bytes| {
            same &= theirs.bytes().get(start as usize..start as usize + bytes.len()) == Some(bytes);
            Ok(())
        })?;
        if !same {
            return Err(Error::new(ErrorKind::Damaged, "what was written differs")
                .in_tensor(info.name)
                .in_object(right.name()));
        }
    }
    Ok(())
}

/// Exit code 0 when all was intact, 1 when something was lost.
pub fn salvage(target: &str, output: &Output, json: bool) -> Done {
    output::check_free(&output.output, output.force)?;
    let busy = parallel::busy("salvaging", true);
    let checkpoint = Target::parse(target)?.open()?;
    let (snapshot, lost) = checkpoint.salvage()?;
    let written = snapshot.save(&output.output)?;
    drop(busy);
    if json {
        let lost: Vec<String> = lost.iter().map(ToString::to_string).collect();
        let path = output.output.display().to_string();
        output::print_json(
            "salvage",
            json!({ "output": path, "tensors": written.tensors, "bytes": written.len, "lost": lost }),
        )?;
    } else {
        let mut lines = vec![format!("{}: {} tensors saved", output.output.display(), written.tensors)];
        lines.extend(lost.iter().map(|error| output::clean(&format!("lost: {error}"))));
        output::print(lines.join("\n"))?;
    }
    Ok(if lost.is_empty() { Exit::Ok } else { Exit::No })
}
