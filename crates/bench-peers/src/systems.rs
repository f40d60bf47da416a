//! The formats, behind one trait, so that every one does the same work. Owns: how each is saved, opened, touched and
//! loaded the way its documentation says. Knows nothing of time.
#![expect(unsafe_code, reason = "mapping rests on a promise; see SAFETY at each place")]

use crate::weights::{Model, Weights};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use std::error::Error;
use std::fs::{self, File};
use std::hint::black_box;
use std::path::Path;
use tensorkeep::engine::Unchanging;
use tensorkeep::{Checkpoint, OpenOptions, Snapshot, Verify};
use ztensor::{DType, Source, Writer};

/// Whatever a format says when it fails.
pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// One format, in one configuration.
pub trait System {
    /// As it stands in the rows.
    fn name(&self) -> &'static str;
    /// Its file's extension. Systems with the same one share the file.
    fn extension(&self) -> &'static str;
    /// Writes the file, durably: when this returns, a power cut does not take it away.
    fn save(&self, model: &Model, path: &Path) -> Outcome<()>;
    /// Opens the file and looks at every name and shape. Returns the number of elements.
    fn open(&self, path: &Path) -> Outcome<u64>;
    /// Opens the file mapped and reads every byte of every tensor. Returns their [`sum`].
    fn touch(&self, path: &Path) -> Outcome<u64>;
    /// Loads every tensor into memory of its own. Returns the number of bytes.
    fn load_owned(&self, path: &Path) -> Outcome<u64>;
}

/// All systems, ours first.
pub fn all() -> Vec<Box<dyn System>> {
    vec![
        Box::new(Tensorkeep { verify: Verify::OnTouch }),
        Box::new(Tensorkeep { verify: Verify::Never }),
        Box::new(Safetensors),
        Box::new(Ztensor { verify: false }),
        Box::new(Ztensor { verify: true }),
    ]
}

/// Reads every byte: the wrapping sum of its 64-bit words. The same loop for everybody.
pub fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = black_box(bytes).as_chunks::<8>();
    let words = words.iter().fold(0, |sum: u64, word| sum.wrapping_add(u64::from_le_bytes(*word)));
    black_box(rest.iter().fold(words, |sum, &byte| sum.wrapping_add(u64::from(byte))))
}

/// What [`System::touch`] must return.
pub fn expected_sum(model: &Model) -> u64 {
    model.iter().map(bytes_of).fold(0, |total, bytes| total.wrapping_add(sum(bytes)))
}

fn bytes_of(weights: &Weights) -> &[u8] {
    bytemuck::cast_slice(&weights.elements)
}

/// Fsyncs a written file, gives it its name, fsyncs the folder: what the peers leave to their users.
fn publish(written: &Path, path: &Path) -> Outcome<()> {
    File::options().write(true).open(written)?.sync_all()?;
    fs::rename(written, path)?;
    Ok(File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?)
}

struct Tensorkeep {
    verify: Verify,
}

impl Tensorkeep {
    fn map(&self, path: &Path) -> Outcome<Checkpoint> {
        // SAFETY: the file is in this program's own folder. It is replaced by rename when it is saved again, and never
        // written to or truncated while it is mapped.
        let promise = unsafe { Unchanging::assume() };
        Ok(Checkpoint::map_with(path, OpenOptions::new().verify(self.verify), promise)?)
    }
}

impl System for Tensorkeep {
    fn name(&self) -> &'static str {
        if self.verify == Verify::Never { "tensorkeep, unverified" } else { "tensorkeep, verified" }
    }

    fn extension(&self) -> &'static str {
        "tkeep"
    }

    fn save(&self, model: &Model, path: &Path) -> Outcome<()> {
        let mut snapshot = Snapshot::new();
        for weights in model {
            snapshot.tensor(&weights.name, (&weights.shape[..], weights.elements.as_slice()))?;
        }
        snapshot.save(path)?;
        Ok(())
    }

    fn open(&self, path: &Path) -> Outcome<u64> {
        let checkpoint = self.map(path)?;
        let tensors = checkpoint.tensors().map(|info| black_box((info.name, info.shape)).1);
        Ok(tensors.map(|shape| shape.iter().product::<u64>()).sum())
    }

    fn touch(&self, path: &Path) -> Outcome<u64> {
        let checkpoint = self.map(path)?;
        checkpoint.names().try_fold(0_u64, |total, name| {
            Ok(total.wrapping_add(sum(checkpoint.require_mapped(name)?.bytes())))
        })
    }

    fn load_owned(&self, path: &Path) -> Outcome<u64> {
        let checkpoint = Checkpoint::open_with(path, OpenOptions::new().verify(self.verify))?;
        let tensors =
            checkpoint.names().map(|name| checkpoint.tensor(name)).collect::<Result<Vec<_>, _>>()?;
        Ok(black_box(tensors).iter().map(|tensor| tensor.bytes().len() as u64).sum())
    }
}

