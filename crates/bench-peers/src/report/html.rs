//! Rows, verdicts and curves as one self-contained page.

use super::plot::{Labels, Line, svg};
use super::{duration, size, speed};
use crate::row::{Found, Row};
use crate::workloads::Workload;
use crate::{Outcome, verdict};
use std::fmt::Write;

const STYLE: &str = "\
body{font:15px/1.45 system-ui,sans-serif;max-width:1020px;margin:2em auto;padding:0 1em;color:#222}
h1{font-size:1.5em}h2{font-size:1.2em;margin-top:2em}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
td,th{padding:2px 8px;text-align:right;white-space:nowrap}td:nth-child(1),td:nth-child(2),th:nth-child(-n+2){text-align:left}
tr.first td{border-top:1px solid #ccc}td.bar{width:26%}
.bar div{height:.8em;background:#b8c4ce}.ours .bar div{background:#0072b2}.raw .bar div{background:#e0e0e0}
.ours{font-weight:600}.met{color:#00794f}.missed{color:#b33b00;font-weight:600}
figure{margin:1em 0}svg{max-width:100%;height:auto}";

/// The page.
///
/// # Errors
/// Those of drawing a curve.
pub fn page(found: &Found) -> Outcome<String> {
    let mut page = String::new();
    write!(
        page,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>bench-peers</title><style>{STYLE}</style>\
         <h1>tensorkeep beside its peers</h1><p>{}. Look at ratios within an operation: machines differ. Bars are \
         medians, the longest of an operation is full.</p>",
        escape(&found.machine.describe())
    )?;
    verdicts(&mut page, found)?;
    for workload in Workload::ALL {
        let rows: Vec<&Row> = found.rows.iter().filter(|row| row.workload == workload.name()).collect();
        if !rows.is_empty() {
            write!(page, "<h2>Workload {}</h2>", workload.name())?;
            table(&mut page, &rows)?;
        }
    }
    for curve in &CURVES {
        let picture = curve.draw(found)?;
        if !picture.is_empty() {
            write!(page, "<figure>{picture}</figure>")?;
        }
    }
    sparse(&mut page, found)?;
    for words in &found.skipped {
        write!(page, "<p>Not measured: {}</p>", escape(words))?;
    }
    page.push_str("</html>\n");
    Ok(page)
}

fn verdicts(page: &mut String, found: &Found) -> Outcome<()> {
    page.push_str("<h2>Targets</h2><ul>");
    for verdict in verdict::on(found) {
        let class = if verdict.is_met() { "met" } else { "missed" };
        write!(page, "<li class=\"{class}\">{}</li>", escape(&verdict.to_string()))?;
    }
    page.push_str("</ul>");
    Ok(())
}

fn table(page: &mut String, rows: &[&Row]) -> Outcome<()> {
    page.push_str(
        "<table><tr><th>operation<th>system<th>median<th>min<th>max<th>GB/s<th>peak RSS<th class=\"bar\"></tr>",
    );
    let mut op = "";
    for row in rows {
        let first = row.op != op;
        op = &row.op;
        let length = |row: &Row| if op == "size" { row.bytes as f64 } else { row.seconds.median };
        let longest =
            rows.iter().filter(|other| other.op == op).map(|other| length(other)).fold(0.0, f64::max);
        let class = match row.system.as_str() {
            ours if ours.starts_with("tensorkeep") => "ours",
            raw if raw.starts_with("raw") => "raw",
            _ => "",
        };
        let figures = match op {
            "size" => format!("<td>{}<td><td><td><td>", size(row.bytes)),
            _ => format!(
                "<td>{}<td>{}<td>{}<td>{}<td>{}",
                duration(row.seconds.median),
                duration(row.seconds.min),
                duration(row.seconds.max),
                speed(row.bytes, row.seconds.median),
                size(row.peak_rss)
            ),
        };
        write!(
            page,
            "<tr class=\"{class}{}\"><td>{}<td>{}{figures}<td class=\"bar\"><div style=\"width:{:.1}%\"></div></tr>",
            if first { " first" } else { "" },
            if first { escape(op) } else { String::new() },
            escape(&row.system),
            100.0 * length(row) / longest.max(f64::MIN_POSITIVE)
        )?;
    }
    page.push_str("</table>");
    Ok(())
}

/// The cost of one, over their number.
struct Curve {
    curve: &'static str,
    labels: Labels<'static>,
    /// Units of `y` in a second.
    unit: f64,
    ops: &'static [&'static str],
}

const CURVES: [Curve; 3] = [
    Curve {
        curve: "bytes",
        labels: Labels { title: "What a byte costs", x: "bytes in the checkpoint", y: "ns per byte" },
        unit: 1e9,
        ops: &["save_durable", "load_into", "touch_all"],
    },
    Curve {
        curve: "tensors",
        labels: Labels {
            title: "What a tensor of 64 floats costs",
            x: "tensors in the checkpoint",
            y: "µs per tensor",
        },
        unit: 1e6,
        ops: &["save_durable", "open", "open + list"],
    },
    Curve {
        curve: "checkpoints",
        labels: Labels {
            title: "What a checkpoint costs its run",
            x: "checkpoints in the run",
            y: "µs per checkpoint",
        },
        unit: 1e6,
        ops: &["list", "list again", "save + rotation"],
    },
];

impl Curve {
    fn draw(&self, found: &Found) -> Outcome<String> {
        let line = |&op: &&'static str| {
            let on = found.rows.iter().filter(|row| row.workload == self.curve && row.op == op);
            let points =
                on.filter_map(|row| Some((row.x?, self.unit * row.seconds.median / row.x?))).collect();
            Line { name: op, points }
        };
        svg(&self.labels, &self.ops.iter().map(line).collect::<Vec<_>>())
    }
}

fn sparse(page: &mut String, found: &Found) -> Outcome<()> {
    for row in found.rows.iter().filter(|row| row.workload == "sparse") {
        write!(
            page,
            "<p>Opening a sparse file of {}: {}, {} of memory, of which its index is {}.</p>",
            size(row.x.unwrap_or_default() as u64),
            duration(row.seconds.median),
            size(row.peak_rss),
            size(row.bytes)
        )?;
    }
    Ok(())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
