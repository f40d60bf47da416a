//! `edit`: a checkpoint or a foreign file as a checkpoint with other tensors in it: some of them,
//! under other names, in another width. One tensor at a time goes through memory.

use super::derived;
use crate::answer::{Answer, Text};
use crate::args::{Cast, Edit, Renaming};
use crate::exit::Exit;
use crate::opened::{Meta, Opened};
use crate::target::Target;
use crate::told::Told;
use crate::{Done, numbers, output, progress};
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use tensorkeep::convert::rename_meanings;
use tensorkeep::inspect::name_matches;
use tensorkeep::{Dtype, Error, ErrorKind, LazyTensor, Result, Snapshot, WriteOptions};

/// What the library keeps for itself.
const RESERVED: &str = "tensorkeep.";

/// What rebuilds a model; of no use where its tensors are not all there under their names.
const MODEL: &str = "tensorkeep.model";

/// What was written, and how it differs from the source.
pub struct Edited {
    source: String,
    output: String,
    tensors: usize,
    dropped: usize,
    renamed: usize,
    cast: usize,
    /// Those of them that were cast because a tensor is that they share their bytes with.
    cast_with: Vec<String>,
    /// How many values became infinite, by the tensor.
    overflowed: BTreeMap<String, u64>,
    told: Told,
    bytes: u64,
}

pub fn run(args: &Edit) -> Result<Edited> {
    let path = &args.output.output;
    derived::check_output(path, args.output.force)?;
    let mut opened = Target::parse(&args.target)?.look(args.budget.get())?;
    opened.keep_odd_bools()?;
    let metas = opened.tensors();
    let chosen = choose(args, &opened, &metas)?;
    args.budget.get().check(&opened, chosen.iter().map(|chosen| chosen.meta))?;
    let reading =
        progress::reading("editing", output::total(chosen.iter().map(|chosen| chosen.meta.byte_len)));
    let overflowed = Mutex::default();
    let snapshot = snapshot(args, &opened, &metas, &chosen, &overflowed)?;
    let written = snapshot.save_with(path, &WriteOptions::new().codec(args.codec.into()))?;
    drop((reading, snapshot));
    let count = |is: fn(&Chosen<'_>) -> bool| chosen.iter().filter(|chosen| is(chosen)).count();
    Ok(Edited {
        source: opened.name().to_owned(),
        output: path.display().to_string(),
        tensors: chosen.len(),
        dropped: metas.len() - chosen.len(),
        renamed: count(|chosen| chosen.name != chosen.meta.name),
        cast: count(|chosen| chosen.cast.is_some()),
        cast_with: chosen.iter().filter(|it| it.follows).map(|it| it.meta.name.clone()).collect(),
        overflowed: overflowed.into_inner().unwrap_or_else(PoisonError::into_inner),
        told: Told::of_file(&opened),
        bytes: written.byte_len,
    })
}

impl Answer for Edited {
    fn schema(&self) -> &'static str {
        "edit"
    }

    fn json(&self) -> Json {
        json!({
            "source": self.source, "output": self.output, "tensors": self.tensors, "dropped": self.dropped,
            "renamed": self.renamed, "cast": self.cast, "cast_with": self.cast_with, "overflowed": self.overflowed,
            "notes": self.told.json(), "lost": self.told.lost(), "bytes": self.bytes,
        })
    }

    fn text(&self) -> Result<Text<'_>> {
        let Self { output: path, dropped, renamed, cast, .. } = self;
        let tensors = output::count(self.tensors, "tensor");
        let len = output::size(self.bytes);
        let words = format!("{path}: {tensors}, {dropped} dropped, {renamed} renamed, {cast} cast, {len}");
        let overflowed = self.overflowed.iter().map(|(name, count)| {
            format!("{name}: {} became infinite", output::count(*count as usize, "value"))
        });
        let with =
            |name: &String| format!("{name}: cast too, as it is tied to a tensor that is; both stay tied");
        let text = self.told.add_to(Text::default()).lines(output::clean(&words)).warnings(overflowed);
        Ok(self.cast_with.iter().map(with).fold(text, Text::note))
    }

    fn end(self: Box<Self>) -> Done {
        let is_whole = self.overflowed.is_empty() && self.told.lost() == 0;
        Ok(if is_whole { Exit::Ok } else { Exit::No })
    }
}

/// One tensor that is wanted, and as what.
struct Chosen<'m> {
    meta: &'m Meta,
    name: String,
    cast: Option<Dtype>,
    /// Whether it is cast only because it shares its bytes with one that is.
    follows: bool,
}

