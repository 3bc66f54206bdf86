//! Plots as SVG: lines over a logarithmic axis, or bars where every series has one point.

use std::fmt::Write;

use super::rows::Point;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
/// What the labels of the axes need.
const LEFT: f64 = 90.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
const COLOURS: [&str; 6] = ["#0b6e99", "#c4532d", "#4c8b3f", "#8457a8", "#b0862b", "#666666"];

/// One plot of points that have the same unit.
pub(super) fn svg(title: &str, points: &[&Point]) -> String {
    let mut series: Vec<&str> = Vec::new();
    for point in points {
        if !series.contains(&point.series.as_str()) {
            series.push(&point.series);
        }
    }
    let unit = points.first().map_or("", |point| &point.unit);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    text(&mut svg, LEFT, 18.0, "start", title);
    text(&mut svg, LEFT, 34.0, "start", unit);
    let (low, high) = decades(points.iter().map(|point| point.y));
    let y = |value: f64| {
        let share = (value.max(f64::MIN_POSITIVE).log10() - low) / (high - low);
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    };
    let mut decade = low;
    while decade <= high {
        let at = y(10_f64.powf(decade));
        line(&mut svg, (LEFT, at), (WIDTH - RIGHT, at), "#dddddd");
        text(&mut svg, LEFT - 6.0, at + 4.0, "end", &short(10_f64.powf(decade)));
        decade += 1.0;
    }
    if series.len() == points.len() {
        bars(&mut svg, points, y);
    } else {
        lines(&mut svg, &series, points, y);
    }
    svg + "</svg>\n"
}

fn bars(svg: &mut String, points: &[&Point], y: impl Fn(f64) -> f64) {
    let step = (WIDTH - LEFT - RIGHT) / points.len() as f64;
    for (index, point) in points.iter().enumerate() {
        let (left, top) = (LEFT + step * (index as f64 + 0.2), y(point.y));
        let _ = writeln!(
            svg,
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"/>",
            step * 0.6,
            HEIGHT - BOTTOM - top,
            COLOURS[0],
        );
        let middle = left + step * 0.3;
        text(svg, middle, top - 4.0, "middle", &short(point.y));
        text(svg, middle, HEIGHT - BOTTOM + 18.0, "middle", &point.series);
    }
}

fn lines(svg: &mut String, series: &[&str], points: &[&Point], y: impl Fn(f64) -> f64) {
    let mut xs: Vec<f64> = points.iter().map(|point| point.x).collect();
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    let (first, last) = (xs[0].max(1.0).log2(), xs[xs.len() - 1].max(2.0).log2());
    let x = |value: f64| LEFT + (value.max(1.0).log2() - first) / (last - first) * (WIDTH - LEFT - RIGHT);
    for &value in &xs {
        text(svg, x(value), HEIGHT - BOTTOM + 18.0, "middle", &short(value));
    }
    for ((index, name), colour) in series.iter().enumerate().zip(COLOURS.iter().cycle()) {
        let mut own: Vec<_> = points.iter().filter(|point| point.series == *name).collect();
        own.sort_by(|a, b| a.x.total_cmp(&b.x));
        let path: Vec<String> = own
            .iter()
            .map(|point| format!("{:.1},{:.1}", x(point.x), y(point.y)))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        for point in own {
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                x(point.x),
                y(point.y)
            );
        }
        let at = LEFT + 190.0 * index as f64;
        line(svg, (at, HEIGHT - 12.0), (at + 20.0, HEIGHT - 12.0), colour);
        text(svg, at + 26.0, HEIGHT - 8.0, "start", name);
    }
}

/// The powers of ten around all values.
fn decades(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let logs = values.filter(|value| *value > 0.0).map(f64::log10);
    let (low, high) = logs.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), log| {
        (low.min(log.floor()), high.max(log.ceil()))
    });
    match low < high {
        true => (low, high),
        false if low.is_finite() => (low, low + 1.0),
        false => (0.0, 1.0),
    }
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    let _ = writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let words = words
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>"
    );
}

/// Three digits and a prefix of the decimal system.
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

    fn point(series: &str, x: f64, y: f64) -> Point {
        Point {
            plot: "p".into(),
            series: series.into(),
            unit: "tasks/s".into(),
            x,
            y,
        }
    }

    #[test]
    fn every_point_of_a_series_is_on_its_line_within_the_frame() {
        let points = [
            point("a", 1.0, 10.0),
            point("a", 64.0, 1e6),
            point("b <", 1.0, 1e3),
        ];
        let svg = svg("over workers", &points.iter().collect::<Vec<_>>());
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert_eq!(svg.matches("<circle").count(), 3);
        // The least is in the lower left corner, the most in the upper right one.
        assert!(svg.contains("points=\"90.0,310.0 620.0,40.0\""), "{svg}");
        assert!(svg.contains("b &lt;</text>"), "{svg}");
    }

    #[test]
    fn single_points_are_bars() {
        let points = [point("delivered", 0.0, 150.0), point("dropped", 0.0, 12.0)];
        let svg = svg("cost", &points.iter().collect::<Vec<_>>());
        assert_eq!(svg.matches("<polyline").count(), 0);
        // The white ground, and a bar each.
        assert_eq!(svg.matches("<rect").count(), 3);
        assert!(svg.contains(">150</text>") && svg.contains(">12</text>"), "{svg}");
    }

    #[test]
    fn numbers_are_short() {
        for (value, expected) in [
            (8.0, "8"),
            (0.25, "0.25"),
            (131_072.0, "131k"),
            (1_048_576.0, "1.05M"),
        ] {
            assert_eq!(short(value), expected);
        }
    }
}
