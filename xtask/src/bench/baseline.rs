//! Two runs compared: what changed beyond noise, and whether it got worse.
//!
//! Only ratios are compared, each of them made against a floor or a peer within its own run, so that most of what another
//! hour or another load does to a machine is in both of its sides.
//!
//! The noise of a ratio is the range from the smallest to the largest of all rounds of all passes. Where the rounds of a
//! pass are all alike, such as criterion's, these are three independent values, one a pass, and two ranges of three are
//! disjoint by chance in one of ten comparisons. So the ranges must also be apart by half of the wider one: that leaves one
//! of forty if the noise is normal, and far fewer where rounds differ among themselves.

use std::fmt;

use super::rows::{Row, Run};

/// Relative changes of the median up to this are no change.
const MIN_CHANGE: f64 = 0.05;
/// The gap between two ranges must be this share of the wider one.
const MIN_GAP: f64 = 0.5;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    /// The spreads are well apart, the medians differ by more than 5 %, and away from the target.
    Worse,
    /// The same, towards the target.
    Better,
    /// The same, of a row without a target.
    Changed,
    /// It held, and no longer does.
    Broken,
    /// No change beyond noise.
    Same,
    /// Only the baseline has it.
    Missing,
}

/// A row that changed or is missing.
#[derive(Debug)]
struct Change<'a> {
    verdict: Verdict,
    before: &'a Row,
    now: Option<&'a Row>,
}

impl fmt::Display for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |row: &Row| match (row.ratio, row.spread) {
            (Some(ratio), Some((low, high))) => format!("{ratio:.3}x [{low:.3} .. {high:.3}]"),
            (Some(ratio), None) => format!("{ratio:.3}x"),
            (None, _) => if row.met == Some(true) { "yes" } else { "no" }.to_owned(),
        };
        let (verdict, Row { table, name, .. }) = (format!("{:?}", self.verdict), self.before);
        write!(f, "{verdict:8} {table}: {name}")?;
        if !self.before.peer.is_empty() {
            write!(f, ", against {}", self.before.peer)?;
        }
        let now = self.now.map_or("not measured".to_owned(), value);
        write!(f, "  {} -> {now}", value(self.before))
    }
}

#[derive(Debug)]
pub(super) struct Comparison<'a> {
    /// The number of rows that can be compared.
    compared: usize,
    changes: Vec<Change<'a>>,
}

impl Comparison<'_> {
    pub(super) fn regressions(&self) -> usize {
        let is_worse = |change: &&Change<'_>| matches!(change.verdict, Verdict::Worse | Verdict::Broken);
        self.changes.iter().filter(is_worse).count()
    }
}

impl fmt::Display for Comparison<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (changes, compared) = (&self.changes, self.compared);
        let missing = changes.iter().filter(|it| it.verdict == Verdict::Missing).count();
        let changed = changes.len() - missing;
        write!(f, "{changed} of {compared} rows changed beyond noise")?;
        if missing > 0 {
            write!(f, ", {missing} are missing")?;
        }
        changes.iter().try_for_each(|change| write!(f, "\n  {change}"))
    }
}

/// Compares each row of `before`. Rows that only `now` has are no change; tables that it lacks were not measured.
pub(super) fn compare<'a>(before: &'a Run, now: &'a Run) -> Comparison<'a> {
    let (mut compared, mut changes) = (0, Vec::new());
    for before in &before.rows {
        let now_row = now.rows.iter().find(|row| row.key() == before.key());
        let has_table = now.rows.iter().any(|row| row.table == before.table);
        let verdict = match now_row {
            Some(row) => judge(before, row),
            None => has_table.then_some(Verdict::Missing),
        };
        let Some(verdict) = verdict else { continue };
        compared += usize::from(verdict != Verdict::Missing);
        if verdict != Verdict::Same {
            let now = now_row;
            changes.push(Change { verdict, before, now });
        }
    }
    Comparison { compared, changes }
}

