//! A run as one HTML page: can it be resumed, what happened, how the metrics went, what is in the
//! newest checkpoint. Owns: the order of the page's parts. The page is self-contained: inline SVG,
//! CSS and a few lines of JavaScript for sorting, for picking what is compared, and for the theme;
//! nothing is fetched. Every text from a file is escaped: names are hostile.

mod cost;
mod data;
mod pairs;
mod parts;
mod svg;
mod tensors;
mod timeline;

use tensorkeep::{Reader, Result};

/// What the page says besides what the run says.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// The page's title.
    pub title: String,
    /// Two steps to compare first; without them, the oldest and the newest.
    pub diff: Option<(u64, u64)>,
    /// Free bytes where the run lies, for saying when the disk is full.
    pub free_bytes: Option<u64>,
}

impl Options {
    /// A page of this title.
    pub fn titled(title: impl Into<String>) -> Self {
        Self { title: title.into(), ..Self::default() }
    }

    /// Free bytes where the run lies.
    pub fn free_bytes(self, bytes: u64) -> Self {
        Self { free_bytes: Some(bytes), ..self }
    }
}

/// The page. Verifies from the newest checkpoint back to one that is intact, and reads all tensors
/// of that one.
///
/// # Errors
/// `NotFound` for steps to compare that do not exist; what listing and reading say. Damage is
/// shown, not an error.
pub fn html(reader: &Reader, options: &Options) -> Result<String> {
    let run = data::Run::read(reader, options)?;
    let mut page = String::with_capacity(256 << 10);
    page.push_str("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n");
    page.push_str(&format!(
        "<title>{}</title>\n<style>{}</style>\n</head>\n<body>\n",
        escape(&options.title),
        STYLE
    ));
    page.push_str("<header><h1>");
    page.push_str(&escape(&options.title));
    page.push_str("</h1><button id=\"theme\" type=\"button\">theme</button></header>\n<main>\n");
    for part in [
        parts::resume(&run),
        timeline::timeline(&run),
        timeline::metrics(&run),
        tensors::treemap(&run),
        tensors::table(&run),
        pairs::diff(&run.pairs),
        parts::damage(&run),
        parts::records(&run),
        cost::cost(&run, options),
        parts::checkpoints(&run),
    ] {
        page.push_str(&part);
    }
    page.push_str("</main>\n<script>");
    page.push_str(SCRIPT);
    page.push_str("</script>\n</body>\n</html>\n");
    Ok(page)
}

/// Text as HTML, in elements and in quoted attributes. Control characters are shown, not sent.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in crate::output::clean(text).chars() {
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

/// A part of the page; `body` is HTML already.
fn section(id: &str, title: &str, body: &str) -> String {
    format!("<section id=\"{id}\">\n<h2>{}</h2>\n{body}\n</section>\n", escape(title))
}

/// A table; a cell is HTML already, with an optional value to sort by.
fn table(header: &[&str], rows: &[Vec<Cell>]) -> String {
    let mut html = String::from("<div class=\"scroll\"><table class=\"sortable\"><thead><tr>");
    for (column, title) in header.iter().enumerate() {
        let numbers = rows.iter().any(|row| row.get(column).is_some_and(|cell| cell.key.is_some()));
        let class = if numbers { " class=\"n\"" } else { "" };
        html.push_str(&format!("<th scope=\"col\"{class}>{}</th>", escape(title)));
    }
    html.push_str("</tr></thead><tbody>\n");
    for row in rows {
        let bad = row.iter().any(|cell| cell.bad);
        html.push_str(if bad { "<tr class=\"bad\">" } else { "<tr>" });
        for cell in row {
            match cell.key {
                Some(key) => html.push_str(&format!("<td class=\"n\" data-k=\"{key:e}\">{}</td>", cell.html)),
                None => html.push_str(&format!("<td>{}</td>", cell.html)),
            }
        }
        html.push_str(&"<td></td>".repeat(header.len().saturating_sub(row.len())));
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table></div>");
    html
}

/// One cell.
#[derive(Clone, Debug, Default)]
struct Cell {
    html: String,
    key: Option<f64>,
    bad: bool,
}

impl Cell {
    fn text(text: &str) -> Self {
        Self { html: escape(text), ..Self::default() }
    }

    fn html(html: String) -> Self {
        Self { html, ..Self::default() }
    }

    fn number(text: &str, key: f64) -> Self {
        Self { html: escape(text), key: Some(if key.is_finite() { key } else { f64::MAX }), bad: false }
    }

    fn bad(self, bad: bool) -> Self {
        Self { bad, ..self }
    }
}

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_stays_text() {
        assert_eq!(escape("</script><b a='\"&\x1b"), "&lt;/script&gt;&lt;b a=&#39;&quot;&amp;\\u{1b}");
    }
}
