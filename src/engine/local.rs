//! Placeholder while the engine is being built (never committed).
use super::*;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
#[derive(Debug)]
struct F(File, u64);
impl Blob for F {
    fn len(&self) -> u64 {
        self.1
    }
    fn read_at(&self, o: u64, b: &mut [u8]) -> Result<()> {
        if o.saturating_add(b.len() as u64) > self.1 {
            return Err(ends_early(o, b.len(), self.1));
        }
        self.0.read_exact_at(b, o).map_err(|e| Error::io("reading", e))
    }
}
pub(crate) fn open_file(path: &Path) -> Result<Arc<dyn Blob>> {
    let f = File::open(path).map_err(|e| Error::io("opening", e).in_object(path.display()))?;
    let l = f.metadata().unwrap().len();
    Ok(Arc::new(F(f, l)))
}
pub(crate) fn map_file(path: &Path, p: Unchanging) -> Result<Arc<dyn Blob>> {
    let f = File::open(path).map_err(|e| Error::io("opening", e).in_object(path.display()))?;
    Ok(Arc::new(map::MappedFile::new(&f, path.display().to_string(), p)?))
}
struct U(Vec<u8>);
impl Upload for U {
    fn append(&mut self, b: &[u8]) -> Result<()> {
        self.0.extend_from_slice(b);
        Ok(())
    }
    fn commit(self: Box<Self>, _: Nonce) -> Result<(), CommitError> {
        Ok(())
    }
}
pub(crate) fn replace_file(
    path: &Path,
    _h: Option<u64>,
    mut w: impl FnMut(&mut dyn Upload) -> Result<()>,
) -> Result<()> {
    let mut u = U(vec![]);
    w(&mut u)?;
    std::fs::write(path, &u.0).map_err(|e| Error::io("writing", e))
}
