//! `show TARGET`: one checkpoint's tensors and records, from its index; tensors' bytes are read for
//! `--values` only.

use crate::answer::{Answer, Text};
use crate::args::{Show, Sort};
use crate::exit::Exit;
use crate::names::natural;
use crate::opened::{Meta, Opened};
use crate::output::Cell;
use crate::target::Target;
use crate::tree::Node;
use crate::{Done, numbers, output, records};
use serde_json::{Value as Json, json};
use std::collections::{HashMap, HashSet};
use tensorkeep::{Error, ErrorKind, Result, Value, inspect::SALVAGED, inspect::Scratch};

/// One checkpoint's contents. A record or a tensor that does not verify costs only itself.
pub struct Shown<'a> {
    args: &'a Show,
    opened: Opened,
    metas: Vec<Meta>,
    records: Vec<(String, Value)>,
    /// The first values of tensors by name, or why there are none.
    values: HashMap<String, Result<String>>,
    /// Records that cannot be read, and why.
    lost: Vec<(String, Error)>,
}

/// Opens one checkpoint and reads what is to be shown.
///
/// # Errors
/// As opening it, and `NotFound` for a pattern that nothing matches. The exit code is that of the
/// worst record, or of the worst tensor whose values were asked for.
pub fn run(args: &Show) -> Result<Shown<'_>> {
    let opened = Target::parse(&args.selected.target)?.look(args.selected.budget.get())?;
    let mut metas = opened.wanted(args.selected.only.as_deref())?;
    let (mut records, mut lost) = (Vec::new(), Vec::new());
    for (name, record) in opened.records() {
        match record {
            Ok(value) => records.push((name, value)),
            Err(error) => lost.push((name, error)),
        }
    }
    sort(&mut metas, args.sort.unwrap_or(Sort::Name));
    let values = values(&opened, &metas, args.values);
    Ok(Shown { args, opened, metas, records, values, lost })
}

impl Answer for Shown<'_> {
    fn schema(&self) -> &'static str {
        "show"
    }

    fn json(&self) -> Json {
        as_json(self)
    }

    fn text(&self) -> Result<Text<'_>> {
        let Self { args, opened, metas, records, lost, .. } = self;
        let mut text = summary(opened, metas, records);
        text.push_str("\n\n");
        text.push_str(&tensors(self));
        if !(records.is_empty() && lost.is_empty()) && args.selected.only.is_none() {
            let mut lines = vec![String::new(), output::bold("records")];
            let is_shown =
                |(name, _): &&(String, _)| args.all || !records::BOOKKEEPING.contains(&name.as_str());
            let shown: Vec<_> = records.iter().filter(is_shown).collect();
            let tensors: HashSet<&str> = metas.iter().map(|meta| &*meta.name).collect();
            for (name, value) in &shown {
                if let Some(left) = records::without_places(value, name, &|path| tensors.contains(path)) {
                    records::lines(name, &left, 0, &mut lines);
                }
            }
            if shown.len() < records.len() {
                let count = output::count(records.len() - shown.len(), "record");
                lines.push(format!("{count} of the library's own; --all shows them"));
            }
            lines.extend(lost.iter().map(|(name, error)| output::clean(&format!("{name}: {error}"))));
            text.push('\n');
            text.push_str(&lines.join("\n"));
        }
        Ok(Text::default().warnings(opened.warnings()).warnings(salvaged(records)).lines(text))
    }

    fn end(self: Box<Self>) -> Done {
        let records = self.lost.iter().map(|(_, error)| error);
        let tensors = self.metas.iter().filter_map(|meta| self.values.get(&meta.name)?.as_ref().err());
        // Values that are only too large to be shown are as they should be.
        let errors = records.chain(tensors).filter(|error| error.kind() != ErrorKind::LimitExceeded);
        Ok(Exit::worst(errors.map(Exit::from)).unwrap_or(Exit::Ok))
    }
}

