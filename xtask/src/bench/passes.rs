//! Several passes over all scenarios, merged into one run.
//!
//! The rounds of one process share its memory layout, the place that the scheduler gave it and the minute of the day;
//! another run has others. So everything is measured several times, in turns, and a row's spread is that of all passes.

use super::options::Effort;
use super::rows::{Point, Row, Run};

/// How often all scenarios are measured, one after the other.
pub(super) const fn count(effort: Effort) -> usize {
    match effort {
        Effort::Full => 3,
        Effort::Quick => 1,
    }
}

/// The passes' rows and points as one run's, in the first pass's order.
pub(super) fn merge(passes: &[Run]) -> Run {
    let rows: Vec<&[Row]> = passes.iter().map(|pass| &*pass.rows).collect();
    let points: Vec<&[Point]> = passes.iter().map(|pass| &*pass.points).collect();
    Run {
        machine: Vec::new(),
        rows: grouped(&rows, |row| row.key(), |row| &row.table)
            .iter()
            .map(|same| row(same))
            .collect(),
        points: grouped(&points, place, |point| &point.plot)
            .iter()
            .map(|same| point(same))
            .collect(),
    }
}

/// What tells a point from others; a number by its bits.
fn place(point: &Point) -> (&str, &str, &str, u64) {
    (&point.plot, &point.series, &point.unit, point.x.to_bits())
}

