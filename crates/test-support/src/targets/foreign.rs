//! The fuzz targets of foreign files: any bytes as a file of each format, and pickles made of
//! opcodes in an archive.

mod archive;

use crate::InMemory;
use arbitrary::{Arbitrary, Unstructured};
use std::sync::Arc;
use tensorkeep::convert::Foreign;
use tensorkeep::engine::Blob;
use tensorkeep::{WriteOptions, tensor::Buffer};

/// Far below the limit of a single allocation in fuzz/run: it catches memory that was not charged
/// to the budget.
const BUDGET: u64 = 8 << 20;
/// Tensors that are read: the rest are only listed.
const MOST_READ: usize = 64;

/// Any bytes: a foreign file or an error. The first byte selects the magic that they begin with.
pub fn foreign(input: &[u8]) {
    const MAGICS: [&[u8]; 6] = [
        b"",
        b"GGUF\x03\0\0\0",
        b"\x93NUMPY\x01\0",
        b"PK\x03\x04",
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
        b"{\"weight_map\":",
    ];
    let [first, rest @ ..] = input else { return };
    let magic = MAGICS[usize::from(*first) % MAGICS.len()];
    read_all(&[magic, rest].concat());
}

/// A pickle of opcodes that fit each other more often than bytes do, in an archive with two
/// storages.
pub fn pickles(input: &[u8]) {
    let Ok(program) = Program::arbitrary_take_rest(Unstructured::new(input)) else { return };
    let mut pickle = vec![0x80, 2];
    for opcode in &program.opcodes {
        opcode.write(&mut pickle);
    }
    pickle.push(b'.');
    let storage: Vec<u8> = (0..64).collect();
    let members = [("a/data.pkl", &pickle[..]), ("a/data/0", &storage), ("a/data/1", &storage)];
    read_all(&archive::archive(&members, program.compression % 16 == 1));
}

fn read_all(bytes: &[u8]) {
    let blob: Arc<dyn Blob> = Arc::new(InMemory { bytes: Buffer::copy_of(bytes).unwrap(), mapped: false });
    let foreign = match Foreign::open_blob(&blob, BUDGET) {
        Ok(foreign) => foreign,
        Err(error) => return drop(format!("{error}{error:?}")),
    };
    for tensor in foreign.tensors().iter().take(MOST_READ).filter(|tensor| tensor.byte_len <= 1 << 20) {
        let _ = foreign.tensor(&tensor.name);
    }
    let total: usize = foreign.tensors().iter().map(|tensor| tensor.byte_len).fold(0, usize::saturating_add);
    if total <= 1 << 20 {
        // A checkpoint can hold everything that was kept.
        let _ = foreign.snapshot().and_then(|snapshot| snapshot.to_bytes(&WriteOptions::new().workers(1)));
    }
}

#[derive(Arbitrary, Debug)]
struct Program {
    compression: u8,
    opcodes: Vec<Opcode>,
}

#[derive(Arbitrary, Debug)]
enum Opcode {
    /// Opcodes without arguments, by their place in a list.
    Plain(u8),
    Small(u8),
    Int(i32),
    Long(Vec<u8>),
    Float(f64),
    Word(u8),
    Text(String),
    Global(u8),
    Put(u8),
    Get(u8),
    Memoize,
    /// A whole tensor: a storage's class, key, offset, two lengths and two strides, and whether it
    /// is conjugated.
    Tensor(u8, u8, u8, [u8; 4], bool),
    Byte(u8),
}

const PLAIN: &[u8] = b"N\x88\x89(012)]}tld\x85\x86\x87aesuR\x81bQ\x8f\x90\x91\x92\x93";

const WORDS: &[&str] = &[
    "storage",
    "0",
    "1",
    "cpu",
    "conj",
    "neg",
    "a",
    "a.b",
    "latin1",
    "f4",
    "<",
    "_parameters",
    "_buffers",
    "_modules",
    "U2",
    "M8",
    "V4",
    "|",
];

const GLOBALS: &[(&str, &str)] = &[
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_tensor_v3"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_parameter_with_state"),
    ("torch._utils", "_rebuild_sparse_tensor"),
    ("torch._utils", "_rebuild_qtensor"),
    ("torch._utils", "_rebuild_nested_tensor"),
    ("torch._utils", "_rebuild_wrapper_subclass"),
    ("torch._tensor", "_rebuild_from_type_v2"),
    ("torch.nn.parameter", "Parameter"),
    ("torch", "Tensor"),
    ("torch", "Size"),
    ("torch", "FloatStorage"),
    ("torch", "float32"),
    ("torch", "sparse_coo"),
    ("torch", "per_tensor_affine"),
    ("collections", "OrderedDict"),
    ("collections", "Counter"),
    ("collections", "deque"),
    ("builtins", "set"),
    ("builtins", "complex"),
    ("builtins", "bytearray"),
    ("_codecs", "encode"),
    ("copyreg", "_reconstructor"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("argparse", "Namespace"),
    ("some", "Class"),
];

const CLASSES: [&str; 6] =
    ["FloatStorage", "ByteStorage", "ComplexFloatStorage", "LongStorage", "ComplexHalfStorage", "No"];

impl Opcode {
    fn write(&self, pickle: &mut Vec<u8>) {
        match self {
            Self::Plain(which) => pickle.push(PLAIN[usize::from(*which) % PLAIN.len()]),
            Self::Small(value) => pickle.extend([b'K', *value]),
            Self::Int(value) => int(*value, pickle),
            Self::Long(bytes) => {
                let bytes = &bytes[..bytes.len().min(255)];
                pickle.extend([0x8A, bytes.len() as u8]);
                pickle.extend(bytes);
            }
            Self::Float(value) => {
                pickle.push(b'G');
                pickle.extend(value.to_be_bytes());
            }
            Self::Word(which) => text(WORDS[usize::from(*which) % WORDS.len()], pickle),
            Self::Text(words) => text(words, pickle),
            Self::Global(which) => {
                let (module, name) = GLOBALS[usize::from(*which) % GLOBALS.len()];
                global(module, name, pickle);
            }
            Self::Put(key) => pickle.extend([b'q', key % 8]),
            Self::Get(key) => pickle.extend([b'h', key % 8]),
            Self::Memoize => pickle.push(0x94),
            Self::Tensor(class, key, offset, [rows, columns, row, column], is_conj) => {
                global("torch._utils", "_rebuild_tensor_v2", pickle);
                pickle.extend(b"((");
                text("storage", pickle);
                global("torch", CLASSES[usize::from(*class) % CLASSES.len()], pickle);
                text(["0", "1", "2"][usize::from(*key) % 3], pickle);
                text("cpu", pickle);
                pickle.extend(b"K\x10tQ");
                pickle.extend([b'K', offset % 32, b'K', rows % 6, b'K', columns % 6, 0x86]);
                pickle.extend([b'K', row % 6, b'K', column % 6, 0x86, 0x89, b'N', b'}']);
                text("conj", pickle);
                pickle.extend([if *is_conj { 0x88 } else { 0x89 }, b's', b't', b'R']);
            }
            Self::Byte(byte) => pickle.push(*byte),
        }
    }
}

fn int(value: i32, pickle: &mut Vec<u8>) {
    pickle.push(b'J');
    pickle.extend(value.to_le_bytes());
}

fn text(text: &str, pickle: &mut Vec<u8>) {
    pickle.push(b'X');
    pickle.extend((text.len() as u32).to_le_bytes());
    pickle.extend(text.bytes());
}

fn global(module: &str, name: &str, pickle: &mut Vec<u8>) {
    pickle.extend(format!("c{module}\n{name}\n").bytes());
}