/// The tensors that are wanted. Each flag must concern one at least: a pattern that fits nothing is
/// a mistake.
fn choose<'m>(args: &Edit, opened: &Opened, metas: &'m [Meta]) -> Result<Vec<Chosen<'m>>> {
    let records = opened.record_names();
    for pattern in args.only.iter().chain(&args.drop) {
        if !records.iter().any(|record| name_matches(pattern, record)) {
            opened.wanted(Some(pattern.as_str()))?;
        }
    }
    let is_wanted = |meta: &&Meta| selects(args, &meta.name);
    let mut chosen: Vec<Chosen<'m>> = metas
        .iter()
        .filter(is_wanted)
        .map(|meta| Chosen { meta, name: meta.name.clone(), cast: cast(args, meta), follows: false })
        .collect();
    if chosen.is_empty() {
        return Err(nothing("no tensor is left", opened).help("--drop takes out what --only has chosen"));
    }
    for prefix in &args.strip_prefix {
        let stripped = |name: &str| name.strip_prefix(prefix.as_str()).map(str::to_owned);
        if !rename(&mut chosen, stripped) {
            return Err(nothing(&format!("no tensor's name begins with {prefix:?}"), opened));
        }
    }
    for Renaming { pattern, new } in &args.rename {
        let replaced =
            |name: &str| pattern.is_match(name).then(|| pattern.replace_all(name, new.as_str()).into_owned());
        if !rename(&mut chosen, replaced) {
            return Err(nothing(&format!("no tensor's name fits {:?}", pattern.as_str()), opened));
        }
    }
    for cast in &args.cast {
        let fits = |chosen: &&Chosen<'_>| fits(cast.pattern.as_ref(), &chosen.meta.name);
        if !chosen.iter().filter(fits).any(|chosen| is_float(chosen.meta)) {
            return Err(not_cast(cast, chosen.iter().find(fits), opened));
        }
    }
    cast_together(args, &mut chosen).map_err(|error| error.in_object(opened.name()))?;
    Ok(chosen)
}

