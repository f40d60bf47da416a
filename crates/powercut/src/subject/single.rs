//! One file in the safetensors format that each save replaces, by the calls of its writer.

use super::{Found, Life, live, weight_bytes};
use crate::Result;
use object_store::ObjectStoreExt as _;
use object_store::local::LocalFileSystem;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize, serialize_to_file};
use std::collections::HashMap;
use std::path::Path;

const FILE: &str = "model.safetensors";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    Safetensors,
    SafetensorsRename,
    ObjectStore { fsync: bool },
}

pub fn train(folder: &Path, life: Life, writer: Writer) -> Result<()> {
    let path = folder.join(FILE);
    let newest = std::fs::read(&path).ok().and_then(|bytes| step_of(&bytes)).unwrap_or(0);
    // object_store is async, but this future waits for no I/O driver: a bare runtime suffices.
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    live(life, newest, |step| {
        let bytes = weight_bytes(step);
        let tensors = [("weights", TensorView::new(Dtype::F32, vec![bytes.len() / 4], &bytes)?)];
        let metadata = Some(HashMap::from([("step".to_owned(), step.to_string())]));
        match writer {
            Writer::Safetensors => serialize_to_file(tensors, metadata, &path)?,
            Writer::SafetensorsRename => {
                let temporary = folder.join("temporary");
                serialize_to_file(tensors, metadata, &temporary)?;
                std::fs::rename(&temporary, &path)?;
            }
            Writer::ObjectStore { fsync } => {
                let store = LocalFileSystem::new_with_prefix(folder)?.with_fsync(fsync);
                let object = serialize(tensors, metadata)?;
                runtime.block_on(store.put(&FILE.into(), object.into()))?;
            }
        }
        Ok(())
    })
}

fn step_of(bytes: &[u8]) -> Option<u64> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).ok()?;
    metadata.metadata().as_ref()?.get("step")?.parse().ok()
}

pub fn check(folder: &Path, newest: u64) -> Result<Found, String> {
    let bytes = match std::fs::read(folder.join(FILE)) {
        Err(_) if newest == 0 => return Ok(Found::default()),
        bytes => bytes.map_err(|error| format!("the file is gone: {error}"))?,
    };
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| format!("the file is half: {error}"))?;
    let step = step_of(&bytes).ok_or("the file does not say its step")?;
    let tensor = tensors.tensor("weights").map_err(|error| error.to_string())?;
    if tensor.data() != weight_bytes(step) {
        return Err(format!("the file of step {step} holds other bytes"));
    }
    if step < newest {
        return Err(format!("step {newest} was saved, step {step} is there"));
    }
    Ok(Found::default())
}
