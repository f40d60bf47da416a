//! A disk's contents by page, without pages of zeros, so that a copy costs no more than the list of
//! its pages.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

const PAGE: usize = 4096;
const ZEROS: [u8; PAGE] = [0; PAGE];

#[derive(Clone, Debug, Default)]
pub struct Image {
    len: u64,
    pages: BTreeMap<u64, Arc<[u8; PAGE]>>,
}

impl Image {
    pub fn read(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let mut image = Self { len: file.metadata()?.len(), pages: BTreeMap::new() };
        let mut page = ZEROS;
        for number in 0..image.len / PAGE as u64 {
            file.read_exact_at(&mut page, number * PAGE as u64)?;
            if page != ZEROS {
                image.pages.insert(number, Arc::new(page));
            }
        }
        Ok(image)
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    /// The bytes there, up to the end.
    pub fn read_at(&self, offset: u64, count: usize) -> Vec<u8> {
        let end = offset.saturating_add(count as u64).min(self.len);
        let mut bytes = vec![0; end.saturating_sub(offset) as usize];
        for (number, at, part) in parts(offset, bytes.len()) {
            if let Some(page) = self.pages.get(&number) {
                let len = part.len();
                bytes[part].copy_from_slice(&page[at..at + len]);
            }
        }
        bytes
    }

    /// Overwrites bytes. False when they lie past the end.
    pub fn write_at(&mut self, offset: u64, bytes: &[u8]) -> bool {
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > self.len) {
            return false;
        }
        for (number, at, part) in parts(offset, bytes.len()) {
            let page = self.pages.entry(number).or_insert_with(|| Arc::new(ZEROS));
            Arc::make_mut(page)[at..at + part.len()].copy_from_slice(&bytes[part]);
        }
        true
    }
}

/// The pages of `len` bytes from `offset` on: each page, the offset in it, and the range of the
/// bytes.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let (number, at) = ((offset + start as u64) / PAGE as u64, (offset + start as u64) as usize % PAGE);
        let part = start..len.min(start + PAGE - at);
        start = part.end;
        (!part.is_empty()).then_some((number, at, part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_across_pages_are_read_and_copies_keep_theirs() {
        let mut image = Image { len: 5 * PAGE as u64, ..Image::default() };
        let bytes: Vec<u8> = (0..9000).map(|i| i as u8 | 1).collect();
        assert!(image.write_at(4000, &bytes));
        let copy = image.clone();
        assert!(image.write_at(5000, &[0; 10]));
        assert_eq!(copy.read_at(4000, 9000), bytes);
        assert_eq!(image.read_at(5000, 10), [0; 10]);
        assert_eq!(image.read_at(3990, 10), [0; 10]);
        assert!(!image.write_at(5 * PAGE as u64 - 1, &[1, 2]));
        assert_eq!(image.read_at(5 * PAGE as u64 - 1, 10).len(), 1);
    }
}
