//! How single values are written: text of files made safe, numbers, sizes, times, counts, and small
//! pictures of numbers.

use serde_json::Value as Json;
use std::io;
use std::time::Duration;
use tensorkeep::Mode;

/// Whether a character is no text for people but an order to the terminal, or turns or hides what
/// stands around it: controls (C0, DEL, C1), bidirectional marks, overrides and isolates,
/// separators of lines, zero-width spaces and tags.
pub fn steers(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'
                | '\u{200e}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// Text from a file, safe for a terminal: what would steer it is shown, not sent.
pub fn clean(text: &str) -> String {
    if !text.chars().any(steers) {
        return text.to_owned();
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if steers(c) { clean.extend(c.escape_default()) } else { clean.push(c) }
    }
    clean
}

/// Bold on a terminal, unless NO_COLOR is set.
pub fn bold(text: &str) -> String {
    paint(text, "1")
}

/// Red on a terminal, unless NO_COLOR is set.
pub fn red(text: &str) -> String {
    paint(text, "31")
}

fn paint(text: &str, code: &str) -> String {
    use std::io::IsTerminal;
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if plain || !io::stdout().is_terminal() { text.to_owned() } else { format!("\x1b[{code}m{text}\x1b[0m") }
}

/// `1 tensor`, `2 tensors`.
pub fn count(number: usize, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

/// Which direction of a metric is better, where one is known.
pub fn direction(mode: Option<Mode>) -> Option<&'static str> {
    mode.map(|mode| match mode {
        Mode::Max => "max",
        Mode::Min => "min",
    })
}

/// A bar for each count.
pub fn sparkline(counts: &[u32]) -> String {
    let most = f64::from(counts.iter().copied().max().unwrap_or(0).max(1));
    counts.iter().map(|&count| bar(f64::from(count) / most)).collect()
}

/// A bar for each value, between the smallest and the largest; a gap where there is none.
pub fn sparkline_of(values: &[Option<f64>]) -> String {
    let finite = || values.iter().copied().flatten().filter(|value| value.is_finite());
    let (low, high) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    let one = |value: &Option<f64>| match value.filter(|value| value.is_finite()) {
        None => ' ',
        Some(_) if high <= low => bar(0.0),
        // Halves, so that the span of the largest f64s is one, too.
        Some(value) => bar((value / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0)),
    };
    values.iter().map(one).collect()
}

/// A share of 1.
fn bar(share: f64) -> char {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    BARS[((share * 7.0).ceil() as usize).min(7)]
}

/// Five digits that matter.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || (1e-3..1e6).contains(&size) {
        let text = format!("{value:.5}");
        let short = text.trim_end_matches('0').trim_end_matches('.');
        return if short.is_empty() || short == "-" { "0".to_owned() } else { short.to_owned() };
    }
    if value.is_finite() { format!("{value:.4e}") } else { value.to_string() }
}

/// A number that JSON has, or text.
pub fn json_number(value: f64) -> Json {
    if value.is_finite() { value.into() } else { value.to_string().into() }
}

/// 1.5 MiB.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// How long ago, in the largest unit that fits.
pub fn age(saved_at: u64, now: u64) -> String {
    if saved_at == 0 {
        return "?".to_owned();
    }
    let Some(seconds) = now.checked_sub(saved_at) else { return "in the future".to_owned() };
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A time as a date, in UTC.
pub fn date(seconds_since_1970: u64) -> String {
    tensorkeep::store::date(seconds_since_1970)
}

/// A time as a date and its age.
pub fn ago(seconds_since_1970: u64) -> String {
    let age = age(seconds_since_1970, super::now());
    let age = if age == "in the future" { age } else { format!("{age} ago") };
    format!("{} ({age})", date(seconds_since_1970))
}

/// 12.3 ms: three digits, in the unit that fits.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let (value, unit) = match seconds {
        0.0..1e-3 => (seconds * 1e6, "µs"),
        1e-3..1.0 => (seconds * 1e3, "ms"),
        1.0..120.0 => (seconds, "s"),
        120.0..7200.0 => (seconds / 60.0, "min"),
        _ => (seconds / 3600.0, "h"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_ages_and_durations_are_short() {
        assert_eq!([0, 1023, 1024, 1_572_864].map(size), ["0 B", "1023 B", "1.0 KiB", "1.5 MiB"]);
        assert_eq!(age(100, 130), "30 s");
        assert_eq!(age(100, 100 + 3 * 86_400), "3 d");
        assert_eq!([0, 1, 2].map(|number| count(number, "tensor")), ["0 tensors", "1 tensor", "2 tensors"]);
        let durations =
            [0, 950, 1_500, 23_400, 2_000_000, 300_000_000].map(Duration::from_micros).map(duration);
        assert_eq!(durations, ["0.00 µs", "950 µs", "1.50 ms", "23.4 ms", "2.00 s", "5.00 min"]);
        assert_eq!((age(0, 5), age(9, 5)), ("?".to_owned(), "in the future".to_owned()));
    }

    #[test]
    fn numbers_and_their_pictures_are_short() {
        assert_eq!(
            [0.0, 0.25, 1234.5, 1e-9, -2e7].map(number),
            ["0", "0.25", "1234.5", "1.0000e-9", "-2.0000e7"]
        );
        assert_eq!(sparkline(&[0, 1, 8]), "▁▂█");
        assert_eq!(sparkline_of(&[Some(1.0), None, Some(f64::NAN), Some(2.0)]), "▁  █");
        assert_eq!(sparkline_of(&[Some(-f64::MAX), Some(f64::MAX)]), "▁█");
        assert_eq!(sparkline_of(&[Some(3.0)]), "▁");
    }

    #[test]
    fn text_from_files_cannot_steer_the_terminal() {
        assert_eq!(clean("a\x1b[2J\u{202e}b"), "a\\u{1b}[2J\\u{202e}b");
        assert_eq!(clean("\u{9b}\u{2067}\u{e0041}\u{feff}"), "\\u{9b}\\u{2067}\\u{e0041}\\u{feff}");
        assert_eq!(clean("模型 🧑‍🔬 é"), "模型 🧑‍🔬 é", "what people write stays");
    }
}
