//! [`Bar`]: progress without tqdm.

use std::sync::{Mutex, PoisonError};

use progress::{Counters, Outcome, Render, Reporter, Total};
use pyo3::prelude::*;

use crate::faults::value_error;

/// A bar on a terminal, or lines elsewhere.
#[pyclass(frozen, module = "invokerpool._core")]
pub(crate) struct Bar {
    bar: progress::Bar,
    shown: Mutex<Shown>,
}

struct Shown {
    /// `None` after the bar has ended.
    reporter: Option<Reporter>,
    done: u64,
    failed: u64,
    /// The parts of the workers' tasks that are done.
    steps: Vec<Counters>,
}

#[pymethods]
impl Bar {
    #[new]
    fn new(label: &str, total: Option<u64>, render: &str) -> PyResult<Self> {
        let render: Render = render.parse().map_err(value_error)?;
        let reporter = Reporter::builder().render(render).start().map_err(value_error)?;
        let bar = reporter.bar(label, total.map_or(Total::Unknown, Total::Known));
        Ok(Self {
            bar,
            shown: Mutex::new(Shown {
                reporter: Some(reporter),
                done: 0,
                failed: 0,
                steps: Vec::new(),
            }),
        })
    }

    /// Shows how many tasks are done and how many have failed, and which parts of the running ones are done; ends the bar if these are the
    /// last.
    fn update(&self, py: Python<'_>, done: u64, failed: u64, last: bool, parts: Vec<f64>) {
        py.detach(|| {
            let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
            self.bar.add(Outcome::Done, done.saturating_sub(shown.done));
            self.bar.add(Outcome::Failed, failed.saturating_sub(shown.failed));
            (shown.done, shown.failed) = (done, failed);
            while shown.steps.len() < parts.len() {
                shown.steps.push(self.bar.counters());
            }
            for (at, counters) in shown.steps.iter().enumerate() {
                let part = parts.get(at).copied().unwrap_or_default();
                counters.step((part * 1e6) as u64, Total::Known(1_000_000));
            }
            if last && let Some(reporter) = shown.reporter.take() {
                reporter.finish();
            }
        });
    }
}
