//! The identity of a run, as its storage has it: in an object of its own, and in its checkpoints.

use super::attempt::Writer;
use super::damage::is_damage;
use super::look::Board;
use super::naming::RUN;
use super::reader::Reader;
use super::retention::Candidate;
use super::run_id::RunId;
use super::small;
use crate::engine::{Engine, Nonce, fresh_nonce};
use crate::error::{Error, ErrorKind, NoneIf, Result};

/// The limit for a run's identity, which is 33 bytes.
const LONGEST: u64 = 64;

/// The identity of a run, from two sources.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    /// From its own object.
    written: Option<RunId>,
    /// From its newest checkpoint that records one, in case the object is lost or damaged.
    claimed: Option<RunId>,
}

impl Found {
    pub(super) fn look(engine: &dyn Engine, candidates: &[Candidate]) -> Result<Self> {
        let says = |candidate: &Candidate| candidate.state.as_ref()?.run;
        let claimed = candidates.iter().rev().find_map(says);
        let written = match read(engine, claimed) {
            Err(error) if is_damage(&error) => None,
            written => written?,
        };
        Ok(Self { written, claimed })
    }

    pub(super) fn id(self) -> Option<RunId> {
        self.written.or(self.claimed)
    }

    /// Makes sure that the identity is written, and returns the one that counts from now on:
    /// another writer may have been faster. A full disk is no reason to refuse: every checkpoint
    /// records it, too.
    pub(super) fn establish(self, engine: &dyn Engine, id: RunId) -> Result<RunId> {
        match self.written {
            Some(written) if written == id => Ok(id),
            Some(written) => Ok(read(engine, Some(id))?.unwrap_or(written)),
            None => write(engine, id),
        }
    }
}

/// An identity for a run of version 0.1, which has none: its oldest attempt's nonce is as unique,
/// and the same in both tiers. None if there is no attempt, either.
pub(super) fn of_oldest_attempt(engine: &dyn Engine) -> Result<Option<RunId>> {
    let Some(oldest) = Board::read(engine)?.attempts.into_iter().min() else { return Ok(None) };
    let nonce = Writer::read(engine, oldest).map(|writer| writer.id).unwrap_or_default();
    Ok((nonce != Nonce::default()).then(|| RunId::of(nonce)))
}

/// Reads the run's own object; the expected identity is believed at once.
fn read(engine: &dyn Engine, expected: Option<RunId>) -> Result<Option<RunId>> {
    let parse = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).ok().and_then(|text| text.strip_suffix('\n'));
        text.unwrap_or_default().parse::<RunId>()
    };
    let is_expected = |bytes: &[u8]| expected.is_some() && parse(bytes).ok() == expected;
    let bytes = small::read(engine, RUN, LONGEST, is_expected)
        .none_if(|error| error.kind() == ErrorKind::NotFound)?;
    let id = bytes.map(|bytes| parse(&bytes)).transpose();
    id.map_err(|error| error.in_object(engine.describe(RUN)))
}

fn write(engine: &dyn Engine, id: RunId) -> Result<RunId> {
    let content = format!("{id}\n");
    let written = engine.create(RUN, Some(content.len() as u64)).and_then(|mut upload| {
        upload.append(content.as_bytes())?;
        Ok(upload.commit(fresh_nonce())?)
    });
    let Err(error) = written else { return Ok(id) };
    match error.kind() {
        ErrorKind::NoSpace => Ok(id),
        // Another writer's, or ours after a lost reply.
        ErrorKind::AlreadyExists | ErrorKind::Unknown => match read(engine, Some(id)) {
            Err(error) if is_damage(&error) => Ok(id),
            there => there?.ok_or(error),
        },
        _ => Err(error),
    }
}

impl Reader {
    /// The identity of this run: from its own object or, if that is lost, from its newest
    /// checkpoint. None for a run of version 0.1 that no later version has opened for writing.
    ///
    /// # Errors
    /// Errors of the engine.
    pub fn run_id(&self) -> Result<Option<RunId>> {
        Ok(Found::look(self.engine(), &self.candidates()?)?.id())
    }

    /// The identity of this run, from its own object only.
    #[cfg(feature = "testing")]
    pub(crate) fn written_run_id(&self) -> Result<Option<RunId>> {
        read(self.engine(), None)
    }

    /// Makes sure that checkpoints of a run may be put here: this is that run, or a place without
    /// an identity, which has this one from now on.
    ///
    /// # Errors
    /// `Invalid` when this is another run; errors of the engine.
    pub fn belong_to(&self, run: RunId) -> Result<()> {
        let found = Found::look(self.engine(), &self.candidates()?)?;
        let there = found.establish(self.engine(), found.id().unwrap_or(run))?;
        if there == run {
            return Ok(());
        }
        Err(other_run(self.engine().describe(""), run, there))
    }
}

/// The error where two runs would become one.
pub(super) fn other_run(at: String, expected: RunId, found: RunId) -> Error {
    Error::invalid("holds another run")
        .in_object(at)
        .expected(format!("run {expected}"))
        .found(format!("run {found}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Blob, Decorator, Memory};
    use std::sync::Arc;

    fn id_of(engine: &Memory) -> Option<RunId> {
        Found::look(engine, &[]).unwrap().id()
    }

    #[test]
    fn an_identity_is_written_once_and_read_back() {
        let (engine, first) = (Memory::new(), RunId::fresh());
        assert_eq!(id_of(&engine), None);
        assert_eq!(Found::default().establish(&engine, first).unwrap(), first);
        assert_eq!(
            Found::default().establish(&engine, RunId::fresh()).unwrap(),
            first,
            "the first one stays"
        );
        assert_eq!(id_of(&engine), Some(first));
        assert_eq!(first.to_string().parse::<RunId>().unwrap(), first);
    }

    #[test]
    fn a_damaged_identity_is_no_reason_to_refuse_a_run() {
        for content in [&b""[..], b"0123", &[0xff; 33], &[b'G'; 33]] {
            let engine = Memory::new();
            let mut upload = engine.create(RUN, None).unwrap();
            upload.append(content).unwrap();
            upload.commit(fresh_nonce()).unwrap();
            assert_eq!(read(&engine, None).unwrap_err().kind(), ErrorKind::Damaged);
            assert_eq!(id_of(&engine), None);
            let id = RunId::fresh();
            assert_eq!(Found::default().establish(&engine, id).unwrap(), id);
        }
    }

    /// Answers `AlreadyExists` to creating anything and `NotFound` to opening it.
    #[derive(Debug)]
    struct Contradicts(Memory);

    impl Decorator for Contradicts {
        type Inner = Memory;

        fn inner(&self) -> &Memory {
            &self.0
        }

        fn open(&self, key: &str) -> Result<Arc<dyn Blob>> {
            Err(Error::new(ErrorKind::NotFound, "no such object").in_object(key))
        }
    }

    #[test]
    fn an_identity_that_cannot_be_read_is_not_taken_for_another() {
        let memory = Memory::new();
        Found::default().establish(&memory, RunId::fresh()).unwrap();
        let error = Found::default().establish(&Contradicts(memory), RunId::fresh()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    }
}
