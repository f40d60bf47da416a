//! torch's files: what `torch.load(weights_only=True)` reads is read with the same values, and what cannot be carried
//! over is told without taking the rest with it. Files by torch itself are compared in the second half.

mod common;
#[path = "convert/pickles.rs"]
mod pickles;

use common::TempFolder;
use pickles::*;
use tensorkeep::convert::Foreign;
use tensorkeep::{Checkpoint, ErrorKind, WriteOptions};
use zip::CompressionMethod::{Deflated, Stored};

/// A torch archive of one object, opened.
struct Opened {
    foreign: Foreign,
    _folder: TempFolder,
}

fn open(object: &[u8], storages: &[(&str, &[u8])]) -> Opened {
    let folder = TempFolder::new("convert-torch");
    let path = torch(&folder.path().join("x.pt"), object, storages, Stored);
    let foreign = Foreign::open(&path).unwrap_or_else(|error| panic!("{error}: {error:?}"));
    Opened { foreign, _folder: folder }
}

impl Opened {
    fn f32s(&self, name: &str) -> Vec<f32> {
        let tensor = self.foreign.tensor(name).unwrap_or_else(|error| panic!("{error}"));
        tensor.elements::<f32>().unwrap().to_vec()
    }

    /// As the import has it: through a snapshot and a container.
    fn imported(&self) -> Checkpoint {
        let bytes = self.foreign.snapshot().unwrap().to_bytes(&WriteOptions::new()).unwrap();
        let path = self._folder.path().join("x.tkeep");
        std::fs::write(&path, bytes).unwrap();
        Checkpoint::open(path).unwrap()
    }
}

#[test]
fn a_tie_of_names_that_clash_is_the_right_tensor() {
    let (first, second) = (vector("FloatStorage", "0", 2), vector("FloatStorage", "1", 2));
    let object = named(&[("a.b", first.clone()), ("a", named(&[("b", second)])), ("c", first)]);
    let opened = open(&object, &[("0", &f32s(&[1.0, 2.0])), ("1", &f32s(&[8.0, 9.0]))]);
    assert_eq!(opened.f32s("c"), [1.0, 2.0]);
    assert_eq!(opened.f32s("a.b~2"), [8.0, 9.0]);
    let imported = opened.imported();
    let c = imported.tensor("c").unwrap();
    assert_eq!(c.elements::<f32>().unwrap(), [1.0, 2.0]);
    assert_eq!(opened.foreign.tensors()[2].alias_of.as_deref(), Some("a.b"));
}

#[test]
fn a_pickle_that_unfolds_beyond_the_budget_is_refused() {
    let folder = TempFolder::new("convert-torch");
    let mebibyte = text(&"x".repeat(1 << 20));
    // One text, recalled two thousand times.
    let recalled = [b"](", &mebibyte[..], b"q\x00", &b"h\x00".repeat(2000), b"e"].concat();
    // Sixteen million objects in one byte each.
    let nones = [b"](", &vec![b'N'; 16 << 20][..], b"e"].concat();
    // A key of a mebibyte over two thousand things that have to be noted.
    let noted = dict(&[(mebibyte, list(&vec![global("os", "system"); 2000]))]);
    for (what, object) in [("recalled", recalled), ("nones", nones), ("noted", noted)] {
        let path = torch(&folder.path().join("bomb.pt"), &object, &[], Deflated);
        let len = std::fs::metadata(&path).unwrap().len();
        assert!(len < 64 << 10, "{what}: {len}");
        let error = Foreign::open(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{what}: {error}");
        assert!(error.to_string().contains("budget"), "{what}: {error}");
        if what == "recalled" {
            assert!(Foreign::open_within(&path, 8 << 30).is_ok());
        }
    }
}
