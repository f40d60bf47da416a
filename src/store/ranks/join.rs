//! The ranks of a job come together over one attempt: rank 0 opens the run as a store of one rank
//! does, and the others take part in its attempt, after they have seen it where they write.

use super::{Ranks, copy_of, plan};
use crate::collective::Collective;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, NoneIf, Result};
use crate::format::records;
use crate::store::attempt::{Attempt, Joined, Writer};
use crate::store::core::Core;
use crate::store::options::{StoreOptions, WhenFull, default_codec};
use crate::store::reader::Reader;
use crate::store::run_id::RunId;
use crate::store::signals::Asked;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What rank 0 tells of the run that it opened.
#[derive(Serialize, Deserialize)]
struct Opened {
    run: RunId,
    attempt: Joined,
    has_begun: bool,
    settings: plan::Settings,
}

/// Opens the run on every rank. An engine that this rank does not get is everybody's error.
pub(super) fn open(
    engine: Result<Arc<dyn Engine>>,
    collective: Arc<dyn Collective>,
    options: StoreOptions,
) -> Result<Core> {
    let (rank, world) = (collective.rank(), collective.world());
    if rank >= world {
        return Err(Error::invalid("rank and size of the world")
            .expected("a rank below the number of ranks")
            .found(format!("rank {rank} of {world}")));
    }
    let mut ranks = Ranks::new(collective, &options);
    let on = Arc::clone(&ranks.training);
    let engine = check(&options).and(engine);
    if !ranks.is_root() {
        let heard =
            ranks.exchange(&*on, OPENING, engine.as_ref().map(|_| vec![]).map_err(copy_of), |_| Ok(vec![]));
        let engine = engine?;
        let opened: Opened = records::decode_owned(&heard?)?;
        ranks.settings = opened.settings;
        let attempt = Attempt::of_job(opened.attempt)?;
        ranks.see(&attempt, &*engine)?;
        ranks.split()?;
        return follower(engine, options, (opened.run, attempt, opened.has_begun), ranks);
    }
    let opened = engine.and_then(|engine| options.clone().timed(|| Core::open(engine, None, options)));
    let opened = opened.and_then(|core| {
        // Shards are written before anything is committed, and belong to an attempt.
        core.attempt.take_if_pending(core.reader.engine())?;
        Ok(core)
    });
    let told = opened.as_ref().map_err(copy_of).and_then(|core| {
        let (run, attempt, has_begun) = (core.run, core.attempt.for_job(), core.has_begun());
        records::encode(&Opened { run, attempt, has_begun, settings: ranks.settings })
    });
    let heard = ranks.exchange(&*on, OPENING, told, |all| Ok(all.into_iter().next().unwrap_or_default()));
    let mut core = opened?;
    heard?;
    ranks.see(&core.attempt, core.reader.engine())?;
    ranks.split()?;
    core.join(ranks);
    Ok(core)
}

const OPENING: &str = "opening the store";

/// What ranks cannot do each by itself.
fn check(options: &StoreOptions) -> Result<()> {
    options.check()?;
    if options.when_full == WhenFull::Wait {
        return Ok(());
    }
    Err(Error::invalid("what happens to a save too many, in a job of many ranks")
        .expected("WhenFull::Wait")
        .found(format!("{:?}", options.when_full))
        .help("ranks that decide by themselves to leave out a save would be at different calls"))
}

impl Ranks {
    /// Makes sure that every rank writes to the run that rank 0 has opened.
    fn see(&self, attempt: &Attempt, engine: &dyn Engine) -> Result<()> {
        let seen = attempt.is_taken_in(engine).and_then(|is_seen| {
            if is_seen {
                return Ok(vec![]);
            }
            Err(Error::new(ErrorKind::Io, "this rank does not see the attempt that rank 0 has taken")
                .in_object(engine.describe(""))
                .help("all ranks need the same place: a folder that they share, or an object store"))
        });
        self.exchange(&*self.training, "seeing the run", seen, |_| Ok(vec![])).map(drop)
    }

    /// A second connection for saves, if the collective has one.
    fn split(&mut self) -> Result<()> {
        let second = self.training.split(self.deadline());
        if let Some(second) = second.none_if(|error| error.kind() == ErrorKind::Unsupported)? {
            (self.saving, self.has_second) = (second, true);
        }
        Ok(())
    }
}

fn follower(
    engine: Arc<dyn Engine>,
    mut options: StoreOptions,
    (run, attempt, has_begun): (RunId, Attempt, bool),
    ranks: Ranks,
) -> Result<Core> {
    options.write = options.write.codec_unless_set(default_codec(&*engine));
    let mut writer = Writer::this_process(crate::clock::seconds_since_1970());
    writer.run = Some(run);
    let reader = Reader::on(engine, options.open, options.map);
    let mut core = Core::new(reader, options, (run, writer, attempt))?;
    if has_begun {
        core.begin();
    }
    core.join(ranks);
    Ok(core)
}

impl Core {
    fn join(&mut self, ranks: Ranks) {
        self.lock_schedule().agree(Asked::default());
        self.ranks = Some(Box::new(ranks));
    }
}
