//! Two runs compared: what changed beyond noise, and whether it got worse.
//!
//! Only ratios are compared, each of them made against a floor or a peer within its own run, so that most of what
//! another hour or another load does to a machine is in both of its sides.
//!
//! The noise of a ratio is what lies between the smallest and the largest of all rounds of all passes. Where the rounds of a
//! pass are all alike, such as criterion's, that is three independent values, one a pass, and two ranges of three are
//! apart by chance in one of ten comparisons. So they have to be apart by half of the wider one as well: that leaves one
//! of forty if the noise is normal, and far fewer where rounds differ among themselves.

use std::fmt;

use super::rows::{Row, Run};

/// A smaller change of the median is none.
const LEAST: f64 = 0.05;
/// So much of the wider range has to lie between both.
const GAP: f64 = 0.5;

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verdict {
    /// The spreads are well apart, the medians differ by more than 5 %, and away from the target.
    Worse,
    /// The same, towards the target.
    Better,
    /// The same, of a row without a target.
    Changed,
    /// Was so and is not so any more.
    Broken,
    /// Nothing beyond noise.
    Same,
    /// Is in the baseline only: nobody knows.
    Missing,
}

/// A row that changed.
#[derive(Debug)]
pub(super) struct Change<'a> {
    pub(super) verdict: Verdict,
    before: &'a Row,
    now: Option<&'a Row>,
}

impl Change<'_> {
    pub(super) fn is_regression(&self) -> bool {
        matches!(self.verdict, Verdict::Worse | Verdict::Broken)
    }
}

impl fmt::Display for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row {
            table, name, peer, ..
        } = self.before;
        let word = match self.verdict {
            Verdict::Worse => "WORSE",
            Verdict::Better => "better",
            Verdict::Changed => "changed",
            Verdict::Broken => "BROKEN",
            Verdict::Same => "same",
            Verdict::Missing => "missing",
        };
        write!(f, "{word:8} {table}: {name}")?;
        if !peer.is_empty() {
            write!(f, ", against {peer}")?;
        }
        let told = |f: &mut fmt::Formatter<'_>, row: &Row| match (row.ratio, row.spread) {
            (Some(ratio), Some((low, high))) => write!(f, "{ratio:.3}x [{low:.3} .. {high:.3}]"),
            (Some(ratio), None) => write!(f, "{ratio:.3}x"),
            (None, _) => f.write_str(if row.met == Some(true) { "yes" } else { "no" }),
        };
        f.write_str("  ")?;
        told(f, self.before)?;
        f.write_str(" -> ")?;
        match self.now {
            Some(now) => told(f, now),
            None => f.write_str("not measured"),
        }
    }
}

/// What became of all rows of a run.
#[derive(Debug)]
pub(super) struct Comparison<'a> {
    /// Rows of which both runs tell something that can be compared.
    compared: usize,
    /// Those that changed, and those that are missing.
    pub(super) changes: Vec<Change<'a>>,
}

impl fmt::Display for Comparison<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changes = self.changes.iter();
        let missing = changes
            .filter(|change| change.verdict == Verdict::Missing)
            .count();
        let changed = self.changes.len() - missing;
        write!(f, "{changed} of {} rows changed beyond noise", self.compared)?;
        if missing > 0 {
            write!(f, ", {missing} are missing")?;
        }
        self.changes
            .iter()
            .try_for_each(|change| write!(f, "\n  {change}"))
    }
}

/// What changed beyond noise. Rows that only the new run has are no change, and tables of which it has nothing were not
/// asked for.
pub(super) fn compare<'a>(before: &'a Run, now: &'a Run) -> Comparison<'a> {
    let mut comparison = Comparison {
        compared: 0,
        changes: Vec::new(),
    };
    for before in &before.rows {
        let now_row = now.rows.iter().find(|row| row.key() == before.key());
        let verdict = match now_row {
            Some(row) => judge(before, row),
            None => now
                .rows
                .iter()
                .any(|row| row.table == before.table)
                .then_some(Verdict::Missing),
        };
        let Some(verdict) = verdict else { continue };
        comparison.compared += usize::from(verdict != Verdict::Missing);
        if verdict != Verdict::Same {
            comparison.changes.push(Change {
                verdict,
                before,
                now: now_row,
            });
        }
    }
    comparison
}

