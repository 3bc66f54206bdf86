//! JSON lines for programs: an object in place of each plain line.

use std::fmt::Write as _;
use std::time::Duration;

use shm_buffers::Printable;

use super::schedule::Schedule;
use super::view::View;
use crate::counting::sample::SampleKind;
use crate::counting::step::Step;
use crate::counting::total::Unit;
use crate::output::Output;

/// Writes JSON objects. [`Render::JsonLines`](crate::Render::JsonLines) documents their fields.
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
        let step = match sample.kind {
            SampleKind::Bar => None,
            SampleKind::Source(steps) => steps.step(),
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
        ("fraction", number(view.fraction())),
        ("step_done", step(|step| Some(step.done))),
        ("step_total", step(|step| step.total.known())),
        ("done", sample.counts.done.to_string()),
        ("failed", sample.counts.failed.to_string()),
        ("retried", sample.counts.retried.to_string()),
        ("bytes", sample.counts.bytes.to_string()),
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

/// Returns `value` as a JSON number, or `null` for infinities, which JSON does not have.
fn number(value: Option<f64>) -> String {
    match value {
        Some(value) if value.is_finite() => value.to_string(),
        _ => "null".into(),
    }
}

/// Returns `text` as a JSON string (RFC 8259, section 7). A parser gets the original text. A terminal that shows the
/// unparsed string gets no character that [`Printable`] escapes.
fn string(text: &str) -> String {
    let mut json = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            c if !is_printable(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(json, "\\u{unit:04x}");
                }
            }
            c => json.push(c),
        }
    }
    json + "\""
}

fn is_printable(c: char) -> bool {
    match c {
        ' '..='~' => true,
        c => Printable(c.encode_utf8(&mut [0; 4])).to_string().starts_with(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsers_get_the_original_string_and_terminals_get_no_controls() {
        let text: String = (0..=0x10_ffff).filter_map(char::from_u32).collect();
        let json = string(&text);
        let parsed: String = serde_json::from_str(&json).expect("valid JSON");
        assert_eq!(parsed, text);
        assert!(json.chars().all(is_printable));
    }

    #[test]
    fn infinite_number_is_null() {
        assert_eq!(number(Some(f64::INFINITY)), "null");
        assert_eq!(number(Some(2.5)), "2.5");
    }
}
