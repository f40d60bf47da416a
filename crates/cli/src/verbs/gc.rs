//! `gc RUN`: deletes what a policy does not protect, under the writer's lock. With `--dry-run` it says what would go, and
//! takes no lock.

use crate::args::Gc;
use crate::exit::Exit;
use crate::place::Place;
use crate::{Done, output};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tensorkeep::{Error, ErrorKind, Info, Keep, Mode, Reader, Result};

pub fn run(args: &Gc, json: bool) -> Done {
    let place = Place::new(&args.run);
    let engine = place.open()?;
    let reader = Reader::new(Arc::clone(&engine));
    // Taken before listing: what is listed is what is there when it is deleted.
    let lock = match args.dry_run {
        true => None,
        // Where nothing locks, a writer beside it may delete the same, and no save of its makes less go.
        false => match engine.lock(&format!("tensorkeep gc, process {}", std::process::id())) {
            Err(error) if error.kind() == ErrorKind::Unsupported => None,
            locked => Some(locked?),
        },
    };
    let infos = reader.list()?;
    if infos.is_empty() {
        place.check_exists(&reader)?;
    }
    let keep = match policy(args)? {
        Some(keep) => keep,
        None => recorded(&place, &infos).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "the run does not say its policy")
                .in_object(&args.run)
                .help("give one: --keep-last 3 --keep-best val_loss:min")
        })?,
    };
    let kept = reader.kept(&keep, output::now())?;
    let going: Vec<&Info> = infos.iter().filter(|info| !kept.contains_key(&info.name)).collect();
    if !args.dry_run {
        for info in &going {
            match engine.delete(&info.key) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                deleted => deleted?,
            }
        }
    }
    drop(lock);
    let bytes = going.iter().map(|info| info.len).sum();
    if json {
        let document = json!({
            "run": args.run,
            "policy": keep.to_string(),
            "dry_run": args.dry_run,
            "deleted": going.iter().map(|info| info.name.to_string()).collect::<Vec<_>>(),
            "kept": kept.iter().map(|(name, why)| (name.to_string(), json!(why))).collect::<serde_json::Map<_, _>>(),
            "bytes": bytes,
        });
        output::print_json("gc", document)?;
        return Ok(Exit::Ok);
    }
    let verb = if args.dry_run { "would delete" } else { "deleted" };
    let mut lines = vec![format!("policy: {}", output::clean(&keep.to_string()))];
    lines.extend(kept.iter().map(|(name, why)| {
        format!("keeps {name}: {}", output::clean(&why.iter().cloned().collect::<Vec<_>>().join(", ")))
    }));
    lines.extend(going.iter().map(|info| format!("{verb} {} ({})", info.name, output::size(info.len))));
    lines.push(format!("{verb} {} of {}, {}", going.len(), infos.len(), output::size(bytes)));
    output::print(lines.join("\n"))?;
    Ok(Exit::Ok)
}

/// The policy that the newest checkpoint recorded. One of a run in two tiers has one for each: at a URL it is the remote
/// tier's; a folder may be either, and there what one of them keeps stays.
fn recorded(place: &Place, infos: &[Info]) -> Option<Keep> {
    let newest = infos.iter().rev().find_map(|info| info.state.as_ref().ok())?;
    match (newest.keep.clone()?, newest.keep_remote.clone()) {
        (keep, None) => Some(keep),
        (_, Some(remote)) if place.is_url() => Some(remote),
        (keep, Some(remote)) => Some(keep.or(remote)),
    }
}

/// The policy that the flags say; None without any.
fn policy(args: &Gc) -> Result<Option<Keep>> {
    let mut keep: Option<Keep> = args.keep_last.map(Keep::last);
    let mut and = |next: Keep| keep = Some(keep.take().map_or(next.clone(), |keep| keep.or(next)));
    for best in &args.keep_best {
        let (metric, mode, count) = parse_best(best)?;
        and(Keep::default().and_best(metric, mode, count));
    }
    args.keep_every_steps.into_iter().for_each(|steps| and(Keep::default().and_every_steps(steps)));
    args.keep_every_epochs.into_iter().for_each(|epochs| and(Keep::default().and_every_epochs(epochs)));
    if let Some(age) = &args.keep_younger_than {
        and(Keep::default().and_younger_than(Duration::from_secs(with_unit(age, AGES)?)));
    }
    if let Some(size) = &args.keep_within {
        and(Keep::newest_within_bytes(with_unit(size, SIZES)?));
    }
    Ok(keep)
}

const AGES: &[(&str, u64)] = &[("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400), ("", 1)];
const SIZES: &[(&str, u64)] =
    &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("B", 1), ("", 1)];

fn with_unit(text: &str, units: &[(&str, u64)]) -> Result<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = units.iter().find(|(unit, _)| *unit == text[digits..].trim());
    let value =
        text[..digits].parse::<u64>().ok().zip(unit).and_then(|(value, (_, unit))| value.checked_mul(*unit));
    value.ok_or_else(|| {
        let units: Vec<&str> = units.iter().map(|(unit, _)| *unit).filter(|unit| !unit.is_empty()).collect();
        Error::new(ErrorKind::Invalid, format!("{text:?} is no number with a unit"))
            .expected(units.join(", "))
    })
}

fn parse_best(text: &str) -> Result<(String, Mode, usize)> {
    let wrong =
        || Error::new(ErrorKind::Invalid, format!("{text:?} names no best")).expected("METRIC:min|max[:N]");
    let (rest, count) = match text.rsplit_once(':') {
        Some((rest, count)) if count.parse::<usize>().is_ok() => (rest, count.parse().unwrap_or(1)),
        _ => (text, 1),
    };
    match rest.rsplit_once(':') {
        Some((metric, "min")) => Ok((metric.to_owned(), Mode::Min, count)),
        Some((metric, "max")) => Ok((metric.to_owned(), Mode::Max, count)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_and_nonsense_is_refused() {
        assert_eq!(with_unit("12h", AGES).unwrap(), 43_200);
        assert_eq!(with_unit("2GiB", SIZES).unwrap(), 2 << 30);
        assert_eq!(parse_best("val:loss:min:3").unwrap(), ("val:loss".to_owned(), Mode::Min, 3));
        assert_eq!(parse_best("acc:max").unwrap(), ("acc".to_owned(), Mode::Max, 1));
        for wrong in ["", "h", "12x", "99999999999999999999d"] {
            assert!(with_unit(wrong, AGES).is_err(), "{wrong}");
        }
        assert!(parse_best("loss").is_err());
    }
}
