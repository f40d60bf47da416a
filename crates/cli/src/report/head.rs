//! The head and the verdict: which run, whether it is alive, whether training can go on from
//! it, and warnings before it does.

use super::facts::{Best, Facts, Now};
use super::run::Run;
use super::verdict::{self, Sign};
use super::words::{self, Fact, code, count, escape, int, num, shorten};
use crate::output;

/// Facts under the verdict.
const FACTS: usize = 8;

/// Name, state, progress, and a line of facts.
pub fn head(run: &Run, facts: &Facts) -> String {
    let name = run.options.title.trim_end_matches('/');
    let short = name.rsplit('/').next().unwrap_or(name);
    let (dot, state) = facts.now.shown();
    let silent = match (&facts.now, run.story.attempts.last().and_then(|attempt| attempt.stop)) {
        (Now::Died, Some(stop)) => format!(": last sign of it {}", words::ago(stop)),
        _ => String::new(),
    };
    let mut age = match facts.total {
        Some(total) if total > 0 => format!(
            "step {} of {} ({} %)",
            int(facts.reached),
            int(total),
            facts.reached.saturating_mul(100) / total
        ),
        _ => format!("step {}", int(facts.reached)),
    };
    let saved = run.infos.iter().rev().find_map(|info| Some(info.state.as_ref().ok()?.saved_at));
    match saved {
        Some(saved) => age.push_str(&format!(" · saved {}", words::ago(saved))),
        None if run.infos.is_empty() => age.push_str(", nothing saved yet"),
        None => {}
    }
    format!(
        "<header class=\"head\"><h1>{}</h1><span class=\"state\" data-state=\"{}\"><i class=\"dot {dot}\"></i><b>{state}</b>{silent}</span>\
         <span class=\"muted\" id=\"age\">{age}<span id=\"written\" hidden=\"\"></span></span><span class=\"sp\"></span></header>\n\
         <dl class=\"facts-line\">{}</dl>\n",
        escape(&shorten(short, 80)),
        facts.now.key(),
        line(run, name)
            .iter()
            .map(|(what, value)| format!("<div><dt>{what}</dt><dd>{value}</dd></div>"))
            .collect::<String>()
    )
}

/// The line under the head: HTML values.
fn line(run: &Run, name: &str) -> Vec<(&'static str, String)> {
    let mut line = Vec::new();
    let last = run.story.attempts.last();
    if let Some(host) = last.map(|attempt| &attempt.host).filter(|host| !host.is_empty()) {
        line.push(("host", escape(host)));
    }
    if let Some(tensors) = &run.tensors {
        let own = tensors.model_parameters();
        let shown = match own {
            1_000_000.. => format!("{:.1} M", own as f64 / 1e6),
            own => int(own),
        };
        line.push(("parameters", format!("{shown} in {}", count(tensors.all.len() as u64, "tensor"))));
    }
    if !run.infos.is_empty() {
        let bytes: u64 = output::total(run.infos.iter().map(|info| info.byte_len));
        let number = count(run.infos.len() as u64, "checkpoint");
        line.push(("size", format!("{} in {number}", output::size(bytes))));
    }
    let newest =
        run.infos.iter().rev().find_map(|info| Some((info.id.step, info.state.as_ref().ok()?.saved_at)));
    if let Some((step, saved)) = newest {
        line.push(("last save", format!("step {}, {}", int(step), words::date(saved))));
    }
    if let Some(start) = run.story.attempts.iter().find_map(|attempt| attempt.start) {
        let attempts = count(run.story.attempts.len() as u64, "attempt");
        line.push(("started", format!("{}, {attempts}", words::date(start))));
    }
    if let Some(keep) = &run.keep {
        line.push(("keeps", escape(&keep.to_string())));
    }
    let given =
        |keys: &[&str]| keys.iter().find_map(|key| run.metadata.get(*key)).map(|text| shorten(text, 200));
    if let Some(git) = given(&["git", "git_commit", "git.commit", "commit", "revision"]) {
        let branch =
            given(&["git_branch", "git.branch", "branch"]).map(|branch| format!(" {}", escape(&branch)));
        line.push(("git", format!("{}{}", code(&shorten(&git, 12)), branch.unwrap_or_default())));
    }
    if let Some(command) = given(&["command", "cmd", "argv"]) {
        line.push(("command", code(&command)));
    }
    line.push(("path", code(name)));
    line
}

/// The verdict's section.
pub fn verdict(run: &Run, facts: &Facts) -> String {
    let found = verdict::of(facts);
    let then =
        if found.then.is_empty() { String::new() } else { format!("<div class=\"do\">{}</div>", found.then) };
    let list = facts_of(run, facts);
    let note = match run.newest_id() {
        None => "<p class=\"muted small\">Curves, layers and tensors appear here after the first save.</p>",
        Some(_) => "",
    };
    format!(
        "<section id=\"verdict\" aria-live=\"polite\"><h2 class=\"vh\">Verdict</h2><p class=\"say\">{}<span>{}</span></p>{then}\n{}{note}</section>\n",
        verdict::icon(found.sign),
        found.say,
        words::facts(&list)
    )
}

