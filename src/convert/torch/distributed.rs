//! Checkpoints of `torch.distributed.checkpoint` (DCP): a folder of `.distcp` files, each with
//! consecutive archives, and a `.metadata` that maps parts of tensors to them. Parts are joined
//! into whole tensors.

use super::archive;
use super::elements::ElementType;
use super::tensors::describe;
use crate::budget::Budget;
use crate::buffer::Buffer;
use crate::convert::blob::{self, Section};
use crate::convert::pickle::{self, Graph, Id, Node};
use crate::convert::tensor::Place;
use crate::convert::{Foreign, ForeignTensor, Format, Note, lie};
use crate::dtype::Dtype;
use crate::engine::{Blob, local};
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::element_count;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const METADATA: &str = ".metadata";
const LONGEST_METADATA: u64 = 128 << 20;

/// The `.metadata` of the checkpoint to which a path belongs: its folder, one of its files, or the
/// `.metadata` itself.
///
/// # Errors
/// `Foreign` for a folder that is not such a checkpoint, and for a `.distcp` without its
/// `.metadata`.
pub fn metadata(path: &Path) -> Result<Option<PathBuf>> {
    let is_part = path.extension().is_some_and(|extension| extension == "distcp");
    if path.is_dir() {
        let metadata = path.join(METADATA);
        if metadata.is_file() {
            return Ok(Some(metadata));
        }
        return Err(Error::new(ErrorKind::Foreign, "a folder, and no checkpoint of torch.distributed")
            .expected("a .metadata in it, which says what its files hold")
            .help("name a file in it, or the folder that has the .metadata"));
    }
    let beside = path.with_file_name(METADATA);
    if path.file_name().is_some_and(|name| name == METADATA) || (is_part && beside.is_file()) {
        return Ok(Some(beside));
    }
    if is_part && path.is_file() {
        return Err(Error::new(ErrorKind::Foreign, "one file of a torch distributed checkpoint (DCP)")
            .expected("its .metadata beside it, which says what it holds")
            .help("copy the whole folder, and open that"));
    }
    Ok(None)
}

/// Bytes of all files in the checkpoint's folder, for the default budget.
pub fn folder_len(metadata: &Path) -> u64 {
    let entries = metadata.parent().and_then(|folder| std::fs::read_dir(folder).ok());
    entries
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .map(|facts| facts.len())
        .sum()
}

/// Opens a whole checkpoint by its `.metadata`.
pub fn open(path: &Path, budget: &Budget) -> Result<Foreign> {
    let blob = local::open_file(path)?;
    if blob.len() > LONGEST_METADATA {
        return Err(Error::damaged("length of the .metadata")
            .expected(format!("at most {LONGEST_METADATA}"))
            .found(blob.len()));
    }
    budget.spend(blob.len(), "the .metadata")?;
    // OK to cast: at most LONGEST_METADATA.
    let mut bytes = vec![0; blob.len() as usize];
    blob.read_at(0, &mut bytes)?;
    let graph = pickle::read(&bytes, budget)?;
    let metadata = Metadata { graph: &graph, budget };
    let mut files = Files { folder: path.to_owned(), blobs: HashMap::new() };
    let parts = metadata.parts(&mut files)?;
    let len = blob.len() + files.blobs.values().map(|blob| blob.len()).sum::<u64>();
    let mut foreign = Foreign::empty(Format::Torch, len);
    let entries = metadata.field(graph.root, "state_dict_metadata").and_then(|id| graph.pairs(id));
    for &(key, entry) in entries.ok_or_else(|| unknown("no list of what was saved"))? {
        let name = graph.text(key).ok_or_else(|| unknown("a name that is no text"))?;
        let parts = parts.get(&*name).map_or(&[][..], Vec::as_slice);
        let taken = match metadata.field(entry, "chunks") {
            Some(chunks) => {
                let tensor = metadata.tensor(&name, entry, chunks, parts);
                tensor.map(|tensor| metadata.push(&mut foreign, tensor, entry))
            }
            None => read_object(&mut foreign, &name, parts, budget),
        };
        taken.map_err(|error| error.in_tensor(&name))?;
    }
    Ok(foreign)
}

fn unknown(what: &'static str) -> Error {
    Error::damaged(format!("the .metadata is not as torch writes it: {what}"))
}

/// The opened files of the folder.
struct Files {
    folder: PathBuf,
    blobs: HashMap<String, Arc<dyn Blob>>,
}

