//! What both sides told, as rows of a table.

use serde_json::{Map, Value, json};

const TABLE: &str = "Pools of Python, 2 workers";

/// A round: what each side told of every measure. A measure that fails, fails for a peer alone.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) ours: Value,
    /// By the measure's name.
    pub(super) theirs: Map<String, Value>,
}

/// A number of a measure.
struct Number {
    measure: &'static str,
    key: &'static str,
    row: &'static str,
    unit: Unit,
}

const fn number(measure: &'static str, key: &'static str, row: &'static str, unit: Unit) -> Number {
    Number {
        measure,
        key,
        row,
        unit,
    }
}

/// Made of other numbers.
const EFFICIENCY: &str = "efficiency";
const ARRIVING: &str = "arriving";

const NUMBERS: &[Number] = &[
    number("null", "start", "start, until two tasks are done", Unit::Seconds),
    number("null", "batched", "null op, best batches", Unit::Rate),
    number(
        "null",
        "single",
        "null op, one a batch (ours: each awaited before the next)",
        Unit::Rate,
    ),
    number(
        "share",
        "share",
        "start with a model, until both workers have read it",
        Unit::Seconds,
    ),
    number("share", "pss", "model: sum of PSS", Unit::Bytes),
    number(
        "share",
        "peak",
        "model: sum of peak RSS, shared pages once for each",
        Unit::Bytes,
    ),
    number(
        "top",
        "top",
        "top 10 of 20,000 items x 64 factors, users",
        Unit::Rate,
    ),
    number(
        "top",
        EFFICIENCY,
        "top 10: rate / (2 x one process without a pool, same language)",
        Unit::Share,
    ),
    number(
        "logs",
        "logged",
        "log flood, until the workers are done",
        Unit::Seconds,
    ),
    number(
        "logs",
        "arrived",
        "log flood, until the leader has formatted what arrives",
        Unit::Seconds,
    ),
    number(
        "logs",
        ARRIVING,
        "log flood, records that arrive in that time",
        Unit::Rate,
    ),
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Unit {
    Seconds,
    Rate,
    Bytes,
    Share,
}

impl Unit {
    fn told(self, value: f64) -> String {
        match self {
            Self::Seconds => format!("{:.1} ms", value * 1e3),
            Self::Rate => format!("{:.2} k/s", value / 1e3),
            Self::Bytes => format!("{:.0} MiB", value / f64::from(1 << 20)),
            Self::Share => format!("{value:.2}"),
        }
    }

    /// Whether the ratio of ours to theirs is a defeat.
    fn loses(self, ratio: f64) -> bool {
        match self {
            Self::Seconds | Self::Bytes => ratio > 1.0,
            Self::Rate | Self::Share => ratio < 1.0,
        }
    }
}

/// The rows of a peer; a ratio is ours over theirs, of a round.
pub(super) fn rows(peer: &str, rounds: &[Round]) -> Vec<Value> {
    let mut rows = Vec::new();
    for number in NUMBERS {
        let pairs: Vec<(f64, f64)> = rounds.iter().filter_map(|round| number.pair(round)).collect();
        let row = if pairs.is_empty() {
            failed(number, peer, rounds)
        } else {
            let against = match sharing(rounds).filter(|_| number.measure == "share") {
                Some(how) => format!("{peer} ({how})"),
                None => peer.to_owned(),
            };
            Some(compared(number.row, number.unit, &against, &pairs))
        };
        rows.extend(row);
    }
    let firsts = |measure: &str| {
        rounds
            .iter()
            .find_map(|round| Some((&round.ours, round.theirs.get(measure)?)))
    };
    if let Some((ours, theirs)) = firsts("top")
        && let (Some(ours), Some(theirs)) = (ours["checksum"].as_str(), theirs["checksum"].as_str())
    {
        rows.push(json!({
            "table": TABLE, "row": "top 10: checksum of the scores", "measured": ours, "peer": peer, "floor": theirs,
            "target": "the same", "met": ours == theirs,
        }));
    }
    let sides = firsts("logs").map(|(ours, theirs)| (arrived(ours), arrived(theirs)));
    if let Some((Some(ours), Some(theirs))) = sides {
        rows.push(text("log flood, records that arrive at all", ours, peer, theirs));
    }
    if let Some((ours, theirs)) = firsts("killed") {
        let row = "1,000 tasks, one kills its worker";
        rows.push(text(row, killed(ours), peer, killed(theirs)));
    }
    rows
}

/// One process without a pool, of all rounds of all peers: how much of a difference is the language's.
pub(super) fn bare(rounds: &[Round]) -> Option<Value> {
    let alone = number("top", "bare", "top 10, one process without a pool", Unit::Rate);
    let pairs: Vec<(f64, f64)> = rounds.iter().filter_map(|round| alone.pair(round)).collect();
    (!pairs.is_empty()).then(|| compared(alone.row, alone.unit, "NumPy", &pairs))
}

fn text(row: &str, measured: String, peer: &str, floor: String) -> Value {
    json!({"table": TABLE, "row": row, "measured": measured, "peer": peer, "floor": floor})
}

fn compared(row: &str, unit: Unit, peer: &str, pairs: &[(f64, f64)]) -> Value {
    let (ours, _) = median(pairs.iter().map(|(ours, _)| *ours));
    let (theirs, _) = median(pairs.iter().map(|(_, theirs)| *theirs));
    let (ratio, spread) = median(pairs.iter().map(|(ours, theirs)| ours / theirs));
    let verdict = if unit.loses(ratio) { " (loses)" } else { "" };
    json!({
        "table": TABLE, "row": row, "measured": unit.told(ours) + verdict, "peer": peer, "floor": unit.told(theirs),
        "ratio": ratio, "spread": spread,
    })
}

/// A number that a peer did not get to: why. None, where nobody tells it.
fn failed(number: &Number, peer: &str, rounds: &[Round]) -> Option<Value> {
    let mut reasons = rounds
        .iter()
        .filter_map(|round| round.theirs.get(number.measure)?["failed"].as_str());
    let reason = reasons.next()?;
    let (ours, _) = median_of(rounds.iter().filter_map(|round| number.of(&round.ours)))?;
    Some(text(
        number.row,
        number.unit.told(ours),
        peer,
        format!("fails: {reason}"),
    ))
}

impl Number {
    fn of(&self, told: &Value) -> Option<f64> {
        let number = |key: &str| told[key].as_f64();
        match self.key {
            EFFICIENCY => Some(number("top")? / (2.0 * number("bare")?)),
            ARRIVING => Some(number("delivered")? / number("arrived")?),
            key => number(key),
        }
    }

    fn pair(&self, round: &Round) -> Option<(f64, f64)> {
        let theirs = round.theirs.get(self.measure)?;
        // What was told before it failed is no measure of what works.
        theirs["failed"].is_null().then_some(())?;
        Some((self.of(&round.ours)?, self.of(theirs)?))
    }
}

fn sharing(rounds: &[Round]) -> Option<&str> {
    rounds
        .iter()
        .find_map(|round| round.theirs.get("share")?["sharing"].as_str())
}

fn arrived(told: &Value) -> Option<String> {
    let (delivered, emitted) = (told["delivered"].as_u64()?, told["emitted"].as_u64()?);
    let lost = match emitted - delivered.min(emitted) {
        0 => "none lost".to_owned(),
        lost => format!("{:.1} % lost", 100.0 * lost as f64 / emitted as f64),
    };
    Some(format!("{delivered} of {emitted}, {lost}"))
}

fn killed(told: &Value) -> String {
    let mut said = match (
        told["killed"].as_str(),
        told["killed_seconds"].as_f64(),
        told["failed"].as_str(),
    ) {
        (Some(said), Some(seconds), _) => format!("{said} ({:.0} ms)", seconds * 1e3),
        (.., Some(reason)) => format!("fails: {reason}"),
        _ => "?".to_owned(),
    };
    // Of a pool that was not closed, everything may be left.
    if told["closed"].as_bool() == Some(true) {
        if let Some(processes @ 1..) = told["left_processes"].as_u64() {
            said += &format!(", leaves {processes} process(es)");
        }
        if let Some(bytes @ 1..) = told["left_bytes"].as_u64() {
            said += &format!(", leaves {bytes} bytes in /dev/shm");
        }
    }
    said
}

/// With the smallest and the largest, of at least one.
fn median(values: impl Iterator<Item = f64>) -> (f64, [f64; 2]) {
    median_of(values).expect("there are values")
}

fn median_of(values: impl Iterator<Item = f64>) -> Option<(f64, [f64; 2])> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    Some((
        *values.get(values.len() / 2)?,
        [*values.first()?, *values.last()?],
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::rows::{Row, Run};

    fn round(ours: Value, theirs: Value) -> Round {
        let Value::Object(theirs) = theirs else {
            panic!("measures have names")
        };
        Round { ours, theirs }
    }

    fn table(rounds: &[Round]) -> Vec<Row> {
        let lines: Vec<String> = rows("peer", rounds).iter().map(Value::to_string).collect();
        let mut run = Run::default();
        run.add_lines(&lines.join("\n")).expect("good lines");
        run.rows
    }

    #[test]
    fn a_row_is_ours_over_theirs_of_each_round() {
        let rounds = [8e6, 12e6, 9e6].map(|ours| {
            let theirs = json!({"null": {"batched": 1e6}});
            round(json!({"batched": ours, "share": 0.1}), theirs)
        });
        let rows = table(&rounds);
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].ratio, rows[0].spread), (Some(9.0), Some((8.0, 12.0))));
        assert_eq!(rows[0].measured, "9000.00 k/s");
    }

    #[test]
    fn who_loses_says_so_whichever_way_is_better() {
        let theirs = json!({"null": {"start": 0.5, "batched": 1e3}, "share": {"share": 0.1, "pss": 1e8, "sharing": "fork"}});
        let ours = json!({"start": 0.1, "batched": 1e2, "share": 0.2, "pss": 1e7});
        let rows = table(&[round(ours, theirs)]);
        let loses: Vec<bool> = rows.iter().map(|row| row.measured.contains("(loses)")).collect();
        assert_eq!(loses, [false, true, true, false], "{rows:?}");
        assert_eq!(rows[2].peer, "peer (fork)");
    }

    #[test]
    fn a_failure_is_told_in_its_rows_and_no_ratio_is_made_of_it() {
        let theirs =
            json!({"null": {"start": 0.5, "failed": "not done after 60 s"}, "killed": {"failed": "x"}});
        let ours = json!({"start": 0.1, "batched": 1e6, "killed": "999 outputs", "killed_seconds": 0.001});
        let rows = table(&[round(ours, theirs)]);
        assert!(rows.iter().all(|row| row.ratio.is_none()), "{rows:?}");
        let told: Vec<&str> = rows.iter().map(|row| row.floor.as_str()).collect();
        assert_eq!(
            told,
            [
                "fails: not done after 60 s",
                "fails: not done after 60 s",
                "fails: x"
            ]
        );
        assert_eq!(rows[2].measured, "999 outputs (1 ms)");
    }

    #[test]
    fn recommendations_are_compared_and_the_languages_apart_from_the_pools() {
        let theirs = json!({"top": {"top": 1500.0, "bare": 1000.0, "checksum": "7"}});
        let rounds = [round(
            json!({"top": 3600.0, "bare": 2000.0, "checksum": "8"}),
            theirs,
        )];
        let rows = table(&rounds);
        let ratios: Vec<Option<f64>> = rows.iter().map(|row| row.ratio).collect();
        assert_eq!(ratios, [Some(2.4), Some(0.9 / 0.75), None]);
        assert_eq!(rows[2].met, Some(false));
        assert_eq!(bare(&rounds).expect("both told it")["ratio"], 2.0);
    }

    #[test]
    fn what_is_lost_or_left_behind_is_told() {
        let side = json!({"delivered": 150, "emitted": 200});
        assert_eq!(arrived(&side).as_deref(), Some("150 of 200, 25.0 % lost"));
        let mut side =
            json!({"killed": "500 outputs", "killed_seconds": 2, "left_processes": 2, "left_bytes": 0});
        assert_eq!(killed(&side), "500 outputs (2000 ms)");
        side["closed"] = json!(true);
        assert_eq!(killed(&side), "500 outputs (2000 ms), leaves 2 process(es)");
    }

    #[test]
    fn no_two_rows_of_a_peer_have_one_name() {
        let mut names: Vec<&str> = NUMBERS.iter().map(|number| number.row).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), NUMBERS.len());
    }
}
