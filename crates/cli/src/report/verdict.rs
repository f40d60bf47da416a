//! The verdict on a run, in one sentence for each state it can be in: whether training can go on,
//! from where, and the next command to run. Pure functions from facts to words.

use super::facts::{Best, Diverged, Facts, NotFinite, Now, Unusable};
use super::words::{code, command, count, escape, int, num};

/// Which sign stands before the sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    Ok,
    Warn,
    Bad,
    Nothing,
}

/// A sentence, and the action to take: HTML.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub sign: Sign,
    pub say: String,
    pub then: String,
}

/// The verdict on a run.
pub fn of(facts: &Facts) -> Verdict {
    let Some(newest) = facts.newest else { return nothing(facts) };
    let Some(resume) = facts.resume else { return all_damaged(facts, newest) };
    if facts.is_quick {
        let say = format!("Step {} is the newest; not verified.", int(newest));
        let then =
            format!("Whether it can be resumed was not looked at. {} does.", code("tensorkeep report"));
        return Verdict { sign: Sign::Nothing, say, then };
    }
    if let Some(nan) = &facts.not_finite {
        return not_finite(facts, resume, nan);
    }
    if let Some(unusable) = facts.unusable.first() {
        return newest_damaged(facts, resume, unusable);
    }
    match &facts.diverged {
        Some(diverged) => but_diverged(well(facts, resume), diverged),
        None => well(facts, resume),
    }
}

/// A run that can be resumed, and whose resume would train on nothing good.
fn but_diverged(verdict: Verdict, diverged: &Diverged) -> Verdict {
    let Diverged { metric, value, since, before } = diverged;
    let say = format!("{} But {} has been {value} since step {}.", verdict.say, escape(metric), int(*since));
    let then = match before {
        Some(before) => {
            format!(
                "The newest kept checkpoint from before is <a href=\"#c{before}\">step {}</a>.",
                int(*before)
            )
        }
        None => "No checkpoint from before is kept.".to_owned(),
    };
    Verdict { sign: Sign::Warn, say, then }
}

fn nothing(facts: &Facts) -> Verdict {
    let say = "Nothing to resume from: no checkpoint was saved yet.".to_owned();
    Verdict { sign: Sign::Nothing, say, then: facts.begun.clone() }
}

fn all_damaged(facts: &Facts, newest: u64) -> Verdict {
    let say = match facts.kept {
        0 | 1 => "No. The only checkpoint does not verify.".to_owned(),
        kept => format!("No. None of the {} checkpoints verifies.", int(kept)),
    };
    let then = match facts.least_damaged {
        Some((step, intact, all)) if intact > 0 => format!(
            "The least damaged is step {}: {} of {} tensors are intact. Get them out with:{}",
            int(step),
            int(intact),
            int(all),
            command(&format!("tensorkeep salvage {}@{step} -o rescued.tkeep", facts.run))
        ),
        _ => format!(
            "Nothing of step {} can be read. A copy elsewhere, or {} of the folder's file system, is what is left.",
            int(newest),
            code("tensorkeep doctor")
        ),
    };
    Verdict { sign: Sign::Bad, say, then }
}

fn not_finite(facts: &Facts, resume: u64, nan: &NotFinite) -> Verdict {
    let Some(last) = nan.last_finite else {
        return Verdict {
            sign: Sign::Bad,
            say: format!("It resumes from step {}, but no kept checkpoint is finite.", int(resume)),
            then: format!(
                "NaN since step {} or before; the last finite save was deleted by rotation. Keep more, or pin earlier.",
                int(nan.since)
            ),
        };
    };
    let say = format!(
        "It resumes from step {}, but the model has been NaN since step {}.",
        int(resume),
        int(nan.since)
    );
    let link = format!("The last finite checkpoint is <a href=\"#c{last}\">step {}</a>.", int(last));
    let pin = command(&format!("tensorkeep pin {}@{last}", facts.run));
    let then = match nan.saves_left {
        _ if nan.is_pinned => format!("{link} It is pinned."),
        Some(0) => format!("{link} Rotation deletes it with the next save. Pin it to keep it:{pin}"),
        Some(left) => {
            format!("{link} Rotation deletes it after {}. Pin it to keep it:{pin}", count(left, "more save"))
        }
        None => format!("{link} It is kept: {}.", escape(&nan.stays_because)),
    };
    Verdict { sign: Sign::Warn, say, then }
}

