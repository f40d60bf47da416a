//! Altered containers, and reading them: a program of bytes that edits a container (random bytes in
//! tests, a fuzzer's in fuzz/), the seeds worth editing, and reading everything of the result.

use crate::reseal::{Pieces, chunks, columns, reseal, table};
use crate::{CODECS, open_with, wave};
use tensorkeep::{
    Checkpoint, Codec, Dtype, ErrorKind, OpenOptions, Result, Snapshot, Tensor, Value, Verify, WriteOptions,
};

/// Bytes of one step of a program: what, where, how far in, and a value.
pub const STEP: usize = 12;

/// Small containers with every kind of entry: raw, compressed, filled, aliased, empty, in one chunk
/// and in several.
pub fn seeds() -> Vec<Pieces> {
    let (floats, ramp, zeros) = (wave(3000), (0..16_500_u32).collect::<Vec<_>>(), vec![0_u16; 33_000]);
    let mut full = Snapshot::new().tensor("a.weight", (&[30, 100][..], floats.as_slice())).unwrap();
    full = full.tensor("a.bias", &floats[..7]).unwrap().alias("tied", "a.bias").unwrap();
    full = full.tensor("ramp", &ramp).unwrap().tensor("zeros", &zeros).unwrap();
    full = full.tensor("empty", Tensor::new(Dtype::F64, &[2, 0], &[]).unwrap()).unwrap();
    full = full.tensor("flag", Tensor::new(Dtype::Bool, &[], &[1]).unwrap()).unwrap();
    full = full
        .record("optimizer", &("adam", 0.001, vec![0.9, 0.999]))
        .unwrap()
        .record("zeros", &vec![0_u8; 9000])
        .unwrap();
    full = full.metric("loss", 0.5).unwrap().metadata("run", "seed").unwrap();
    full = full.progress(tensorkeep::Progress::new(7));
    let small = Snapshot::new().tensor("w", &floats[..4]).unwrap().record("r", &1).unwrap();
    let bytes = |snapshot: &Snapshot<'_>, codec| {
        snapshot.to_bytes(&WriteOptions::new().codec(codec).chunk_log2(16).workers(1)).unwrap()
    };
    let all = CODECS.iter().map(|&codec| bytes(&full, codec));
    all.chain([bytes(&small, Codec::Raw), bytes(&Snapshot::new(), Codec::Raw)])
        .map(|bytes| Pieces::of(&bytes).unwrap())
        .collect()
}

/// The template of `reseal::with_record`.
pub fn record_template() -> Pieces {
    template_of("r")
}

/// The same with the reserved record of a run's history, which a snapshot does not take.
pub fn history_template() -> Pieces {
    const LIKE_IT: &[u8] = b"tensorkeep_history";
    let mut pieces = template_of(std::str::from_utf8(LIKE_IT).unwrap());
    for (_, payload) in &mut pieces.sections {
        if let Some(at) = payload.windows(LIKE_IT.len()).position(|there| there == LIKE_IT) {
            payload[at..][..LIKE_IT.len()].copy_from_slice(b"tensorkeep.history");
        }
    }
    pieces
}

fn template_of(record: &str) -> Pieces {
    let snapshot = Snapshot::new().record(record, &1).unwrap();
    let bytes = snapshot.to_bytes(&WriteOptions::new().chunk_log2(26)).unwrap();
    Pieces::of(&bytes).unwrap()
}

/// A container after the edits of a program, all checksums recomputed.
pub fn edited(seed: &Pieces, program: &[u8]) -> Vec<u8> {
    let mut pieces = seed.clone();
    let steps = || program.as_chunks::<STEP>().0.iter().map(Step::of);
    for step in steps() {
        step.edit(&mut pieces);
    }
    let mut bytes = pieces.join();
    for step in steps() {
        step.edit_joined(&mut bytes);
    }
    reseal(&mut bytes);
    bytes
}

/// Kinds of steps.
const WHATS: u8 = 20;

