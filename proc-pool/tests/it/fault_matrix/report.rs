//! The table of results, and the list of failures.

use std::collections::BTreeMap;
use std::fmt;

use super::{Case, Fault, Phase, impossible, pairs};

/// The results of the cases of a row.
#[derive(Debug, Default, Clone)]
pub(super) struct Counts {
    pub(super) cases: u64,
    pub(super) ok: u64,
    pub(super) failed: u64,
    pub(super) resent: u64,
    pub(super) deaths: u64,
    pub(super) seconds: f64,
    /// How often the caller received each result of a faulty task, or another error.
    pub(super) saw: BTreeMap<String, u64>,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.cases += other.cases;
        self.ok += other.ok;
        self.failed += other.failed;
        self.resent += other.resent;
        self.deaths += other.deaths;
        self.seconds += other.seconds;
        for (what, count) in &other.saw {
            *self.saw.entry(what.clone()).or_default() += count;
        }
    }

    /// Encodes this as the line that the row's leader prints for the case.
    pub(super) fn to_line(&self, case: Case) -> String {
        let Self {
            ok,
            failed,
            resent,
            deaths,
            seconds,
            saw,
            ..
        } = self;
        let saw: Vec<String> = saw
            .iter()
            .map(|(what, count)| format!("{count}={what}"))
            .collect();
        let saw = saw.join(";");
        format!("<<{case} {ok} {failed} {resent} {deaths} {seconds} {saw}")
    }

    /// Decodes such a line, without its `<<`.
    fn of_line(line: &str) -> Option<(Case, Self)> {
        let mut words = line.splitn(7, ' ');
        let case = words.next()?.parse().ok()?;
        let mut number = || words.next()?.parse::<f64>().ok();
        let [ok, failed, resent, deaths] = [number()?, number()?, number()?, number()?].map(|n| n as u64);
        let seconds = number()?;
        let pairs = words.next()?.split(';').filter_map(|pair| pair.split_once('='));
        let saw = pairs.filter_map(|(count, what)| Some((what.to_owned(), count.parse().ok()?)));
        let counts = Self {
            cases: 1,
            ok,
            failed,
            resent,
            deaths,
            seconds,
            saw: saw.collect(),
        };
        Some((case, counts))
    }
}

#[derive(Debug, Default)]
pub(super) struct Report {
    rows: BTreeMap<(Phase, Fault), Counts>,
    slowest: Option<(f64, Case)>,
    failures: Vec<(Case, String)>,
}

impl Report {
    /// Adds a line that a row's leader has printed after `<<`; returns its case.
    pub(super) fn add(&mut self, line: &str) -> Option<Case> {
        if let Some((case, why)) = line.strip_prefix("failed ").and_then(|rest| rest.split_once(' ')) {
            let case = case.parse().ok()?;
            self.fail(case, why);
            return Some(case);
        }
        let (case, counts) = Counts::of_line(line)?;
        self.rows
            .entry((case.phase, case.fault))
            .or_default()
            .add(&counts);
        if self.slowest.is_none_or(|(seconds, _)| seconds < counts.seconds) {
            self.slowest = Some((counts.seconds, case));
        }
        Some(case)
    }

    pub(super) fn fail(&mut self, case: Case, why: &str) {
        self.failures.push((case, why.to_owned()));
    }

    pub(super) fn failures(&self) -> usize {
        self.failures.len()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{:13} {:11} {:>5} {:>8} {:>7} {:>6} {:>6}  what the caller received for faulty tasks",
            "phase", "fault", "cases", "ok", "failed", "resent", "deaths"
        )?;
        let mut total = Counts::default();
        for ((phase, fault), counts) in &self.rows {
            total.add(counts);
            let saw: Vec<String> = counts.saw.iter().map(|(what, n)| format!("{n} {what}")).collect();
            writeln!(
                f,
                "{:13} {:11} {:5} {:8} {:7} {:6} {:6}  {}",
                phase.name(),
                fault.name(),
                counts.cases,
                counts.ok,
                counts.failed,
                counts.resent,
                counts.deaths,
                saw.join(", ")
            )?;
        }
        let Counts {
            cases,
            ok,
            failed,
            resent,
            deaths,
            seconds,
            ..
        } = total;
        writeln!(
            f,
            "{:25} {cases:5} {ok:8} {failed:7} {resent:6} {deaths:6}",
            "total"
        )?;
        if let Some((slowest, case)) = self.slowest {
            writeln!(f, "{seconds:.0} s of cases, the longest {slowest:.1} s ({case})")?;
        }
        writeln!(f, "\nnot run, because they are impossible:")?;
        for (phase, fault) in pairs() {
            if let Some(why) = impossible(phase, fault) {
                writeln!(f, "{:13} {:11} {why}", phase.name(), fault.name())?;
            }
        }
        writeln!(f, "\n{} failed", self.failures.len())?;
        for (case, why) in &self.failures {
            writeln!(f, "{case}: {why}\n  again: cargo xtask faults --only {case}")?;
        }
        Ok(())
    }
}
