//! The executable engine contract. An engine author calls [`run`] with a function that makes an
//! empty engine; each sentence of the contract is one check here, and the error names a broken one.

use crate::engine::{CommitError, Engine, Entry, fresh_nonce};
use crate::error::{Error, ErrorKind, Result};
use std::sync::{Arc, Barrier};

/// A check: the sentence that it proves, and the proof on an engine without objects.
type Check = (&'static str, fn(&Arc<dyn Engine>) -> Result<()>);

const CHECKS: &[Check] = &[
    ("an object appears at its commit, whole", appears_whole),
    ("a committed key is never written again", never_overwrites),
    ("of many racing commits to one key exactly one wins", one_winner),
    ("a dropped upload leaves nothing", dropped_leaves_nothing),
    ("a listing is of one folder, and complete", lists_folders),
    ("reads are at any offset and end where the object ends", reads_ranges),
    ("a large object in odd pieces comes back bit for bit", large_in_pieces),
    ("an open object stays readable after its deletion, or is NotFound", readable_after_delete),
    ("deleting what is not there is NotFound", deletes_once),
    ("a mark is an empty object, set once and taken back", marks),
    ("a rename moves the whole object and replaces nothing", renames),
    ("the lock has one holder, who is named to others", locks),
    ("keys that could leave the folder are refused", refuses_keys),
];

/// Runs every check, each on a new engine made by `make`.
///
/// # Errors
/// The first broken sentence of the contract, with what happened instead.
pub fn run(mut make: impl FnMut() -> Arc<dyn Engine>) -> Result<()> {
    for (sentence, check) in CHECKS {
        check(&make()).map_err(|error| {
            Error::new(error.kind(), format!("engine contract broken: {sentence}")).because(error)
        })?;
    }
    Ok(())
}

fn ensure(holds: bool, what: impl Into<String>) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::invalid(what.into())) }
}

/// Commits an object.
fn put(engine: &Arc<dyn Engine>, key: &str, bytes: &[u8]) -> Result<()> {
    let mut upload = engine.create(key, Some(bytes.len() as u64))?;
    upload.append(bytes)?;
    Ok(upload.commit(fresh_nonce())?)
}

fn get(engine: &Arc<dyn Engine>, key: &str) -> Result<Vec<u8>> {
    let blob = engine.open(key)?;
    let mut bytes = vec![0; blob.len() as usize];
    blob.read_at(0, &mut bytes)?;
    Ok(bytes)
}

fn keys(engine: &Arc<dyn Engine>, folder: &str) -> Result<Vec<String>> {
    let mut keys: Vec<String> = engine.list(folder)?.into_iter().map(|entry| entry.key).collect();
    keys.sort();
    Ok(keys)
}

fn ensure_kind<T>(result: Result<T>, kind: ErrorKind, what: &str) -> Result<()> {
    match result {
        Ok(_) => Err(Error::invalid(format!("{what} succeeded")).expected(kind.as_str())),
        Err(error) if error.kind() == kind => Ok(()),
        Err(error) => {
            Err(Error::invalid(format!("{what} failed otherwise")).expected(kind.as_str()).because(error))
        }
    }
}

fn appears_whole(engine: &Arc<dyn Engine>) -> Result<()> {
    let mut upload = engine.create("object", None)?;
    upload.append(b"one ")?;
    upload.append(b"")?;
    upload.append(b"two")?;
    ensure_kind(engine.open("object").map(drop), ErrorKind::NotFound, "opening before the commit")?;
    ensure(keys(engine, "")?.is_empty(), "an upload was listed before its commit")?;
    upload.commit(fresh_nonce())?;
    ensure(get(engine, "object")? == b"one two", "other bytes came back")?;
    put(engine, "empty", b"")?;
    ensure(engine.open("empty")?.is_empty(), "an empty object is not empty")
}

fn never_overwrites(engine: &Arc<dyn Engine>) -> Result<()> {
    let mut early = engine.create("object", None)?;
    early.append(b"late")?;
    put(engine, "object", b"first")?;
    match early.commit(fresh_nonce()) {
        Err(CommitError::Conflict(_)) => {}
        other => return Err(Error::invalid(format!("a second commit gave {other:?} and not a conflict"))),
    }
    let again = put(engine, "object", b"again");
    ensure_kind(again, ErrorKind::AlreadyExists, "a second upload")?;
    ensure(get(engine, "object")? == b"first", "the committed bytes changed")
}