/// Names that could be taken for a path, for markup, or for another name.
const NAMES: [&str; 10] = [
    "",
    ".",
    "../../../etc/passwd",
    "/etc/passwd",
    "C:\\nul",
    "a\0b",
    "a\u{202e}b",
    "<script>",
    "a.bias",
    "tied",
];

struct Step {
    what: u8,
    which: usize,
    place: usize,
    value: u64,
}

impl Step {
    fn of(bytes: &[u8; STEP]) -> Self {
        let [what, which, low, high, value @ ..] = *bytes;
        let value = u64::from_le_bytes(value);
        Self { what: what % WHATS, which: which.into(), place: u16::from_le_bytes([low, high]).into(), value }
    }

    fn edit(&self, pieces: &mut Pieces) {
        let count = pieces.sections.len();
        let Some(section) = self.which.checked_rem(count) else { return };
        let payload = &mut pieces.sections[section].1;
        match self.what {
            0 => self.set(&mut pieces.header, 1),
            1 => self.set(&mut pieces.data, 1),
            2 => pieces.data.truncate(self.value as usize % (pieces.data.len() + 1)),
            3 => pieces.data.extend(vec![0; self.place % 9000]),
            4 => self.set(payload, 1),
            5 => self.splice(payload),
            6 => {
                let twin = pieces.sections[section].clone();
                pieces.sections.insert(self.place % (count + 1), twin);
            }
            7 => drop(pieces.sections.remove(section)),
            8 => pieces.sections.swap(section, self.place % count),
            9 => pieces.sections[section].0 = self.number(u64::from(pieces.sections[section].0)) as u32,
            17 => {}
            _ => self.edit_column(payload),
        }
    }

    /// The columns hold most values that can lie, so most edits are here.
    fn edit_column(&self, payload: &mut Vec<u8>) {
        let found = columns(payload);
        let Some(column) = (self.which / 4).checked_rem(found.len()) else { return };
        let (name, range) = &found[column];
        let width = match name.as_str() {
            "names" | "chunk_log2" | "chunk_codecs" | "chunk_filters" => 1,
            "dtypes" => 2,
            "name_ends" | "dim_ends" | "chunk_ends" | "chunk_stored" | "chunk_crcs" | "targets" => 4,
            "level_axes" | "save" => 1,
            "layouts" | "copies" | "box_ends" | "owners" | "layout_counts" | "layout_firsts" => 4,
            "layout_steps" | "member_ends" | "members" | "level_ends" | "level_parts" => 4,
            "level_strides" | "rank_world" | "shard_ranks" | "shard_index_crcs" => 4,
            _ => 8,
        };
        match self.what {
            15 => {}
            16 => return self.repeat(&mut payload[range.clone()], width),
            18 => return self.rename(payload),
            _ => return self.set(&mut payload[range.clone()], width),
        }
        // A column of another length: elements are removed or added.
        let mut owned: Vec<_> =
            found.iter().map(|(name, range)| (name.clone(), payload[range.clone()].to_vec())).collect();
        let bytes = &mut owned[column].1;
        match self.value % 3 {
            0 => bytes.truncate(self.place % (bytes.len() + 1)),
            1 => bytes.extend(&self.value.to_le_bytes()[..width.min(8)]),
            _ => bytes.clear(),
        }
        *payload = table(&owned);
    }

    /// Gives one element the value of another: extents that overlap, duplicate names and targets.
    fn repeat(&self, bytes: &mut [u8], width: usize) {
        let count = bytes.len() / width;
        let Some(from) = self.place.checked_rem(count) else { return };
        let to = self.value as usize % count;
        bytes.copy_within(from * width..(from + 1) * width, to * width);
    }

