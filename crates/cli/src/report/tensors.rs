//! What is in the newest intact checkpoint: a treemap of sizes, and the numbers of each tensor.

use super::data::Run;
use super::{Cell, escape, section, svg};
use crate::opened::Meta;
use crate::output;
use crate::stats::Stats;
use std::collections::BTreeMap;

/// Rectangles drawn, and rows listed: the page stays below 1 MB.
const RECTANGLES: usize = 300;
const ROWS: usize = 800;

/// A rectangle to fill: left, top, width, height.
type Area = (f64, f64, f64, f64);

pub fn treemap(run: &Run) -> String {
    let Some((_, tensors)) = &run.newest else { return String::new() };
    let mut metas: Vec<&Meta> =
        tensors.iter().map(|(meta, _)| meta).filter(|meta| meta.byte_len > 0).collect();
    metas.sort_by_key(|meta| std::cmp::Reverse(meta.byte_len));
    if metas.is_empty() {
        return String::new();
    }
    let colours = colours(&metas);
    let left_out = metas.len().saturating_sub(RECTANGLES);
    metas.truncate(RECTANGLES);
    let sizes: Vec<f64> = metas.iter().map(|meta| meta.byte_len as f64).collect();
    let mut svg = String::from("<svg viewBox=\"0 0 1100 320\" width=\"100%\" role=\"img\">");
    for (meta, area) in metas.iter().zip(squarify(&sizes, (0.0, 0.0, 1100.0, 320.0))) {
        svg.push_str(&rectangle(meta, area, colours.get(group(&meta.name)).copied().unwrap_or(7)));
    }
    svg.push_str("</svg>");
    let legend: String = colours
        .iter()
        .filter(|(_, colour)| **colour < 7)
        .map(|(group, colour)| {
            format!("<span style=\"color:var(--c{colour})\">■</span> {} &nbsp; ", escape(group))
        })
        .collect();
    let more =
        if left_out > 0 { format!("{left_out} smaller tensors are not drawn.") } else { String::new() };
    section(
        "sizes",
        "Where the bytes are",
        &format!("<div class=\"wide\">{svg}</div><p class=\"dim\">{legend}{more}</p>"),
    )
}

/// The name up to its last dot but one: a layer, or a group of them.
fn group(name: &str) -> &str {
    name.split(['.', '/']).next().unwrap_or(name)
}

/// The seven largest groups have colours of their own.
fn colours<'m>(metas: &[&'m Meta]) -> BTreeMap<&'m str, usize> {
    let mut sizes: BTreeMap<&str, u64> = BTreeMap::new();
    metas.iter().for_each(|meta| *sizes.entry(group(&meta.name)).or_default() += meta.byte_len);
    let mut order: Vec<(&str, u64)> = sizes.into_iter().collect();
    order.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    order.into_iter().enumerate().map(|(number, (group, _))| (group, number.min(7))).collect()
}

fn rectangle(meta: &Meta, (x, y, width, height): Area, colour: usize) -> String {
    let what =
        format!("{} {} {}, {}", meta.name, meta.dtype_text(), meta.shape_text(), output::size(meta.byte_len));
    let letters = ((width - 8.0).max(0.0) / 6.9) as usize;
    let name: String = match meta.name.chars().count() {
        count if count > letters => meta.name.chars().skip(count - letters.saturating_sub(1)).collect(),
        _ => meta.name.clone(),
    };
    let cut = if name.len() < meta.name.len() { "…" } else { "" };
    let label = if width > 44.0 && height > 16.0 {
        format!("<text class=\"on\" x=\"{:.1}\" y=\"{:.1}\">{cut}{}</text>", x + 4.0, y + 13.0, escape(&name))
    } else {
        String::new()
    };
    format!(
        "<g><title>{}</title><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"var(--c{colour})\"/>{label}</g>",
        escape(&what),
        (width - 1.0).max(0.3),
        (height - 1.0).max(0.3)
    )
}

/// Squarified treemap (Bruls, Huizing, van Wijk 2000): sizes, largest first, as rectangles near
/// squares.
fn squarify(sizes: &[f64], mut area: Area) -> Vec<Area> {
    let mut placed = Vec::with_capacity(sizes.len());
    let mut left: f64 = sizes.iter().sum();
    let mut start = 0;
    while start < sizes.len() {
        let (_, _, width, height) = area;
        let scale = width * height / left;
        let side = width.min(height);
        let worst = |row: &[f64]| {
            let sum: f64 = row.iter().sum::<f64>() * scale;
            let (most, least) = (row[0] * scale, row[row.len() - 1] * scale);
            (side * side * most / (sum * sum)).max(sum * sum / (side * side * least))
        };
        let mut end = start + 1;
        while end < sizes.len() && worst(&sizes[start..=end]) <= worst(&sizes[start..end]) {
            end += 1;
        }
        let row = &sizes[start..end];
        area = place_row(row, row.iter().sum::<f64>() / left, area, &mut placed);
        left -= row.iter().sum::<f64>();
        start = end;
    }
    placed
}