impl Files {
    fn section(&mut self, name: &str, start: u64, len: u64) -> Result<Arc<dyn Blob>> {
        // A name in the metadata must not lead out of the folder.
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
            return Err(
                Error::damaged(format!("the .metadata names the file {name:?}")).expected("a file beside it")
            );
        }
        if !self.blobs.contains_key(name) {
            let blob = local::open_file(&self.folder.with_file_name(name))?;
            self.blobs.insert(name.to_owned(), blob);
        }
        let blob = &self.blobs[name];
        if start.checked_add(len).is_none_or(|end| end > blob.len()) {
            return Err(Error::damaged(format!("a part goes beyond the end of {name}"))
                .at_byte(start)
                .expected(format!("{len} bytes"))
                .found(format!("{} in the file", blob.len())));
        }
        Ok(Arc::new(Section::new(blob, start, len)))
    }
}

/// One archive of a file: a part of a tensor, starting at `offsets`, or an object.
#[derive(Clone)]
struct Part {
    offsets: Vec<usize>,
    archive: Arc<dyn Blob>,
}

/// A part of a tensor by the metadata, and its archive.
struct Chunk {
    offsets: Vec<usize>,
    sizes: Vec<usize>,
    archive: Arc<dyn Blob>,
}

/// The objects of a `.metadata`.
struct Metadata<'g> {
    graph: &'g Graph<'g>,
    budget: &'g Budget,
}

impl Metadata<'_> {
    /// An attribute of an object.
    fn field(&self, id: Id, name: &str) -> Option<Id> {
        let Node::Call(call) = self.graph.node(id) else { return None };
        self.graph.get(self.graph.pairs(call.state?)?, name)
    }

    /// All parts, by the name of their tensor or object.
    fn parts(&self, files: &mut Files) -> Result<HashMap<String, Vec<Part>>> {
        let graph = self.graph;
        let mut parts: HashMap<String, Vec<Part>> = HashMap::new();
        let entries = self.field(graph.root, "storage_data").and_then(|id| graph.pairs(id));
        for &(index, place) in entries.ok_or_else(|| unknown("it does not say where anything lies"))? {
            let text = |id, name| self.field(id, name).and_then(|id| graph.text(id));
            let number = |name| self.field(place, name).and_then(|id| graph.size(id));
            let (Some(name), Some(file)) = (text(index, "fqn"), text(place, "relative_path")) else {
                return Err(unknown("a part without a name or a file"));
            };
            let (Some(offset), Some(len)) = (number("offset"), number("length")) else {
                return Err(unknown("a part without an offset or a length"));
            };
            let coded = self.field(place, "transform_descriptors").and_then(|id| graph.sequence(id));
            if coded.is_some_and(|coded| !coded.is_empty()) {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "a part that is compressed or otherwise transformed",
                )
                .in_tensor(name));
            }
            let memory = 2 * size_of::<Part>() + size_of::<Section>() + name.len();
            self.budget.spend(memory as u64, "the parts of tensors")?;
            let offsets = self.field(index, "offset").and_then(|id| graph.sizes(id)).unwrap_or_default();
            let archive = files.section(&file, offset as u64, len as u64)?;
            parts.entry(name.into_owned()).or_default().push(Part { offsets, archive });
        }
        Ok(parts)
    }

    fn tensor(&self, name: &str, entry: Id, chunks: Id, parts: &[Part]) -> Result<ForeignTensor> {
        let graph = self.graph;
        let element = self.element(entry).ok_or_else(|| unknown("a dtype that is not known"))?;
        let shape = self.field(entry, "size").and_then(|id| graph.sizes(id));
        let shape = shape.ok_or_else(|| unknown("a tensor without a size"))?;
        let by_offset: HashMap<&[usize], &Part> = parts.iter().map(|part| (&*part.offsets, part)).collect();
        let mut found = Vec::new();
        for &chunk in graph.sequence(chunks).unwrap_or_default() {
            let sizes = |name| self.field(chunk, name).and_then(|id| graph.sizes(id));
            let (Some(offsets), Some(sizes)) = (sizes("offsets"), sizes("sizes")) else {
                return Err(unknown("a part without offsets or sizes"));
            };
            let part = by_offset.get(&*offsets).ok_or_else(|| {
                Error::damaged(format!("the .metadata does not say where the part from {offsets:?} on lies"))
            })?;
            found.push(Chunk { offsets, sizes, archive: Arc::clone(&part.archive) });
        }
        check_cover(&shape, &found, self.budget)?;
        let memory = 2 * size_of::<ForeignTensor>() + 3 * name.len() + 96 * shape.len();
        self.budget.spend(memory as u64, "the list of tensors")?;
        let count = element_count(&shape).map_err(lie)?;
        let len = count.checked_mul(element.width).ok_or_else(|| Error::damaged("length overflows"))?;
        let (dtype, shape_here) = match element.dtype {
            Dtype::Opaque => (Dtype::Opaque, vec![len]),
            dtype => (dtype, shape.clone()),
        };
        let place = Place::Made(Arc::new(move || join(&shape, element, len, &found)));
        ForeignTensor::new(name.to_owned(), dtype, shape_here, place)
    }

    /// Adds a tensor, and a description of it if its bytes are opaque.
    fn push(&self, foreign: &mut Foreign, tensor: ForeignTensor, entry: Id) {
        let shape = self.field(entry, "size").and_then(|id| self.graph.sizes(id)).unwrap_or_default();
        if let (Dtype::Opaque, Some(element)) = (tensor.dtype, self.element(entry)) {
            let what = format!("torch.{} {shape:?} kept as opaque bytes", element.name);
            foreign.notes.push(Note::kept(&tensor.name, what));
            foreign.keep_record(&tensor.name, describe(element, &shape));
        }
        foreign.tensors.push(tensor);
    }

    fn element(&self, entry: Id) -> Option<ElementType> {
        let graph = self.graph;
        let properties = self.field(entry, "properties")?;
        let Node::Call(call) = graph.node(properties) else { return None };
        // The state is a tuple that starts with the dtype; in early versions it was a dict.
        let dtype = match graph.sequence(call.state?) {
            Some(state) => *state.first()?,
            None => self.field(properties, "dtype")?,
        };
        match graph.node(dtype) {
            Node::Global(global) if global.module == "torch" => ElementType::of_dtype(&global.name),
            _ => None,
        }
    }
}

