//! The words and numbers of a bar, the same in every renderer for people.

use std::time::Duration;

use super::View;
use crate::bar::{PARTS, Role, Total, Unit};
use crate::counter::{Outcome, Step, Steps};
use crate::escape::escape;

/// A part of a bar's text. What is least missed is left out first where there is little room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Position,
    Failed,
    Retried,
    Bytes,
    /// How far a writer is in its task.
    Step,
    Rate,
    Time,
    Message,
}

/// From what is left out first to what goes last; the position always stays.
#[cfg(feature = "indicatif")]
pub(super) const LEAST_MISSED: [Part; 7] = [
    Part::Message,
    Part::Bytes,
    Part::Step,
    Part::Retried,
    Part::Rate,
    Part::Time,
    Part::Failed,
];

/// So many of them are notes, worth less than the bar.
#[cfg(feature = "indicatif")]
pub(super) const NOTES: usize = 4;

/// An ETA beyond this says no more than that the job stalls.
const TELLABLE: Duration = Duration::from_secs(100 * 86_400);

/// The parts of a bar's text, in the order they are read.
pub(super) fn parts(view: &View) -> Vec<(Part, String)> {
    let sample = &view.sample;
    let mut parts = vec![(Part::Position, position(view))];
    for (part, outcome, word) in [
        (Part::Failed, Outcome::Failed, "failed"),
        (Part::Retried, Outcome::Retried, "retried"),
    ] {
        match sample.counts.get(outcome) {
            0 => {}
            n => parts.push((part, format!("{n} {word}"))),
        }
    }
    if sample.unit != Unit::Bytes && sample.counts.bytes() > 0 {
        parts.push((Part::Bytes, bytes(sample.counts.bytes())));
    }
    if let Role::Writer(Steps::At(step)) = sample.role {
        parts.push((Part::Step, at_step(step)));
    }
    if let Some(rate) = view.rate {
        parts.push((Part::Rate, per_time(rate, sample.unit)));
    }
    let time = match (view.is_running(), sample.total) {
        _ if sample.role != Role::Bar => None,
        (false, _) => Some(format!("took {}", duration(view.elapsed))),
        (true, Total::Known(_)) => view
            .eta
            .filter(|eta| *eta < TELLABLE)
            .map(|eta| format!("ETA {}", duration(eta))),
        (true, Total::Unknown) => Some(format!("{} elapsed", duration(view.elapsed))),
    };
    parts.extend(time.map(|time| (Part::Time, time)));
    if !sample.message.is_empty() {
        parts.push((Part::Message, escape(&sample.message).into_owned()));
    }
    parts
}

/// `at 30/100`: how far in the running task, in units of the op.
fn at_step(step: Step) -> String {
    match step.total {
        Total::Known(total) => format!("at {}/{total}", step.done),
        Total::Unknown => format!("at {}", step.done),
    }
}

/// `1200/6710 (17.9 %)`, `1200` without a total. Rounded, but never 100 % before the end.
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

/// Two or three digits that mean something.
fn per_time(rate: f64, unit: Unit) -> String {
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
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = n as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    while value >= 1023.95 {
        match units.next() {
            Some(larger) => unit = Some(larger),
            None => break,
        }
        value /= 1024.0;
    }
    match unit {
        Some(unit) if n >= 1024 => format!("{value:.1} {unit}"),
        _ => format!("{n} B"),
    }
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
    fn durations_have_two_units_at_most() {
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
    fn rates_change_their_unit_of_time() {
        let cases = [
            (2300.4, "2300/s"),
            (42.0, "42.0/s"),
            (0.5, "0.50/s"),
            (0.05, "3.00/min"),
            (0.001, "3.60/h"),
        ];
        for (rate, text) in cases {
            assert_eq!(per_time(rate, Unit::Tasks), text);
        }
        assert_eq!(per_time(2048.0, Unit::Bytes), "2.0 KiB/s");
    }
}