/// Returns `None` if the rows cannot be compared: the noise of a single round is unknown.
fn judge(before: &Row, now: &Row) -> Option<Verdict> {
    let (Some(old), Some(new)) = (before.ratio, now.ratio) else {
        return match before.met.zip(now.met)? {
            (true, false) => Some(Verdict::Broken),
            _ => Some(Verdict::Same),
        };
    };
    let ((old_low, old_high), (low, high)) = before.spread.zip(now.spread)?;
    let gap = (old_low - high).max(low - old_high);
    let wider = (old_high - old_low).max(high - low);
    let is_apart = gap > 0.0 && gap >= MIN_GAP * wider;
    if !is_apart || (new - old).abs() <= MIN_CHANGE * old.abs() {
        return Some(Verdict::Same);
    }
    Some(match now.target.as_deref() {
        Some(target) if target.starts_with(">=") == (new < old) => Verdict::Worse,
        Some(_) => Verdict::Better,
        None => Verdict::Changed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run of one row with these fields.
    fn run(name: &str, fields: &str) -> Run {
        Run::parse_lines(&format!(r#"{{"table":"t","row":"{name}","peer":"p",{fields}}}"#)).expect("a row")
    }

    fn verdict(now: (f64, [f64; 2]), target: &str) -> Option<Verdict> {
        let row = |(ratio, spread): (f64, [f64; 2])| {
            let fields = format!(r#""ratio":{ratio},"spread":{spread:?},"target":{target}"#);
            run("row", &fields)
        };
        let (before, now) = (row((1.0, [0.95, 1.05])), row(now));
        let comparison = compare(&before, &now);
        assert_eq!(comparison.compared, 1);
        comparison.changes.first().map(|change| change.verdict)
    }

    #[test]
    fn only_a_gap_beyond_noise_is_a_change() {
        for (now, expected) in [
            ((1.0, [0.95, 1.05]), None),
            // A lower median, but the spreads overlap.
            ((0.8, [0.7, 0.96]), None),
            // Apart, but by less than half of the wider one.
            ((0.8, [0.7, 0.9]), None),
            // Apart, but the median has hardly changed.
            ((0.96, [0.85, 0.86]), None),
            ((0.8, [0.75, 0.85]), Some(Verdict::Worse)),
        ] {
            assert_eq!(verdict(now, "\">= 0.9\""), expected, "{now:?}");
        }
    }

    #[test]
    fn target_decides_which_way_is_worse() {
        let (lower, higher) = ((0.5, [0.4, 0.6]), (2.0, [1.9, 2.1]));
        for (now, target, expected) in [
            (lower, "\">= 0.9\"", Verdict::Worse),
            (higher, "\">= 0.9\"", Verdict::Better),
            (lower, "\"<= 1.5\"", Verdict::Better),
            (higher, "\"<= 1.5\"", Verdict::Worse),
            (lower, "null", Verdict::Changed),
        ] {
            assert_eq!(verdict(now, target), Some(expected), "{now:?} {target}");
        }
    }

    #[test]
    fn missing_row_is_reported_and_a_missing_table_is_not() {
        let fields = r#""ratio":1.0,"spread":[1.0,1.0]"#;
        let (mut before, now) = (run("a", fields), run("a", fields));
        before.extend(run("b", fields));
        let comparison = compare(&before, &now);
        assert_eq!(comparison.regressions(), 0);
        let expected = "0 of 1 rows changed beyond noise, 1 are missing\n  \
                        Missing  t: b, against p  1.000x [1.000 .. 1.000] -> not measured";
        assert_eq!(comparison.to_string(), expected);
        assert!(compare(&before, &Run::default()).changes.is_empty());
    }

    #[test]
    fn broken_promise_is_a_regression() {
        let (yes, no) = (run("r", r#""met":true"#), run("r", r#""met":false"#));
        assert_eq!(compare(&yes, &no).regressions(), 1);
        assert_eq!(compare(&no, &yes).to_string(), "0 of 1 rows changed beyond noise");
    }

    #[test]
    fn rows_without_noise_are_not_compared() {
        for fields in [r#""ratio":1.0"#, r#""measured":"12 M/s""#] {
            let run = run("r", fields);
            assert_eq!(compare(&run, &run).compared, 0);
        }
    }
}
