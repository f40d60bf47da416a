//! Pickles and torch archives made by hand, for files that torch itself would not write.
#![allow(dead_code, reason = "each test file uses some")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use zip::CompressionMethod;

pub type Pickle = Vec<u8>;

pub fn text(text: &str) -> Pickle {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

pub fn int(value: i32) -> Pickle {
    [b"J", &value.to_le_bytes()[..]].concat()
}

pub fn float(value: f64) -> Pickle {
    [b"G", &value.to_be_bytes()[..]].concat()
}

pub fn long(bytes: &[u8]) -> Pickle {
    [&[0x8A, bytes.len() as u8], bytes].concat()
}

pub const NONE: &[u8] = b"N";
pub const TRUE: &[u8] = b"\x88";
pub const FALSE: &[u8] = b"\x89";

pub fn global(module: &str, name: &str) -> Pickle {
    format!("c{module}\n{name}\n").into_bytes()
}

pub fn tuple(items: &[Pickle]) -> Pickle {
    [b"(", &items.concat()[..], b"t"].concat()
}

pub fn list(items: &[Pickle]) -> Pickle {
    [b"](", &items.concat()[..], b"e"].concat()
}

pub fn dict(pairs: &[(Pickle, Pickle)]) -> Pickle {
    [b"}(", &flat(pairs)[..], b"u"].concat()
}

fn flat(pairs: &[(Pickle, Pickle)]) -> Pickle {
    pairs.iter().flat_map(|(key, value)| [&key[..], value].concat()).collect()
}

pub fn named(pairs: &[(&str, Pickle)]) -> Pickle {
    let pairs: Vec<_> = pairs.iter().map(|(key, value)| (text(key), value.clone())).collect();
    dict(&pairs)
}

pub fn call(module: &str, name: &str, args: &[Pickle]) -> Pickle {
    [global(module, name), tuple(args), b"R".to_vec()].concat()
}

/// An object of a class: made by `__new__`, then given a state.
pub fn object(module: &str, name: &str, state: Pickle) -> Pickle {
    [global(module, name), b")\x81".to_vec(), state, b"b".to_vec()].concat()
}

pub fn storage(class: &str, key: &str, count: i32) -> Pickle {
    let id = tuple(&[text("storage"), global("torch", class), text(key), text("cpu"), int(count)]);
    [id, b"Q".to_vec()].concat()
}

pub struct Strided<'a> {
    pub class: &'a str,
    pub key: &'a str,
    pub offset: i32,
    pub shape: &'a [i32],
    pub strides: &'a [i32],
}

impl Strided<'_> {
    pub fn args(&self) -> Vec<Pickle> {
        let sizes = |sizes: &[i32]| tuple(&sizes.iter().map(|&size| int(size)).collect::<Vec<_>>());
        let hooks = call("collections", "OrderedDict", &[]);
        let storage = storage(self.class, self.key, 0);
        vec![storage, int(self.offset), sizes(self.shape), sizes(self.strides), FALSE.to_vec(), hooks]
    }

    pub fn pickle(&self) -> Pickle {
        call("torch._utils", "_rebuild_tensor_v2", &self.args())
    }

    pub fn with(&self, rest: Pickle) -> Pickle {
        call("torch._utils", "_rebuild_tensor_v2", &[self.args(), vec![rest]].concat())
    }
}

/// A vector that is the whole of its storage.
pub fn vector(class: &str, key: &str, len: i32) -> Pickle {
    Strided { class, key, offset: 0, shape: &[len], strides: &[1] }.pickle()
}

pub fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A `.pt` around the pickle of one object.
pub fn torch(path: &Path, object: &[u8], storages: &[(&str, &[u8])], how: CompressionMethod) -> PathBuf {
    let options = zip::write::SimpleFileOptions::default().compression_method(how);
    let mut archive = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    let pickle = [b"\x80\x02", object, b"."].concat();
    let mut member = |name: &str, bytes: &[u8]| {
        archive.start_file(format!("archive/{name}"), options).unwrap();
        archive.write_all(bytes).unwrap();
    };
    member("data.pkl", &pickle);
    member("byteorder", b"little");
    for (key, bytes) in storages {
        member(&format!("data/{key}"), bytes);
    }
    archive.finish().unwrap();
    path.to_owned()
}