/// `None` if they can't be compared.
fn judge(before: &Row, now: &Row) -> Option<Verdict> {
    let (Some(old), Some(new)) = (before.ratio, now.ratio) else {
        return match before.met.zip(now.met)? {
            (true, false) => Some(Verdict::Broken),
            _ => Some(Verdict::Same),
        };
    };
    // Of one round nobody knows how much is noise.
    let ((old_low, old_high), (low, high)) = before.spread.zip(now.spread)?;
    let between = (old_low - high).max(low - old_high);
    let wider = (old_high - old_low).max(high - low);
    let apart = between > 0.0 && between >= GAP * wider;
    if !apart || (new - old).abs() <= LEAST * old.abs() {
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

    fn run(rows: &[(&str, f64, [f64; 2], &str)]) -> Run {
        let lines = rows.iter().map(|(name, ratio, spread, target)| {
            let target = match *target {
                "" => "null".to_owned(),
                target => format!("{target:?}"),
            };
            format!(
                r#"{{"table":"t","row":"{name}","peer":"p","ratio":{ratio},"spread":{spread:?},"target":{target}}}"#
            ) + "\n"
        });
        let mut run = Run::default();
        run.add_lines(&lines.collect::<String>()).expect("good lines");
        run
    }

    fn verdict(before: (f64, [f64; 2]), now: (f64, [f64; 2]), target: &str) -> Option<Verdict> {
        let before = run(&[("row", before.0, before.1, target)]);
        let now = run(&[("row", now.0, now.1, target)]);
        let comparison = compare(&before, &now);
        assert_eq!(comparison.compared, 1);
        comparison.changes.first().map(|change| change.verdict)
    }

    const OLD: (f64, [f64; 2]) = (1.0, [0.95, 1.05]);

    #[test]
    fn only_what_is_apart_by_more_than_noise_is_a_change() {
        assert_eq!(verdict(OLD, OLD, ">= 0.9"), None);
        // A lower median, but the spreads overlap.
        assert_eq!(verdict(OLD, (0.8, [0.7, 0.96]), ">= 0.9"), None);
        // Apart, but by 4 %.
        assert_eq!(verdict((1.0, [0.99, 1.01]), (0.96, [0.95, 0.97]), ">= 0.9"), None);
        // Apart, but by less than half of the wider.
        assert_eq!(verdict(OLD, (0.8, [0.7, 0.9]), ">= 0.9"), None);
        assert_eq!(verdict(OLD, (0.8, [0.75, 0.85]), ">= 0.9"), Some(Verdict::Worse));
    }

    #[test]
    fn the_target_tells_which_way_is_worse() {
        let (lower, higher) = ((0.5, [0.4, 0.6]), (2.0, [1.9, 2.1]));
        for (now, target, expected) in [
            (lower, ">= 0.9", Verdict::Worse),
            (higher, ">= 0.9", Verdict::Better),
            (lower, "<= 1.5", Verdict::Better),
            (higher, "<= 1.5", Verdict::Worse),
            (lower, "", Verdict::Changed),
        ] {
            assert_eq!(verdict(OLD, now, target), Some(expected), "{now:?} {target}");
        }
    }

    #[test]
    fn a_row_that_vanished_from_its_table_is_told_and_another_area_is_not() {
        let before = run(&[("a", 1.0, [1.0, 1.0], ""), ("b", 1.0, [1.0, 1.0], "")]);
        let now = run(&[("a", 1.0, [1.0, 1.0], "")]);
        let comparison = compare(&before, &now);
        let changes = &comparison.changes;
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].verdict, Verdict::Missing);
        assert!(!changes[0].is_regression());
        assert_eq!(
            comparison.to_string(),
            "0 of 1 rows changed beyond noise, 1 are missing\n  \
             missing  t: b, against p  1.000x [1.000 .. 1.000] -> not measured"
        );
        assert_eq!(compare(&before, &Run::default()).changes.len(), 0);
    }

    #[test]
    fn what_held_and_does_not_hold_any_more_is_a_regression() {
        let held = |met: bool| {
            let mut run = Run::default();
            run.add_lines(&format!(
                r#"{{"table":"t","row":"r","target":"yes","met":{met}}}"#
            ))
            .expect("a good line");
            run
        };
        let (yes, no) = (held(true), held(false));
        assert!(compare(&yes, &no).changes[0].is_regression());
        assert_eq!(compare(&no, &yes).to_string(), "0 of 1 rows changed beyond noise");
    }

    #[test]
    fn what_tells_no_noise_is_not_compared() {
        let mut run = Run::default();
        run.add_lines(concat!(
            r#"{"table":"t","row":"one round","ratio":1.0}"#,
            "\n",
            r#"{"table":"t","row":"only told","measured":"12 M/s"}"#
        ))
        .expect("good lines");
        assert_eq!(
            compare(&run, &run).to_string(),
            "0 of 0 rows changed beyond noise"
        );
    }
}
