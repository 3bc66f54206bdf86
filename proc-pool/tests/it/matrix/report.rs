//! The table of what was seen, and the list of what failed.

use std::collections::BTreeMap;
use std::fmt;

use super::{Case, FAULTS, Fault, PHASES, Phase, senseless};

/// What came of the cases of a row.
#[derive(Debug, Default, Clone)]
pub(super) struct Counts {
    pub(super) cases: u64,
    pub(super) ok: u64,
    pub(super) faulted: u64,
    pub(super) resent: u64,
    pub(super) deaths: u64,
    pub(super) seconds: f64,
    /// What the caller got instead of an output, or for a task that was struck.
    pub(super) saw: BTreeMap<String, u64>,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.cases += other.cases;
        self.ok += other.ok;
        self.faulted += other.faulted;
        self.resent += other.resent;
        self.deaths += other.deaths;
        self.seconds += other.seconds;
        for (what, count) in &other.saw {
            *self.saw.entry(what.clone()).or_default() += count;
        }
    }

    /// A line for whoever collects.
    pub(super) fn to_line(&self, case: Case) -> String {
        let Self {
            ok,
            faulted,
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
        format!("<<{case} {ok} {faulted} {resent} {deaths} {seconds} {saw}")
    }

    fn of_line(line: &str) -> Option<(Case, Self)> {
        let mut words = line.splitn(7, ' ');
        let case = words.next()?.parse().ok()?;
        let mut number = || words.next()?.parse::<f64>().ok();
        let [ok, faulted, resent, deaths] = [number()?, number()?, number()?, number()?].map(|n| n as u64);
        let seconds = number()?;
        let pairs = words.next()?.split(';').filter_map(|pair| pair.split_once('='));
        let saw = pairs.filter_map(|(count, what)| Some((what.to_owned(), count.parse().ok()?)));
        let counts = Self {
            cases: 1,
            ok,
            faulted,
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
    /// Takes what a row's leader said after `<<`; gives the case that it is about.
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
            "\n{:10} {:7} {:>5} {:>8} {:>7} {:>6} {:>6}  what the caller saw of what was struck",
            "phase", "fault", "cases", "ok", "faulted", "resent", "deaths"
        )?;
        let mut total = Counts::default();
        for ((phase, fault), counts) in &self.rows {
            total.add(counts);
            let saw: Vec<String> = counts.saw.iter().map(|(what, n)| format!("{n} {what}")).collect();
            writeln!(
                f,
                "{:10} {:7} {:5} {:8} {:7} {:6} {:6}  {}",
                phase.name(),
                fault.name(),
                counts.cases,
                counts.ok,
                counts.faulted,
                counts.resent,
                counts.deaths,
                saw.join(", ")
            )?;
        }
        let Counts {
            cases,
            ok,
            faulted,
            resent,
            deaths,
            seconds,
            ..
        } = total;
        writeln!(
            f,
            "{:18} {cases:5} {ok:8} {faulted:7} {resent:6} {deaths:6}",
            "total"
        )?;
        if let Some((slowest, case)) = self.slowest {
            writeln!(f, "{seconds:.0} s of cases, the longest {slowest:.1} s ({case})")?;
        }
        writeln!(f, "\nnot run, because they make no sense:")?;
        for phase in PHASES {
            for fault in FAULTS {
                if let Some(why) = senseless(phase, fault) {
                    writeln!(f, "{:10} {:7} {why}", phase.name(), fault.name())?;
                }
            }
        }
        writeln!(f, "\n{} failed", self.failures.len())?;
        for (case, why) in &self.failures {
            writeln!(f, "{case}: {why}\n  again: cargo xtask faults --only {case}")?;
        }
        Ok(())
    }
}