    /// Gives one entry another's name or a hostile one. Half of all tables are sorted again, as
    /// names must be.
    fn rename(&self, payload: &mut Vec<u8>) {
        let mut owned: Vec<_> =
            columns(payload).into_iter().map(|(name, range)| (name, payload[range].to_vec())).collect();
        let column = |name| owned.iter().position(|(found, _)| found == name);
        let (Some(names), Some(ends)) = (column("names"), column("name_ends")) else { return };
        let mut start = 0;
        let mut all = Vec::new();
        for end in owned[ends].1.as_chunks::<4>().0 {
            let end = u32::from_le_bytes(*end) as usize;
            all.push(owned[names].1.get(start..end).unwrap_or_default().to_vec());
            start = end;
        }
        let Some(which) = self.place.checked_rem(all.len()) else { return };
        all[which] = match self.value as usize % (NAMES.len() + 2) {
            0 => all[(self.value >> 8) as usize % all.len()].clone(),
            1 => vec![b'x'; 1020 + (self.value >> 8) as usize % 8],
            number => NAMES[number - 2].into(),
        };
        if self.value >> 63 == 1 {
            all.sort();
        }
        let ends_of = all.iter().scan(0, |end, name| {
            *end += name.len() as u32;
            Some(end.to_le_bytes())
        });
        owned[ends].1 = ends_of.flatten().collect();
        owned[names].1 = all.concat();
        *payload = table(&owned);
    }

    /// Footer, and the frames of the index, which exist only once the pieces are joined.
    fn edit_joined(&self, bytes: &mut [u8]) {
        let len = bytes.len();
        match (self.what, self.which % 4) {
            (0, 1) => self.set(&mut bytes[len - 128..], 8),
            (0, 2) => self.set(&mut bytes[len - 128..], 1),
            (1, 1) => self.set(&mut bytes[len - 1024..], 1),
            (17, _) => {
                let chunks: Vec<_> = chunks(bytes).into_iter().filter(|chunk| chunk.codec != 0).collect();
                if let Some(which) = self.place.checked_rem(chunks.len()) {
                    let stored = chunks[which].stored.clone();
                    bytes[stored.clone()].copy_from_slice(&bomb(stored.len()));
                }
            }
            _ => {}
        }
    }

    /// Overwrites the element of this width at the place.
    fn set(&self, bytes: &mut [u8], width: usize) {
        let Some(element) = self.place.checked_rem(bytes.len() / width) else { return };
        let element = &mut bytes[element * width..][..width];
        let old = element.iter().rev().fold(0, |old, &byte| old << 8 | u64::from(byte));
        element.copy_from_slice(&self.number(old).to_le_bytes()[..width]);
    }

    /// A number that parsers get wrong, or one near the old one.
    fn number(&self, old: u64) -> u64 {
        let small = self.value >> 8 & 0xFF;
        match self.value % 16 {
            0 => 0,
            1 => u64::MAX,
            2..=5 => old.wrapping_add(small % 4 + 1),
            6..=8 => old.wrapping_sub(small % 4 + 1),
            9 => old ^ 1 << (small % 64),
            10 => 1 << (small % 64),
            11 => (1 << (small % 64)) - 1,
            12 => small,
            13 => old.wrapping_mul(small),
            14 => old.wrapping_add(4096),
            _ => self.value >> 8,
        }
    }

    fn splice(&self, payload: &mut Vec<u8>) {
        let start = self.place % (payload.len() + 1);
        let end = (start + self.value as usize % 9).min(payload.len());
        let new = &self.value.to_le_bytes()[..(self.value >> 60) as usize % 9];
        payload.splice(start..end, new.iter().copied());
    }
}

/// A zstd frame of exactly this length that decodes to 128 KiB for every four of its bytes; noise
/// where there is no room.
pub fn bomb(len: usize) -> Vec<u8> {
    const HEAD: [u8; 6] = [0x28, 0xB5, 0x2F, 0xFD, 0, 7 << 3];
    const REPEAT: [u8; 4] = [2, 0, 0x10, 0x55];
    let Some(room) = len.checked_sub(HEAD.len() + 3) else { return vec![0x55; len] };
    let mut frame = HEAD.to_vec();
    frame.extend(REPEAT.repeat(room / 4));
    frame.extend([1 | (room as u8 % 4) << 3, 0, 0]);
    frame.resize(len, 0x55);
    frame
}

