//! Plain lines for logs and files: one now and then, and one at the end.

use std::time::Duration;

use super::text::parts;
use super::{Schedule, View};
use crate::escape::escape;
use crate::output::Output;

/// Writes lines like `recommend: 1200/6710 (17.9 %), 3 failed, 2300/s, ETA 2.4 s`.
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
        line += &escape(parent);
        line += "/";
    }
    line += &escape(&view.sample.label);
    let texts: Vec<String> = parts(view).into_iter().map(|(_, text)| text).collect();
    line + ": " + &texts.join(", ") + "\n"
}
