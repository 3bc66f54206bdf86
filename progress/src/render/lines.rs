//! Plain lines for logs and files: one for each bar at intervals, and one at its end.

use std::fmt::Write as _;
use std::time::Duration;

use shm_buffers::Printable;

use super::schedule::Schedule;
use super::text::parts;
use super::view::View;
use crate::output::Output;

/// Writes lines such as `recommend: 1200/6710 (17.9 %), 3 failed, 2300/s, ETA 2.4 s`.
#[derive(Debug)]
pub(crate) struct Lines {
    schedule: Schedule,
}

impl Lines {
    pub(crate) fn new(schedule: Schedule) -> Self {
        Self { schedule }
    }

    pub(super) fn draw(&mut self, now: Duration, views: &[View], output: &Output) {
        let due = self.schedule.is_due(now);
        let text: String = views
            .iter()
            .filter(|view| due || !view.is_running())
            .map(line)
            .collect();
        output.write_ignoring_errors(text.as_bytes());
    }
}

fn line(view: &View) -> String {
    let mut line = String::new();
    for parent in &view.parents {
        let _ = write!(line, "{}/", Printable(parent));
    }
    let _ = write!(line, "{}", Printable(&view.sample.label));
    let texts: Vec<String> = parts(view).into_iter().map(|(_, text)| text).collect();
    line + ": " + &texts.join(", ") + "\n"
}
