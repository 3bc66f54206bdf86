//! Contenders that take turns, and what is made of their rounds.

use std::time::{Duration, Instant};

use crate::{Effort, Failure};

/// One value of each round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn median(&self) -> f64 {
        let mut values = self.0.clone();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// The smallest and the largest.
    pub(crate) fn spread(&self) -> (f64, f64) {
        self.0
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &value| {
                (low.min(value), high.max(value))
            })
    }

    /// Round by round.
    pub(crate) fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a / b).collect())
    }
}

/// Runs so many tasks and gives the sum of the outputs.
type Run<'a> = Box<dyn FnMut(u64) -> Result<u64, Failure> + 'a>;

/// One who does the tasks.
pub(crate) struct Contender<'a> {
    pub(crate) name: &'static str,
    run: Run<'a>,
}

impl<'a> Contender<'a> {
    pub(crate) fn new(name: &'static str, run: impl FnMut(u64) -> Result<u64, Failure> + 'a) -> Self {
        Self {
            name,
            run: Box::new(run),
        }
    }

    /// The time for `tasks` tasks whose outputs are `0..tasks`.
    fn time(&mut self, tasks: u64) -> Result<Duration, Failure> {
        let begun = Instant::now();
        let sum = (self.run)(tasks)?;
        let time = begun.elapsed();
        if sum != (0..tasks).sum::<u64>() {
            return Err(format!("{}: the sum of {tasks} outputs is wrong: {sum}", self.name).into());
        }
        Ok(time)
    }

    /// How many tasks take about `long`.
    fn tasks_in(&mut self, long: Duration) -> Result<u64, Failure> {
        let mut tasks = 256;
        loop {
            let time = self.time(tasks)?;
            if time >= long / 4 {
                let scaled = tasks as f64 * long.as_secs_f64() / time.as_secs_f64();
                // Whole batches, for those that have them.
                return Ok((scaled as u64).next_multiple_of(256));
            }
            tasks *= 2;
        }
    }
}

/// Lets all take turns; gives the tasks per second of each in each round.
pub(crate) fn contest(contenders: &mut [Contender<'_>], effort: Effort) -> Result<Vec<Samples>, Failure> {
    let mut tasks = Vec::new();
    for contender in contenders.iter_mut() {
        tasks.push(contender.tasks_in(effort.round)?);
    }
    let mut rates = vec![Samples::default(); contenders.len()];
    for _ in 0..effort.rounds {
        for ((contender, &tasks), rates) in contenders.iter_mut().zip(&tasks).zip(&mut rates) {
            rates.push(tasks as f64 / contender.time(tasks)?.as_secs_f64());
        }
    }
    Ok(rates)
}
