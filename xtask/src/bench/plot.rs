//! Plots as SVG: lines over a logarithmic axis, or bars where every series has one point.

use std::fmt::Write;

use super::rows::Point;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
/// Margins for the labels of the axes.
const LEFT: f64 = 90.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
/// The y coordinate of the labels of the horizontal axis.
const LABELS: f64 = HEIGHT - BOTTOM + 18.0;
/// The number of series that a line of the legend has room for, and the height of a line.
const LEGENDS: usize = 3;
const LEGEND: f64 = 18.0;
const COLOURS: [&str; 8] = [
    "#0b6e99", "#c4532d", "#4c8b3f", "#8457a8", "#b0862b", "#666666", "#c2478f", "#2a9d8f",
];

/// Draws one plot of points with the same unit.
pub(super) fn svg(points: &[&Point]) -> String {
    let series = series(points);
    let is_bars = series.len() == points.len();
    let legends = if is_bars {
        1
    } else {
        series.len().div_ceil(LEGENDS)
    };
    let height = HEIGHT + LEGEND * (legends - 1) as f64;
    let mut svg = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' font-family='sans-serif' font-size='12'>\n\
         <rect width='100%' height='100%' fill='white'/>\n"
    );
    text(&mut svg, (LEFT, 18.0), "start", &points[0].plot);
    text(&mut svg, (LEFT, 34.0), "start", &points[0].unit);
    let (low, high) = decades(points.iter().map(|point| point.y));
    let y = |value: f64| {
        let share = (value.max(f64::MIN_POSITIVE).log10() - low) / (high - low);
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    };
    for decade in low as i32..=high as i32 {
        let value = 10_f64.powi(decade);
        line(&mut svg, (LEFT, y(value)), WIDTH - RIGHT, "#dddddd");
        text(&mut svg, (LEFT - 6.0, y(value) + 4.0), "end", &short(value));
    }
    match is_bars {
        true => bars(&mut svg, points, y),
        false => lines(&mut svg, &series, points, y),
    }
    svg + "</svg>\n"
}

/// Returns the names of the series, in the order of their first points.
fn series<'a>(points: &[&'a Point]) -> Vec<&'a str> {
    let mut series: Vec<&str> = Vec::new();
    for point in points {
        if !series.contains(&point.series.as_str()) {
            series.push(&point.series);
        }
    }
    series
}

fn bars(svg: &mut String, points: &[&Point], y: impl Fn(f64) -> f64) {
    let step = (WIDTH - LEFT - RIGHT) / points.len() as f64;
    for (index, point) in points.iter().enumerate() {
        let (left, top) = (LEFT + step * (index as f64 + 0.2), y(point.y));
        let (width, height, fill) = (step * 0.6, HEIGHT - BOTTOM - top, COLOURS[0]);
        let at = format!("x='{left:.1}' y='{top:.1}' width='{width:.1}' height='{height:.1}'");
        let _ = writeln!(svg, "<rect {at} fill='{fill}'/>");
        let middle = left + width / 2.0;
        text(svg, (middle, top - 4.0), "middle", &short(point.y));
        text(svg, (middle, LABELS), "middle", &point.series);
    }
}

fn lines(svg: &mut String, series: &[&str], points: &[&Point], y: impl Fn(f64) -> f64) {
    let mut xs: Vec<f64> = points.iter().map(|point| point.x).collect();
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    let (first, last) = (xs[0].max(1.0).log2(), xs[xs.len() - 1].max(2.0).log2());
    let x = |value: f64| LEFT + (value.max(1.0).log2() - first) / (last - first) * (WIDTH - LEFT - RIGHT);
    for &value in &xs {
        text(svg, (x(value), LABELS), "middle", &short(value));
    }
    for ((index, name), colour) in series.iter().enumerate().zip(COLOURS.iter().cycle()) {
        let mut own: Vec<&&Point> = points.iter().filter(|point| point.series == *name).collect();
        own.sort_by(|a, b| a.x.total_cmp(&b.x));
        let mut path = String::new();
        for point in own {
            let (x, y) = (x(point.x), y(point.y));
            let _ = write!(path, "{x:.1},{y:.1} ");
            let _ = writeln!(svg, "<circle cx='{x:.1}' cy='{y:.1}' r='3' fill='{colour}'/>");
        }
        let (path, style) = (path.trim_end(), "fill='none' stroke-width='2'");
        let _ = writeln!(svg, "<polyline points='{path}' stroke='{colour}' {style}/>");
        let (column, row) = (index % LEGENDS, index / LEGENDS);
        let at = (LEFT + 190.0 * column as f64, HEIGHT - 12.0 + LEGEND * row as f64);
        line(svg, at, at.0 + 20.0, colour);
        text(svg, (at.0 + 26.0, at.1 + 4.0), "start", name);
    }
}

