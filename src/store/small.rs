//! Small objects without a checksum: an attempt's, and a run's identity. One wrong answer of a
//! proxy or a network card must not end a run, so an unexpected answer is believed only when two in
//! a row agree.

use super::absent::is_absence;
use super::damage::is_damage;
use crate::engine::{Engine, fresh_nonce};
use crate::error::{Error, ErrorKind, NoneIf, Result};

/// How often the object is read until two answers agree.
const MOST: usize = 5;

/// The content of an object: the expected one, or the one on which two answers in a row agree.
/// Absence, too, takes two answers.
///
/// # Errors
/// `NotFound`; `Damaged` for more than `longest` bytes, and for bytes that change from answer to
/// answer; errors of the engine.
pub(super) fn read(
    engine: &dyn Engine,
    key: &str,
    longest: u64,
    is_expected: impl Fn(&[u8]) -> bool,
) -> Result<Vec<u8>> {
    let mut before: Option<Result<Vec<u8>>> = None;
    for _ in 0..MOST {
        let answer = read_once(engine, key, longest);
        let is_believed = match (&answer, &before) {
            (Ok(bytes), _) if is_expected(bytes) => true,
            (Ok(bytes), Some(Ok(before))) => bytes == before,
            (Err(error), Some(Err(before))) => error.kind() == before.kind(),
            (Err(error), _) => !is_damage(error) && !is_absence(error),
            _ => false,
        };
        if is_believed {
            return answer;
        }
        before = Some(answer);
    }
    Err(Error::damaged("each answer is another").in_object(engine.describe(key)))
}

/// The longest object that is copied: an attempt's has at most so many bytes.
const LONGEST: u64 = 64 << 10;

/// Copies one to another place. False where one of that name is there.
///
/// # Errors
/// As [`read`], and what creating says.
pub(super) fn copy(from: &dyn Engine, to: &dyn Engine, key: &str) -> Result<bool> {
    let content = read(from, key, LONGEST, |_| false)?;
    let create = || -> Result<()> {
        let mut upload = to.create(key, Some(content.len() as u64))?;
        upload.append(&content)?;
        Ok(upload.commit(fresh_nonce())?)
    };
    let created = create().none_if(|error| error.kind() == ErrorKind::AlreadyExists)?;
    Ok(created.is_some())
}

fn read_once(engine: &dyn Engine, key: &str, longest: u64) -> Result<Vec<u8>> {
    let blob = engine.open(key)?;
    if blob.len() > longest {
        let error = Error::damaged("length of a small object").in_object(engine.describe(key));
        return Err(error.expected(format!("at most {longest}")).found(blob.len()));
    }
    // OK to cast: `longest` fits in memory.
    let mut bytes = vec![0; blob.len() as usize];
    blob.read_at(0, &mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Blob, Decorator, Memory};
    use std::sync::{Arc, Mutex};

    /// Opens another object on each try: those of these names, the last one first.
    #[derive(Debug)]
    struct Answers(Memory, Mutex<Vec<&'static str>>);

    impl Decorator for Answers {
        type Inner = Memory;

        fn inner(&self) -> &Memory {
            &self.0
        }

        fn open(&self, _: &str) -> Result<Arc<dyn Blob>> {
            let key = self.1.lock().unwrap().pop().expect("asked for too often");
            Engine::open(&self.0, key)
        }
    }

    /// The outcome of answers that hold their names, or `NotFound`.
    fn told(answers: &[&'static str]) -> Result<Vec<u8>> {
        let memory = Memory::new();
        for key in ["expected", "other", "flipped"] {
            let mut upload = memory.create(key, None).unwrap();
            upload.append(key.as_bytes()).unwrap();
            upload.commit(fresh_nonce()).unwrap();
        }
        let answers = Answers(memory, Mutex::new(answers.iter().rev().copied().collect()));
        let bytes = read(&answers, "key", 64, |bytes| bytes == b"expected");
        assert!(answers.1.lock().unwrap().is_empty(), "not asked for often enough");
        bytes
    }

    #[test]
    fn a_surprise_is_believed_when_two_answers_in_a_row_say_it() {
        assert_eq!(told(&["expected"]).unwrap(), b"expected");
        assert_eq!(told(&["other", "other"]).unwrap(), b"other");
        assert_eq!(told(&["absent", "absent"]).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(told(&["flipped", "absent", "expected"]).unwrap(), b"expected");
        assert_eq!(told(&["flipped", "other", "other"]).unwrap(), b"other");
        assert_eq!(told(&["other", "absent", "other", "other"]).unwrap(), b"other");
        let changing = ["other", "absent", "flipped", "absent", "other"];
        assert_eq!(told(&changing).unwrap_err().kind(), ErrorKind::Damaged);
    }
}
