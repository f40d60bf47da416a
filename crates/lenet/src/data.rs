//! Images and labels to train on, MNIST from a folder or digits drawn from a seed, and their split
//! into training and test data.

use crate::digits;
use crate::idx::{self, Idx};
use crate::net::SIDE;
use ndarray::{Array4, ArrayView4, Axis};
use std::ops::Range;
use std::path::{Path, PathBuf};
use tensorkeep::{Error, ErrorKind, Result};

/// Mean and standard deviation of MNIST's training pixels in 0..1, as in PyTorch's MNIST example.
/// Drawn digits are normalised alike: theirs are near enough.
const MEAN: f32 = 0.1307;
const DEVIATION: f32 = 0.3081;
const CLASSES: u8 = 10;
/// Drawn digits: as many as MNIST's test set has images.
const DRAWN: Range<u64> = 0..10_000;

/// Images and as many labels, at least one, each label below 10.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    images: Array4<f32>,
    labels: Vec<u8>,
}

impl Dataset {
    /// f32 [samples, channels, height, width], normalised, and a label each.
    ///
    /// # Errors
    /// `Invalid` when their numbers differ, there are none, or a label is above 9.
    pub fn new(images: Array4<f32>, labels: Vec<u8>) -> Result<Self> {
        let count = images.dim().0;
        if count == 0 || count != labels.len() {
            return Err(Error::new(ErrorKind::Invalid, "a data set of images and labels")
                .expected("as many labels as images, and at least one")
                .found(format!("{count} images, {} labels", labels.len())));
        }
        if let Some(at) = labels.iter().position(|&label| label >= CLASSES) {
            return Err(Error::new(ErrorKind::Invalid, format!("label of sample {at}"))
                .expected("0 to 9")
                .found(labels[at]));
        }
        Ok(Self { images, labels })
    }

    /// Number of samples, at least one.
    #[expect(clippy::len_without_is_empty, reason = "it never is: `new` refuses to make an empty one")]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// f32 [samples, 1, 28, 28].
    pub fn images(&self) -> ArrayView4<'_, f32> {
        self.images.view()
    }

    /// One label per image, 0 to 9.
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// Copies of the samples at `indices`, in that order.
    ///
    /// # Panics
    /// When there is no such sample.
    pub fn batch(&self, indices: &[u32]) -> (Array4<f32>, Vec<u8>) {
        let indices: Vec<usize> = indices.iter().map(|&index| index as usize).collect();
        let labels = indices.iter().map(|&index| self.labels[index]).collect();
        (self.images.select(Axis(0), &indices), labels)
    }

    /// The first `count` samples, and the rest.
    ///
    /// # Errors
    /// `Invalid` when either would be empty.
    pub fn split(mut self, count: usize) -> Result<(Self, Self)> {
        if count == 0 || count >= self.len() {
            return Err(Error::new(ErrorKind::Invalid, "size of the first part")
                .expected(format!("1 to {}", self.len() - 1))
                .found(count));
        }
        let rest = self.images.slice_axis(Axis(0), (count..).into()).to_owned();
        self.images.slice_axis_inplace(Axis(0), (..count).into());
        let rest_labels = self.labels.split_off(count);
        let first = Self::new(self.images.as_standard_layout().into_owned(), self.labels)?;
        Ok((first, Self::new(rest, rest_labels)?))
    }

    fn from_pixels(pixels: &[u8], labels: Vec<u8>) -> Result<Self> {
        let normalised = pixels.iter().map(|&pixel| (f32::from(pixel) / 255.0 - MEAN) / DEVIATION).collect();
        let images = Array4::from_shape_vec((labels.len(), 1, SIDE, SIDE), normalised)
            .map_err(|error| Error::new(ErrorKind::Invalid, "pixels are not whole images").because(error))?;
        Self::new(images, labels)
    }
}

/// Digits drawn from a seed; sample `i` of the set is the same in every range.
///
/// # Errors
/// `Invalid` when the range is empty.
pub fn drawn(seed: u64, range: Range<u64>) -> Result<Dataset> {
    let mut pixels = Vec::new();
    let mut labels = Vec::new();
    for index in range {
        let (image, label) = digits::sample(seed, index);
        pixels.extend(image);
        labels.push(label);
    }
    Dataset::from_pixels(&pixels, labels)
}