/// A word beside the verdict in the list of contents.
pub fn verdict_flag(facts: &Facts) -> String {
    let (tone, word) = match verdict::of(facts).sign {
        Sign::Bad => ("bad", "No"),
        Sign::Warn if facts.not_finite.is_some() => ("warn", "NaN"),
        Sign::Warn => ("warn", "!"),
        Sign::Ok | Sign::Nothing => return String::new(),
    };
    format!("<span class=\"flag {tone}\">{word}</span>")
}

fn facts_of(run: &Run, facts: &Facts) -> Vec<Fact> {
    let mut list = Vec::new();
    if facts.newest.is_none() {
        return list;
    }
    if let Some(resume) = facts.resume {
        let step = format!("step {}", int(resume));
        let repeated = facts.reached.saturating_sub(resume);
        let repeats = match repeated {
            0 => String::new(),
            steps => format!("; {} of {} repeated", count(steps, "step"), int(facts.reached)),
        };
        let looked = if facts.is_quick { "not verified" } else { "every byte verified" };
        list.push(Fact::new("Resume goes to", step, format!("{looked}{repeats}")));
    } else if let Some(newest) = facts.newest {
        list.push(Fact::new("Newest", format!("step {}", int(newest)), "damaged").tone("bad"));
    }
    list.extend(not_finite(run, facts));
    list.extend(run.bests().iter().take(2).map(best));
    list.push(damaged(run));
    list.push(verified(run));
    list.extend(repeated(run, facts));
    list.truncate(FACTS);
    list
}

fn not_finite(run: &Run, facts: &Facts) -> Vec<Fact> {
    let Some(tensors) = run.tensors.as_ref().filter(|_| !facts.is_quick) else { return vec![] };
    let bad: Vec<_> = tensors.nans().collect();
    let Some((meta, stats)) = bad.first() else {
        let read = tensors.all.iter().any(|(_, stats)| stats.is_some());
        let small = if read { "in the newest that was read whole" } else { "" };
        return if read { vec![Fact::new("Not a number", "none", small)] } else { vec![] };
    };
    let mut list = Vec::new();
    if let Some(nan) = &facts.not_finite
        && let Some(last) = nan.last_finite
    {
        let before = facts.resume.map_or(0, |resume| resume.saturating_sub(last));
        let small = format!("{} before the newest; every byte verified", count(before, "step"));
        list.push(Fact::new("Last finite", format!("step {}", int(last)), small).tone("warn"));
    }
    let what = format!("NaN in {} of {}", bad.len(), count(tensors.all.len() as u64, "tensor"));
    let small = format!("{} of {} values", int(stats.nans), int(stats.count));
    list.push(Fact::new(what, shorten(&meta.name, 100), small).tone("bad"));
    list
}

fn best(best: &Best) -> Fact {
    let value = format!("{} at step {}", num(best.value), int(best.step));
    let kept = match best.saved {
        _ if best.is_kept => "kept".to_owned(),
        Some((value, step)) => format!("not kept; of the kept ones {} at step {}", num(value), int(step)),
        None => "not kept".to_owned(),
    };
    let since = match best.newest {
        newest if newest.is_nan() => "; NaN by now".to_owned(),
        newest if newest == best.value => String::new(),
        newest => format!("; newest {}", num(newest)),
    };
    Fact::new(format!("Best {}", shorten(&best.metric, 40)), value, format!("{kept}{since}"))
}

fn damaged(run: &Run) -> Fact {
    let all = run.looked.damaged.len() + run.looked.set_aside.len();
    if all == 0 {
        return Fact::new("Damaged", "none found", "in what was verified");
    }
    let steps: Vec<String> = run.looked.damaged.keys().rev().take(3).map(|id| int(id.step)).collect();
    let aside = match run.looked.set_aside.len() {
        0 => String::new(),
        many => format!("{many} set aside by a resume"),
    };
    let value = if steps.is_empty() {
        aside.clone()
    } else {
        format!("{} of {}: {}", run.looked.damaged.len(), run.infos.len(), steps.join(", "))
    };
    Fact::new("Damaged", value, if steps.is_empty() { String::new() } else { aside }).tone("bad")
}

fn verified(run: &Run) -> Fact {
    let (verified, damaged, kept) = (run.looked.verified.len(), run.looked.damaged.len(), run.infos.len());
    if verified + damaged == 0 {
        return Fact::new("Verified", "nothing", "made with --quick").tone("warn");
    }
    let value = format!("{} of {}, every byte", int(verified as u64), int(kept as u64));
    let small = match kept.saturating_sub(verified + damaged) {
        0 => String::new(),
        rest => format!("{} opened by their index only; --verify-all reads them", int(rest as u64)),
    };
    Fact::new("Verified", value, small)
}

fn repeated(run: &Run, facts: &Facts) -> Option<Fact> {
    let lost = run.story.attempts.iter().filter_map(|attempt| attempt.lost).filter(|steps| *steps > 0);
    let (sum, attempts) = lost.fold((0, 0), |(sum, attempts), steps| (sum + steps, attempts + 1));
    if attempts == 0 {
        return None;
    }
    let value = format!("{} of {} steps", int(sum), int(facts.reached));
    Some(Fact::new("Run again", value, format!("after {} at least", count(attempts, "attempt"))))
}
