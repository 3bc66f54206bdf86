//! The words and numbers of a bar, for bars on a terminal and for plain lines.

use std::time::Duration;

use shm_buffers::Printable;

use super::view::View;
use crate::counting::sample::{PARTS, SampleKind};
use crate::counting::step::{Step, StepState};
use crate::counting::total::{Total, Unit};

/// A part of a bar's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Position,
    Failed,
    Retried,
    Bytes,
    /// How far a writer is in its running task.
    Step,
    Rate,
    Time,
    Message,
}

/// The parts that are omitted where a line is too long, in this order. The position always stays.
#[cfg(feature = "indicatif")]
pub(super) const OMISSION_ORDER: [Part; 7] = [
    Part::Message,
    Part::Bytes,
    Part::Step,
    Part::Retried,
    Part::Rate,
    Part::Time,
    Part::Failed,
];

/// The number of parts in [`OMISSION_ORDER`] that are omitted before the bar itself.
#[cfg(feature = "indicatif")]
pub(super) const OMITTED_BEFORE_BAR: usize = 4;

/// The longest ETA that is shown. A longer one only means that the job stalls.
const MAX_ETA: Duration = Duration::from_secs(100 * 86_400);

/// Returns the parts of a bar's text, in the order in which they are shown.
pub(super) fn parts(view: &View) -> Vec<(Part, String)> {
    let sample = &view.sample;
    let mut parts = vec![(Part::Position, position(view))];
    for (part, n, word) in [
        (Part::Failed, sample.counts.failed, "failed"),
        (Part::Retried, sample.counts.retried, "retried"),
    ] {
        if n > 0 {
            parts.push((part, format!("{n} {word}")));
        }
    }
    if sample.unit != Unit::Bytes && sample.counts.bytes > 0 {
        parts.push((Part::Bytes, bytes(sample.counts.bytes)));
    }
    if let SampleKind::Source(StepState::At(step)) = sample.kind {
        parts.push((Part::Step, step_text(step)));
    }
    if let Some(rate) = view.rate {
        parts.push((Part::Rate, rate_text(rate, sample.unit)));
    }
    let time = match (view.is_running(), sample.total) {
        _ if sample.kind != SampleKind::Bar => None,
        (false, _) => Some(format!("took {}", duration(view.elapsed))),
        (true, Total::Known(_)) => view
            .eta
            .filter(|eta| *eta < MAX_ETA)
            .map(|eta| format!("ETA {}", duration(eta))),
        (true, Total::Unknown) => Some(format!("{} elapsed", duration(view.elapsed))),
    };
    parts.extend(time.map(|time| (Part::Time, time)));
    if !sample.message.is_empty() {
        parts.push((Part::Message, Printable(&sample.message).to_string()));
    }
    parts
}

/// Returns how far a writer is in its running task, in units of the op, such as `at 30/100`.
fn step_text(step: Step) -> String {
    match step.total {
        Total::Known(total) => format!("at {}/{total}", step.done),
        Total::Unknown => format!("at {}", step.done),
    }
}

/// Returns `1200/6710 (17.9 %)`, or `1200` without a total. Rounded, but never 100 % before the end.
fn position(view: &View) -> String {
    let sample = &view.sample;
    let amount = |n| match sample.unit {
        Unit::Tasks => format!("{n}"),
        Unit::Bytes => bytes(n),
    };
    let at = sample.position;
    match sample.total {
        Total::Unknown => amount(at),
        Total::Known(total) if at >= total => format!("{}/{} (100 %)", amount(at), amount(total)),
        Total::Known(total) => {
            let whole = u128::from(total) * u128::from(PARTS);
            let permille = (sample.parts * 2000 / whole).div_ceil(2).min(999);
            format!(
                "{}/{} ({}.{} %)",
                amount(at),
                amount(total),
                permille / 10,
                permille % 10
            )
        }
    }
}

/// Returns a rate with at least two significant digits.
fn rate_text(rate: f64, unit: Unit) -> String {
    if unit == Unit::Bytes {
        return format!("{}/s", bytes(rate as u64));
    }
    match rate {
        r if r >= 100.0 => format!("{r:.0}/s"),
        r if r >= 10.0 => format!("{r:.1}/s"),
        r if r >= 0.1 => format!("{r:.2}/s"),
        r if r * 60.0 >= 0.1 => format!("{:.2}/min", r * 60.0),
        r => format!("{:.2}/h", r * 3600.0),
    }
}

fn bytes(n: u64) -> String {
    shm_buffers::ByteSize(n).to_string()
}

fn duration(d: Duration) -> String {
    let s = d.as_secs();
    match d.as_secs_f64() {
        f if f < 0.1 => format!("{} ms", d.as_millis()),
        f if f < 9.95 => format!("{f:.1} s"),
        _ if s < 60 => format!("{s} s"),
        _ if s < 3600 => format!("{} min {:02} s", s / 60, s % 60),
        _ if s < 86_400 => format!("{} h {:02} min", s / 3600, s / 60 % 60),
        _ => format!("{} d {} h", s / 86_400, s / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_at_most_two_units() {
        let cases = [
            (0.0, "0 ms"),
            (0.012, "12 ms"),
            (0.1, "0.1 s"),
            (2.395, "2.4 s"),
            (9.96, "9 s"),
            (59.9, "59 s"),
            (60.0, "1 min 00 s"),
            (3725.0, "1 h 02 min"),
            (100_000.0, "1 d 3 h"),
        ];
        for (secs, text) in cases {
            assert_eq!(duration(Duration::from_secs_f64(secs)), text);
        }
    }

    #[test]
    fn bytes_have_binary_units() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (n, text) in cases {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn slow_rates_are_per_minute_or_hour() {
        let cases = [
            (2300.4, "2300/s"),
            (42.0, "42.0/s"),
            (0.5, "0.50/s"),
            (0.05, "3.00/min"),
            (0.001, "3.60/h"),
        ];
        for (rate, text) in cases {
            assert_eq!(rate_text(rate, Unit::Tasks), text);
        }
        assert_eq!(rate_text(2048.0, Unit::Bytes), "2.0 KiB/s");
    }
}
