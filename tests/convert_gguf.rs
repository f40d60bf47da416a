//! GGUF files made by hand: parts of a split model, unsupported versions and byte orders, unknown
//! types, and tensors that share bytes or names.

use std::path::Path;
use std::time::{Duration, Instant};
use tensorkeep::convert::Foreign;
use tensorkeep::{Dtype, ErrorKind, Result, Value};
use test_support::TempFolder;

const F32: u32 = 0;
const Q8_0: u32 = 8;
const I8: u32 = 24;
const Q2_0: u32 = 42;

/// A file with 16-bit integers as its pairs.
struct Gguf<'g> {
    version: u32,
    pairs: Vec<(&'g str, u16)>,
    tensors: Vec<Tensor<'g>>,
    data: Vec<u8>,
}

struct Tensor<'g> {
    name: &'g [u8],
    dims: &'g [u64],
    ggml_type: u32,
    offset: u64,
}

fn tensor<'g>(name: &'g str, dims: &'g [u64], ggml_type: u32, offset: u64) -> Tensor<'g> {
    Tensor { name: name.as_bytes(), dims, ggml_type, offset }
}

impl Default for Gguf<'_> {
    fn default() -> Self {
        Self { version: 3, pairs: vec![], tensors: vec![], data: (0..=255).collect() }
    }
}

impl Gguf<'_> {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.pairs.len() as u64).to_le_bytes());
        let text = |bytes: &mut Vec<u8>, text: &[u8]| {
            bytes.extend((text.len() as u64).to_le_bytes());
            bytes.extend(text);
        };
        for (key, value) in &self.pairs {
            text(&mut bytes, key.as_bytes());
            bytes.extend(2_u32.to_le_bytes());
            bytes.extend(value.to_le_bytes());
        }
        for tensor in &self.tensors {
            text(&mut bytes, tensor.name);
            bytes.extend((tensor.dims.len() as u32).to_le_bytes());
            bytes.extend(tensor.dims.iter().flat_map(|dim| dim.to_le_bytes()));
            bytes.extend(tensor.ggml_type.to_le_bytes());
            bytes.extend(tensor.offset.to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(&self.data);
        bytes
    }

    fn open(&self) -> Result<Foreign> {
        let folder = TempFolder::new("gguf");
        let path = folder.path().join("x.gguf");
        self.write(&path);
        Foreign::open(path)
    }

    fn write(&self, path: &Path) {
        std::fs::write(path, self.bytes()).unwrap();
    }
}

fn part<'g>(number: u16, count: u16, total: u16, name: &'g str) -> Gguf<'g> {
    let pairs = vec![("split.no", number), ("split.count", count), ("split.tensors.count", total)];
    let tensors = vec![tensor(name, &[2], F32, 0)];
    Gguf {
        pairs,
        tensors,
        data: [1.0_f32, f32::from(number)].map(f32::to_le_bytes).concat(),
        ..Gguf::default()
    }
}

#[test]
fn any_part_of_a_split_model_opens_the_whole() {
    let folder = TempFolder::new("gguf");
    let files = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"].map(|name| folder.path().join(name));
    for (number, file) in files.iter().enumerate() {
        part(number as u16, 2, 2, ["a", "b"][number]).write(file);
    }
    for file in &files {
        let foreign = Foreign::open(file).unwrap();
        let b = foreign.tensor("b").unwrap();
        assert_eq!((foreign.tensors().len(), b.elements::<f32>().unwrap()), (2, &[1.0, 1.0][..]));
        assert_eq!(foreign.tensor("a").unwrap().elements::<f32>().unwrap(), [1.0, 0.0]);
        let Value::Map(pairs) = &foreign.records()["gguf"] else { panic!() };
        assert!(pairs.is_empty(), "the whole says no more that it is a part: {pairs:?}");
        let length: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
        assert_eq!(foreign.byte_len(), length);
    }
}

