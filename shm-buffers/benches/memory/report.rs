//! The table: one row a measure, with its floor, the ratio, the target and a verdict.

use std::fmt::Display;

/// What is promised of a ratio.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// Told for orientation.
    None,
}

/// Prints rows as they come, and counts what was missed.
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
        floor: impl Display,
        ratio: f64,
        target: Target,
    ) {
        let verdict = match target {
            Target::AtLeast(limit) => self.judge(ratio >= limit, format_args!(">= {limit}")),
            Target::AtMost(limit) => self.judge(ratio <= limit, format_args!("<= {limit}")),
            Target::None => String::new(),
        };
        println!("{name:<44} {measured:>14} {floor:>26} {ratio:>7.3}x  {verdict}");
    }

    pub(crate) fn skipped(&mut self, name: &str, why: impl Display) {
        println!("{name:<44} skipped: {why}");
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

/// `bytes` in `seconds`, as a speed.
pub(crate) fn speed(bytes: usize, seconds: f64) -> String {
    format!("{:.2} GB/s", bytes as f64 / seconds / 1e9)
}

pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
