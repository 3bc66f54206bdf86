//! Writes the recommendations as CSV, and the report as text or JSON.

use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;

use crate::gather::Failure;
use crate::metrics::Summary;

/// The report of the job; `R` is the report of the invoker.
#[derive(Debug, Serialize)]
pub(crate) struct Report<'a, R> {
    /// The ratings.
    pub(crate) data: Data,
    /// The held-out ratings, if any.
    pub(crate) holdout: Option<Holdout>,
    /// The model.
    pub(crate) model: Model,
    /// Length of the lists.
    pub(crate) top: u32,
    /// Quality, if ratings were held out.
    pub(crate) metrics: Option<Metrics>,
    /// The run.
    pub(crate) run: R,
    /// The failed tasks.
    pub(crate) failures: &'a [Failure],
}

/// The ratings used.
#[derive(Debug, Serialize)]
pub(crate) struct Data {
    /// The path of the file, or the name of the built-in ratings.
    pub(crate) source: String,
    /// Number of ratings.
    pub(crate) ratings: usize,
    /// Number of users.
    pub(crate) users: usize,
    /// Number of items.
    pub(crate) items: usize,
}

/// How ratings were held out.
#[derive(Debug, Serialize)]
pub(crate) struct Holdout {
    /// Share of each user's ratings.
    pub(crate) fraction: f64,
    /// The seed that determined which ratings were held out.
    pub(crate) seed: u64,
    /// Number of held-out ratings.
    pub(crate) ratings: usize,
}

/// The trained model.
#[derive(Debug, Serialize)]
pub(crate) struct Model {
    /// Number of stored (item, neighbour) pairs.
    pub(crate) neighbour_pairs: usize,
    /// Size of all arrays in bytes.
    pub(crate) bytes: usize,
    /// Time of the training in seconds.
    pub(crate) train_seconds: f64,
}

/// The summary, with the coverage derived from it.
#[derive(Debug, Serialize)]
pub(crate) struct Metrics {
    #[serde(flatten)]
    summary: Summary,
    coverage: f64,
}

impl From<Summary> for Metrics {
    fn from(summary: Summary) -> Self {
        Self {
            coverage: summary.coverage(),
            summary,
        }
    }
}

/// Writes recommendations as CSV: users in the given order, ranks from 1, scores with enough digits to parse back to the same
/// number.
///
/// # Errors
/// If writing fails.
pub(crate) fn write_recs<'a>(
    mut out: impl Write,
    recs: impl IntoIterator<Item = (u32, &'a [(u32, f64)])>,
) -> io::Result<()> {
    writeln!(out, "user,rank,item,score")?;
    for (user, list) in recs {
        for (rank, (item, score)) in (1..).zip(list) {
            writeln!(out, "{user},{rank},{item},{score}")?;
        }
    }
    out.flush()
}

/// Writes the report as one JSON object.
///
/// # Errors
/// If writing fails.
pub(crate) fn write_json<R: Serialize>(mut out: impl Write, report: &Report<'_, R>) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut out, report)?;
    writeln!(out)?;
    out.flush()
}