/// What is the same in all passes that have it, together. What the first pass lacks comes after the others of its table or
/// plot.
fn grouped<'a, T, K: PartialEq>(
    passes: &[&'a [T]],
    key: impl Fn(&'a T) -> K,
    family: impl Fn(&'a T) -> &'a str,
) -> Vec<Vec<&'a T>> {
    let mut groups: Vec<Vec<&T>> = Vec::new();
    for (pass, items) in passes.iter().enumerate() {
        for item in *items {
            if let Some(group) = groups.iter_mut().find(|group| key(group[0]) == key(item)) {
                group.push(item);
                continue;
            }
            let last = groups
                .iter()
                .rposition(|group| pass > 0 && family(group[0]) == family(item));
            groups.insert(last.map_or(groups.len(), |last| last + 1), vec![item]);
        }
    }
    groups
}

/// One row of what the passes say of it.
fn row(passes: &[&Row]) -> Row {
    let mut ratios: Vec<(f64, &Row)> = passes.iter().filter_map(|row| Some((row.ratio?, *row))).collect();
    if ratios.is_empty() {
        return judged_by_all(passes);
    }
    ratios.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let (ratio, median) = ratios[ratios.len() / 2];
    Row {
        spread: spread(&ratios),
        met: match median.target.as_deref().and_then(|target| meets(target, ratio)) {
            Some(met) => Some(met),
            None => judged_by_all(passes).met,
        },
        ..median.clone()
    }
}

/// The smallest and the largest of all passes. Of a single ratio without a spread nobody knows it.
fn spread(ratios: &[(f64, &Row)]) -> Option<(f64, f64)> {
    if let [(_, only)] = ratios {
        return only.spread;
    }
    let spreads = ratios
        .iter()
        .map(|(ratio, row)| row.spread.unwrap_or((*ratio, *ratio)));
    spreads.reduce(|(low, high), (other_low, other_high)| (low.min(other_low), high.max(other_high)))
}

/// What is so only if it is so in every pass: the first in which it was not, or else the one in the middle.
fn judged_by_all(passes: &[&Row]) -> Row {
    let missed = passes.iter().find(|row| row.met == Some(false));
    let shown = missed.unwrap_or(&passes[passes.len() / 2]);
    Row {
        met: passes
            .iter()
            .filter_map(|row| row.met)
            .reduce(|all, met| all && met),
        ..(*shown).clone()
    }
}

/// Whether a ratio meets a target such as ">= 0.9"; `None` of what is no such target.
fn meets(target: &str, ratio: f64) -> Option<bool> {
    let (sign, limit) = target.split_once(' ')?;
    let limit: f64 = limit.parse().ok()?;
    match sign {
        ">=" => Some(ratio >= limit),
        "<=" => Some(ratio <= limit),
        _ => None,
    }
}

/// The median of a point's passes.
fn point(passes: &[&Point]) -> Point {
    let mut passes = passes.to_vec();
    passes.sort_by(|a, b| a.y.total_cmp(&b.y));
    passes[passes.len() / 2].clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(passes: &[&[&str]]) -> Run {
        let passes: Vec<Run> = passes
            .iter()
            .map(|lines| {
                let mut run = Run::default();
                run.add_lines(&lines.join("\n")).expect("good lines");
                run
            })
            .collect();
        merge(&passes)
    }

    /// One row, as each pass tells it.
    fn one(passes: &[&str]) -> Row {
        let lines: Vec<String> = passes
            .iter()
            .map(|fields| format!(r#"{{"table":"t","row":"r",{fields}}}"#))
            .collect();
        let passes: Vec<[&str; 1]> = lines.iter().map(|line| [line.as_str()]).collect();
        let passes: Vec<&[&str]> = passes.iter().map(|pass| pass.as_slice()).collect();
        let mut run = merged(&passes);
        assert_eq!(run.rows.len(), 1, "{run:?}");
        run.rows.remove(0)
    }

    #[test]
    fn the_median_pass_tells_the_row_and_all_tell_its_spread() {
        let row = one(&[
            r#""measured":"3 s","floor":"1 s","ratio":3.0,"spread":[2.5,3.5]"#,
            r#""measured":"1 s","floor":"2 s","ratio":0.5,"spread":[0.4,9.0]"#,
            r#""measured":"2 s","floor":"3 s","ratio":2.0,"spread":[1.9,2.1]"#,
        ]);
        assert_eq!(row.ratio, Some(2.0));
        assert_eq!((row.measured.as_str(), row.floor.as_str()), ("2 s", "3 s"));
        assert_eq!(row.spread, Some((0.4, 9.0)));
        assert_eq!(row.met, None);
    }

    #[test]
    fn passes_without_spreads_make_one_and_a_single_pass_does_not() {
        let ratio = |ratio: &str| format!(r#""ratio":{ratio}"#);
        let row = one(&[&ratio("1.5"), &ratio("1.0"), r#""ratio":1.2,"spread":[1.1,1.3]"#]);
        assert_eq!((row.ratio, row.spread), (Some(1.2), Some((1.0, 1.5))));
        assert_eq!(one(&[&ratio("1.5")]).spread, None);
        assert_eq!(
            one(&[r#""ratio":1.2,"spread":[1.1,1.3]"#]).spread,
            Some((1.1, 1.3))
        );
    }

    #[test]
    fn a_target_is_held_against_the_merged_ratio() {
        let passes = |sign: &str| {
            let pass =
                |ratio: &str, met: &str| format!(r#""ratio":{ratio},"target":"{sign} 1.5","met":{met}"#);
            // Each pass for itself says the opposite of what the median does.
            let opposite = (sign != ">=").to_string();
            let passes = [
                pass("1.6", &opposite),
                pass("1.2", &opposite),
                pass("1.7", &opposite),
            ];
            one(&[&passes[0], &passes[1], &passes[2]]).met
        };
        assert_eq!(passes(">="), Some(true));
        assert_eq!(passes("<="), Some(false));
        // No such target: every pass has to meet it.
        assert_eq!(passes("about"), Some(true));
        let other = |met: &str| format!(r#""ratio":1.0,"target":"about 1","met":{met}"#);
        assert_eq!(one(&[&other("true"), &other("false")]).met, Some(false));
    }

    #[test]
    fn what_is_so_or_not_has_to_be_so_in_every_pass() {
        let held = |text: &str, met: &str| format!(r#""measured":"{text}","target":"yes","met":{met}"#);
        let row = one(&[&held("a", "true"), &held("b", "false"), &held("c", "false")]);
        assert_eq!((row.met, row.measured.as_str()), (Some(false), "b"));
        let row = one(&[&held("a", "true"), &held("b", "true"), &held("c", "true")]);
        assert_eq!((row.met, row.measured.as_str()), (Some(true), "b"));
    }

    #[test]
    fn what_is_only_told_is_that_of_the_middle_pass() {
        let row = one(&[r#""measured":"a""#, r#""measured":"b""#, r#""measured":"c""#]);
        assert_eq!((row.measured.as_str(), row.met, row.ratio), ("b", None, None));
    }

    #[test]
    fn what_a_pass_lacks_is_kept_and_stands_with_its_table() {
        let [a, b, other, late] = [
            r#"{"table":"t","row":"a","ratio":1.0}"#,
            r#"{"table":"t","row":"b","ratio":1.0}"#,
            r#"{"table":"u","row":"a","ratio":1.0}"#,
            r#"{"table":"v","row":"a","ratio":1.0}"#,
        ];
        let run = merged(&[&[a, other], &[late, b, other]]);
        let keys: Vec<_> = run.rows.iter().map(Row::key).collect();
        assert_eq!(
            keys,
            [("t", "a", ""), ("t", "b", ""), ("u", "a", ""), ("v", "a", "")]
        );
        assert_eq!(run.rows[1].spread, None, "it was measured once");
        assert_eq!(run.rows[2].spread, Some((1.0, 1.0)));
    }

    #[test]
    fn rows_against_different_peers_are_different() {
        let [a, b] = [
            r#"{"table":"t","row":"r","peer":"a","ratio":1.0}"#,
            r#"{"table":"t","row":"r","peer":"b","ratio":2.0}"#,
        ];
        let run = merged(&[&[a, b], &[a, b], &[a, b]]);
        let ratios: Vec<_> = run.rows.iter().map(|row| row.ratio).collect();
        assert_eq!(ratios, [Some(1.0), Some(2.0)]);
    }

    #[test]
    fn a_point_is_the_median_of_its_passes() {
        let point = |series: &str, unit: &str, x: u32, y: u32| {
            format!(r#"{{"plot":"p","series":"{series}","unit":"{unit}","x":{x},"y":{y}}}"#)
        };
        let passes = [[5, 50, 7, 1], [9, 70, 7, 2], [6, 60, 7, 3]].map(|[a, b, c, d]| {
            [
                point("s", "ns", 1, a),
                point("s", "ns", 2, b),
                point("s", "MB", 1, c),
                point("other", "ns", 1, d),
            ]
        });
        let passes = passes.each_ref().map(|pass| pass.each_ref().map(String::as_str));
        let run = merged(&[&passes[0], &passes[1], &passes[2][..3]]);
        let ys: Vec<_> = run.points.iter().map(|point| point.y).collect();
        assert_eq!(ys, [6.0, 60.0, 7.0, 2.0]);
    }
}