/// Places a row along the shorter side; what is left of the area.
fn place_row(row: &[f64], share: f64, (x, y, width, height): Area, placed: &mut Vec<Area>) -> Area {
    let sum: f64 = row.iter().sum();
    let mut at = 0.0;
    for size in row {
        let part = size / sum;
        placed.push(match width >= height {
            true => (x, y + at * height, share * width, part * height),
            false => (x + at * width, y, part * width, share * height),
        });
        at += part;
    }
    match width >= height {
        true => (x + share * width, y, (1.0 - share) * width, height),
        false => (x, y + share * height, width, (1.0 - share) * height),
    }
}

pub fn table(run: &Run) -> String {
    let Some((name, tensors)) = &run.newest else { return String::new() };
    let mut rows: Vec<&(Meta, Option<Stats>)> = tensors.iter().collect();
    let bad = |stats: &Option<Stats>| stats.as_ref().map_or(0, Stats::bad);
    rows.sort_by(|(a, x), (b, y)| {
        let by_size = b.byte_len.cmp(&a.byte_len).then_with(|| crate::names::natural(&a.name, &b.name));
        bad(y).cmp(&bad(x)).then(by_size)
    });
    let left_out = rows.len().saturating_sub(ROWS);
    rows.truncate(ROWS);
    let cells: Vec<Vec<Cell>> = rows.iter().map(|(meta, stats)| row(meta, stats.as_ref())).collect();
    let header = [
        "tensor", "values", "dtype", "shape", "size", "NaN/Inf", "min", "max", "mean", "std", "norm", "zeros",
    ];
    let broken = tensors.iter().filter(|(_, stats)| bad(stats) > 0).count();
    let verdict = match broken {
        0 => "<p class=\"good\">No NaN and no infinity.</p>".to_owned(),
        count => format!("<p class=\"wrong\">NaN or infinities in {}.</p>", output::count(count, "tensor")),
    };
    let more = if left_out > 0 {
        format!(
            "<p class=\"dim\">{left_out} smaller tensors are not listed; <code>tensorkeep stats</code> lists all.</p>"
        )
    } else {
        String::new()
    };
    let title = format!("Tensors of {name}");
    section("tensors", &title, &format!("{verdict}{}{more}", super::table(&header, &cells)))
}

fn row(meta: &Meta, stats: Option<&Stats>) -> Vec<Cell> {
    let some = stats.filter(|stats| stats.count > 0);
    let histogram = some.map(|stats| svg::histogram(&stats.histogram())).unwrap_or_default();
    let mut row = vec![
        Cell { html: format!("<span title=\"{0}\">{0}</span>", escape(&meta.name)), ..Cell::default() },
        Cell::html(histogram),
        Cell::text(&meta.dtype_text()),
        Cell::text(&meta.shape_text()),
        Cell::number(&output::size(meta.byte_len), meta.byte_len as f64),
    ];
    let Some(stats) = some else { return row };
    let first = stats.first_bad.map(|index| format!(" from {index}")).unwrap_or_default();
    let bad = stats.bad();
    row.push(Cell::number(&format!("{bad}{first}"), bad as f64).bad(bad > 0));
    if stats.finite > 0 {
        let values = [stats.min, stats.max, stats.mean, stats.std(), stats.norm()];
        row.extend(values.map(|value| Cell::number(&output::number(value), value)));
    } else {
        row.extend((0..5).map(|_| Cell::text("-")));
    }
    let zeros = stats.zeros as f64 / stats.count as f64;
    row.push(Cell::number(&format!("{:.1} %", 100.0 * zeros), zeros));
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_treemap_fills_its_area_with_the_right_shares() {
        let sizes = [60.0, 30.0, 6.0, 3.0, 1.0];
        let placed = squarify(&sizes, (0.0, 0.0, 200.0, 50.0));
        for (size, (x, y, width, height)) in sizes.iter().zip(placed) {
            assert!((width * height - size * 100.0).abs() < 1e-6);
            assert!(x >= 0.0 && y >= 0.0 && x + width <= 200.0 + 1e-6 && y + height <= 50.0 + 1e-6);
        }
    }
}