/// Tensors that share their bytes are cast together, and stay tied.
fn cast_together(args: &Edit, chosen: &mut [Chosen<'_>]) -> Result<()> {
    let mut wanted: BTreeMap<&str, (&Meta, Dtype)> = BTreeMap::new();
    for meta in chosen.iter().map(|chosen| chosen.meta) {
        let Some(dtype) = wanted_dtype(args, meta) else { continue };
        let (first, before) = *wanted.entry(owner(meta)).or_insert((meta, dtype));
        if before != dtype {
            let what = format!("{:?} is tied to it and would be {before}, it {dtype}", first.name);
            return Err(Error::new(ErrorKind::Invalid, what)
                .in_tensor(&meta.name)
                .help("both have the same bytes: cast both to the same dtype, or drop one"));
        }
    }
    for chosen in chosen.iter_mut().filter(|chosen| wanted_dtype(args, chosen.meta).is_none()) {
        let dtype = wanted.get(owner(chosen.meta)).map(|(_, dtype)| *dtype);
        chosen.cast = dtype.filter(|dtype| chosen.meta.dtype != Ok(*dtype));
        chosen.follows = chosen.cast.is_some();
    }
    Ok(())
}

/// The tensor that has the bytes.
fn owner(meta: &Meta) -> &str {
    meta.alias_of.as_ref().unwrap_or(&meta.name)
}

/// The error for a `--cast` that concerns no float: `first` is a tensor that fits its pattern.
fn not_cast(cast: &Cast, first: Option<&Chosen<'_>>, opened: &Opened) -> Error {
    let Cast { dtype, pattern } = cast;
    let pattern = pattern.as_deref().unwrap_or("*");
    let Some(Chosen { meta, .. }) = first else {
        return nothing(&format!("no tensor fits {pattern:?}, to be cast to {dtype}"), opened);
    };
    let of = meta.dtype.as_ref().map_or("unknown", |dtype| dtype.name());
    let what = format!("{:?} fits {pattern:?}, but its dtype, {of}, cannot be cast to {dtype}", meta.name);
    Error::new(ErrorKind::NotFound, what)
        .in_object(opened.name())
        .help("only f16, bf16, f32 and f64 are cast")
}

fn nothing(what: &str, opened: &Opened) -> Error {
    Error::new(ErrorKind::NotFound, what.to_owned())
        .in_object(opened.name())
        .help("list the names with `tensorkeep show`")
}

/// Whether a tensor or a record of this name is wanted.
fn selects(args: &Edit, name: &str) -> bool {
    let matches = |pattern: &String| name_matches(pattern, name);
    (args.only.is_empty() || args.only.iter().any(matches)) && !args.drop.iter().any(matches)
}

fn fits(pattern: Option<&String>, name: &str) -> bool {
    pattern.is_none_or(|pattern| name_matches(pattern, name))
}

fn is_float(meta: &Meta) -> bool {
    matches!(meta.dtype, Ok(Dtype::F16 | Dtype::Bf16 | Dtype::F32 | Dtype::F64))
}

/// The dtype that is asked for; the last that was given counts.
fn wanted_dtype(args: &Edit, meta: &Meta) -> Option<Dtype> {
    let mut fitting = args.cast.iter().filter(|cast| fits(cast.pattern.as_ref(), &meta.name));
    Some(fitting.next_back().filter(|_| is_float(meta))?.dtype)
}

/// The dtype that a tensor gets. None where it has it already.
fn cast(args: &Edit, meta: &Meta) -> Option<Dtype> {
    wanted_dtype(args, meta).filter(|dtype| meta.dtype != Ok(*dtype))
}

/// Whether one of the names has changed.
fn rename(chosen: &mut [Chosen<'_>], new: impl Fn(&str) -> Option<String>) -> bool {
    let mut is_found = false;
    for chosen in chosen {
        if let Some(name) = new(&chosen.name) {
            (chosen.name, is_found) = (name, true);
        }
    }
    is_found
}

fn snapshot<'o>(
    args: &Edit,
    opened: &'o Opened,
    metas: &[Meta],
    chosen: &[Chosen<'_>],
    overflowed: &'o Overflowed,
) -> Result<Snapshot<'o>> {
    let names: BTreeMap<&str, &str> = chosen.iter().map(|it| (&*it.meta.name, &*it.name)).collect();
    let mut snapshot = opened.snapshot()?;
    let mut cast = BTreeSet::new();
    for (chosen, dtype) in chosen.iter().filter_map(|chosen| Some((chosen, chosen.cast?))) {
        // Aliases follow their tensor, so it is cast before it may go.
        let name = owner(chosen.meta);
        if cast.insert(name) {
            snapshot = snapshot.replace(name, lazily(opened, name, &chosen.meta.shape, dtype, overflowed))?;
        }
    }
    let dropped = metas.iter().map(|meta| &*meta.name).filter(|name| !names.contains_key(name));
    snapshot = snapshot.remove_all(dropped)?;
    snapshot = snapshot.rename_tensors(|name| names.get(name).map_or(name, |new| *new).to_owned())?;
    let is_model = |name: &str| name.starts_with("model/");
    let is_changed = |meta: &Meta| names.get(&*meta.name).is_none_or(|new| **new != *meta.name);
    for record in opened.record_names() {
        let is_reserved = record.starts_with(RESERVED);
        let is_broken = record == MODEL && metas.iter().any(|meta| is_model(&meta.name) && is_changed(meta));
        if is_broken || (!is_reserved && !selects(args, record)) {
            snapshot = snapshot.remove_record(record);
        }
    }
    let before = derived::metadata(opened, args.words(), vec![opened.name().to_owned()])?;
    let new = |meta: &Meta| names.get(&*meta.name).map(|new| (*new).to_owned());
    let renamed = metas.iter().map(|meta| (meta.name.clone(), new(meta))).collect();
    let metadata = rename_meanings(before.clone(), &renamed);
    for key in before.keys().filter(|key| !metadata.contains_key(*key)) {
        snapshot = snapshot.remove_metadata(key);
    }
    let set = args.set.iter().cloned();
    metadata.into_iter().chain(set).try_fold(snapshot, |snapshot, (key, value)| snapshot.metadata(key, value))
}

/// The tensor in another width, when it is its turn to be written.
fn lazily<'o>(
    opened: &'o Opened,
    name: &str,
    shape: &[u64],
    dtype: Dtype,
    overflowed: &'o Overflowed,
) -> LazyTensor<'o> {
    // OK to cast: what does not fit in memory is an error when it is read.
    let shape: Vec<usize> = shape.iter().map(|&dim| dim as usize).collect();
    let name = name.to_owned();
    LazyTensor::new(dtype, &shape, move || {
        let tensor = opened.tensor(&name)?;
        let before = numbers::not_finite(tensor.dtype(), tensor.bytes());
        let cast = tensor.cast(dtype)?;
        let more = numbers::not_finite(dtype, cast.bytes()).saturating_sub(before);
        if more > 0 {
            overflowed.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), more);
        }
        Ok(cast)
    })
}

/// Values that became infinite, by the tensor.
type Overflowed = Mutex<BTreeMap<String, u64>>;

impl Edit {
    /// What was asked for, to be recorded in the result.
    fn words(&self) -> String {
        let flag = |flag: &'static str, value: String| format!(" --{flag} '{value}'");
        let only = self.only.iter().map(|glob| flag("only", glob.clone()));
        let drop = self.drop.iter().map(|glob| flag("drop", glob.clone()));
        let strip = self.strip_prefix.iter().map(|prefix| flag("strip-prefix", prefix.clone()));
        let rename = self.rename.iter().map(|renaming| flag("rename", renaming.to_string()));
        let cast = self.cast.iter().map(|cast| flag("cast", cast.to_string()));
        let set = self.set.iter().map(|(key, value)| flag("set", format!("{key}={value}")));
        let flags = only.chain(drop).chain(strip).chain(rename).chain(cast).chain(set);
        std::iter::once("edit".to_owned()).chain(flags).collect()
    }
}