/// Writes the report as text.
///
/// # Errors
/// If writing fails.
pub(crate) fn write_text<R: Display>(mut out: impl Write, report: &Report<'_, R>) -> io::Result<()> {
    let Report { data, model, top, .. } = report;
    writeln!(out, "data      {}", data.source)?;
    writeln!(
        out,
        "          {} ratings, {} users, {} items",
        data.ratings, data.users, data.items
    )?;
    if let Some(holdout) = &report.holdout {
        let Holdout {
            fraction,
            seed,
            ratings,
        } = holdout;
        writeln!(
            out,
            "held out  {ratings} ratings: {fraction} of each user's, seed {seed}"
        )?;
    }
    let mib = model.bytes as f64 / f64::from(1 << 20);
    let Model {
        neighbour_pairs,
        train_seconds,
        ..
    } = model;
    writeln!(
        out,
        "model     {neighbour_pairs} neighbour pairs, {mib:.1} MiB, trained in {train_seconds:.2} s"
    )?;
    writeln!(out)?;
    match &report.metrics {
        Some(Metrics { summary, coverage }) => {
            let Summary {
                users,
                ndcg,
                recall,
                mrr,
                rmse,
                held_out,
                predicted,
            } = summary;
            let rmse = rmse.map_or_else(|| format!("{:>8}", "none"), |rmse| format!("{rmse:8.4}"));
            let at_n = |name: &str| format!("{name}@{top}");
            writeln!(out, "{:10}{:>8}", "metric", "value")?;
            writeln!(out, "{:10}{ndcg:8.4}  mean over {users} users", at_n("nDCG"))?;
            writeln!(out, "{:10}{recall:8.4}", at_n("recall"))?;
            writeln!(out, "{:10}{mrr:8.4}", "MRR")?;
            writeln!(out, "{:10}{rmse}  over {predicted} predicted ratings", "RMSE")?;
            writeln!(
                out,
                "{:10}{coverage:8.4}  of {held_out} held-out ratings",
                "coverage"
            )?;
        }
        None if report.holdout.is_some() => {
            writeln!(out, "no metrics: no evaluated user has a held-out rating")?;
        }
        None => writeln!(out, "no metrics: nothing was held out")?,
    }
    writeln!(out)?;
    writeln!(out, "{}", report.run)?;
    if !report.failures.is_empty() {
        writeln!(out, "failed tasks: {}", report.failures.len())?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(failures: &[Failure], metrics: Option<Summary>) -> Report<'_, &'static str> {
        Report {
            data: Data {
                source: "r.csv".into(),
                ratings: 5,
                users: 2,
                items: 3,
            },
            holdout: Some(Holdout {
                fraction: 0.2,
                seed: 42,
                ratings: 1,
            }),
            model: Model {
                neighbour_pairs: 4,
                bytes: 1 << 20,
                train_seconds: 0.5,
            },
            top: 10,
            metrics: metrics.map(Metrics::from),
            run: "the run",
            failures,
        }
    }

    fn summary() -> Summary {
        Summary {
            users: 2,
            ndcg: 0.25,
            recall: 0.5,
            mrr: 1.0,
            rmse: None,
            held_out: 4,
            predicted: 3,
        }
    }

    fn text(report: &Report<'_, &str>) -> String {
        let mut out = Vec::new();
        write_text(&mut out, report).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn scores_are_written_with_all_digits() {
        let (a, b) = ([(31, 4.0), (7, 0.1 + 0.2)], [(1, -1.5)]);
        let mut out = Vec::new();
        write_recs(&mut out, [(1, &a[..]), (2, &[][..]), (3, &b[..])]).unwrap();
        let expected = "user,rank,item,score\n1,1,31,4\n1,2,7,0.30000000000000004\n3,1,1,-1.5\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn the_text_report_has_the_metrics_the_run_and_the_failures() {
        let failures = [Failure {
            user: 15,
            pass: 1,
            error: "worker 0 died".into(),
        }];
        let text = text(&report(&failures, Some(summary())));
        for line in [
            "nDCG@10     0.2500  mean over 2 users",
            "RMSE          none",
            "the run",
            "failed tasks: 1",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn a_text_report_without_metrics_has_the_reason() {
        assert!(text(&report(&[], None)).contains("no evaluated user has a held-out rating"));
        let no_holdout = Report {
            holdout: None,
            ..report(&[], None)
        };
        assert!(text(&no_holdout).contains("nothing was held out"));
    }

    #[test]
    fn the_json_report_is_one_object() {
        let failures = [Failure {
            user: 15,
            pass: 1,
            error: "worker 0 died".into(),
        }];
        let mut out = Vec::new();
        write_json(&mut out, &report(&failures, Some(summary()))).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(json["metrics"]["ndcg"], 0.25);
        assert_eq!(json["metrics"]["coverage"], 0.75);
        assert_eq!(json["metrics"]["rmse"], serde_json::Value::Null);
        assert_eq!(json["failures"][0]["user"], 15);
        assert_eq!(json["run"], "the run");
    }
}
