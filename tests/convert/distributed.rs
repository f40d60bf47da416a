//! Checkpoints of `torch.distributed.checkpoint`, with hand-made files and `.metadata`, so that
//! parts can be missing, overlap, and lie.

use crate::pickles::*;
use std::path::PathBuf;
use tensorkeep::convert::{Foreign, Format};
use tensorkeep::{Error, ErrorKind, Value};
use test_support::TempFolder;
use zip::CompressionMethod::Stored;

const METADATA: &str = "torch.distributed.checkpoint.metadata";

/// A part of a tensor: its offset, and its values as rows.
#[derive(Clone)]
struct Part {
    file: &'static str,
    offsets: [i32; 2],
    sizes: [i32; 2],
    values: Vec<f32>,
}

fn part(file: &'static str, offsets: [i32; 2], sizes: [i32; 2], values: &[f32]) -> Part {
    Part { file, offsets, sizes, values: values.to_vec() }
}

fn halves() -> Vec<Part> {
    vec![
        part("__0_0.distcp", [0, 0], [2, 2], &[0.0, 1.0, 4.0, 5.0]),
        part("__1_0.distcp", [0, 2], [2, 2], &[2.0, 3.0, 6.0, 7.0]),
    ]
}

struct Files {
    folder: TempFolder,
    entries: Vec<(Vec<u8>, Vec<u8>)>,
}

fn size(sizes: &[i32]) -> Vec<u8> {
    call("torch", "Size", &[tuple(&sizes.iter().map(|&size| int(size)).collect::<Vec<_>>())])
}