/// Sorts tensors as `--sort` says.
pub fn sort(metas: &mut [Meta], by: Sort) {
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

/// What a salvaged file says of itself.
fn salvaged(records: &[(String, Value)]) -> Option<String> {
    let (_, record) = records.iter().find(|(name, _)| name == SALVAGED)?;
    let Value::Map(record) = record else { return None };
    let lost = match record.get("lost") {
        Some(Value::List(lost)) => lost.len(),
        _ => 0,
    };
    let from = match record.get("from") {
        Some(Value::Text(from)) => from,
        _ => "a damaged file",
    };
    Some(format!(
        "salvaged from {from}: {} could not be, see the record {SALVAGED}",
        output::count(lost, "thing")
    ))
}

/// Bytes of values, without aliases.
fn total(metas: &[Meta]) -> u64 {
    output::total(metas.iter().filter(|meta| meta.alias_of.is_none()).map(|meta| meta.byte_len))
}

fn summary(opened: &Opened, metas: &[Meta], records: &[(String, Value)]) -> String {
    let mut lines = vec![output::bold(&output::clean(opened.name()))];
    if let Opened::Foreign(foreign) = opened {
        lines.push(format!("format {}", foreign.format()));
    }
    let (values, len) = (output::size(total(metas)), output::size(opened.byte_len()));
    let tensors = output::count(metas.len(), "tensor");
    let own = metas.iter().filter(|meta| meta.alias_of.is_none()).map(Meta::count);
    let parameters = crate::report::int(own.sum());
    lines.push(format!("{tensors}, {parameters} values of {values}, in a file of {len}"));
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

/// Columns that go first where there is no room: how it is stored, its share, its size.
const LEAST: [usize; 3] = [5, 4, 3];

fn tensors(Shown { args, metas, values, .. }: &Shown<'_>) -> String {
    let all = total(metas).max(1);
    let share = |bytes: u64| format!("{:.1} %", 100.0 * bytes as f64 / all as f64);
    let row = |label: &str, meta: &Meta| {
        let bytes = if meta.alias_of.is_some() { 0 } else { meta.byte_len };
        let cells = [
            label.to_owned(),
            meta.dtype_text(),
            meta.shape_text(),
            output::size(meta.byte_len),
            share(bytes),
            meta.storage_text(),
        ];
        let mut row: Vec<Cell> = cells.map(Cell::from).into();
        let first = values.get(&meta.name);
        row.extend(first.map(|values| match values {
            Ok(text) => text.as_str().into(),
            Err(error) => Cell::red(error.kind().as_str()),
        }));
        row
    };
    let mut header = vec!["tensor", "dtype", "shape", "size", "share", "stored"];
    header.extend((args.values > 0).then_some("values"));
    if args.sort.is_some() {
        let rows = metas.iter().map(|meta| row(&meta.name, meta));
        return output::table_by_worth(&header, &[3, 4], &LEAST, rows);
    }
    let root = Node::of(metas);
    let rows =
        root.lines(!args.all, args.depth.unwrap_or(usize::MAX)).into_iter().map(|line| match line.leaf {
            Some(meta) => row(&line.label, meta),
            None => {
                let tensors = output::count(line.tensors, "tensor");
                let cells = [line.label, String::new(), tensors, output::size(line.bytes), share(line.bytes)];
                cells.map(Cell::from).into()
            }
        });
    output::table_by_worth(&header, &[3, 4], &LEAST, rows)
}

/// The first values of each tensor; only the first chunk is read.
fn values(opened: &Opened, metas: &[Meta], count: usize) -> HashMap<String, Result<String>> {
    let mut scratch = Scratch::default();
    let mut of = |meta: &Meta| {
        let dtype = meta.dtype.ok()?;
        let mut text = Vec::new();
        let read = opened.visit(meta, 0..1, &mut scratch, |_, bytes| {
            text.extend(bytes.chunks_exact(dtype.size()).take(count).map(|bytes| numbers::one(dtype, bytes)));
            Ok(())
        });
        let more = if (text.len() as u64) < meta.count() { ", …" } else { "" };
        Some((meta.name.clone(), read.map(|()| format!("{}{more}", text.join(", ")))))
    };
    if count == 0 { HashMap::new() } else { metas.iter().filter_map(&mut of).collect() }
}

fn as_json(Shown { opened, metas, records, values, lost, .. }: &Shown<'_>) -> Json {
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
            "values": values.get(&meta.name).and_then(|values| values.as_ref().ok()),
            "error": values.get(&meta.name).and_then(|values| values.as_ref().err()).map(output::error_in_json),
        })
    };
    let mut document = json!({
        "path": opened.name(),
        "bytes": opened.byte_len(),
        "tensors": metas.iter().map(tensor).collect::<Vec<_>>(),
        "records": records.iter().map(|(name, value)| (name.clone(), output::json_of(value))).collect::<serde_json::Map<_, _>>(),
        "records_lost": lost.iter().map(|(name, error)| (name.clone(), output::error_in_json(error))).collect::<serde_json::Map<_, _>>(),
    });
    let more = match opened {
        Opened::Own(checkpoint) => json!({
            "format": "tensorkeep",
            "file_id": checkpoint.inspect().file_id().iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
            "write_version": checkpoint.inspect().write_version(),
            "index_damage": checkpoint.inspect().index_damage().map(ToString::to_string),
        }),
        Opened::Foreign(foreign) => {
            json!({ "format": foreign.format().as_str(), "notes": opened.warnings() })
        }
    };
    if let (Some(object), Json::Object(more)) = (document.as_object_mut(), more) {
        object.extend(more);
    }
    document
}