fn one_winner(engine: &Arc<dyn Engine>) -> Result<()> {
    const RACERS: usize = 8;
    for race in 0..20 {
        let key = format!("race-{race}");
        let start = Barrier::new(RACERS);
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let racer = |racer: usize| {
                let (engine, key, start) = (Arc::clone(engine), &key, &start);
                move || {
                    let upload = engine.create(key, None).and_then(|mut upload| {
                        upload.append(&[racer as u8; 1000])?;
                        Ok(upload)
                    });
                    start.wait();
                    upload.map_err(CommitError::Conflict).and_then(|upload| upload.commit(fresh_nonce()))
                }
            };
            let threads: Vec<_> = (0..RACERS).map(|number| scope.spawn(racer(number))).collect();
            threads.into_iter().map(|thread| thread.join()).collect()
        });
        let winners: Vec<usize> =
            (0..RACERS).filter(|&racer| matches!(outcomes[racer], Ok(Ok(())))).collect();
        ensure(
            winners.len() == 1,
            format!("{} of {RACERS} racing commits won: {outcomes:?}", winners.len()),
        )?;
        ensure(get(engine, &key)? == [winners[0] as u8; 1000], "the bytes are not the winner's")?;
    }
    Ok(())
}

fn dropped_leaves_nothing(engine: &Arc<dyn Engine>) -> Result<()> {
    let mut upload = engine.create("object", Some(1 << 20))?;
    upload.append(&[7; 5000])?;
    drop(upload);
    ensure(keys(engine, "")?.is_empty(), "a dropped upload was listed")?;
    put(engine, "object", b"later")?;
    ensure(get(engine, "object")? == b"later", "a dropped upload was in the way")
}

fn lists_folders(engine: &Arc<dyn Engine>) -> Result<()> {
    ensure(keys(engine, "nowhere")?.is_empty(), "a missing folder is not empty")?;
    for key in ["b", "a", "folder/a", "folder/b", "folder/deep/c"] {
        put(engine, key, key.as_bytes())?;
    }
    ensure(keys(engine, "")? == ["a", "b"], format!("the top lists {:?}", keys(engine, "")?))?;
    ensure(keys(engine, "folder")? == ["folder/a", "folder/b"], "a folder lists other keys")?;
    let entry = engine.list("folder/deep")?;
    ensure(entry.len() == 1 && entry[0].len == 13, "a listing's length is wrong")?;
    let folders = ["folder", "", "none", "folder/deep"];
    let sorted = |mut entries: Vec<Entry>| {
        entries.sort_by(|left, right| left.key.cmp(&right.key));
        entries
    };
    let each = engine.list_each(&folders)?;
    ensure(each.len() == folders.len(), "listing several folders leaves some out")?;
    for (folder, entries) in folders.iter().zip(each) {
        let alone = sorted(engine.list(folder)?);
        ensure(sorted(entries) == alone, format!("listed with others, {folder:?} has other entries"))?;
    }
    Ok(())
}

fn reads_ranges(engine: &Arc<dyn Engine>) -> Result<()> {
    put(engine, "object", b"0123456789")?;
    let blob = engine.open("object")?;
    let (mut a, mut b) = ([0; 3], [0; 2]);
    blob.read_ranges(&mut [(7, &mut a), (0, &mut b)])?;
    ensure(&a == b"789" && &b == b"01", "ranges came back wrong")?;
    blob.read_at(10, &mut [])?;
    for offset in [8, 10, u64::MAX - 1] {
        ensure_kind(blob.read_at(offset, &mut a), ErrorKind::Damaged, "reading past the end")?;
    }
    Ok(())
}

fn large_in_pieces(engine: &Arc<dyn Engine>) -> Result<()> {
    let byte = |i: usize| (i.wrapping_mul(2_654_435_761) >> 13) as u8;
    let bytes: Vec<u8> = (0..5_000_003).map(byte).collect();
    let mut upload = engine.create("large", None)?;
    let (mut rest, mut piece) = (bytes.as_slice(), 1);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(piece.min(rest.len()));
        upload.append(now)?;
        (rest, piece) = (later, piece * 3 + 1);
    }
    upload.commit(fresh_nonce())?;
    ensure(get(engine, "large")? == bytes, "other bytes came back")
}