/// MNIST from a folder: `t10k-images-idx3-ubyte` with `t10k-labels-idx1-ubyte`, else `train-…` with
/// `train-…`, each with or without `.gz`.
///
/// # Errors
/// `NotFound` when there is no such pair, `Foreign`, `Damaged` or `Mismatch` when it is not 28×28
/// digits with their labels, `Io`.
pub fn mnist(folder: &Path) -> Result<Dataset> {
    let (images, labels) = pair(folder)?;
    load(&images, &labels)
}

/// The first pair that exists.
fn pair(folder: &Path) -> Result<(PathBuf, PathBuf)> {
    let find = |stem: &str| {
        [stem.to_owned(), format!("{stem}.gz")]
            .into_iter()
            .map(|name| folder.join(name))
            .find(|path| path.is_file())
    };
    let pair =
        |set: &str| find(&format!("{set}-images-idx3-ubyte")).zip(find(&format!("{set}-labels-idx1-ubyte")));
    pair("t10k").or_else(|| pair("train")).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "no MNIST here")
            .expected("t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, or train-…, with or without .gz")
            .help("name a folder that holds them, or none for drawn digits")
            .in_object(folder.display())
    })
}

/// Reads and checks a pair of files.
fn load(images_path: &Path, labels_path: &Path) -> Result<Dataset> {
    let images = idx::read(images_path, 3)?;
    let labels = idx::read(labels_path, 1)?;
    let &[count, height, width] = &images.shape[..] else { unreachable!("asked for three axes") };
    if [height, width] != [SIDE, SIDE] {
        return Err(Error::new(ErrorKind::Mismatch, "height and width of the images")
            .at_byte(8)
            .expected(format!("{SIDE}×{SIDE}"))
            .found(format!("{height}×{width}"))
            .in_object(images_path.display()));
    }
    check_labels(&labels, count, images_path).map_err(|error| error.in_object(labels_path.display()))?;
    if count == 0 {
        return Err(Error::new(ErrorKind::Invalid, "number of images")
            .at_byte(4)
            .expected("at least one")
            .found(0)
            .in_object(images_path.display()));
    }
    Dataset::from_pixels(&images.bytes, labels.bytes)
}

fn check_labels(labels: &Idx, images: usize, images_path: &Path) -> Result<()> {
    if labels.bytes.len() != images {
        return Err(Error::new(ErrorKind::Mismatch, "number of labels")
            .at_byte(4)
            .expected(format!("{images}, as many as there are images in {}", images_path.display()))
            .found(labels.bytes.len()));
    }
    match labels.bytes.iter().position(|&label| label >= CLASSES) {
        None => Ok(()),
        Some(at) => Err(Error::new(ErrorKind::Damaged, format!("label of image {at}"))
            .at_byte(labels.header_len() + at as u64)
            .expected("0 to 9")
            .found(labels.bytes[at])),
    }
}

/// Training and test data, and their origin.
#[derive(Clone, Debug)]
pub struct Data {
    /// The first four fifths: 8,000 of 10,000.
    pub train: Dataset,
    /// The rest, which is never trained on.
    pub test: Dataset,
    origin: String,
}

impl Data {
    /// MNIST from `folder`, or digits drawn from `seed` when there is none. A folder that was named
    /// and cannot be read is an error, never a reason to train on something else.
    ///
    /// # Errors
    /// As [`mnist`].
    pub fn open(folder: Option<&Path>, seed: u64) -> Result<Self> {
        let (all, origin) = match folder {
            Some(folder) => (mnist(folder)?, format!("MNIST from {}", folder.display())),
            None => (drawn(seed, DRAWN)?, format!("digits drawn from seed {seed}")),
        };
        let first = all.len() - (all.len() / 5).max(1);
        let (train, test) = all.split(first)?;
        Ok(Self { train, test, origin })
    }

    /// The data in one line: "digits drawn from seed 0: 8000 images to train, 2000 to test".
    pub fn describe(&self) -> String {
        format!("{}: {} images to train, {} to test", self.origin, self.train.len(), self.test.len())
    }
}
