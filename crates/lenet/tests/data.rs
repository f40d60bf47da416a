//! Folders of IDX files, good and bad, and drawn digits.

use flate2::{Compression, write::GzEncoder};
use lenet::{Data, data};
use std::io::Write;
use std::path::Path;
use tensorkeep::{Error, ErrorKind};
use test_support::TempFolder;

const IMAGES: &str = "t10k-images-idx3-ubyte";
const LABELS: &str = "t10k-labels-idx1-ubyte";

fn images(count: u32) -> Vec<u8> {
    let pixels = (0..count * 28 * 28).map(|i| (i % 251) as u8);
    [0x803, count, 28, 28].iter().flat_map(|word: &u32| word.to_be_bytes()).chain(pixels).collect()
}

fn labels(labels: &[u8]) -> Vec<u8> {
    [0x801, labels.len() as u32]
        .iter()
        .flat_map(|word| word.to_be_bytes())
        .chain(labels.iter().copied())
        .collect()
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn error_of(folder: &TempFolder) -> Error {
    data::mnist(folder.path()).unwrap_err()
}

#[test]
fn a_pair_is_read_by_content_gzipped_or_not() {
    let (images, labels) = (images(5), labels(&[3, 1, 4, 1, 5]));
    let plain = TempFolder::new("plain").with(IMAGES, &images).with(LABELS, &labels);
    let packed = TempFolder::new("packed")
        .with("train-images-idx3-ubyte.gz", &gzipped(&images))
        .with("train-labels-idx1-ubyte.gz", &labels);
    let found = data::mnist(plain.path()).unwrap();
    assert_eq!(found, data::mnist(packed.path()).unwrap());
    assert_eq!((found.images().dim(), found.labels()), ((5, 1, 28, 28), &[3, 1, 4, 1, 5][..]));
    let expected = (250.0 / 255.0 - 0.1307) / 0.3081;
    assert!((found.images()[(0, 0, 8, 26)] - expected).abs() < 1e-6, "pixel 250 of the first image is 250");
}

#[test]
fn four_fifths_of_the_data_are_for_training() {
    let folder = TempFolder::new("split")
        .with(IMAGES, &images(10))
        .with(LABELS, &labels(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]));
    let data = Data::open(Some(folder.path()), 0).unwrap();
    assert_eq!((data.train.labels(), data.test.labels()), (&[0, 1, 2, 3, 4, 5, 6, 7][..], &[8, 9][..]));
    let text = data.describe();
    assert!(text.starts_with("MNIST from ") && text.ends_with(": 8 images to train, 2 to test"), "{text}");
}

#[test]
fn a_missing_data_folder_is_an_error_and_not_drawn_digits() {
    let empty = TempFolder::new("empty");
    for folder in [Path::new("/no/such/folder"), empty.path()] {
        let error = Data::open(Some(folder), 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("t10k-images-idx3-ubyte"), "{error}");
    }
}

#[test]
fn swapped_files_are_recognised_by_their_first_bytes() {
    let folder = TempFolder::new("swapped").with(IMAGES, &labels(&[1])).with(LABELS, &images(1));
    let error = error_of(&folder);
    assert_eq!((error.kind(), error.byte()), (ErrorKind::Foreign, Some(0)));
    let text = error.to_string();
    assert!(text.contains(IMAGES) && text.contains("expected 00000803, found 00000801"), "{text}");
}

#[test]
fn a_file_that_is_cut_short_is_damaged_packed_or_not() {
    let (images, labels) = (images(3), labels(&[1, 2, 3]));
    let plain = TempFolder::new("cut").with(IMAGES, &images[..images.len() - 1]).with(LABELS, &labels);
    let error = error_of(&plain);
    assert_eq!((error.kind(), error.byte()), (ErrorKind::Damaged, Some(images.len() as u64 - 1)), "{error}");
    assert!(error.to_string().contains("expected 2352 bytes from byte 16 on, found 2351"), "{error}");
    let packed = gzipped(&images);
    let packed = TempFolder::new("cut-gz").with(IMAGES, &packed[..packed.len() / 2]).with(LABELS, &labels);
    assert_eq!(error_of(&packed).kind(), ErrorKind::Damaged);
}

#[test]
fn a_label_above_nine_is_named_with_its_byte() {
    let folder = TempFolder::new("label").with(IMAGES, &images(3)).with(LABELS, &labels(&[1, 9, 10]));
    let error = error_of(&folder);
    assert_eq!((error.kind(), error.byte()), (ErrorKind::Damaged, Some(10)));
    let text = error.to_string();
    assert!(
        text.contains(LABELS) && text.contains("label of image 2 at byte 10: expected 0 to 9, found 10"),
        "{text}"
    );
}

#[test]
fn as_many_labels_as_images_are_needed_and_images_of_28_by_28() {
    let folder = TempFolder::new("count").with(IMAGES, &images(3)).with(LABELS, &labels(&[1, 2]));
    let error = error_of(&folder);
    assert_eq!((error.kind(), error.byte()), (ErrorKind::Mismatch, Some(4)));
    assert!(error.to_string().contains("expected 3, as many as there are images"), "{error}");
    let mut flat = images(1);
    (flat[11], flat[15]) = (14, 56);
    let folder = TempFolder::new("size").with(IMAGES, &flat).with(LABELS, &labels(&[1]));
    assert!(error_of(&folder).to_string().contains("expected 28×28, found 14×56"));
    let folder = TempFolder::new("none").with(IMAGES, &images(0)).with(LABELS, &labels(&[]));
    assert_eq!(error_of(&folder).kind(), ErrorKind::Invalid);
}

#[test]
fn a_drawn_digit_does_not_depend_on_the_others_drawn_with_it() {
    let all = data::drawn(2, 0..30).unwrap();
    let some = data::drawn(2, 10..12).unwrap();
    assert_eq!(all.batch(&[10, 11]), (some.images().to_owned(), some.labels().to_vec()));
    assert_ne!(all, data::drawn(3, 0..30).unwrap());
    assert!(data::drawn(2, 5..5).is_err());
}

#[test]
fn without_a_data_folder_digits_are_drawn() {
    let data = Data::open(None, 7).unwrap();
    assert_eq!(data.describe(), "digits drawn from seed 7: 8000 images to train, 2000 to test");
}