fn newest_damaged(facts: &Facts, resume: u64, unusable: &Unusable) -> Verdict {
    let newest = facts.unusable.iter().map(|one| one.step).max().unwrap_or(unusable.step);
    let say = format!("Yes, from step {} of {}.{}", int(resume), int(newest), repeated(facts, resume));
    let each: Vec<String> = facts
        .unusable
        .iter()
        .take(3)
        .map(|one| format!("{} cannot be used: {}.", int(one.step), one.why))
        .collect();
    let more = facts.unusable.len().saturating_sub(3);
    let more = if more > 0 { format!(" {more} more cannot be used.") } else { String::new() };
    let (them, say_so) = if facts.unusable.len() == 1 { ("it", "says so") } else { ("them", "says so") };
    let then = format!("{}{more} A resume sets {them} aside and {say_so}.", each.join(" "));
    Verdict { sign: Sign::Warn, say, then }
}

fn well(facts: &Facts, resume: u64) -> Verdict {
    let of = facts.total.map(|total| format!(" of {}", int(total))).unwrap_or_default();
    let say = match facts.now {
        Now::Finished => {
            let best = facts.best.as_ref().map_or_else(String::new, |best| {
                let Best { metric, value, step, .. } = best;
                let kept = match best.saved {
                    _ if best.is_kept => "which is kept".to_owned(),
                    Some((value, step)) => {
                        format!("which is not kept; of the kept ones {} at step {}", num(value), int(step))
                    }
                    None => "which is not kept".to_owned(),
                };
                format!(" Best {} {} at step {}, {kept}.", escape(metric), num(*value), int(*step))
            });
            let saved = if facts.reached > resume {
                format!(" The newest checkpoint is of step {}.", int(resume))
            } else {
                String::new()
            };
            format!("Finished at step {}.{saved}{best}", int(facts.reached.max(resume)))
        }
        Now::Closed => {
            format!("Yes, from step {}{of}. Closed by the program; nothing is lost.", int(resume))
        }
        Now::Stopped if resume >= facts.reached => {
            format!("Yes, from step {}{of}. Stopped by a signal and saved; nothing is lost.", int(resume))
        }
        Now::Died if facts.reached > resume => format!(
            "Yes, from step {}{of}. The last attempt died at step {}; {} will be repeated.",
            int(resume),
            int(facts.reached),
            count(facts.reached - resume, "step")
        ),
        Now::Died => format!(
            "Yes, from step {}{of}. The last attempt died; what it did after that save will be repeated.",
            int(resume)
        ),
        Now::Running => match facts.reached.saturating_sub(resume) {
            0 => format!("Yes, from step {}{of}. Nothing would be repeated.", int(resume)),
            steps => {
                format!("Yes, from step {}{of}. {} would be repeated.", int(resume), count(steps, "step"))
            }
        },
        Now::Stopped | Now::Unknown => {
            format!("Yes, from step {}{of}.{}", int(resume), repeated(facts, resume))
        }
    };
    Verdict { sign: Sign::Ok, say, then: export_best(facts, resume) }
}

/// How to export the best checkpoint, where the newest of a finished run is not it.
fn export_best(facts: &Facts, resume: u64) -> String {
    match (&facts.now, &facts.best) {
        (Now::Finished, Some(best)) if best.is_kept && best.step != resume && best.newest != best.value => {
            format!(
                "The newest is not the best: {} is {} at step {}. Export the best:{}",
                escape(&best.metric),
                num(best.newest),
                int(resume),
                command(&format!("tensorkeep export {}@{} -o best.safetensors", facts.run, best.step))
            )
        }
        _ => String::new(),
    }
}

fn repeated(facts: &Facts, resume: u64) -> String {
    match facts.reached.saturating_sub(resume) {
        0 => String::new(),
        steps => format!(" {} will be repeated.", count(steps, "step")),
    }
}