#[test]
fn a_single_part_is_refused_with_the_missing_ones() {
    let folder = TempFolder::new("gguf");
    let alone = |name: &str, file: &Gguf<'_>| {
        let path = folder.path().join(name);
        file.write(&path);
        let error = Foreign::open(&path).unwrap_err();
        std::fs::remove_file(path).unwrap();
        (error.kind(), error.to_string())
    };
    let (kind, text) = alone("m-00002-of-00003.gguf", &part(1, 3, 3, "b"));
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(text.contains("m-00001-of-00003.gguf, m-00003-of-00003.gguf"), "{text}");
    let (kind, text) = alone("renamed.gguf", &part(1, 3, 3, "b"));
    assert!(kind == ErrorKind::NotFound && text.contains("part 2 of 3"), "{text}");
    // Only its name says so.
    let silent = Gguf { tensors: vec![tensor("b", &[2], F32, 0)], ..Gguf::default() };
    let (kind, text) = alone("m-00001-of-00002.gguf", &silent);
    assert!(kind == ErrorKind::NotFound && text.contains("m-00002-of-00002.gguf"), "{text}");
    // The maximal number of parts costs no more time than the error.
    let (kind, _) = alone("m-00001-of-65535.gguf", &part(0, 65_535, 9, "b"));
    assert_eq!(kind, ErrorKind::NotFound);
}

#[test]
fn parts_of_different_models_are_not_joined() {
    let open = |second: &Gguf<'_>| {
        let folder = TempFolder::new("gguf");
        let files = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"].map(|name| folder.path().join(name));
        part(0, 2, 2, "a").write(&files[0]);
        second.write(&files[1]);
        Foreign::open(&files[0])
    };
    assert_eq!(open(&part(1, 2, 2, "b")).unwrap().tensors().len(), 2);
    for (what, second) in [
        ("the same part twice", part(0, 2, 2, "b")),
        ("another count", part(1, 3, 2, "b")),
        ("another total", part(1, 2, 5, "b")),
        ("a name twice", part(1, 2, 2, "a")),
    ] {
        assert_eq!(open(&second).unwrap_err().kind(), ErrorKind::Damaged, "{what}");
    }
}

