//! What is on the screen: the bars that are shown, and what draws them. Time is injected.

use std::io;
use std::time::Duration;

use crate::bar::{Bar, Life, Total};
use crate::output::Output;
use crate::rate::{Rate, eta};
use crate::render::{Renderer, View};

#[derive(Debug)]
pub(crate) struct Stage {
    shown: Vec<Shown>,
    renderer: Renderer,
    output: Output,
    /// How many have asked for the screen and not given it back.
    suspended: usize,
}

#[derive(Debug)]
struct Shown {
    bar: Bar,
    parents: Vec<String>,
    since: Duration,
    first: u64,
    rate: Rate,
}

impl Stage {
    pub(crate) fn new(renderer: Renderer, output: Output) -> Self {
        Self {
            shown: Vec::new(),
            renderer,
            output,
            suspended: 0,
        }
    }

    pub(crate) fn interval(&self) -> Option<Duration> {
        self.renderer.interval()
    }

    /// Shows `bar` below all others, or as the last of those within `parent`.
    pub(crate) fn add(&mut self, now: Duration, bar: &Bar, parent: Option<&Bar>) {
        if self.shown.iter().any(|shown| shown.bar.is(bar)) {
            return;
        }
        let within = parent.and_then(|parent| self.shown.iter().position(|shown| shown.bar.is(parent)));
        let (at, parents) = match (within, parent) {
            (Some(index), Some(parent)) => {
                let mut parents = self.shown[index].parents.clone();
                parents.push(parent.label());
                let later = &self.shown[index + 1..];
                let nested = later
                    .iter()
                    .take_while(|shown| shown.parents.starts_with(&parents));
                (index + 1 + nested.count(), parents)
            }
            _ => (self.shown.len(), Vec::new()),
        };
        let position = bar.sample().position;
        let shown = Shown {
            bar: bar.clone(),
            parents,
            since: now,
            first: position,
            rate: Rate::new(now, position),
        };
        self.shown.insert(at, shown);
    }

    /// Samples all bars and draws what is to be drawn now.
    pub(crate) fn tick(&mut self, now: Duration) {
        if self.suspended > 0 {
            return;
        }
        let mut views = Vec::with_capacity(self.shown.len());
        self.shown.retain_mut(|shown| {
            let view = shown.view(now);
            let life = view.sample.life;
            if life != Life::Dismissed {
                views.push(view);
            }
            life == Life::Running
        });
        self.renderer.draw(now, &views, &self.output);
    }

    /// Ends all bars, and draws for the last time.
    pub(crate) fn finish(&mut self, now: Duration) {
        for shown in &self.shown {
            shown.bar.finish();
        }
        self.suspended = 0;
        self.tick(now);
    }

    /// Takes everything off the screen, for good.
    pub(crate) fn abandon(&mut self) {
        self.shown.clear();
        self.renderer.clear();
        self.renderer = Renderer::Nothing;
    }

    /// Writes whole lines above the bars.
    pub(crate) fn print(&mut self, now: Duration, lines: &[u8]) -> io::Result<()> {
        self.renderer.clear();
        let result = self.output.write(lines);
        if self.suspended == 0 {
            self.renderer.restore(now);
        }
        result
    }

    pub(crate) fn suspend(&mut self) {
        self.suspended += 1;
        self.renderer.clear();
    }

    pub(crate) fn resume(&mut self, now: Duration) {
        self.suspended = self.suspended.saturating_sub(1);
        if self.suspended == 0 {
            self.renderer.restore(now);
        }
    }
}

impl Shown {
    fn view(&mut self, now: Duration) -> View {
        let sample = self.bar.sample();
        self.rate.observe(now, sample.position);
        let elapsed = now.saturating_sub(self.since);
        let (rate, left) = match sample.life {
            Life::Finished | Life::Dismissed => {
                let counted = sample.position.saturating_sub(self.first) as f64;
                let rate = counted / elapsed.as_secs_f64();
                ((rate.is_finite() && rate > 0.0).then_some(rate), None)
            }
            Life::Running => {
                let rate = self.rate.per_second(now);
                let left = match (sample.total, rate) {
                    (Total::Known(total), Some(rate)) => eta(total.saturating_sub(sample.position), rate),
                    _ => None,
                };
                (rate, left)
            }
        };
        View {
            sample,
            parents: self.parents.clone(),
            elapsed,
            rate,
            eta: left,
        }
    }
}

#[cfg(test)]
mod tests;