/// The sentence's sign, as SVG.
pub fn icon(sign: Sign) -> &'static str {
    match sign {
        Sign::Ok => {
            "<svg width=\"24\" height=\"24\" viewBox=\"0 0 24 24\" aria-hidden=\"true\"><circle cx=\"12\" cy=\"12\" r=\"10\" fill=\"none\" stroke=\"var(--good)\" stroke-width=\"2\"/><path d=\"M7 12.5l3.4 3.4L17 9\" fill=\"none\" stroke=\"var(--good)\" stroke-width=\"2\"/></svg>"
        }
        Sign::Warn => {
            "<svg width=\"24\" height=\"24\" viewBox=\"0 0 24 24\" aria-hidden=\"true\"><path d=\"M12 3L22 20.5H2Z\" fill=\"none\" stroke=\"var(--warn)\" stroke-width=\"2\" stroke-linejoin=\"round\"/><path d=\"M12 10v5M12 17v1.6\" stroke=\"var(--warn)\" stroke-width=\"2\"/></svg>"
        }
        Sign::Bad => {
            "<svg width=\"24\" height=\"24\" viewBox=\"0 0 24 24\" aria-hidden=\"true\"><path d=\"M8 2h8l6 6v8l-6 6H8l-6-6V8Z\" fill=\"none\" stroke=\"var(--bad)\" stroke-width=\"2\" stroke-linejoin=\"round\"/><path d=\"M8.5 8.5l7 7M15.5 8.5l-7 7\" stroke=\"var(--bad)\" stroke-width=\"2\"/></svg>"
        }
        Sign::Nothing => {
            "<svg width=\"24\" height=\"24\" viewBox=\"0 0 24 24\" aria-hidden=\"true\"><circle cx=\"12\" cy=\"12\" r=\"10\" fill=\"none\" stroke=\"var(--muted)\" stroke-width=\"2\" stroke-dasharray=\"4 3\"/></svg>"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            run: "runs/rte".to_owned(),
            now: Now::Running,
            kept: 38,
            reached: 11_612,
            total: Some(12_000),
            newest: Some(11_600),
            resume: Some(11_600),
            is_quick: false,
            unusable: vec![],
            not_finite: None,
            diverged: None,
            best: None,
            least_damaged: None,
            begun: String::new(),
        }
    }

    fn best(newest: f64) -> Option<Best> {
        let metric = "val_accuracy".to_owned();
        Some(Best { metric, value: 0.9296, step: 9_240, is_kept: true, saved: None, newest })
    }

    fn diverged(before: Option<u64>) -> Option<Diverged> {
        Some(Diverged { metric: "loss".to_owned(), value: f64::NAN, since: 11_437, before })
    }

    fn nan(last_finite: Option<u64>, saves_left: Option<u64>) -> Option<NotFinite> {
        let stays_because = "every 400 steps".to_owned();
        Some(NotFinite { since: 11_440, last_finite, saves_left, stays_because, is_pinned: false })
    }

    /// Each row of the table of states: facts, the sign, the sentence, and words of the action.
    #[test]
    fn every_state_has_its_sentence() {
        let at = |now| Facts { now, ..facts() };
        let rot = |step| Unusable { step, why: "bit rot in <code>fc1</code>".to_owned() };
        let rows: Vec<(Facts, Sign, &str, &str)> = vec![
            (facts(), Sign::Ok, "Yes, from step 11,600 of 12,000. 12 steps would be repeated.", ""),
            (
                Facts { reached: 11_601, ..facts() },
                Sign::Ok,
                "Yes, from step 11,600 of 12,000. 1 step would be repeated.",
                "",
            ),
            (
                Facts { reached: 11_600, total: None, ..facts() },
                Sign::Ok,
                "Yes, from step 11,600. Nothing would be repeated.",
                "",
            ),
            (
                Facts { best: best(0.9121), resume: Some(12_000), ..at(Now::Finished) },
                Sign::Ok,
                "Finished at step 12,000. Best val_accuracy 0.9296 at step 9,240, which is kept.",
                "The newest is not the best: val_accuracy is 0.9121 at step 12,000. Export the best:",
            ),
            (Facts { resume: Some(12_000), ..at(Now::Finished) }, Sign::Ok, "Finished at step 12,000.", ""),
            (
                Facts { reached: 11_600, total: None, ..at(Now::Stopped) },
                Sign::Ok,
                "Yes, from step 11,600. Stopped by a signal and saved; nothing is lost.",
                "",
            ),
            (
                Facts { total: None, ..at(Now::Stopped) },
                Sign::Ok,
                "Yes, from step 11,600. 12 steps will be repeated.",
                "",
            ),
            (
                Facts { reached: 11_600, ..at(Now::Closed) },
                Sign::Ok,
                "Yes, from step 11,600 of 12,000. Closed by the program; nothing is lost.",
                "",
            ),
            (
                Facts { total: None, ..at(Now::Died) },
                Sign::Ok,
                "Yes, from step 11,600. The last attempt died at step 11,612; 12 steps will be repeated.",
                "",
            ),
            (
                Facts { total: None, reached: 11_600, ..at(Now::Unknown) },
                Sign::Ok,
                "Yes, from step 11,600.",
                "",
            ),
            (
                Facts { diverged: diverged(Some(11_400)), ..facts() },
                Sign::Warn,
                "Yes, from step 11,600 of 12,000. 12 steps would be repeated. But loss has been NaN since step 11,437.",
                "The newest kept checkpoint from before is <a href=\"#c11400\">step 11,400</a>.",
            ),
            (
                Facts { diverged: diverged(None), ..at(Now::Finished) },
                Sign::Warn,
                "Finished at step 11,612. The newest checkpoint is of step 11,600. But loss has been NaN since step 11,437.",
                "No checkpoint from before is kept.",
            ),
            (
                Facts { not_finite: nan(Some(11_400), Some(3)), ..facts() },
                Sign::Warn,
                "It resumes from step 11,600, but the model has been NaN since step 11,440.",
                "Rotation deletes it after 3 more saves. Pin it to keep it:",
            ),
            (
                Facts { not_finite: nan(Some(11_400), Some(0)), ..facts() },
                Sign::Warn,
                "It resumes from step 11,600, but the model has been NaN since step 11,440.",
                "Rotation deletes it with the next save.",
            ),
            (
                Facts { not_finite: nan(Some(11_400), None), ..facts() },
                Sign::Warn,
                "It resumes from step 11,600, but the model has been NaN since step 11,440.",
                "It is kept: every 400 steps.",
            ),
            (
                Facts { not_finite: nan(None, None), ..facts() },
                Sign::Bad,
                "It resumes from step 11,600, but no kept checkpoint is finite.",
                "the last finite save was deleted by rotation",
            ),
            (
                Facts { resume: Some(11_560), reached: 11_600, unusable: vec![rot(11_600)], ..facts() },
                Sign::Warn,
                "Yes, from step 11,560 of 11,600. 40 steps will be repeated.",
                "11,600 cannot be used: bit rot in <code>fc1</code>. A resume sets it aside and says so.",
            ),
            (
                Facts { resume: None, least_damaged: Some((11_600, 147, 148)), ..facts() },
                Sign::Bad,
                "No. None of the 38 checkpoints verifies.",
                "The least damaged is step 11,600: 147 of 148 tensors are intact.",
            ),
            (
                Facts { resume: None, kept: 1, ..facts() },
                Sign::Bad,
                "No. The only checkpoint does not verify.",
                "Nothing of step 11,600 can be read.",
            ),
            (
                Facts { newest: None, resume: None, begun: "Attempt 1 started.".to_owned(), ..facts() },
                Sign::Nothing,
                "Nothing to resume from: no checkpoint was saved yet.",
                "Attempt 1 started.",
            ),
            (
                Facts { is_quick: true, ..facts() },
                Sign::Nothing,
                "Step 11,600 is the newest; not verified.",
                "was not looked at",
            ),
        ];
        for (facts, sign, say, then) in rows {
            let found = of(&facts);
            assert_eq!((found.sign, found.say.as_str()), (sign, say), "{facts:?}");
            assert!(found.then.contains(then), "{}: {}", found.say, found.then);
            assert_eq!(then.is_empty(), found.then.is_empty(), "{}: {}", found.say, found.then);
        }
    }

    #[test]
    fn a_best_between_two_saves_names_the_best_that_is_kept() {
        let logged = Best { is_kept: false, saved: Some((0.925, 9_200)), ..best(0.9121).unwrap() };
        let found = of(&Facts { best: Some(logged), now: Now::Finished, ..facts() });
        let words = "Best val_accuracy 0.9296 at step 9,240, which is not kept; of the kept ones 0.925 at step 9,200.";
        assert!(found.say.ends_with(words), "{found:?}");
    }

    #[test]
    fn names_of_metrics_are_no_markup() {
        let metric = "<b>acc".to_owned();
        let best = Best { metric, value: 1.0, step: 1, is_kept: true, saved: None, newest: 0.5 };
        let found = of(&Facts { best: Some(best), now: Now::Finished, ..facts() });
        assert!(found.say.contains("&lt;b&gt;acc") && !found.say.contains("<b>"), "{found:?}");
    }
}
