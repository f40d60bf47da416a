//! `get TARGET TENSOR[slice]`: values to a .npy file, or to the screen. Owns: the grammar of slices and cutting by it.

use crate::args::Get;
use crate::exit::Exit;
use crate::opened::Opened;
use crate::target::Target;
use crate::{Done, numbers, output};
use serde_json::json;
use std::ops::Range;
use tensorkeep::convert::npy_bytes;
use tensorkeep::engine::replace_file;
use tensorkeep::{Dtype, Error, ErrorKind, Result, Tensor};

/// One axis: a range, or one index, which takes the axis away.
#[derive(Clone, Debug, PartialEq)]
enum Cut {
    Range(Range<usize>),
    Index(usize),
}

/// Values printed without `--output`.
const PRINTED: usize = 1000;

pub fn run(args: &Get, json: bool) -> Done {
    if let Some(path) = &args.output {
        output::check_free(path, args.force)?;
    }
    let opened = Target::parse(&args.target)?.look()?;
    let (tensor, name) = cut_out(&opened, &args.tensor)?;
    let values = tensor.bytes().chunks_exact(tensor.dtype().size()).take(PRINTED);
    let values: Vec<String> = values.map(|bytes| numbers::one(tensor.dtype(), bytes)).collect();
    let mut exit = Exit::Ok;
    if let Some(path) = &args.output {
        let (bytes, note) = npy_bytes(&tensor)?;
        replace_file(path, Some(bytes.len() as u64), |upload| upload.append(&bytes))?;
        if let Some(note) = note {
            output::warn(&note.what);
            exit = Exit::No;
        }
    }
    if json {
        let document = json!({
            "tensor": name,
            "dtype": tensor.dtype().name(),
            "shape": tensor.shape(),
            "output": args.output.as_ref().map(|path| path.display().to_string()),
            "values": args.output.is_none().then(|| values.iter().map(|text| as_json(tensor.dtype(), text)).collect::<Vec<_>>()),
            "cut_short": args.output.is_none() && tensor.len() > PRINTED,
        });
        output::print_json("get", document)?;
        return Ok(exit);
    }
    let what = format!("{name}: {} {:?}", tensor.dtype(), tensor.shape());
    match &args.output {
        Some(path) => output::print(format!("{}: {what}", path.display()))?,
        None => {
            output::tell(what);
            output::print(values.join("\n"))?;
            if tensor.len() > PRINTED {
                output::warn(format!("{} more values; -o writes them all", tensor.len() - PRINTED));
            }
        }
    }
    Ok(exit)
}

/// A number or a truth where JSON has it; NaN, infinities, complex numbers and bytes are text.
fn as_json(dtype: Dtype, text: &str) -> serde_json::Value {
    let value = serde_json::from_str(text).ok().filter(|_| dtype != Dtype::Opaque);
    value.unwrap_or_else(|| text.into())
}

/// The tensor that is named, or the slice of it. A name with brackets in it is a name first.
fn cut_out<'o>(opened: &'o Opened, text: &str) -> Result<(Tensor<'o>, String)> {
    let whole = opened.tensor(text);
    let Some((name, inside)) = text.strip_suffix(']').and_then(|text| text.split_once('[')) else {
        return Ok((whole?, text.to_owned()));
    };
    if whole.is_ok() {
        return Ok((whole?, text.to_owned()));
    }
    let tensor = opened.tensor(name)?;
    let cuts = parse(inside, tensor.shape()).map_err(|error| error.in_tensor(name))?;
    Ok((cut(&tensor, &cuts)?, text.to_owned()))
}

/// `3`, `-1`, `2:5`, `:`, by commas.
fn parse(text: &str, shape: &[usize]) -> Result<Vec<Cut>> {
    let wrong = |what: String| {
        Error::new(ErrorKind::Invalid, what).expected(format!("within {shape:?}, as 3 or 0:10 by commas"))
    };
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    if parts.len() > shape.len() {
        return Err(wrong(format!("{} axes are cut", parts.len())));
    }
    let mut cuts = Vec::new();
    for (part, &len) in parts.into_iter().zip(shape) {
        let place = |text: &str, otherwise: usize| {
            let from_end = |text: &str| text.parse::<usize>().ok().and_then(|back| len.checked_sub(back));
            match (text, text.strip_prefix('-')) {
                ("", _) => Some(otherwise),
                (_, Some(back)) => from_end(back),
                (text, None) => text.parse().ok(),
            }
        };
        let cut = match part.split_once(':') {
            Some((start, end)) => {
                place(start, 0).zip(place(end, len)).map(|(start, end)| Cut::Range(start..end))
            }
            None => place(part, usize::MAX).map(Cut::Index),
        };
        let fits = |cut: &Cut| match cut {
            Cut::Range(range) => range.start <= range.end && range.end <= len,
            Cut::Index(index) => *index < len,
        };
        cuts.push(cut.filter(fits).ok_or_else(|| wrong(format!("slice {part:?} of an axis of {len}")))?);
    }
    cuts.extend(shape[cuts.len()..].iter().map(|&len| Cut::Range(0..len)));
    Ok(cuts)
}

fn cut(tensor: &Tensor<'_>, cuts: &[Cut]) -> Result<Tensor<'static>> {
    let ranges: Vec<Range<usize>> = cuts
        .iter()
        .map(|cut| match cut {
            Cut::Range(range) => range.clone(),
            Cut::Index(index) => *index..index + 1,
        })
        .collect();
    let mut bytes = Vec::new();
    gather(tensor.bytes(), tensor.shape(), &ranges, tensor.dtype().size(), &mut bytes);
    let kept = cuts.iter().filter_map(|cut| match cut {
        Cut::Range(range) => Some(range.len()),
        Cut::Index(_) => None,
    });
    Tensor::owned(tensor.dtype(), &kept.collect::<Vec<_>>(), tensorkeep::Buffer::copy_of(&bytes)?)
}

fn gather(bytes: &[u8], shape: &[usize], ranges: &[Range<usize>], width: usize, into: &mut Vec<u8>) {
    let (Some(range), Some((&len, below))) = (ranges.first(), shape.split_first()) else {
        into.extend_from_slice(&bytes[..width.min(bytes.len())]);
        return;
    };
    let row = bytes.len() / len.max(1);
    if ranges[1..].iter().zip(below).all(|(range, &len)| *range == (0..len)) {
        into.extend_from_slice(&bytes[range.start * row..range.end * row]);
        return;
    }
    range.clone().for_each(|i| gather(&bytes[i * row..(i + 1) * row], below, &ranges[1..], width, into));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_numpys() {
        let values: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let tensor = Tensor::from_elements(&[2, 3, 4], &values).unwrap();
        let cut = |text: &str| {
            let tensor = cut(&tensor, &parse(text, tensor.shape()).unwrap()).unwrap();
            (tensor.shape().to_vec(), tensor.elements::<f32>().unwrap().to_vec())
        };
        assert_eq!(cut("1,2,3"), (vec![], vec![23.0]));
        assert_eq!(cut("0,:,1:3"), (vec![3, 2], vec![1.0, 2.0, 5.0, 6.0, 9.0, 10.0]));
        assert_eq!(cut("-1,0"), (vec![4], vec![12.0, 13.0, 14.0, 15.0]));
        assert_eq!(cut("1:1"), (vec![0, 3, 4], vec![]));
        for wrong in ["2", "0:3", "a", "", "0,0,0,0", "-3", "1:0"] {
            assert!(parse(wrong, &[2, 3, 4]).is_err(), "{wrong}");
        }
    }
}
