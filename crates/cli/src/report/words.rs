//! Numbers, sizes and times as the page says them, in Rust as in its scripts; and HTML that is
//! safe: every text from a file goes through `escape`.

use crate::output;

/// 11,612.
pub fn int(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 step`, `1,200 steps`.
pub fn count(number: u64, word: &str) -> String {
    format!("{} {word}{}", int(number), if number == 1 { "" } else { "s" })
}

/// Four digits that matter.
pub fn num(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() || value == 0.0 {
        return output::number(value);
    }
    if !(1e-3..1e5).contains(&size) {
        return format!("{value:.2e}");
    }
    let digits = (3 - size.log10().floor() as i32).max(0) as usize;
    let text = format!("{value:.digits$}");
    if digits > 0 { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// How long, in words.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 if !(seconds / 60).is_multiple_of(60) => {
            format!("{} h {} min", seconds / 3_600, seconds / 60 % 60)
        }
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Text as HTML, in elements and in quoted attributes. Control and bidirectional characters are
/// shown, not sent.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in output::clean(text).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Text that ends before it fills the page.
pub fn shorten(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// A moment. The page's script counts how long ago it is; without one, the date stands.
pub fn ago(seconds: u64) -> String {
    format!("<time data-t=\"{seconds}\">{}</time>", output::date(seconds))
}

/// A moment that stays a date, by the reader's clock.
pub fn date(seconds: u64) -> String {
    format!("<time data-t=\"{seconds}\" data-show=\"date\">{}</time>", output::date(seconds))
}

pub fn code(text: &str) -> String {
    format!("<code>{}</code>", escape(text))
}

/// A command to copy.
pub fn command(text: &str) -> String {
    format!("<div><span class=\"cmd\"><code>{}</code></span></div>", escape(text))
}

/// A section with its head; `first` and `body` are HTML already.
pub fn section(id: &str, title: &str, first: &str, body: &str) -> String {
    let first = if first.is_empty() { String::new() } else { format!("<p>{first}</p>") };
    format!(
        "<section id=\"{id}\"><div class=\"sec\"><h2><a href=\"#{id}\">{}</a></h2>{first}</div>\n{body}</section>\n",
        escape(title)
    )
}

/// A fact under the verdict: its label, its value, and small words. Text, not HTML.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    pub what: String,
    pub value: String,
    pub small: String,
    /// `bad`, `warn` or nothing.
    pub tone: &'static str,
}

impl Fact {
    pub fn new(what: impl Into<String>, value: impl Into<String>, small: impl Into<String>) -> Self {
        Self { what: what.into(), value: value.into(), small: small.into(), tone: "" }
    }

    pub fn tone(self, tone: &'static str) -> Self {
        Self { tone, ..self }
    }
}

/// Facts side by side.
pub fn facts(facts: &[Fact]) -> String {
    let one = |fact: &Fact| {
        let class = if fact.tone.is_empty() { String::new() } else { format!(" class=\"{}\"", fact.tone) };
        format!(
            "<div><dt>{}</dt><dd><b{class}>{}</b><small>{}</small></dd></div>",
            escape(&fact.what),
            escape(&fact.value),
            escape(&fact.small)
        )
    };
    if facts.is_empty() {
        return String::new();
    }
    format!("<dl class=\"kv\">{}</dl>\n", facts.iter().map(one).collect::<String>())
}

/// A plain table that reads without a script; cells are HTML already. Columns numbered in `right`
/// hold numbers.
pub fn table(class: &str, header: &[&str], right: &[usize], rows: &[(String, Vec<String>)]) -> String {
    let side = |i: usize| if right.contains(&i) { " class=\"num\"" } else { "" };
    let mut html = format!("<div class=\"tw\"><table class=\"{class}\"><thead><tr>");
    for (i, title) in header.iter().enumerate() {
        html.push_str(&format!("<th scope=\"col\"{}>{}</th>", side(i), escape(title)));
    }
    html.push_str("</tr></thead><tbody>\n");
    for (id, cells) in rows {
        let id = if id.is_empty() { String::new() } else { format!(" id=\"{id}\"") };
        html.push_str(&format!("<tr{id}>"));
        for (i, cell) in cells.iter().enumerate() {
            html.push_str(&format!("<td{}>{cell}</td>", side(i)));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table></div>");
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_the_scripts_have_them() {
        assert_eq!([0, 999, 1000, 11_612_000].map(int), ["0", "999", "1,000", "11,612,000"]);
        assert_eq!(
            [0.0, 0.9296, 0.05123, 3.1, 12345.0, 3e-5, 2.5e7].map(num),
            ["0", "0.9296", "0.05123", "3.1", "12345", "3.00e-5", "2.50e7"]
        );
        assert_eq!([5, 65, 3_600, 7_920, 200_000].map(span), ["5 s", "1 min", "1 h", "2 h 12 min", "2 days"]);
        assert_eq!((count(1, "step"), count(1_200, "step")), ("1 step".into(), "1,200 steps".into()));
    }

    #[test]
    fn hostile_text_stays_text() {
        let text = escape("</script><b a='1'>\u{1b}[2J\u{202e}x\"&");
        assert_eq!(text, "&lt;/script&gt;&lt;b a=&#39;1&#39;&gt;\\u{1b}[2J\\u{202e}x&quot;&amp;");
        assert_eq!(shorten("模型模型", 2), "模型…");
    }
}
