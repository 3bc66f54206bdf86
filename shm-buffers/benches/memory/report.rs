//! The table of results: one row for each measure, with its floor, the ratio, the target and a verdict.

use std::fmt::Display;

use serde_json::json;

use crate::model::best;
use crate::rows::record;

/// The target of a ratio.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// The ratio has no target.
    None,
}

/// A ratio, and its range over the rounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ratio {
    value: f64,
    spread: [f64; 2],
}

impl Ratio {
    /// Returns the ratio of the best times of two measures that alternated. The range is that of the rounds.
    pub(crate) fn of_best(above: &[f64], below: &[f64]) -> Self {
        let rounds = above.iter().zip(below).map(|(above, below)| above / below);
        let value = best(above.iter().copied()) / best(below.iter().copied());
        let spread = rounds.fold([value; 2], |[low, high], ratio| [low.min(ratio), high.max(ratio)]);
        Self { value, spread }
    }
}

/// A ratio that is the same in each round, such as one of memory.
impl From<f64> for Ratio {
    fn from(value: f64) -> Self {
        Self {
            value,
            spread: [value; 2],
        }
    }
}

/// Prints each row immediately, and counts missed targets.
#[derive(Debug, Default)]
pub(crate) struct Report {
    missed: usize,
    met: usize,
}

impl Report {
    pub(crate) fn new(bytes: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        println!("model of {} MiB, {cores} cores\n", bytes >> 20);
        println!(
            "{:<44} {:>14} {:>26} {:>8}  target",
            "measure", "measured", "against", "ratio"
        );
        Self::default()
    }

    pub(crate) fn row(
        &mut self,
        name: &str,
        measured: impl Display,
        (peer, floor): (&str, impl Display),
        ratio: impl Into<Ratio>,
        target: Target,
    ) {
        let Ratio { value, spread } = ratio.into();
        let judged = match target {
            Target::AtLeast(limit) => Some((format!(">= {limit}"), value >= limit)),
            Target::AtMost(limit) => Some((format!("<= {limit}"), value <= limit)),
            Target::None => None,
        };
        record(&json!({
            "table": "A model in shared memory", "row": name, "measured": measured.to_string(),
            "peer": peer, "floor": floor.to_string(), "ratio": value, "spread": spread,
            "target": judged.as_ref().map(|(target, _)| target), "met": judged.as_ref().map(|(_, met)| met),
        }));
        let verdict = judged.map_or(String::new(), |(target, met)| self.judge(met, target));
        let against = format!("{peer} {floor}");
        println!("{name:<44} {measured:>14} {against:>26} {value:>7.3}x  {verdict}");
    }

    /// Records a point of a plot in the report.
    pub(crate) fn point(&self, plot: &str, series: &str, unit: &str, x: usize, y: f64) {
        record(&json!({"plot": plot, "series": series, "unit": unit, "x": x, "y": y}));
    }

    pub(crate) fn skipped(&mut self, name: &str, reason: impl Display) {
        println!("{name:<44} skipped: {reason}");
    }

    fn judge(&mut self, met: bool, target: impl Display) -> String {
        match met {
            true => {
                self.met += 1;
                format!("{target}  met")
            }
            false => {
                self.missed += 1;
                format!("{target}  MISSED")
            }
        }
    }

    pub(crate) fn close(self) {
        println!("\n{} targets met, {} missed", self.met, self.missed);
    }
}

/// Formats the speed of `bytes` in `seconds`.
pub(crate) fn speed(bytes: usize, seconds: f64) -> String {
    format!("{:.2} GB/s", bytes as f64 / seconds / 1e9)
}