fn readable_after_delete(engine: &Arc<dyn Engine>) -> Result<()> {
    put(engine, "object", &[9; 100_000])?;
    let blob = engine.open("object")?;
    engine.delete("object")?;
    let mut bytes = vec![0; 100_000];
    match blob.read_at(0, &mut bytes) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        read => ensure(read.map(|()| bytes == [9; 100_000])?, "the open object changed")?,
    }
    ensure_kind(engine.open("object").map(drop), ErrorKind::NotFound, "opening what was deleted")
}

fn deletes_once(engine: &Arc<dyn Engine>) -> Result<()> {
    put(engine, "object", b"x")?;
    engine.delete("object")?;
    ensure(keys(engine, "")?.is_empty(), "a deleted object is listed")?;
    ensure_kind(engine.delete("object"), ErrorKind::NotFound, "deleting twice")?;
    put(engine, "object", b"y")
}

fn marks(engine: &Arc<dyn Engine>) -> Result<()> {
    let key = "attempts/0002.deletes.0001-0000000003";
    for _ in 0..2 {
        engine.mark(key)?;
        ensure_kind(engine.mark(key), ErrorKind::AlreadyExists, "a second mark")?;
        ensure(keys(engine, "attempts")? == [key], "a mark is not listed")?;
        ensure(engine.open(key)?.is_empty(), "a mark has bytes")?;
        engine.unmark(key)?;
        ensure(keys(engine, "attempts")?.is_empty(), "a mark that was taken back is listed")?;
        ensure_kind(engine.unmark(key), ErrorKind::NotFound, "taking back no mark")?;
    }
    put(engine, "object", b"x")?;
    ensure_kind(engine.mark("object"), ErrorKind::AlreadyExists, "a mark over an object")?;
    ensure(get(engine, "object")? == b"x", "a mark changed an object")?;
    ensure_kind(engine.mark("../up"), ErrorKind::Invalid, "a mark at a bad key")
}

fn renames(engine: &Arc<dyn Engine>) -> Result<()> {
    put(engine, "from", b"moved")?;
    put(engine, "taken", b"stays")?;
    match engine.rename("from", "folder/to") {
        Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(()),
        renamed => renamed?,
    }
    ensure(get(engine, "folder/to")? == b"moved", "the object changed on its way")?;
    ensure_kind(engine.open("from").map(drop), ErrorKind::NotFound, "opening the old key")?;
    ensure_kind(engine.rename("folder/to", "taken"), ErrorKind::AlreadyExists, "renaming over an object")?;
    ensure(get(engine, "taken")? == b"stays", "a rename replaced an object")?;
    ensure_kind(engine.rename("nothing", "else"), ErrorKind::NotFound, "renaming nothing")
}

fn locks(engine: &Arc<dyn Engine>) -> Result<()> {
    if !engine.caps().lock {
        return ensure_kind(
            engine.lock("holder").map(drop),
            ErrorKind::Unsupported,
            "a lock without the capability",
        );
    }
    let held = engine.lock("the first holder")?;
    match engine.lock("the second") {
        Err(error) if error.kind() == ErrorKind::Locked => {
            ensure(
                error.to_string().contains("the first holder"),
                format!("the holder is not named: {error}"),
            )?;
        }
        other => return Err(Error::invalid(format!("a held lock gave {other:?}"))),
    }
    put(engine, "object", b"x")?;
    ensure(keys(engine, "")? == ["object"], "the lock is listed as an object")?;
    drop(held);
    engine.lock("the second").map(drop)
}

fn refuses_keys(engine: &Arc<dyn Engine>) -> Result<()> {
    for key in ["", "..", "../up", "/root", "a//b", ".hidden", "a b", "a/b/c/d/e"] {
        ensure_kind(engine.create(key, None).map(drop), ErrorKind::Invalid, "an upload to a bad key")?;
        ensure_kind(engine.open(key).map(drop), ErrorKind::Invalid, "opening a bad key")?;
    }
    Ok(())
}