/// The outcome of reading everything of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Refused on opening, with the error's text.
    Refused(ErrorKind, String),
    /// Opened, with the numbers of reads that returned data and an error.
    Opened { read: usize, refused: usize },
}

/// Opens bytes, reads everything by every API, and prints every error.
pub fn read_everything(bytes: &[u8], mapped: bool) -> Outcome {
    let options = OpenOptions::new().budget(budget(bytes.len()));
    let checkpoint = match open_with(bytes, mapped, options) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return Outcome::Refused(error.kind(), format!("{error}{error:?}")),
    };
    let outcome = read_all_of(&checkpoint, bytes.len());
    drop(
        open_with(bytes, mapped, options.verify(Verify::AtOpen)).map_err(|error| format!("{error}{error:?}")),
    );
    outcome
}

/// Reads everything of an open checkpoint, whose file has this length, by every API.
pub fn read_all_of(checkpoint: &Checkpoint, file_len: usize) -> Outcome {
    let (mut read, mut refused) = (0, 0);
    let mut count = |result: Result<()>| match result {
        Ok(()) => read += 1,
        Err(error) => refused += usize::from(!format!("{error}{error:?}").is_empty()),
    };
    for info in checkpoint.tensors() {
        let rows = info.shape.first().map_or(0, |&rows| rows as usize);
        for range in [0..1, rows / 2..rows / 2 + 1, rows..rows, 0..rows] {
            count(checkpoint.slice(info.name, range).map(drop));
        }
        count(checkpoint.tensor(info.name).and_then(|tensor| look_at(&tensor)));
        count(checkpoint.inspect().require_mapped(info.name).map(drop));
        count(load_into(checkpoint, info.name, info.byte_len, file_len));
        assert_eq!(checkpoint.info(info.name).unwrap(), info);
    }
    for name in checkpoint.records() {
        count(checkpoint.inspect().record_value(name).map(|value| drop(value.to_string())));
        count(checkpoint.record::<(String, f64, Vec<f64>)>(name).map(drop));
    }
    count(checkpoint.progress().map(drop));
    count(checkpoint.metrics().map(drop));
    count(checkpoint.metadata().map(drop));
    count(checkpoint.tensor("no such name").map(drop));
    count(checkpoint.inspect().verify_all().map(|report| drop(format!("{report:?}"))));
    count(checkpoint.verify().map(drop));
    Outcome::Opened { read, refused }
}

/// The memory budget of one tensor or record: enough for every valid seed.
pub fn budget(file_len: usize) -> u64 {
    file_len as u64 * 16
}

fn look_at(tensor: &Tensor<'_>) -> Result<()> {
    assert_eq!(tensor.bytes().len(), tensor.len() * tensor.dtype().size());
    match tensor.dtype() {
        Dtype::F32 => tensor.elements::<f32>().map(drop),
        Dtype::Bool => tensor.elements::<bool>().map(drop),
        _ => tensor.scalar::<u64>().map(drop),
    }
}

fn load_into(checkpoint: &Checkpoint, name: &str, len: u64, file_len: usize) -> Result<()> {
    let mut target = vec![0; len.min(budget(file_len)) as usize];
    checkpoint.load_into([(name, &mut target[..])])
}

/// Opens the container of a record and reads it as several types.
pub fn read_record(bytes: &[u8], mapped: bool) -> Result<Value> {
    let checkpoint = open_with(bytes, mapped, OpenOptions::new())?;
    let value = checkpoint.inspect().record_value("r");
    for result in [
        checkpoint.record::<(u8, String)>("r").map(drop),
        checkpoint.record::<std::collections::BTreeMap<String, Vec<f32>>>("r").map(drop),
        checkpoint.record::<Option<Vec<Option<char>>>>("r").map(drop),
        checkpoint.record::<tensorkeep::Progress>("r").map(drop),
    ] {
        drop(result.map_err(|error| format!("{error}{error:?}")));
    }
    value
}
