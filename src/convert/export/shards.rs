//! Writes one safetensors file, or several and their index, named as by Hugging Face's libraries.

use super::safetensors::Plan;
use super::{ExportOptions, Input, check_free, stage};
use crate::engine::Upload;
use crate::engine::local::Staged;
use crate::error::{Error, Result};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Writes all files, compares each, and then renames them, the index last.
///
/// # Errors
/// Errors of writing and reading. Nothing is renamed before all files were compared; a power cut
/// between two renames leaves new shards beside old ones, and the old index. A file at `path` goes
/// when several shards replace it.
pub fn write(
    input: Input<'_>,
    path: &Path,
    plans: &[Plan<'_>],
    options: &ExportOptions,
) -> Result<Vec<PathBuf>> {
    let mut files = names(path, plans.len())?;
    check_free(files.iter().map(PathBuf::as_path).chain([path]), options)?;
    let mut staged = Vec::new();
    for (file, plan) in files.iter().zip(plans) {
        let write = |upload: &mut dyn Upload| write_one(input, plan, upload);
        staged.push(stage(input, file, &plan.header, plan.len, &plan.written, write)?);
    }
    if plans.len() > 1 {
        let text = index(&files, plans)?;
        let path = files.last().cloned().unwrap_or_default();
        let written = Staged::write(&path, Some(text.len() as u64), |upload| upload.append(&text));
        staged.push(written.map_err(|error| error.in_object(path.display()))?);
    }
    for (staged, file) in staged.into_iter().zip(&files) {
        staged.publish().map_err(|error| error.in_object(file.display()))?;
    }
    // Loaders prefer one file to an index beside it: an older one would hide what was written.
    if plans.len() > 1 && path.is_file() {
        std::fs::remove_file(path)
            .map_err(|error| Error::io("removing the file that shards replace", error))
            .map_err(|error| error.in_object(path.display()))?;
    }
    files.dedup();
    Ok(files)
}

fn write_one(input: Input<'_>, plan: &Plan<'_>, upload: &mut dyn Upload) -> Result<()> {
    upload.append(&plan.header)?;
    for written in &plan.written {
        input.visit(&written.item, |_, bytes| upload.append(bytes))?;
    }
    Ok(())
}

/// `model-00001-of-00002.safetensors` and so on beside `model.safetensors`, then
/// `model.safetensors.index.json`.
fn names(path: &Path, count: usize) -> Result<Vec<PathBuf>> {
    if count == 1 {
        return Ok(vec![path.to_owned()]);
    }
    let leaf = path.file_name().and_then(|leaf| leaf.to_str());
    let leaf =
        leaf.ok_or_else(|| Error::invalid("an index can hold no such name").in_object(path.display()))?;
    let stem = leaf.strip_suffix(".safetensors").unwrap_or(leaf);
    let shard = |number: usize| path.with_file_name(format!("{stem}-{number:05}-of-{count:05}.safetensors"));
    Ok((1..=count).map(shard).chain([path.with_file_name(format!("{leaf}.index.json"))]).collect())
}

fn index(files: &[PathBuf], plans: &[Plan<'_>]) -> Result<Vec<u8>> {
    let mut weight_map = BTreeMap::new();
    let mut total = 0_u64;
    for (file, plan) in files.iter().zip(plans) {
        let leaf = file.file_name().and_then(|leaf| leaf.to_str()).unwrap_or_default();
        for written in &plan.written {
            weight_map.insert(written.name.as_str(), leaf);
            total = total.saturating_add(written.item.byte_len);
        }
    }
    let index = json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
    let mut text = serde_json::to_vec_pretty(&index)
        .map_err(|error| Error::invalid("the index cannot be JSON").because(error))?;
    text.push(b'\n');
    Ok(text)
}
