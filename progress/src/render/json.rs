//! JSON lines for programs: one object a line, on the same occasions as plain lines.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Schedule, View};
use crate::bar::{Role, Unit};
use crate::counter::{Outcome, Step};
use crate::escape::is_unsafe;
use crate::output::Output;

/// Writes an object a line; [`Render::JsonLines`](crate::Render::JsonLines) documents its fields.
#[derive(Debug)]
pub(crate) struct Json {
    schedule: Schedule,
}

impl Json {
    pub(crate) fn new(schedule: Schedule) -> Self {
        Self { schedule }
    }

    pub(super) fn draw(&mut self, now: Duration, views: &[View], output: &Output) {
        let due = self.schedule.is_due(now);
        let mut text = String::new();
        for view in views.iter().filter(|view| due || !view.is_running()) {
            text += &object(view);
            text += "\n";
        }
        output.write_ignoring_errors(text.as_bytes());
    }
}

fn object(view: &View) -> String {
    let sample = &view.sample;
    let mut path = view.parents.clone();
    path.push(sample.label.clone());
    let path: Vec<String> = path.iter().map(|label| string(label)).collect();
    let step = |number: fn(Step) -> Option<u64>| {
        let step = match sample.role {
            Role::Bar => None,
            Role::Writer(steps) => steps.at(),
        };
        step.and_then(number)
            .map_or_else(|| "null".into(), |n| n.to_string())
    };
    let fields = [
        ("event", string("progress")),
        ("bar", format!("[{}]", path.join(","))),
        (
            "state",
            string(if view.is_running() { "running" } else { "finished" }),
        ),
        (
            "unit",
            string(match sample.unit {
                Unit::Tasks => "tasks",
                Unit::Bytes => "bytes",
            }),
        ),
        ("position", sample.position.to_string()),
        (
            "total",
            sample
                .total
                .known()
                .map_or_else(|| "null".into(), |n| n.to_string()),
        ),
        ("share", number(view.share())),
        ("step_done", step(|step| Some(step.done))),
        ("step_total", step(|step| step.total.known())),
        ("done", sample.counts.get(Outcome::Done).to_string()),
        ("failed", sample.counts.get(Outcome::Failed).to_string()),
        ("retried", sample.counts.get(Outcome::Retried).to_string()),
        ("bytes", sample.counts.bytes().to_string()),
        ("per_second", number(view.rate)),
        ("eta_seconds", number(view.eta.map(|eta| eta.as_secs_f64()))),
        ("elapsed_seconds", number(Some(view.elapsed.as_secs_f64()))),
        ("message", string(&sample.message)),
    ];
    let fields: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("\"{name}\":{value}"))
        .collect();
    format!("{{{}}}", fields.join(","))
}

/// JSON has no infinities.
fn number(value: Option<f64>) -> String {
    match value {
        Some(value) if value.is_finite() => value.to_string(),
        _ => "null".into(),
    }
}

/// A string as RFC 8259, section 7: the same when it is parsed, and safe where a person reads it unparsed.
fn string(text: &str) -> String {
    let mut json = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            c if is_unsafe(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(json, "\\u{unit:04x}");
                }
            }
            c => json.push(c),
        }
    }
    json + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_string_survives() {
        let text: String = (0..=0x10_ffff).filter_map(char::from_u32).collect();
        let json = string(&text);
        let parsed: String = serde_json::from_str(&json).expect("valid JSON");
        assert_eq!(parsed, text);
        assert!(!json.chars().any(is_unsafe));
    }

    #[test]
    fn an_infinite_number_is_null() {
        assert_eq!(number(Some(f64::INFINITY)), "null");
        assert_eq!(number(Some(2.5)), "2.5");
    }
}