impl Files {
    fn new() -> Self {
        Self { folder: TempFolder::new("distributed"), entries: vec![] }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Appends an archive to a file, and lists it in the metadata.
    fn push(
        &mut self,
        file: &str,
        name: &str,
        offsets: Option<&[i32]>,
        object: &[u8],
        storages: &[(&str, &[u8])],
    ) {
        let archive = std::fs::read(torch(&self.path("archive"), object, storages, Stored)).unwrap();
        std::fs::remove_file(self.path("archive")).unwrap();
        let mut bytes = std::fs::read(self.path(file)).unwrap_or_default();
        let start = bytes.len() as i32;
        bytes.extend(&archive);
        std::fs::write(self.path(file), bytes).unwrap();
        let offsets = offsets.map_or(NONE.to_vec(), size);
        let index =
            object_of("MetadataIndex", &[("fqn", text(name)), ("offset", offsets), ("index", int(0))]);
        let info = named(&[
            ("relative_path", text(file)),
            ("offset", int(start)),
            ("length", int(archive.len() as i32)),
        ]);
        self.entries.push((
            index,
            crate::pickles::object("torch.distributed.checkpoint.filesystem", "_StorageInfo", info),
        ));
    }

    /// The tensor `w` of 2 × 4 in these parts, and the number `epoch`.
    fn write(mut self, parts: &[Part]) -> Self {
        let mut chunks = Vec::new();
        for part in parts {
            let strides = [part.sizes[1], 1];
            let view =
                Strided { class: "FloatStorage", key: "0", offset: 0, shape: &part.sizes, strides: &strides };
            self.push(part.file, "w", Some(&part.offsets), &view.pickle(), &[("0", &f32s(&part.values))]);
            let chunk = [("offsets", size(&part.offsets)), ("sizes", size(&part.sizes))];
            chunks.push(object_of("ChunkStorageMetadata", &chunk));
        }
        self.of("float32", &chunks)
    }

    /// Writes the `.metadata`: the tensor `w` in these parts, and `epoch`.
    fn of(mut self, dtype: &str, chunks: &[Vec<u8>]) -> Self {
        self.push("__0_0.distcp", "epoch", None, &int(3), &[]);
        let state = tuple(&[
            global("torch", dtype),
            global("torch", "strided"),
            FALSE.to_vec(),
            NONE.to_vec(),
            FALSE.to_vec(),
        ]);
        let properties = crate::pickles::object(METADATA, "TensorProperties", state);
        let tensor = [("properties", properties), ("size", size(&[2, 4])), ("chunks", list(chunks))];
        let entries = named(&[
            ("w", object_of("TensorStorageMetadata", &tensor)),
            ("epoch", object_of("BytesStorageMetadata", &[])),
        ]);
        let metadata = [
            ("state_dict_metadata", entries),
            ("planner_data", NONE.to_vec()),
            ("storage_data", dict(&self.entries)),
        ];
        let pickle = [b"\x80\x02".to_vec(), object_of("Metadata", &metadata), b".".to_vec()].concat();
        std::fs::write(self.path(".metadata"), pickle).unwrap();
        self
    }

    fn refused(&self) -> Error {
        Foreign::open(self.folder.path()).unwrap_err()
    }
}

fn object_of(class: &str, fields: &[(&str, Vec<u8>)]) -> Vec<u8> {
    crate::pickles::object(METADATA, class, named(fields))
}

#[test]
fn parts_of_a_distributed_checkpoint_are_joined() {
    let files = Files::new().write(&halves());
    for name in ["", ".metadata", "__0_0.distcp", "__1_0.distcp"] {
        let foreign = Foreign::open(files.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(Foreign::sniff(files.path(name)).unwrap(), Some(Format::Torch));
        let w = foreign.tensor("w").unwrap();
        assert_eq!(
            (w.shape(), w.elements::<f32>().unwrap()),
            (&[2, 4][..], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0][..])
        );
        assert_eq!(foreign.records()["epoch"], Value::Int(3));
        assert_eq!(foreign.tensors().len(), 1);
        foreign.snapshot().unwrap().to_bytes(&tensorkeep::WriteOptions::new()).unwrap();
    }
}

#[test]
fn a_dtype_without_a_counterpart_is_told_with_its_shape() {
    let mut files = Files::new();
    let view = Strided { class: "ComplexHalfStorage", key: "0", offset: 0, shape: &[2, 4], strides: &[4, 1] };
    files.push("__0_0.distcp", "w", Some(&[0, 0]), &view.pickle(), &[("0", &[7; 32])]);
    let chunk = [("offsets", size(&[0, 0])), ("sizes", size(&[2, 4]))];
    let files = files.of("complex32", &[object_of("ChunkStorageMetadata", &chunk)]);
    let foreign = Foreign::open(files.folder.path()).unwrap();
    let tensor = foreign.tensor("w").unwrap();
    assert_eq!((tensor.dtype(), tensor.bytes()), (tensorkeep::Dtype::Opaque, &[7; 32][..]));
    let Value::Map(record) = &foreign.records()["w"] else { panic!("{:?}", foreign.records()) };
    assert_eq!(record["dtype"], Value::Text("torch.complex32".to_owned()));
    assert_eq!(record["shape"], Value::List(vec![Value::Int(2), Value::Int(4)]));
    assert!(foreign.notes().iter().any(|note| note.what.contains("opaque bytes")));
}

#[test]
fn a_part_that_is_missing_or_lies_is_refused() {
    let whole = halves();
    for (what, parts) in [
        ("a part is missing", vec![whole[0].clone()]),
        ("parts overlap", vec![whole[0].clone(), part("__1_0.distcp", [0, 1], [2, 2], &[0.0; 4])]),
        ("outside", vec![whole[0].clone(), part("__1_0.distcp", [0, 3], [2, 2], &[0.0; 4])]),
    ] {
        let error = Files::new().write(&parts).refused();
        assert_eq!((error.kind(), error.tensor()), (ErrorKind::Damaged, Some("w")), "{what}: {error}");
    }
    let files = Files::new().write(&whole);
    std::fs::remove_file(files.path("__1_0.distcp")).unwrap();
    let error = files.refused();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(format!("{error}{error:?}").contains("__1_0.distcp"), "{error}");
    std::fs::write(files.path("__1_0.distcp"), b"PK\x03\x04").unwrap();
    assert_eq!(files.refused().kind(), ErrorKind::Damaged);
}

#[test]
fn files_without_their_metadata_are_refused_by_name() {
    let files = Files::new().write(&halves());
    std::fs::remove_file(files.path(".metadata")).unwrap();
    for name in ["", "__0_0.distcp"] {
        let error = Foreign::open(files.path(name)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Foreign, "{error}");
        assert!(error.to_string().contains(".metadata"), "{error}");
    }
    // Under any name: several archives are not one.
    std::fs::copy(files.path("__0_0.distcp"), files.path("model.pt")).unwrap();
    let error = Foreign::open(files.path("model.pt")).unwrap_err();
    assert!(error.to_string().contains("several zip archives"), "{error}");
}