/// Returns the powers of ten around all values.
fn decades(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let logs = values.filter(|value| *value > 0.0).map(f64::log10);
    let range = |(low, high): (f64, f64), log: f64| (low.min(log.floor()), high.max(log.ceil()));
    match logs.fold((f64::INFINITY, f64::NEG_INFINITY), range) {
        (low, high) if low < high => (low, high),
        (low, _) if low.is_finite() => (low, low + 1.0),
        _ => (0.0, 1.0),
    }
}

/// Draws a horizontal line.
fn line(svg: &mut String, (x, y): (f64, f64), end: f64, colour: &str) {
    let at = format!("x1='{x:.1}' y1='{y:.1}' x2='{end:.1}' y2='{y:.1}'");
    let _ = writeln!(svg, "<line {at} stroke='{colour}'/>");
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let at = format!("x='{x:.1}' y='{y:.1}' text-anchor='{anchor}'");
    let _ = writeln!(svg, "<text {at}>{words}</text>");
}

/// Formats three digits with a prefix of the decimal system.
fn short(value: f64) -> String {
    let (scaled, prefix) = match value {
        1e9.. => (value / 1e9, "G"),
        1e6.. => (value / 1e6, "M"),
        1e3.. => (value / 1e3, "k"),
        _ => (value, ""),
    };
    match scaled {
        100.0.. => format!("{scaled:.0}{prefix}"),
        _ => {
            let text = format!("{scaled:.2}");
            format!("{}{prefix}", text.trim_end_matches('0').trim_end_matches('.'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(points: &[(&str, f64, f64)]) -> String {
        let point = |(series, x, y): &(&str, f64, f64)| Point {
            plot: "over workers".into(),
            series: (*series).into(),
            unit: "tasks/s".into(),
            x: *x,
            y: *y,
        };
        let points: Vec<Point> = points.iter().map(point).collect();
        svg(&points.iter().collect::<Vec<_>>())
    }

    #[test]
    fn every_point_of_a_series_is_on_its_line_within_the_frame() {
        let svg = drawn(&[("a", 1.0, 10.0), ("a", 64.0, 1e6), ("b <", 1.0, 1e3)]);
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.contains("viewBox='0 0 640 360'"), "{svg}");
        // The least is in the lower left corner, the most in the upper right one.
        assert!(svg.contains("points='90.0,310.0 620.0,40.0'"), "{svg}");
        assert!(svg.contains("b &lt;</text>"), "{svg}");
    }

    #[test]
    fn legend_of_many_series_has_several_lines() {
        let names = ["a", "b", "c", "d"];
        let points = names.map(|name| [(name, 1.0, 10.0), (name, 2.0, 20.0)]);
        let svg = drawn(points.as_flattened());
        assert!(svg.contains("viewBox='0 0 640 378'"), "{svg}");
        // The fourth begins the second line.
        assert!(
            svg.contains("<text x='116.0' y='370.0' text-anchor='start'>d</text>"),
            "{svg}"
        );
    }

    #[test]
    fn single_points_are_bars() {
        let svg = drawn(&[("delivered", 0.0, 150.0), ("dropped", 0.0, 12.0)]);
        assert_eq!(svg.matches("<polyline").count(), 0);
        // The white ground, and a bar each.
        assert_eq!(svg.matches("<rect").count(), 3);
        assert!(svg.contains(">150</text>") && svg.contains(">12</text>"), "{svg}");
    }

    #[test]
    fn numbers_are_short() {
        let numbers = [8.0, 0.25, 131_072.0, 1_048_576.0];
        assert_eq!(numbers.map(short), ["8", "0.25", "131k", "1.05M"]);
    }
}
