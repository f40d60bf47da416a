//! Small pictures. Owns: scales, histograms and line charts as SVG text. By hand rather than by a
//! plotting library: the page needs four kinds of picture in its own colours, in both themes, and
//! stays small.

use super::escape;

/// From values to places.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    low: f64,
    span: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// Values onto `from..to`; values that are all the same go to the middle.
    pub fn new(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (low, high) = values
            .filter(|value| value.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        Self { low, span: high - low, from, to }
    }

    pub fn at(&self, value: f64) -> f64 {
        let share = if self.span > 0.0 { (value - self.low) / self.span } else { 0.5 };
        self.from + share * (self.to - self.from)
    }

    pub fn ends(&self) -> (f64, f64) {
        (self.low, self.low + self.span)
    }
}

/// A histogram as small as a word.
pub fn histogram(bins: &[u32]) -> String {
    const HEIGHT: f64 = 16.0;
    let most = f64::from(bins.iter().copied().max().unwrap_or(0).max(1));
    let path: String = bins
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0)
        .map(|(i, &count)| {
            let height = (f64::from(count) / most * HEIGHT).max(1.0);
            format!("M{} {HEIGHT}v-{height:.1}h4v{height:.1}z", i * 5)
        })
        .collect();
    let width = bins.len() * 5;
    format!(
        "<svg width=\"{width}\" height=\"16\" viewBox=\"0 0 {width} 16\"><path class=\"hist\" d=\"{path}\"/></svg>"
    )
}

/// One curve over steps. `best` is marked; a point is (attempt, step, value), and a new attempt
/// begins a new line.
pub fn curve(title: &str, points: &[(u32, u64, f64)], best: &[(usize, &str)]) -> String {
    let x = Scale::new(points.iter().map(|point| point.1 as f64), 74.0, 548.0);
    let y = Scale::new(points.iter().map(|point| point.2), 132.0, 16.0);
    let mut path = String::new();
    let mut before = None;
    for &(attempt, step, value) in points {
        let start = if before == Some(attempt) { 'L' } else { 'M' };
        path.push_str(&format!("{start}{:.1} {:.1}", x.at(step as f64), y.at(value)));
        before = Some(attempt);
    }
    let dots: String = points
        .iter()
        .map(|&(attempt, step, value)| {
            let what = format!("step {step}, attempt {attempt}: {}", crate::output::number(value));
            format!(
                "<circle class=\"dot\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\"><title>{}</title></circle>",
                x.at(step as f64),
                y.at(value),
                escape(&what)
            )
        })
        .collect();
    let marks: String = best
        .iter()
        .map(|&(number, word)| {
            let (_, step, value) = points[number];
            let (cx, cy) = (x.at(step as f64), y.at(value));
            let (tx, anchor) = if cx > 300.0 { (cx - 8.0, "end") } else { (cx + 8.0, "start") };
            let ty = if cy < 30.0 { cy + 14.0 } else { cy - 6.0 };
            let text = format!("{word} {}", crate::output::number(value));
            format!("<circle class=\"best\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"6\"/><text x=\"{tx:.1}\" y=\"{ty:.1}\" text-anchor=\"{anchor}\">{}</text>", escape(&text))
        })
        .collect();
    let ((x0, x1), (y0, y1)) = (x.ends(), y.ends());
    let label = crate::output::number;
    format!(
        "<figure style=\"margin:0\"><h3>{}</h3><svg viewBox=\"0 0 560 156\" width=\"100%\" role=\"img\">\
         <path class=\"axis\" fill=\"none\" d=\"M68 8V138H554\"/><path class=\"curve\" d=\"{path}\"/>{dots}{marks}\
         <text class=\"dim\" x=\"62\" y=\"18\" text-anchor=\"end\">{}</text><text class=\"dim\" x=\"62\" y=\"136\" text-anchor=\"end\">{}</text>\
         <text class=\"dim\" x=\"74\" y=\"153\">{}</text><text class=\"dim\" x=\"552\" y=\"153\" text-anchor=\"end\">step {x1}</text></svg></figure>",
        escape(title),
        if y1 > y0 { label(y1) } else { String::new() },
        label(y0),
        if x1 > x0 { format!("step {x0}") } else { String::new() },
    )
}
