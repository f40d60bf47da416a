//! `show TARGET`: one checkpoint's tensors and records, from its index; tensors' bytes are read for `--values` only.

use crate::args::{Show, Sort};
use crate::exit::Exit;
use crate::names::natural;
use crate::opened::{Meta, Opened};
use crate::target::Target;
use crate::tree::Node;
use crate::{Done, numbers, output, records};
use serde_json::json;
use std::collections::HashMap;
use tensorkeep::{Result, Scratch, Value};

/// Shows one checkpoint.
///
/// # Errors
/// As opening it; `Damaged` for a record that does not verify.
pub fn run(args: &Show, json: bool) -> Done {
    let opened = Target::parse(&args.selected.target)?.look()?;
    let records = opened.readable_records()?;
    let mut metas = opened.tensors(args.selected.only.as_deref());
    sort(&mut metas, args.sort.unwrap_or(Sort::Name));
    if json {
        output::print_json("show", as_json(&opened, &metas, &records, args.values)?)?;
        return Ok(Exit::Ok);
    }
    opened.warnings().iter().for_each(output::warn);
    let mut text = summary(&opened, &metas, &records);
    text.push_str("\n\n");
    text.push_str(&tensors(&opened, &metas, args)?);
    if !records.is_empty() && args.selected.only.is_none() {
        let mut lines = vec![String::new(), output::bold("records")];
        records.iter().for_each(|(name, value)| records::lines(name, value, 0, &mut lines));
        text.push('\n');
        text.push_str(&lines.join("\n"));
    }
    output::print(text)?;
    Ok(Exit::Ok)
}

fn sort(metas: &mut [Meta], by: Sort) {
    match by {
        Sort::Name => metas.sort_by(|a, b| natural(&a.name, &b.name)),
        Sort::Size => {
            metas.sort_by(|a, b| b.byte_len.cmp(&a.byte_len).then_with(|| natural(&a.name, &b.name)))
        }
        Sort::Dtype => {
            let key = |meta: &Meta| meta.dtype_text();
            metas.sort_by(|a, b| key(a).cmp(&key(b)).then_with(|| natural(&a.name, &b.name)));
        }
    }
}

/// Bytes of values, ties counted once.
fn total(metas: &[Meta]) -> u64 {
    metas.iter().filter(|meta| meta.alias_of.is_none()).map(|meta| meta.byte_len).sum()
}

fn summary(opened: &Opened, metas: &[Meta], records: &[(String, Value)]) -> String {
    let mut lines = vec![output::bold(&output::clean(opened.name()))];
    if let Opened::Foreign(foreign) = opened {
        lines.push(format!("format {}", foreign.format()));
    }
    let (values, len) = (output::size(total(metas)), output::size(opened.len_bytes()));
    let tensors = output::count(metas.len(), "tensor");
    lines.push(format!("{tensors}, {values} of values in {len}"));
    let field = |record: &str, field: &str| {
        let (_, value) = records.iter().find(|(name, _)| name == record)?;
        let Value::Map(map) = value else { return None };
        Some(output::clean(&map.get(field)?.to_string()))
    };
    if let Some(step) = field("tensorkeep.progress", "step") {
        let epoch = field("tensorkeep.progress", "epoch").unwrap_or_default();
        lines.push(format!("step {step}, epoch {epoch}"));
    }
    lines.join("\n")
}

fn tensors(opened: &Opened, metas: &[Meta], args: &Show) -> Result<String> {
    let all = total(metas).max(1);
    let share = |bytes: u64| format!("{:.1} %", 100.0 * bytes as f64 / all as f64);
    let values = values(opened, metas, args.values)?;
    let row = |label: &str, meta: &Meta| {
        let bytes = if meta.alias_of.is_some() { 0 } else { meta.byte_len };
        let mut row = vec![
            label.to_owned(),
            meta.dtype_text(),
            meta.shape_text(),
            output::size(meta.byte_len),
            share(bytes),
            meta.storage_text(),
        ];
        row.extend(values.get(meta.name.as_str()).cloned());
        row
    };
    let mut header = vec!["tensor", "dtype", "shape", "size", "share", "stored"];
    header.extend((args.values > 0).then_some("values"));
    if args.sort.is_some() {
        return Ok(output::table(&header, &[3, 4], metas.iter().map(|meta| row(&meta.name, meta))));
    }
    let root = Node::of(metas);
    let rows = root.lines().into_iter().map(|line| match line.leaf {
        Some(meta) => row(&line.label, meta),
        None => vec![
            line.label,
            String::new(),
            output::count(line.tensors, "tensor"),
            output::size(line.bytes),
            share(line.bytes),
        ],
    });
    Ok(output::table(&header, &[3, 4], rows))
}

/// The first values of each tensor; only the first chunk is read.
fn values<'m>(opened: &Opened, metas: &'m [Meta], count: usize) -> Result<HashMap<&'m str, String>> {
    let (mut found, mut scratch) = (HashMap::new(), Scratch::default());
    for meta in metas.iter().filter(|_| count > 0) {
        let Ok(dtype) = meta.dtype else { continue };
        let mut text = Vec::new();
        opened.visit(&meta.name, 0..1, &mut scratch, |_, bytes| {
            text.extend(bytes.chunks_exact(dtype.size()).take(count).map(|bytes| numbers::one(dtype, bytes)));
            Ok(())
        })?;
        let more = if (text.len() as u64) < meta.count() { ", …" } else { "" };
        found.insert(meta.name.as_str(), format!("{}{more}", text.join(", ")));
    }
    Ok(found)
}

fn as_json(
    opened: &Opened,
    metas: &[Meta],
    records: &[(String, Value)],
    count: usize,
) -> Result<serde_json::Value> {
    let values = values(opened, metas, count)?;
    let tensor = |meta: &Meta| {
        json!({
            "name": meta.name,
            "dtype": meta.dtype_text(),
            "shape": meta.shape,
            "bytes": meta.byte_len,
            "stored_bytes": meta.stored_len,
            "offset": meta.offset,
            "chunks": meta.chunks,
            "raw": meta.raw,
            "alias_of": meta.alias_of,
            "values": values.get(meta.name.as_str()),
        })
    };
    let mut document = json!({
        "path": opened.name(),
        "bytes": opened.len_bytes(),
        "tensors": metas.iter().map(tensor).collect::<Vec<_>>(),
        "records": records.iter().map(|(name, value)| (name.clone(), output::json_of(value))).collect::<serde_json::Map<_, _>>(),
    });
    let more = match opened {
        Opened::Own(checkpoint) => json!({
            "format": "tensorkeep",
            "file_id": checkpoint.file_id().iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
            "write_version": checkpoint.write_version(),
            "index_damage": checkpoint.index_damage().map(ToString::to_string),
        }),
        Opened::Foreign(foreign) => {
            json!({ "format": foreign.format().as_str(), "notes": opened.warnings() })
        }
    };
    if let (Some(object), serde_json::Value::Object(more)) = (document.as_object_mut(), more) {
        object.extend(more);
    }
    Ok(document)
}
