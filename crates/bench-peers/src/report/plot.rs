//! Curves as SVG. Both axes are logarithmic, because the figures span decades.

use crate::Outcome;
use plotters::prelude::*;
use std::ops::Range;

/// One curve.
pub struct Line<'l> {
    pub name: &'l str,
    pub points: Vec<(f64, f64)>,
}

/// The labels around the curves.
pub struct Labels<'l> {
    pub title: &'l str,
    pub x: &'l str,
    pub y: &'l str,
}

const SIZE: (u32, u32) = (720, 420);
/// Distinguishable with colour blindness (Okabe and Ito).
const COLOURS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115), RGBColor(204, 121, 167)];

/// An `<svg>` element; empty when no line has a point.
///
/// # Errors
/// Those of drawing.
pub fn svg(labels: &Labels<'_>, lines: &[Line<'_>]) -> Outcome<String> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let Some((x, y)) = span(points().map(|(x, _)| *x)).zip(span(points().map(|(_, y)| *y))) else {
        return Ok(String::new());
    };
    let mut out = String::new();
    let area = SVGBackend::with_string(&mut out, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(labels.title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d(x.log_scale(), y.log_scale())?;
    chart
        .configure_mesh()
        .x_desc(labels.x)
        .y_desc(labels.y)
        .x_label_formatter(&short)
        .y_label_formatter(&short)
        .light_line_style(RGBColor(238, 238, 238))
        .draw()?;
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let style = colour.stroke_width(2);
        let drawn = chart.draw_series(LineSeries::new(line.points.clone(), style).point_size(3))?;
        drawn.label(line.name).legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(200, 200, 200))
        .draw()?;
    area.present()?;
    drop(chart);
    drop(area);
    Ok(out)
}

/// Whole decades around all values; None of nothing.
fn span(values: impl Iterator<Item = f64> + Clone) -> Option<Range<f64>> {
    let least = values.clone().min_by(f64::total_cmp)?;
    let most = values.max_by(f64::total_cmp)?;
    let (from, to) = (least.log10().floor() as i32, most.log10().ceil() as i32);
    Some(10_f64.powi(from)..10_f64.powi(to.max(from + 1)))
}

/// 1000000 as 1M, 0.001 as 0.001.
fn short(value: &f64) -> String {
    match *value {
        value if value >= 1e9 => format!("{}G", value / 1e9),
        value if value >= 1e6 => format!("{}M", value / 1e6),
        value if value >= 1e3 => format!("{}k", value / 1e3),
        // Floats print as short as possible: without rounding, a power of ten may have 17 digits.
        value => format!("{}", (value * 1e9).round() / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_whole_decades_around_the_points() {
        assert_eq!(span([].into_iter()), None);
        assert_eq!(span([2.0, 30.0, 99.0].into_iter()), Some(1.0..100.0));
        assert_eq!(span([5.0].into_iter()), Some(1.0..10.0));
        assert_eq!(span([10.0].into_iter()), Some(10.0..100.0), "a span has a length");
    }

    #[test]
    fn a_picture_has_its_lines_and_their_names() {
        let labels = Labels { title: "cost", x: "bytes", y: "ns" };
        let line = Line { name: "save", points: vec![(1e6, 0.5), (1e9, 0.4)] };
        let picture = svg(&labels, &[line]).unwrap();
        assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
        for expected in ["save", "cost", "polyline"] {
            assert!(picture.contains(expected), "{expected}");
        }
        assert_eq!(svg(&labels, &[]).unwrap(), "");
    }
}