/// Parts must be within the tensor, must not overlap, and together have all of its elements.
fn check_cover(shape: &[usize], chunks: &[Chunk], budget: &Budget) -> Result<()> {
    let wrong =
        |what: &'static str| Error::damaged(what).expected(format!("parts of {shape:?}, each element once"));
    // Every pair is compared, so the time is charged as bytes.
    budget.spend((chunks.len() as u64).saturating_mul(chunks.len() as u64), "the parts of a tensor")?;
    let mut covered = 0_usize;
    for (number, chunk) in chunks.iter().enumerate() {
        let Chunk { offsets, sizes, .. } = chunk;
        let is_within = offsets.len() == shape.len()
            && sizes.len() == shape.len()
            && (0..shape.len())
                .all(|axis| offsets[axis].checked_add(sizes[axis]).is_some_and(|end| end <= shape[axis]));
        if !is_within {
            return Err(
                wrong("a part lies outside of its tensor").found(format!("{sizes:?} from {offsets:?} on"))
            );
        }
        let overlaps = |other: &&Chunk| {
            let axis_overlaps = |axis: usize| {
                offsets[axis] < other.offsets[axis] + other.sizes[axis]
                    && other.offsets[axis] < offsets[axis] + sizes[axis]
            };
            (0..shape.len()).all(axis_overlaps)
        };
        if let Some(other) = chunks[..number].iter().find(overlaps) {
            return Err(wrong("parts of a tensor overlap")
                .found(format!("from {offsets:?} and {:?} on", other.offsets)));
        }
        covered = covered.saturating_add(element_count(sizes).map_err(lie)?);
    }
    let count = element_count(shape).map_err(lie)?;
    if covered != count {
        return Err(wrong("parts of a tensor are missing").found(format!("{covered} elements of {count}")));
    }
    Ok(())
}

/// Joins the parts of a tensor.
fn join(shape: &[usize], element: ElementType, len: usize, chunks: &[Chunk]) -> Result<Buffer> {
    let mut whole = Buffer::zeroed(len)?;
    for chunk in chunks {
        let bytes = read_part(chunk, element)?;
        if chunk.sizes == shape {
            return Ok(bytes);
        }
        copy_part(&bytes, &mut whole, shape, chunk, element.width);
    }
    Ok(whole)
}