struct Safetensors;

impl Safetensors {
    fn map(path: &Path) -> Outcome<memmap2::Mmap> {
        let file = File::open(path)?;
        // SAFETY: as in `Tensorkeep::map`.
        Ok(unsafe { memmap2::Mmap::map(&file) }?)
    }
}

impl System for Safetensors {
    fn name(&self) -> &'static str {
        "safetensors"
    }

    fn extension(&self) -> &'static str {
        "safetensors"
    }

    fn save(&self, model: &Model, path: &Path) -> Outcome<()> {
        let mut views = Vec::with_capacity(model.len());
        for weights in model {
            let view = TensorView::new(Dtype::F32, weights.shape.clone(), bytes_of(weights))?;
            views.push((&weights.name, view));
        }
        let unpublished = path.with_extension("unpublished");
        serialize_to_file(views, None, &unpublished)?;
        publish(&unpublished, path)
    }

    fn open(&self, path: &Path) -> Outcome<u64> {
        let map = Self::map(path)?;
        let tensors = SafeTensors::deserialize(&map)?;
        Ok(tensors
            .iter()
            .map(|(name, view)| black_box((name, view)).1.shape().iter().product::<usize>() as u64)
            .sum())
    }

    fn touch(&self, path: &Path) -> Outcome<u64> {
        let map = Self::map(path)?;
        let tensors = SafeTensors::deserialize(&map)?;
        Ok(tensors.iter().fold(0, |total, (_, view)| total.wrapping_add(sum(view.data()))))
    }

    fn load_owned(&self, path: &Path) -> Outcome<u64> {
        let map = Self::map(path)?;
        let tensors: Vec<Vec<u8>> =
            SafeTensors::deserialize(&map)?.iter().map(|(_, view)| view.data().to_vec()).collect();
        Ok(black_box(tensors).iter().map(|bytes| bytes.len() as u64).sum())
    }
}

struct Ztensor {
    verify: bool,
}

impl Ztensor {
    /// With 64 KiB for each tensor, its default, 100,000 small ones would be a file of 6.5 GB; 4 KiB is its least.
    const SMALL_PLACEMENT_FROM: usize = 10_000;

    fn check(&self, tensor: &ztensor::Tensor<'_>) -> Outcome<()> {
        if self.verify && !tensor.verify()?.is_checked() {
            return Err("a tensor without a digest".into());
        }
        Ok(())
    }
}

impl System for Ztensor {
    fn name(&self) -> &'static str {
        if self.verify { "ztensor, verified" } else { "ztensor" }
    }

    fn extension(&self) -> &'static str {
        "zt"
    }

    fn save(&self, model: &Model, path: &Path) -> Outcome<()> {
        let unpublished = path.with_extension("unpublished");
        let options = match model.len() < Self::SMALL_PLACEMENT_FROM {
            true => Writer::options(),
            false => Writer::options().canonical(false).align(4096),
        };
        let mut writer = options.create(&unpublished)?;
        for weights in model {
            let shape: Vec<u64> = weights.shape.iter().map(|&dim| dim as u64).collect();
            writer.add(&weights.name, shape, DType::F32, bytes_of(weights))?;
        }
        // Fsyncs, too; doing so twice costs nothing the second time.
        writer.finish()?;
        publish(&unpublished, path)
    }

    fn open(&self, path: &Path) -> Outcome<u64> {
        let source = Source::open(path)?;
        Ok(source
            .tensors()
            .map(|tensor| black_box((tensor.name(), tensor.shape())).1.iter().product::<u64>())
            .sum())
    }

    fn touch(&self, path: &Path) -> Outcome<u64> {
        let source = Source::open(path)?;
        source.tensors().try_fold(0_u64, |total, tensor| {
            self.check(&tensor)?;
            Ok(total.wrapping_add(sum(tensor.data()?.map()?)))
        })
    }

    fn load_owned(&self, path: &Path) -> Outcome<u64> {
        let source = Source::open(path)?;
        let load = |tensor: ztensor::Tensor<'_>| {
            self.check(&tensor)?;
            Ok(tensor.data()?.bytes()?.into_owned())
        };
        let tensors = source.tensors().map(load).collect::<Outcome<Vec<Vec<u8>>>>()?;
        Ok(black_box(tensors).iter().map(|bytes| bytes.len() as u64).sum())
    }
}
