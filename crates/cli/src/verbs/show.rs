//! `show TARGET`: one checkpoint's tensors and records, from its index; no tensor's bytes are read.

use crate::exit::Exit;
use crate::target::Target;
use crate::{Done, output};
use serde_json::json;
use tensorkeep::{Checkpoint, Result, TensorInfo};

/// Shows one checkpoint.
///
/// # Errors
/// As opening it; `Damaged` for a record that does not verify.
pub fn run(target: &str, json: bool) -> Done {
    let checkpoint = Target::parse(target)?.open()?;
    let records: Vec<_> = checkpoint
        .records()
        .map(|name| Ok((name.to_owned(), output::json_of(&checkpoint.record_value(name)?))))
        .collect::<Result<_>>()?;
    if json {
        output::print_json("show", as_json(&checkpoint, records))?;
        return Ok(Exit::Ok);
    }
    output::print(summary(&checkpoint)?)?;
    if let Some(damage) = checkpoint.index_damage() {
        eprintln!("warning: opened by the index's mirror: {damage}");
    }
    let rows = checkpoint.tensors().map(|info| {
        vec![info.name.to_owned(), dtype(&info), shape(&info), output::size(info.byte_len), storage(&info)]
    });
    output::print("")?;
    output::print(output::table(&["tensor", "dtype", "shape", "size", "stored"], &[3], rows))?;
    if !records.is_empty() {
        output::print("")?;
        let rows = records.into_iter().map(|(name, value)| vec![name, shorten(&value.to_string())]);
        output::print(output::table(&["record", "value"], &[], rows))?;
    }
    Ok(Exit::Ok)
}

fn summary(checkpoint: &Checkpoint) -> Result<String> {
    let values: u64 =
        checkpoint.tensors().filter(|info| info.alias_of.is_none()).map(|info| info.byte_len).sum();
    let mut lines = vec![
        checkpoint.name().to_owned(),
        format!(
            "{} tensors, {} of values in {}",
            checkpoint.names().count(),
            output::size(values),
            output::size(checkpoint.len_bytes())
        ),
    ];
    if let Some(progress) = checkpoint.progress()? {
        lines.push(format!("step {}, epoch {}", progress.step, progress.epoch));
    }
    lines.extend(checkpoint.metrics()?.iter().map(|(name, value)| format!("{name} {value}")));
    lines.extend(checkpoint.metadata()?.iter().map(|(key, value)| format!("{key}: {value}")));
    Ok(lines.join("\n"))
}

fn as_json(checkpoint: &Checkpoint, records: Vec<(String, serde_json::Value)>) -> serde_json::Value {
    let tensors: Vec<_> = checkpoint
        .tensors()
        .map(|info| {
            json!({
                "name": info.name,
                "dtype": dtype(&info),
                "shape": info.shape,
                "bytes": info.byte_len,
                "stored_bytes": info.stored_len,
                "offset": info.offset,
                "chunks": info.chunks,
                "raw": info.raw,
                "alias_of": info.alias_of,
            })
        })
        .collect();
    json!({
        "path": checkpoint.name(),
        "bytes": checkpoint.len_bytes(),
        "file_id": checkpoint.file_id().iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        "write_version": checkpoint.write_version(),
        "index_damage": checkpoint.index_damage().map(ToString::to_string),
        "tensors": tensors,
        "records": records.into_iter().collect::<serde_json::Map<_, _>>(),
    })
}

fn dtype(info: &TensorInfo<'_>) -> String {
    info.dtype.map_or_else(|id| format!("unknown ({id})"), |dtype| dtype.to_string())
}

fn shape(info: &TensorInfo<'_>) -> String {
    let dims: Vec<String> = info.shape.iter().map(u64::to_string).collect();
    format!("[{}]", dims.join(", "))
}

fn storage(info: &TensorInfo<'_>) -> String {
    match info.alias_of {
        Some(other) => format!("= {other}"),
        None if info.byte_len == 0 => "empty".to_owned(),
        None if info.raw => "raw".to_owned(),
        None => format!("{:.0} %", 100.0 * info.stored_len as f64 / info.byte_len as f64),
    }
}

/// A line's worth of a record.
fn shorten(text: &str) -> String {
    const LINE: usize = 100;
    if text.chars().count() <= LINE {
        return text.to_owned();
    }
    text.chars().take(LINE - 1).chain(['…']).collect()
}
