//! `get TARGET TENSOR[slice]`: values to a .npy file, as text, or to the screen. Reads only the
//! chunks that hold what is asked for, so that a slice of a large file is quick and does not
//! fail for damage elsewhere.

mod cut;

use crate::answer::{Answer, Text};
use crate::args::Get;
use crate::exit::Exit;
use crate::opened::{Meta, Opened};
use crate::target::Target;
use crate::{Done, numbers, output};
use cut::Cuts;
use serde_json::{Value as Json, json};
use std::io::IsTerminal;
use std::path::Path;
use tensorkeep::convert::npy_bytes;
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
    /// The file's bytes, for stdout.
    npy: Vec<u8>,
    /// What NumPy cannot express.
    note: Option<String>,
}

pub fn run(args: &Get) -> Result<Values<'_>> {
    let to_stdout = args.output.as_deref().is_some_and(output::is_stdout);
    let path = args.output.as_deref().filter(|_| !to_stdout);
    if let Some(path) = path {
        output::check_free(path, args.force)?;
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
    let (mut file, mut note) = (Vec::new(), None);
    if to_stdout {
        (file, note) = npy(dtype, &shape, &values)?;
    } else if let Some(path) = path {
        note = write(path, dtype, &shape, &values)?;
    }
    note.iter().for_each(output::warn);
    Ok(Values { args, dtype, shape, count, shown, values, npy: file, note })
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
        match self.args.output.as_deref() {
            Some(path) if output::is_stdout(path) => Ok(Text::default().bytes(&self.npy)),
            Some(path) => Ok(Text::of(output::clean(&format!("{}: {what}", path.display())))),
            None => {
                let texts: Vec<String> = texts(self.dtype, &self.values).collect();
                let more = self.count - self.shown;
                // One value a line for programs; for people, as NumPy prints.
                let is_for_people = std::io::stdout().is_terminal() && more == 0;
                let lines = if is_for_people { nested(&self.shape, &texts) } else { texts.join("\n") };
                let cut = (more > 0).then(|| format!("{more} more values; -o writes them all"));
                Ok(Text::default().note(what).lines(lines).warnings(cut))
            }
        }
    }

    fn end(self: Box<Self>) -> Done {
        Ok(if self.note.is_none() { Exit::Ok } else { Exit::No })
    }
}

/// Values in brackets, a row a line, in columns.
fn nested(shape: &[u64], texts: &[String]) -> String {
    let wide = texts.iter().map(|text| text.chars().count()).max().unwrap_or(0);
    fn put(shape: &[u64], texts: &[String], wide: usize, depth: usize, into: &mut String) {
        let Some((&len, inner)) = shape.split_first() else {
            return into.push_str(&texts.first().map_or_else(String::new, |text| format!("{text:>wide$}")));
        };
        let each = texts.len() / (len.max(1) as usize);
        into.push('[');
        for i in 0..len as usize {
            let is_row = inner.is_empty();
            match i {
                0 => {}
                _ if is_row => into.push(' '),
                _ => into.push_str(&format!("{}{}", "\n".repeat(inner.len()), " ".repeat(depth + 1))),
            }
            put(inner, texts.get(i * each..(i + 1) * each).unwrap_or_default(), wide, depth + 1, into);
        }
        into.push(']');
    }
    let mut text = String::new();
    put(shape, texts, wide, 0, &mut text);
    text
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

fn texts<'v>(dtype: Dtype, values: &'v Buffer) -> impl Iterator<Item = String> + 'v {
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

#[cfg(test)]
mod tests {
    use super::nested;

    #[test]
    fn values_are_printed_as_numpy_prints_them() {
        let texts = ["1", "-2", "3", "4"].map(str::to_owned);
        assert_eq!(nested(&[2, 2], &texts), "[[ 1 -2]\n [ 3  4]]");
        assert_eq!(nested(&[4], &texts), "[ 1 -2  3  4]");
        assert_eq!(nested(&[2, 2, 1], &texts), "[[[ 1]\n  [-2]]\n\n [[ 3]\n  [ 4]]]");
        assert_eq!((nested(&[], &texts[..1]), nested(&[0], &[])), ("1".to_owned(), "[]".to_owned()));
    }
}