fn read_part(chunk: &Chunk, element: ElementType) -> Result<Buffer> {
    let part = open_part(&chunk.archive, "", &Budget::for_file(None, chunk.archive.len()))?;
    let [tensor] = part.tensors.as_slice() else {
        return Err(
            Error::damaged("an archive of a part holds other than one tensor").found(part.tensors.len())
        );
    };
    let expected_len = element_count(&chunk.sizes).map_err(lie)?.checked_mul(element.width);
    let is_expected = tensor.dtype == element.dtype && Some(tensor.byte_len) == expected_len;
    if !is_expected || (tensor.dtype != Dtype::Opaque && tensor.shape != chunk.sizes) {
        return Err(Error::damaged("a part is other than the .metadata says")
            .expected(format!("torch.{} {:?}", element.name, chunk.sizes))
            .found(format!("{} {:?}", tensor.dtype, tensor.shape)));
    }
    tensor.load()
}

/// Copies a part's rows to their places.
fn copy_part(part: &[u8], whole: &mut [u8], shape: &[usize], chunk: &Chunk, width: usize) {
    let Some((&row, outer)) = chunk.sizes.split_last() else { return };
    if part.is_empty() {
        return;
    }
    let mut index = vec![0_usize; outer.len()];
    for source in part.chunks_exact(row * width) {
        // OK to index and to multiply: the part was checked to be within the tensor.
        let start = (0..shape.len()).fold(0, |start, axis| {
            let within = index.get(axis).copied().unwrap_or(0);
            start * shape[axis] + chunk.offsets[axis] + within
        });
        whole[start * width..][..source.len()].copy_from_slice(source);
        for axis in (0..outer.len()).rev() {
            index[axis] += 1;
            if index[axis] < outer[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
}

/// An object that is not a tensor: it becomes a record, and its tensors become tensors under its
/// name.
fn read_object(foreign: &mut Foreign, name: &str, parts: &[Part], budget: &Budget) -> Result<()> {
    let [part] = parts else {
        return Err(Error::damaged("the .metadata does not say where it lies"));
    };
    let opened = open_part(&part.archive, name, budget)?;
    let first = foreign.tensors.len();
    foreign.tensors.extend(opened.tensors.into_iter().map(|mut tensor| {
        tensor.alias_index = tensor.alias_index.map(|index| index + first);
        tensor
    }));
    foreign.notes.extend(opened.notes);
    for (name, value) in opened.records {
        foreign.keep_record(&name, value);
    }
    Ok(())
}

fn open_part(part: &Arc<dyn Blob>, name: &str, budget: &Budget) -> Result<Foreign> {
    let archive = blob::archive(part)?;
    let pickle = archive::pickle_name(&archive)
        .ok_or_else(|| Error::damaged("a part that is no archive of torch's"))?;
    archive::open_under(part, archive, &pickle, Some(name), budget)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(offsets: &[usize], sizes: &[usize]) -> Chunk {
        let archive: Arc<dyn Blob> =
            Arc::new(Section::new(&local::open_file(Path::new(file!())).unwrap(), 0, 0));
        Chunk { offsets: offsets.to_vec(), sizes: sizes.to_vec(), archive }
    }

    #[test]
    fn parts_are_copied_to_where_they_belong() {
        let mut whole = vec![0; 12];
        copy_part(&[1, 2, 3, 4], &mut whole, &[3, 4], &chunk(&[1, 2], &[2, 2]), 1);
        assert_eq!(whole, [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 3, 4]);
        let mut wide = vec![0; 4];
        copy_part(&[7, 8], &mut wide, &[2], &chunk(&[1], &[1]), 2);
        assert_eq!(wide, [0, 0, 7, 8]);
    }

    #[test]
    fn parts_that_overlap_leave_out_or_stick_out_are_refused() {
        let budget = Budget::new(1 << 20);
        let check = |chunks: &[Chunk]| check_cover(&[2, 4], chunks, &budget);
        check(&[chunk(&[0, 0], &[2, 2]), chunk(&[0, 2], &[2, 2])]).unwrap();
        assert!(check(&[chunk(&[0, 0], &[2, 2]), chunk(&[0, 1], &[2, 2])]).is_err());
        assert!(check(&[chunk(&[0, 0], &[2, 2])]).is_err());
        assert!(check(&[chunk(&[0, 0], &[2, 5])]).is_err());
        assert!(check(&[chunk(&[usize::MAX, 0], &[2, 4])]).is_err());
        assert!(check(&[chunk(&[0], &[8])]).is_err());
    }
}
