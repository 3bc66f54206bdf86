//! Several passes over all scenarios, merged into one run.
//!
//! The rounds of one process share its memory layout, its place on the processors and the minute of the day; another run has
//! others. So everything is measured several times, in turns, and a row's spread is that of all passes.

use super::rows::{Point, Row, Run, median};

/// Merges the rows and points of the passes, in the order of the first one.
pub(super) fn merge(passes: &[Run]) -> Run {
    let rows = grouped(passes.iter().map(|pass| &*pass.rows), Row::key, |row| &row.table);
    let points = passes.iter().map(|pass| &*pass.points);
    let points = grouped(points, point_key, |point| &point.plot);
    Run {
        machine: Vec::new(),
        rows: rows.into_iter().map(merged_row).collect(),
        points: points.into_iter().map(merged_point).collect(),
    }
}

fn point_key(point: &Point) -> (&str, &str, &str, u64) {
    (&point.plot, &point.series, &point.unit, point.x.to_bits())
}

/// Groups the items of all passes by their key. An item that the first pass lacks comes after the others of its table or plot.
fn grouped<'a, T, K: PartialEq>(
    passes: impl Iterator<Item = &'a [T]>,
    key: impl Fn(&'a T) -> K,
    family: impl Fn(&'a T) -> &'a str,
) -> Vec<Vec<&'a T>> {
    let mut groups: Vec<Vec<&T>> = Vec::new();
    for (pass, items) in passes.enumerate() {
        for item in items {
            if let Some(group) = groups.iter_mut().find(|group| key(group[0]) == key(item)) {
                group.push(item);
                continue;
            }
            let is_related = |group: &Vec<&'a T>| pass > 0 && family(group[0]) == family(item);
            let last = groups.iter().rposition(is_related);
            groups.insert(last.map_or(groups.len(), |last| last + 1), vec![item]);
        }
    }
    groups
}

/// Returns the row of the pass with the median ratio, with the spread of all passes.
fn merged_row(passes: Vec<&Row>) -> Row {
    let mut with_ratio: Vec<&Row> = passes.iter().filter(|row| row.ratio.is_some()).copied().collect();
    let Some(row) = median(&mut with_ratio, |row| row.ratio.unwrap_or_default()).copied() else {
        return merged_verdict(&passes);
    };
    let ratio = row.ratio.unwrap_or_default();
    let met = row.target.as_deref().and_then(|target| meets(target, ratio));
    let mut merged = row.clone();
    merged.spread = spread(&with_ratio);
    merged.met = met.or(merged_verdict(&passes).met);
    merged
}

/// Returns the smallest and the largest of all passes; `None` for a single ratio without a spread.
fn spread(rows: &[&Row]) -> Option<(f64, f64)> {
    if let [only] = rows {
        return only.spread;
    }
    let own = |row: &&Row| row.spread.or(row.ratio.map(|ratio| (ratio, ratio)));
    let spreads = rows.iter().filter_map(own);
    spreads.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}

/// What must hold in every pass: returns the first row in which it did not, or else the one in the middle.
fn merged_verdict(passes: &[&Row]) -> Row {
    let missed = passes.iter().find(|row| row.met == Some(false));
    let shown = missed.unwrap_or(&passes[passes.len() / 2]);
    let mut row = (*shown).clone();
    let verdicts = passes.iter().filter_map(|row| row.met);
    row.met = verdicts.reduce(|all, met| all && met);
    row
}

/// Returns whether a ratio meets a target such as ">= 0.9"; `None` for another target.
fn meets(target: &str, ratio: f64) -> Option<bool> {
    let (sign, limit) = target.split_once(' ')?;
    let limit: f64 = limit.parse().ok()?;
    match sign {
        ">=" => Some(ratio >= limit),
        "<=" => Some(ratio <= limit),
        _ => None,
    }
}