#[test]
fn unsupported_versions_are_named_in_the_error() {
    for (version, kind, words) in [
        (1, ErrorKind::Unsupported, "version 1"),
        (3_u32.swap_bytes(), ErrorKind::Unsupported, "big-endian"),
        (2_u32.swap_bytes(), ErrorKind::Unsupported, "big-endian"),
        (4, ErrorKind::NewerVersion, "found 4"),
    ] {
        let error = Gguf { version, ..Gguf::default() }.open().unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(Gguf { version: 2, ..Gguf::default() }.open().unwrap().tensors().len(), 0);
}

#[test]
fn tensors_that_share_bytes_or_names_are_refused() {
    let open = |tensors| Gguf { tensors, ..Gguf::default() }.open();
    let apart =
        vec![tensor("b", &[8], F32, 32), tensor("a", &[32], I8, 0), tensor("empty", &[0, 2], F32, 32)];
    let whole = open(apart).unwrap();
    assert_eq!(whole.tensor("b").unwrap().bytes()[..2], [32, 33]);
    for (what, tensors) in [
        ("by a byte", vec![tensor("a", &[33], I8, 0), tensor("b", &[8], F32, 32)]),
        ("wholly", vec![tensor("a", &[8], F32, 0), tensor("b", &[32], I8, 0)]),
        ("within blocks", vec![tensor("a", &[32], Q8_0, 0), tensor("b", &[8], F32, 32)]),
        ("of unknown types", vec![tensor("a", &[8], 200, 0), tensor("b", &[8], 200, 0)]),
        ("a name", vec![tensor("a", &[8], F32, 0), tensor("a", &[8], F32, 32)]),
        ("beyond the end", vec![tensor("a", &[65], F32, 0)]),
    ] {
        let error = open(tensors).unwrap_err();
        assert_eq!((error.kind(), error.tensor()), (ErrorKind::Damaged, Some("a")), "{what}: {error}");
    }
}

#[test]
fn many_tensors_over_few_bytes_end_at_once() {
    let names: Vec<String> = (0..20_000).map(|number| format!("t{number}")).collect();
    let tensors = |offset: fn(usize) -> u64| {
        names.iter().enumerate().map(move |(i, name)| tensor(name, &[256], I8, offset(i))).collect::<Vec<_>>()
    };
    let started = Instant::now();
    let shared = Gguf { tensors: tensors(|_| 0), ..Gguf::default() }.open().unwrap_err();
    assert_eq!(shared.kind(), ErrorKind::Damaged);
    let same_name = (0..20_000).map(|i| tensor("t", &[256], I8, i * 256)).collect();
    let twice =
        Gguf { tensors: same_name, data: vec![0; 20_000 * 256], ..Gguf::default() }.open().unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::Damaged);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn a_type_that_is_not_known_keeps_its_bytes() {
    let kept = |ggml_type, dims, next| {
        let tensors = vec![tensor("x", dims, ggml_type, 0), tensor("y", &[2], F32, next)];
        let foreign = Gguf { tensors, ..Gguf::default() }.open().unwrap();
        let x = foreign.tensor("x").unwrap();
        assert_eq!((x.dtype(), foreign.tensor("y").unwrap().bytes()[0]), (Dtype::Opaque, next as u8));
        assert!(foreign.notes().iter().all(|note| !note.loss));
        (foreign.metadata()["gguf.type.x"].clone(), x.bytes().len())
    };
    assert_eq!(kept(200, &[4, 8], 64), ("ggml type 200 [8, 4]".to_owned(), 64));
    // Two blocks of 18 bytes of upstream's type, and those of a fork's type of the same number,
    // which are 34 bytes.
    assert_eq!(kept(Q2_0, &[128], 64), ("Q2_0 [128]".to_owned(), 36));
    assert_eq!(kept(Q2_0, &[384], 128), ("Q2_0 [384]".to_owned(), 108));
    assert_eq!(kept(Q2_0, &[512], 192), ("ggml type 42 [512]".to_owned(), 192));
}

#[test]
fn text_that_is_not_utf8_is_kept_and_names_are_listed() {
    let mut bytes = Gguf { pairs: vec![("k", 0x4141)], ..Gguf::default() };
    bytes.tensors = vec![Tensor { name: b"w\xff", dims: &[2], ggml_type: F32, offset: 0 }];
    let foreign = bytes.open().unwrap();
    assert_eq!(foreign.tensors()[0].name, "w\u{fffd}");
    assert!(foreign.notes().iter().any(|note| note.what.contains("UTF-8")), "{:?}", foreign.notes());
    // A pair of text, type 8, by hand: three bytes that are not UTF-8.
    let mut raw = Gguf::default().bytes();
    raw.truncate(24);
    raw[16] = 1;
    raw.extend(
        [&1_u64.to_le_bytes()[..], b"t", &8_u32.to_le_bytes(), &3_u64.to_le_bytes(), b"\xff\x00a"].concat(),
    );
    let folder = TempFolder::new("gguf");
    let path = folder.path().join("x.gguf");
    std::fs::write(&path, &raw).unwrap();
    let foreign = Foreign::open(&path).unwrap();
    let Value::Map(pairs) = &foreign.records()["gguf"] else { panic!() };
    assert_eq!(pairs["t"], Value::Bytes(b"\xff\x00a".to_vec()));
}

#[test]
fn lists_are_charged_to_the_budget_by_their_unfolded_size() {
    let mut raw = Gguf::default().bytes();
    raw.truncate(24);
    raw[16] = 1;
    // A key over an array, type 9, of a million bytes, type 0.
    raw.extend([&1_u64.to_le_bytes()[..], b"t", &9_u32.to_le_bytes(), &0_u32.to_le_bytes()].concat());
    raw.extend(1_000_000_u64.to_le_bytes());
    raw.extend(vec![7; 1_000_000]);
    let folder = TempFolder::new("gguf");
    let path = folder.path().join("x.gguf");
    std::fs::write(&path, &raw).unwrap();
    let error = Foreign::open_within(&path, 8 << 20).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
    assert!(Foreign::open(&path).is_ok(), "it is within the default");
}
