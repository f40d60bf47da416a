//! The page around everything: its head, styles and scripts, and the list of contents.

use super::words::escape;
use serde_json::Value as Json;

/// The subject of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Run,
    Runs,
    File,
}

const STYLES: [&str; 4] = [
    include_str!("page/tokens.css"),
    include_str!("page/layout.css"),
    include_str!("page/parts.css"),
    include_str!("page/widths.css"),
];
const RUNS_STYLE: &str = include_str!("page/runs.css");
const FILE_STYLE: &str = include_str!("page/file.css");

/// One scope, in this order: each script uses those before it.
const SCRIPTS: [&str; 12] = [
    include_str!("page/dom.js"),
    include_str!("page/widgets.js"),
    include_str!("page/model.js"),
    include_str!("page/chart.js"),
    include_str!("page/curves.js"),
    include_str!("page/timeline.js"),
    include_str!("page/layers.js"),
    include_str!("page/ridge.js"),
    include_str!("page/tree.js"),
    include_str!("page/treemap.js"),
    include_str!("page/compare.js"),
    include_str!("page/checkpoints.js"),
];
const RUNS_SCRIPT: &str = include_str!("page/runs.js");
const FILE_SCRIPT: &str = include_str!("page/file.js");
const MAIN: &str = include_str!("page/main.js");

/// Before the first paint: the theme that was chosen.
const THEME: &str = "try{const t=localStorage.getItem('tensorkeep.theme');if(t==='light'||t==='dark')document.documentElement.dataset.theme=t}catch{}";

/// Patterns that charts fill with: nothing ran, not finite.
const PATTERNS: &str = "<svg width=\"0\" height=\"0\" style=\"position:absolute\" aria-hidden=\"true\"><defs>\
    <pattern id=\"gap\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
    <rect width=\"6\" height=\"6\" style=\"fill:var(--sunken)\"/><line x1=\"0\" y1=\"0\" x2=\"0\" y2=\"6\" style=\"stroke:var(--line)\" stroke-width=\"3\"/></pattern>\
    <pattern id=\"nanp\" width=\"5\" height=\"5\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
    <rect width=\"5\" height=\"5\" style=\"fill:var(--bad-soft)\"/><line x1=\"0\" y1=\"0\" x2=\"0\" y2=\"5\" style=\"stroke:var(--bad)\" stroke-width=\"1.6\" opacity=\".7\"/></pattern>\
    </defs></svg>";

/// The whole page. `class` is the layout's, `body` is HTML.
pub fn page(title: &str, class: &str, body: &str, data: &Json, kind: Kind) -> String {
    // No text can end the element that it is in.
    let data = data.to_string().replace('<', "\\u003c");
    let mut page = String::with_capacity(body.len() + data.len() + (128 << 10));
    page.push_str("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n");
    page.push_str(&format!(
        "<title>{} · tensorkeep</title>\n<script>{THEME}</script>\n<style>\n",
        escape(title)
    ));
    STYLES.iter().chain(&own_style(kind)).for_each(|style| page.push_str(&lean(style)));
    page.push_str("</style>\n</head>\n<body>\n<a class=\"skip\" href=\"#verdict\">Skip to the verdict</a>\n");
    page.push_str(PATTERNS);
    page.push_str(&format!("<div class=\"page {class}\">\n{body}"));
    page.push_str(&format!(
        "<footer class=\"foot\"><p>Written <time data-t=\"{now}\" data-show=\"date\">{}</time> by tensorkeep {}. Ages are counted by your clock. \
         The page asks nothing of the network.</p></footer>\n</div>\n",
        crate::output::date(crate::output::now()),
        env!("CARGO_PKG_VERSION"),
        now = crate::output::now(),
    ));
    page.push_str(&format!(
        "<script type=\"application/json\" id=\"data\">{data}</script>\n<script type=\"module\">\n"
    ));
    SCRIPTS.iter().chain(&own_script(kind)).chain(&[MAIN]).for_each(|script| page.push_str(&lean(script)));
    page.push_str("</script>\n</body>\n</html>\n");
    page
}

fn own_style(kind: Kind) -> Vec<&'static str> {
    match kind {
        Kind::Run => vec![],
        Kind::Runs => vec![RUNS_STYLE],
        Kind::File => vec![FILE_STYLE],
    }
}

fn own_script(kind: Kind) -> Vec<&'static str> {
    match kind {
        Kind::Run => vec![],
        Kind::Runs => vec![RUNS_SCRIPT],
        Kind::File => vec![FILE_SCRIPT],
    }
}

/// Without indentation and lines of comments: a quarter less.
fn lean(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    for line in source.lines().map(str::trim).filter(|line| !line.is_empty() && !is_comment(line)) {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// Whether a line is a comment and nothing else: code may stand behind one.
fn is_comment(line: &str) -> bool {
    let is_block = line.starts_with("/*") && line.find("*/").is_none_or(|end| end + 2 == line.len());
    let is_inside = line == "*" || line == "*/" || (line.starts_with("* ") && !line.starts_with("* {"));
    line.starts_with("//") || is_block || is_inside
}

/// The list of contents; a flag is HTML.
pub fn contents(entries: &[(&str, &str, String)]) -> String {
    let one =
        |(id, title, flag): &(&str, &str, String)| format!("<li><a href=\"#{id}\">{title} {flag}</a></li>");
    let list: String = entries.iter().map(one).collect();
    format!("<nav class=\"toc\" aria-label=\"On this page\"><ol>{list}</ol></nav>\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_text_ends_the_element_that_it_is_in() {
        let hostile = "</script><script>alert(1)</script>";
        let html = page(hostile, "", "", &json!({ "name": hostile }), Kind::Run);
        assert_eq!(html.matches("</script>").count(), 3, "theme, data, scripts");
        assert!(html.contains("&lt;/script&gt;") && html.contains("\\u003c/script>"));
    }

    #[test]
    fn scripts_are_made_lean_without_changing_what_they_do() {
        let source =
            "// why\nconst a = 1;\n\n/**\n * @type {x}\n */\n  /** @type {y} */ (a)();\n  * {\n/* css */\n";
        assert_eq!(lean(source), "const a = 1;\n/** @type {y} */ (a)();\n* {\n");
    }
}