fn merged_point(mut passes: Vec<&Point>) -> Point {
    let point = median(&mut passes, |point| point.y);
    (*point.expect("a group has a point")).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(passes: &[&[&str]]) -> Run {
        let parse = |lines: &&[&str]| Run::parse_lines(&lines.join("\n")).expect("good lines");
        merge(&passes.iter().map(parse).collect::<Vec<_>>())
    }

    /// One row with the fields that each pass reports.
    fn one(passes: &[&str]) -> Row {
        let line = |fields: &&str| {
            Run::parse_lines(&format!(r#"{{"table":"t","row":"r",{fields}}}"#)).expect("a row")
        };
        let mut run = merge(&passes.iter().map(line).collect::<Vec<_>>());
        assert_eq!(run.rows.len(), 1, "{run:?}");
        run.rows.remove(0)
    }

    #[test]
    fn row_is_that_of_the_median_pass_with_the_spread_of_all() {
        let row = one(&[
            r#""measured":"3 s","ratio":3.0,"spread":[2.5,3.5]"#,
            r#""measured":"1 s","ratio":0.5,"spread":[0.4,9.0]"#,
            r#""measured":"2 s","ratio":2.0,"spread":[1.9,2.1]"#,
        ]);
        assert_eq!((row.measured.as_str(), row.ratio), ("2 s", Some(2.0)));
        assert_eq!((row.spread, row.met), (Some((0.4, 9.0)), None));
    }

    #[test]
    fn passes_without_spreads_make_one_and_a_single_pass_does_not() {
        let [low, middle, high] =
            ["1.0", r#"1.2,"spread":[1.1,1.3]"#, "1.5"].map(|it| format!(r#""ratio":{it}"#));
        let row = one(&[&high, &low, &middle]);
        assert_eq!((row.ratio, row.spread), (Some(1.2), Some((1.0, 1.5))));
        assert_eq!(one(&[&high]).spread, None);
        assert_eq!(one(&[&middle]).spread, Some((1.1, 1.3)));
    }

    #[test]
    fn target_is_compared_with_the_merged_ratio() {
        let met = |sign: &str| {
            // The verdict of each pass is the opposite of the median's.
            let fields =
                |ratio: f64| format!(r#""ratio":{ratio},"target":"{sign} 1.5","met":{}"#, sign != ">=");
            one(&[&fields(1.6), &fields(1.2), &fields(1.7)]).met
        };
        assert_eq!((met(">="), met("<=")), (Some(true), Some(false)));
        // Every pass must meet another kind of target.
        assert_eq!(met("about"), Some(true));
    }

    #[test]
    fn yes_or_no_must_hold_in_every_pass() {
        let fields = |text: &str, met: bool| format!(r#""measured":"{text}","target":"yes","met":{met}"#);
        let row = one(&[&fields("a", true), &fields("b", false), &fields("c", false)]);
        assert_eq!((row.met, row.measured.as_str()), (Some(false), "b"));
        let row = one(&[r#""measured":"a""#, r#""measured":"b""#, r#""measured":"c""#]);
        assert_eq!((row.met, row.measured.as_str(), row.ratio), (None, "b", None));
    }

    #[test]
    fn rows_are_told_apart_and_late_ones_join_their_table() {
        let [a, b, peer, other, late] = [
            r#"{"table":"t","row":"a","ratio":1.0}"#,
            r#"{"table":"t","row":"b","ratio":1.0}"#,
            r#"{"table":"t","row":"b","peer":"p","ratio":2.0}"#,
            r#"{"table":"u","row":"a","ratio":1.0}"#,
            r#"{"table":"v","row":"a","ratio":1.0}"#,
        ];
        let run = merged(&[&[a, other], &[late, b, peer, other]]);
        let name = |row: &Row| [&*row.table, &row.name, &row.peer].concat();
        let names: Vec<String> = run.rows.iter().map(name).collect();
        assert_eq!(names, ["ta", "tb", "tbp", "ua", "va"]);
        assert_eq!((run.rows[1].spread, run.rows[3].spread), (None, Some((1.0, 1.0))));
    }

    #[test]
    fn point_is_the_median_of_its_passes() {
        let point =
            |unit: &str, y: u32| format!(r#"{{"plot":"p","series":"s","unit":"{unit}","x":1,"y":{y}}}"#);
        let passes = [5, 9, 6].map(|y| [point("ns", y), point("MB", 7)]);
        let passes = passes.each_ref().map(|pass| pass.each_ref().map(String::as_str));
        let run = merged(&[&passes[0], &passes[1], &passes[2][..1]]);
        let ys: Vec<f64> = run.points.iter().map(|point| point.y).collect();
        assert_eq!(ys, [6.0, 7.0]);
    }
}
