//! The codec's ratio and cost, on one core, chunk by chunk into existing memory: on weights and
//! moments of nets that are trained here, because random numbers have other exponents and zeros
//! compress as no weights do.
//!
//! It is compared with zstd as it is mostly used (level 3 on the bytes themselves, and on byte
//! planes) and with the ceiling: the entropy of each plane's bytes, which no coder of single bytes
//! can beat. A search for matches can, where units of the net are dead and their moments are runs
//! of zeros: by 1 %, and many times as slowly.
//!
//! `cargo bench --features testing --bench codec`; with `-- --max` also [`Codec::Max`], which takes
//! minutes. Where `PYTHON` names an interpreter that has ZipNN, it is measured in the same run,
//! too.

mod nets;

use lenet::rng::Rng;
use nets::Trained;
use std::hint::black_box;
use std::process::Command;
use std::time::Instant;
use tensorkeep::chunks::{Decoder, Encoder};
use tensorkeep::{Codec, Dtype};

/// The format's default.
const CHUNK: usize = 1 << 20;
const PASSES: usize = 15;

/// One kind of values: name, dtype, bytes.
type Row = (&'static str, Dtype, Vec<u8>);

fn bytes<T: bytemuck::NoUninit>(values: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

/// A net's weights in two dtypes, and its moments.
fn of_a_net(names: [&'static str; 4], Trained { weights, m, v }: &Trained) -> [Row; 4] {
    let halves: Vec<half::bf16> = weights.iter().map(|&value| half::bf16::from_f32(value)).collect();
    let [bf16, f32, of_m, of_v] = names;
    [
        (bf16, Dtype::Bf16, bytes(&halves)),
        (f32, Dtype::F32, bytes(weights)),
        (of_m, Dtype::F32, m.clone()),
        (of_v, Dtype::F32, v.clone()),
    ]
}

fn rows() -> Vec<Row> {
    let (model, lenet) = (nets::language_model(), nets::lenet());
    let doubles: Vec<f64> =
        lenet.weights.iter().map(|&value| f64::from(value) * std::f64::consts::PI).collect();
    // Token ids with the frequencies of text: the n-th most frequent of 50,257 is drawn about 1/n
    // as often as the first.
    let mut rng = Rng::new(1);
    let ids: Vec<i64> = (0..500_000).map(|_| 50_257_f64.powf(rng.uniform_f64()) as i64 - 1).collect();
    let tokens: Vec<u16> = ids.iter().map(|&id| id as u16).collect();
    let mut rows = Vec::new();
    rows.extend(of_a_net(["bf16 weights", "f32 weights", "Adam m", "Adam v"], &model));
    rows.extend(of_a_net(["LeNet: bf16", "LeNet: f32", "LeNet: Adam m", "LeNet: Adam v"], &lenet));
    rows.push(("f64 weights", Dtype::F64, bytes(&doubles)));
    rows.push(("i64 ids", Dtype::I64, bytes(&ids)));
    rows.push(("u16 tokens", Dtype::U16, bytes(&tokens)));
    rows
}

/// How a chunk was stored: codec, filter, bytes.
type Stored<'s> = (u8, u8, &'s [u8]);

/// A compressor, with reusable memory of its own.
trait System {
    fn encode<'s>(&'s mut self, raw: &'s [u8], dtype: Dtype) -> Stored<'s>;
    fn decode(&mut self, stored: Stored<'_>, raw: &mut [u8], dtype: Dtype);
}

struct This(Codec, Encoder, Decoder);

impl System for This {
    fn encode<'s>(&'s mut self, raw: &'s [u8], dtype: Dtype) -> Stored<'s> {
        let encoded = self.1.encode(raw, dtype, self.0).unwrap();
        (encoded.codec, encoded.filter, encoded.bytes)
    }

    fn decode(&mut self, (codec, filter, stored): Stored<'_>, raw: &mut [u8], dtype: Dtype) {
        self.2.decode(codec, filter, stored, raw, dtype).unwrap();
    }
}

/// zstd at level 3, on the bytes themselves or on their planes.
struct Zstd {
    planes: bool,
    compressor: zstd::bulk::Compressor<'static>,
    decompressor: zstd::bulk::Decompressor<'static>,
    filtered: Vec<u8>,
    coded: Vec<u8>,
}

impl Zstd {
    fn new(planes: bool) -> Self {
        let (compressor, decompressor) = (zstd::bulk::Compressor::new(3), zstd::bulk::Decompressor::new());
        let (filtered, coded) = (vec![0; CHUNK], vec![0; zstd::zstd_safe::compress_bound(CHUNK)]);
        Self { planes, compressor: compressor.unwrap(), decompressor: decompressor.unwrap(), filtered, coded }
    }
}

impl System for Zstd {
    fn encode<'s>(&'s mut self, raw: &'s [u8], dtype: Dtype) -> Stored<'s> {
        let filtered = if self.planes {
            planes(raw, dtype.size(), &mut self.filtered);
            &self.filtered[..raw.len()]
        } else {
            raw
        };
        let len = self.compressor.compress_to_buffer(filtered, &mut self.coded[..]).unwrap();
        (0, 0, &self.coded[..len])
    }

    fn decode(&mut self, (_, _, stored): Stored<'_>, raw: &mut [u8], dtype: Dtype) {
        if !self.planes {
            self.decompressor.decompress_to_buffer(stored, raw).unwrap();
            return;
        }
        self.decompressor.decompress_to_buffer(stored, &mut self.filtered[..]).unwrap();
        let (size, count) = (dtype.size(), raw.len() / dtype.size());
        for (byte, plane) in self.filtered[..raw.len()].chunks(count).enumerate() {
            for (to, from) in raw[byte..].iter_mut().step_by(size).zip(plane) {
                *to = *from;
            }
        }
    }
}

/// Byte planes, in the plainest code.
fn planes(raw: &[u8], size: usize, planes: &mut [u8]) {
    for (byte, plane) in planes[..raw.len()].chunks_mut(raw.len() / size).enumerate() {
        for (to, from) in plane.iter_mut().zip(raw[byte..].iter().step_by(size)) {
            *to = *from;
        }
    }
}

/// Raw bytes over the bytes left when each plane of rotated words costs its entropy, chunk by
/// chunk; 8 bits a byte where that does not save 3 %.
fn ceiling(raw: &[u8], word: usize) -> f64 {
    let mut bits = 0.0;
    for chunk in raw.chunks(CHUNK) {
        for byte in 0..word {
            let mut counts = [0_u32; 256];
            for word in chunk.chunks_exact(word) {
                // The byte at this position of the rotated word: its bits but the highest, and one
                // from below.
                let below = word[(byte + word.len() - 1) % word.len()];
                counts[usize::from(word[byte] << 1 | below >> 7)] += 1;
            }
            let total = (chunk.len() / word) as f64;
            let cost = |&count: &u32| f64::from(count) * (total / f64::from(count)).log2();
            let entropy: f64 = counts.iter().filter(|&&count| count > 0).map(cost).sum();
            bits += if entropy < total * 8.0 * 0.97 { entropy } else { total * 8.0 };
        }
    }
    raw.len() as f64 * 8.0 / bits
}

/// Median seconds of one pass.
fn seconds(mut pass: impl FnMut()) -> f64 {
    pass();
    let mut times: Vec<f64> = (0..PASSES)
        .map(|_| {
            let start = Instant::now();
            pass();
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[PASSES / 2]
}

/// Ratio, GB/s in, GB/s out.
fn measure(system: &mut dyn System, dtype: Dtype, raw: &[u8]) -> [f64; 3] {
    let mut stored: Vec<(u8, u8, Vec<u8>)> = Vec::new();
    for chunk in raw.chunks(CHUNK) {
        let (codec, filter, bytes) = system.encode(chunk, dtype);
        stored.push((codec, filter, bytes.to_vec()));
    }
    let encoding = seconds(|| {
        for chunk in raw.chunks(CHUNK) {
            black_box(system.encode(black_box(chunk), dtype));
        }
    });
    let mut decoded = vec![0xEE; raw.len()];
    let decoding = seconds(|| {
        for ((codec, filter, bytes), to) in stored.iter().zip(decoded.chunks_mut(CHUNK)) {
            system.decode((*codec, *filter, bytes), black_box(to), dtype);
        }
    });
    assert!(decoded == raw, "{dtype} came back otherwise");
    let len: usize = stored.iter().map(|(_, _, bytes)| bytes.len()).sum();
    let gigabytes = raw.len() as f64 / 1e9;
    [raw.len() as f64 / len as f64, gigabytes / encoding, gigabytes / decoding]
}

/// ZipNN's figures, called from Python, for bf16 or f32: as [`measure`].
fn zipnn(dtype: Dtype, raw: &[u8]) -> Option<[f64; 3]> {
    let python = std::env::var("PYTHON").ok()?;
    let dtype = match dtype {
        Dtype::Bf16 => "bfloat16",
        Dtype::F32 => "float32",
        _ => return None,
    };
    let path = std::env::temp_dir().join(format!("tensorkeep-codec-{}", std::process::id()));
    std::fs::write(&path, raw).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/codec/peer.py");
    let mut command = Command::new(python);
    let output = command.arg(script).arg(dtype).arg(&path).arg(PASSES.to_string()).output().unwrap();
    std::fs::remove_file(&path).unwrap();
    let words =
        String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr });
    let figures: Vec<f64> = words.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let figures = figures.try_into();
    figures.inspect_err(|_| println!("{:14}{}", "", words.trim())).ok()
}

fn main() {
    let max = std::env::args().any(|argument| argument == "--max");
    let rows = rows();
    println!("ratio @ GB/s in / out, one core, chunks of 1 MiB, medians of {PASSES}");
    println!("{:14}{:>24}{:>24}{:>24}{:>10}", "", "balanced", "zstd 3", "zstd 3 on planes", "entropy");
    for (name, dtype, raw) in &rows {
        let mut this = This(Codec::Balanced, Encoder::default(), Decoder::default());
        let [this, plain, planes] =
            [&mut this as &mut dyn System, &mut Zstd::new(false), &mut Zstd::new(true)]
                .map(|system| measure(system, *dtype, raw));
        let ceiling = ceiling(raw, dtype.size());
        let cell = |[ratio, encoded, decoded]: [f64; 3]| format!("{ratio:.3} @ {encoded:.2} / {decoded:.2}");
        println!("{name:14}{:>24}{:>24}{:>24}{ceiling:>10.3}", cell(this), cell(plain), cell(planes));
        if let Some(zipnn) = zipnn(*dtype, raw) {
            println!("{:14}{:>24}", "  ZipNN", cell(zipnn));
        }
        if max {
            let mut max = This(Codec::Max, Encoder::default(), Decoder::default());
            println!(
                "{:14}{:>24}",
                "  max",
                cell(measure(&mut max, *dtype, &raw[..raw.len().min(2 * CHUNK)]))
            );
        }
        if dtype.is_float() {
            assert!(this[0] > 0.98 * ceiling && this[0] > plain[0], "{name}: less than there is to be had");
        }
    }
}
