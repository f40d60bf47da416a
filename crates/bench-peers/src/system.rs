//! A measured [`System`], the [`Work`] it is given, and helpers that several systems share.

use crate::ops::{Call, Found, Op};
use crate::workloads::{State, sum};
use crate::{Outcome, memory};
use std::cell::RefCell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// One format, or one raw path, in one configuration.
pub trait System {
    /// The name in the rows.
    fn name(&self) -> &'static str;
    /// Its file's extension. Systems with the same one share the file, and the first of them that
    /// saves makes it.
    fn extension(&self) -> &'static str;
    /// The operations that it supports.
    fn ops(&self) -> &'static [Op];
    /// Letters of the workloads that it can do in reasonable time.
    fn workloads(&self) -> &'static str {
        "smln"
    }
    /// One of these operations, ready to be timed.
    ///
    /// # Errors
    /// Those of the preparation.
    fn call(&self, op: Op, work: &Work) -> Outcome<Call>;
}

/// The input of an operation.
#[derive(Clone)]
pub struct Work {
    pub state: Arc<State>,
    pub file: PathBuf,
}

impl Work {
    /// The name of the tensor in the middle, for looking up one.
    pub fn middle(&self) -> String {
        self.state.tensors[self.state.tensors.len() / 2].name.clone()
    }

    /// Whether these are that tensor's bytes.
    pub fn is_middle(&self, bytes: &[u8]) -> Outcome<Found> {
        let expected = self.state.bytes(&self.state.tensors[self.state.tensors.len() / 2]);
        if bytes == expected { Ok(Found::Nothing) } else { Err("wrong values of one tensor".into()) }
    }

    /// Warm memory of every tensor's length, to load into.
    fn existing(&self) -> Vec<Vec<u8>> {
        // Not zeros: those may be pages that do not exist yet.
        self.state.tensors.iter().map(|entry| vec![1; entry.len]).collect()
    }
}

pub fn cannot(system: &dyn System, op: Op) -> Outcome<Call> {
    Err(format!("{} has no {}", system.name(), op.name()).into())
}

/// Fsyncs a written file, gives it its name, fsyncs the folder and the file once more, as
/// tensorkeep does (XFS reports a lost rename at the last of these): what most peers leave to their
/// users.
pub fn publish(written: &Path, path: &Path) -> Outcome<()> {
    let file = File::options().write(true).open(written)?;
    file.sync_all()?;
    fs::rename(written, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(file.sync_all()?)
}

/// The name of a file until it is published.
pub fn unpublished(path: &Path) -> PathBuf {
    path.with_extension("unpublished")
}

/// Writes by `save` under another name, and publishes that.
pub fn save_and_publish(work: &Work, save: fn(&State, &Path) -> Outcome<()>) -> Call {
    let Work { state, file } = work.clone();
    Call::new(move || {
        let written = unpublished(&file);
        save(&state, &written)?;
        publish(&written, &file)?;
        Ok(Found::Nothing)
    })
}

/// Evicts the file from the page cache before each time.
pub fn cold(work: &Work, call: Call) -> Call {
    let evicted = work.file.clone();
    call.before(move || memory::make_cold(&evicted))
}

/// Loads into existing memory, whose content is checked after every time.
pub fn into_existing(work: &Work, mut load: impl FnMut(&mut [Vec<u8>]) -> Outcome<()> + 'static) -> Call {
    let existing = Rc::new(RefCell::new(work.existing()));
    let looked_at = Rc::clone(&existing);
    Call::new(move || {
        let mut existing = existing.borrow_mut();
        Found::loaded(|| load(&mut existing).map(|()| &existing), |filled| sum(filled.iter()))
    })
    // Bytes that the next time does not write must not look loaded.
    .before(move || {
        for target in looked_at.borrow_mut().iter_mut() {
            target.fill(1);
        }
        Ok(())
    })
}

/// Opens anew before each time, then reads one tensor.
pub fn one_after_opening<T: 'static>(
    mut open: impl FnMut() -> Outcome<T> + 'static,
    mut look: impl FnMut(&T) -> Outcome<Found> + 'static,
) -> Call {
    let opened = Rc::new(RefCell::new(None));
    let looked_at = Rc::clone(&opened);
    Call::new(move || look(looked_at.borrow().as_ref().ok_or("not opened")?)).before(move || {
        *opened.borrow_mut() = Some(open()?);
        Ok(())
    })
}
