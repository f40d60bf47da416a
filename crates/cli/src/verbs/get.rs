//! `get TARGET TENSOR[slice]`: values to a .npy file, as text, or printed as NumPy prints. Reads only the
//! chunks that hold what is asked for, so that a slice of a large file is quick and does not
//! fail for damage elsewhere.

mod axis;
mod cut;
mod layout;

use super::derived::{self, NEVER_WRITTEN};
use crate::answer::{Answer, OutputFormat, Text};
use crate::args::Get;
use crate::exit::Exit;
use crate::opened::{Meta, Opened};
use crate::target::Target;
use crate::{Done, numbers, output};
use cut::{Corners, Cuts};
use serde_json::{Value as Json, json};
use std::path::Path;
use tensorkeep::convert::{Format, npy_bytes};
use tensorkeep::engine::replace_file;
use tensorkeep::{Dtype, Error, ErrorKind, Result, Tensor, tensor::Buffer};

/// Values printed without `--output`.
const PRINTED: u64 = 1000;

/// A tensor's values, or a slice's.
pub struct Values<'a> {
    args: &'a Get,
    dtype: Dtype,
    shape: Vec<u64>,
    /// Of all values; fewer are printed.
    count: u64,
    shown: u64,
    values: Buffer,
    /// What is printed instead of many values.
    corners: Option<Corners>,
    /// The file's bytes, for stdout.
    npy: Vec<u8>,
    /// What NumPy cannot express.
    note: Option<String>,
    /// What the file's reader says of the tensor.
    told: Vec<String>,
}

/// Reads what is asked for, and of what is printed in this format no more than that.
pub fn run(args: &Get, format: OutputFormat) -> Result<Values<'_>> {
    let to_stdout = args.output.as_deref().is_some_and(output::is_stdout);
    let path = args.output.as_deref().filter(|_| !to_stdout);
    if let Some(path) = path {
        check_name(path)?;
        output::check_free(path, args.force)?;
    }
    let opened = Target::parse(&args.target)?.look(args.budget.get())?;
    let (meta, cuts) = asked_for(&opened, &args.tensor)?;
    let dtype = meta.dtype.map_err(|id| unknown(&opened, &meta, id))?;
    let shape = cuts.shape();
    let count = cuts.count();
    let shown = if args.output.is_some() { count } else { count.min(PRINTED) };
    let has_corners = count > shown && format == OutputFormat::Text;
    let read = if has_corners { cuts.corner_count() } else { shown };
    args.budget.get().check_bytes(&opened, read.saturating_mul(meta.width()))?;
    let corners = has_corners.then(|| cuts.corners(&opened, &meta)).transpose()?;
    let values = if has_corners { Buffer::zeroed(0)? } else { cuts.read(&opened, &meta, shown)? };
    let (mut file, mut note) = (Vec::new(), None);
    if to_stdout {
        (file, note) = npy(dtype, &shape, &values)?;
    } else if let Some(path) = path {
        note = write(path, dtype, &shape, &values)?;
    }
    note.iter().for_each(output::warn);
    let about = format!("{}: ", meta.name);
    let told = opened.warnings().into_iter().filter(|warning| warning.starts_with(&about)).collect();
    Ok(Values { args, dtype, shape, count, shown, values, corners, npy: file, note, told })
}

impl Answer for Values<'_> {
    fn schema(&self) -> &'static str {
        "get"
    }

    fn json(&self) -> Json {
        let path = self.args.output.as_deref();
        let printed = path.is_none().then(|| {
            texts(self.dtype, &self.values).map(|text| as_json(self.dtype, &text)).collect::<Vec<_>>()
        });
        json!({
            "tensor": self.args.tensor,
            "dtype": self.dtype.name(),
            "shape": self.shape,
            "output": path.map(|path| path.display().to_string()),
            "values": printed,
            "cut_short": self.count > self.shown,
        })
    }

    fn text(&self) -> Result<Text<'_>> {
        let what = format!("{}: {} {:?}", self.args.tensor, self.dtype, self.shape);
        let text = Text::default().warnings(&self.told);
        match self.args.output.as_deref() {
            Some(path) if output::is_stdout(path) => Ok(text.bytes(&self.npy)),
            Some(path) => Ok(text.lines(output::clean(&format!("{}: {what}", path.display())))),
            None => {
                let is_cut = vec![false; self.shape.len()];
                let all = || Corners { shape: self.shape.clone(), is_cut, bytes: self.values.to_vec() };
                let corners = self.corners.clone().unwrap_or_else(all);
                let texts: Vec<String> = texts(self.dtype, &corners.bytes).collect();
                let more = self.count - texts.len() as u64;
                let cut = (more > 0).then(|| format!("{more} more values; -o writes them all"));
                let width = output::columns().map_or(layout::WIDTH, |columns| columns.min(layout::WIDTH));
                let values = layout::nested(self.dtype, &corners, texts, width);
                let text = text.note(what).lines(values);
                Ok(cut.into_iter().fold(text, Text::note))
            }
        }
    }

    fn end(self: Box<Self>) -> Done {
        Ok(if self.note.is_none() { Exit::Ok } else { Exit::No })
    }
}

/// Refuses a name of a format other than the one written.
fn check_name(path: &Path) -> Result<()> {
    let extension = derived::extension(path);
    let is_other = NEVER_WRITTEN.contains(&&*extension)
        || extension == "tkeep"
        || Format::of_extension(path).is_some_and(|format| format != Format::Npy);
    if !is_other {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Invalid, "values are written as .npy or .txt")
        .in_object(path.display())
        .help("`tensorkeep export --only` makes a file of another format of some tensors"))
}

/// Writes NumPy's format, or one value a line to a file that is named .txt; returns what NumPy
/// cannot express.
fn write(path: &Path, dtype: Dtype, shape: &[u64], values: &Buffer) -> Result<Option<String>> {
    let is_text = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("txt"));
    if is_text {
        return replace_file(path, None, |upload| {
            texts(dtype, values).try_for_each(|text| upload.append(format!("{text}\n").as_bytes()))
        })
        .map(|()| None);
    }
    let (bytes, note) = npy(dtype, shape, values)?;
    replace_file(path, Some(bytes.len() as u64), |upload| upload.append(&bytes))?;
    Ok(note)
}

/// The file, and what NumPy cannot express.
fn npy(dtype: Dtype, shape: &[u64], values: &Buffer) -> Result<(Vec<u8>, Option<String>)> {
    let too_large = |_| Error::new(ErrorKind::LimitExceeded, "the shape is not possible on this machine");
    let shape =
        shape.iter().map(|&dim| usize::try_from(dim)).collect::<Result<Vec<_>, _>>().map_err(too_large)?;
    let (bytes, note) = npy_bytes(&Tensor::new(dtype, &shape, values)?)?;
    Ok((bytes, note.map(|note| note.what)))
}

fn texts(dtype: Dtype, values: &[u8]) -> impl Iterator<Item = String> {
    values.chunks_exact(dtype.size()).map(move |bytes| numbers::one(dtype, bytes))
}

/// A number or a truth where JSON has it; NaN, infinities, complex numbers and bytes are text.
fn as_json(dtype: Dtype, text: &str) -> Json {
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
