//! Contenders that take turns, and the samples of their rounds.

use std::time::{Duration, Instant};

use crate::{Effort, Failure};

/// One value for each round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn median(&self) -> f64 {
        crate::rows::median(self.0.iter().copied())
    }

    /// Returns the smallest and the largest value.
    pub(crate) fn spread(&self) -> (f64, f64) {
        self.0
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &value| {
                (low.min(value), high.max(value))
            })
    }

    /// Returns the values, multiplied.
    pub(crate) fn scaled(&self, factor: f64) -> Self {
        Self(self.0.iter().map(|value| value * factor).collect())
    }

    /// Returns the ratios, round by round.
    pub(crate) fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a / b).collect())
    }
}

/// Runs a number of tasks and returns the sum of the outputs.
type Run<'a> = Box<dyn FnMut(u64) -> Result<u64, Failure> + 'a>;

/// A pool, or a baseline, that runs the tasks.
pub(crate) struct Contender<'a> {
    pub(crate) name: &'static str,
    /// Each run has a multiple of this number of tasks: some contenders need whole batches.
    unit: u64,
    run: Run<'a>,
}

impl<'a> Contender<'a> {
    pub(crate) fn new(name: &'static str, run: impl FnMut(u64) -> Result<u64, Failure> + 'a) -> Self {
        Self {
            name,
            unit: 256,
            run: Box::new(run),
        }
    }

    /// Allows any number of tasks that is a multiple of `unit`.
    pub(crate) fn in_units_of(self, unit: u64) -> Self {
        Self { unit, ..self }
    }

    /// Returns the time for `tasks` tasks, whose outputs must be `0..tasks`.
    fn time(&mut self, tasks: u64) -> Result<Duration, Failure> {
        let started = Instant::now();
        let sum = (self.run)(tasks)?;
        let time = started.elapsed();
        if sum != (0..tasks).sum::<u64>() {
            return Err(format!("{}: the sum of {tasks} outputs is wrong: {sum}", self.name).into());
        }
        Ok(time)
    }

    /// Returns the number of tasks that take about this duration.
    fn tasks_in(&mut self, duration: Duration) -> Result<u64, Failure> {
        let mut tasks = self.unit;
        loop {
            let time = self.time(tasks)?;
            if time >= duration / 4 {
                let scaled = tasks as f64 * duration.as_secs_f64() / time.as_secs_f64();
                return Ok((scaled as u64).max(1).next_multiple_of(self.unit));
            }
            tasks *= 2;
        }
    }
}

/// Runs all contenders in turns, and returns the tasks per second of each in each round.
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
