//! `get TARGET TENSOR[slice]`: values to a .npy file, as text, or to the screen. Reads only the
//! chunks that hold what is asked for, so that a slice of a large file is quick, and damage
//! elsewhere is in nobody's way.

mod cut;

use crate::args::Get;
use crate::exit::Exit;
use crate::opened::{Meta, Opened};
use crate::target::Target;
use crate::{Done, numbers, output};
use cut::Cuts;
use serde_json::json;
use std::path::Path;
use tensorkeep::convert::npy_bytes;
use tensorkeep::engine::replace_file;
use tensorkeep::{Dtype, Error, ErrorKind, Result, Tensor, tensor::Buffer};

/// Values printed without `--output`.
const PRINTED: u64 = 1000;

pub fn run(args: &Get, json: bool) -> Done {
    let to_stdout = args.output.as_deref().is_some_and(output::is_stdout);
    let path = args.output.as_deref().filter(|_| !to_stdout);
    if let Some(path) = path {
        output::check_free(path, args.force)?;
    }
    if to_stdout && json {
        return Err(Error::new(ErrorKind::Invalid, "stdout cannot be both the file and the JSON document")
            .help("leave out --json, or name a file"));
    }
    let opened = Target::parse(&args.target)?.look(args.budget.get())?;
    let (meta, cuts) = asked_for(&opened, &args.tensor)?;
    let dtype = meta.dtype.map_err(|id| unknown(&opened, &meta, id))?;
    let shape = cuts.shape();
    let count = cuts.count();
    let shown = if args.output.is_some() { count } else { count.min(PRINTED) };
    let bytes = shown.saturating_mul(meta.width());
    args.budget.get().check_bytes(&opened, bytes)?;
    let values = cuts.read(&opened, &meta, shown)?;
    let what = format!("{}: {dtype} {shape:?}", args.tensor);
    let mut exit = Exit::Ok;
    match path {
        Some(path) => exit = write(path, dtype, &shape, &values)?,
        None if to_stdout => {
            let (bytes, note) = npy(dtype, &shape, &values)?;
            note.iter().for_each(output::warn);
            output::print_bytes(&bytes)?;
            return Ok(note.map_or(Exit::Ok, |_| Exit::No));
        }
        None => {}
    }
    if json {
        let printed = path
            .is_none()
            .then(|| texts(dtype, &values).map(|text| as_json(dtype, &text)).collect::<Vec<_>>());
        let document = json!({
            "tensor": args.tensor,
            "dtype": dtype.name(),
            "shape": shape,
            "output": path.map(|path| path.display().to_string()),
            "values": printed,
            "cut_short": count > shown,
        });
        output::print_json("get", document)?;
        return Ok(exit);
    }
    match path {
        Some(path) => output::print(output::clean(&format!("{}: {what}", path.display())))?,
        None => {
            output::tell(what);
            output::print(texts(dtype, &values).collect::<Vec<_>>().join("\n"))?;
            if count > shown {
                output::warn(format!("{} more values; -o writes them all", count - shown));
            }
        }
    }
    Ok(exit)
}

/// As NumPy's format, or as one value a line where the name says that it is text.
fn write(path: &Path, dtype: Dtype, shape: &[u64], values: &Buffer) -> Result<Exit> {
    let is_text = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("txt"));
    if is_text {
        return replace_file(path, None, |upload| {
            texts(dtype, values).try_for_each(|text| upload.append(format!("{text}\n").as_bytes()))
        })
        .map(|()| Exit::Ok);
    }
    let (bytes, note) = npy(dtype, shape, values)?;
    replace_file(path, Some(bytes.len() as u64), |upload| upload.append(&bytes))?;
    note.iter().for_each(output::warn);
    Ok(note.map_or(Exit::Ok, |_| Exit::No))
}

/// The file, and what NumPy has no word for.
fn npy(dtype: Dtype, shape: &[u64], values: &Buffer) -> Result<(Vec<u8>, Option<String>)> {
    let too_large = |_| Error::new(ErrorKind::LimitExceeded, "the shape is not possible on this machine");
    let shape =
        shape.iter().map(|&dim| usize::try_from(dim)).collect::<Result<Vec<_>, _>>().map_err(too_large)?;
    let (bytes, note) = npy_bytes(&Tensor::new(dtype, &shape, values)?)?;
    Ok((bytes, note.map(|note| note.what)))
}

fn texts<'v>(dtype: Dtype, values: &'v Buffer) -> impl Iterator<Item = String> + 'v {
    values.chunks_exact(dtype.size()).map(move |bytes| numbers::one(dtype, bytes))
}

/// A number or a truth where JSON has it; NaN, infinities, complex numbers and bytes are text.
fn as_json(dtype: Dtype, text: &str) -> serde_json::Value {
    let value = serde_json::from_str(text).ok().filter(|_| dtype != Dtype::Opaque);
    value.unwrap_or_else(|| text.into())
}

/// The tensor that is named, and which part of it. A name with brackets in it is a name first; a
/// slice is what stands in the last ones.
fn asked_for(opened: &Opened, text: &str) -> Result<(Meta, Cuts)> {
    let whole = match opened.meta(text) {
        Ok(meta) => return Ok((meta.clone(), Cuts::all(&meta.shape))),
        whole => whole,
    };
    let Some((name, inside)) = text.strip_suffix(']').and_then(|text| text.rsplit_once('[')) else {
        return whole.map(|meta| (meta.clone(), Cuts::all(&meta.shape)));
    };
    let meta = opened.meta(name)?;
    let cuts =
        Cuts::parse(inside, &meta.shape).map_err(|error| error.in_tensor(name).in_object(opened.name()))?;
    Ok((meta, cuts))
}

fn unknown(opened: &Opened, meta: &Meta, id: u16) -> Error {
    Error::new(ErrorKind::Unsupported, "a dtype that this version does not know")
        .found(format!("id {id}"))
        .help("update tensorkeep; the file's other tensors are readable")
        .in_tensor(&meta.name)
        .in_object(opened.name())
}
