//! The display: the bars that are shown and their renderer. The caller passes the time.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::counting::bar::Bar;
use crate::counting::sample::{BarState, PARTS, Sample, SourceId};
use crate::output::Output;
use crate::render::{Renderer, ScreenAccess, View};
use crate::time::clock::Clock;
use crate::time::finish_time::FinishTime;
use crate::time::rate::{Rate, eta};

#[derive(Debug)]
pub(super) struct Display {
    bars: Vec<ShownBar>,
    renderer: Renderer,
    output: Output,
    /// The clock of the bars' finish times.
    clock: Arc<Clock>,
    /// The number of stops of the process before the last drawing.
    stop_count: u64,
    /// The number of calls of `suspend` without a `resume`.
    suspensions: usize,
}

/// Identifies a reporter among those that share a display.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReporterId(pub(super) u64);

#[derive(Debug)]
struct ShownBar {
    bar: Bar,
    reporter: ReporterId,
    /// The labels of the bars it is nested in, outermost first.
    parents: Vec<String>,
    start: Duration,
    finish_time: Arc<FinishTime>,
    /// The position at `start`.
    start_position: u64,
    rate: BarRate,
    sources: Vec<ShownSource>,
}

/// The rate of a bar.
#[derive(Debug)]
struct BarRate {
    /// The rate of whole tasks, or of bytes.
    tasks: Rate,
    /// The rate in [`PARTS`], including steps of running tasks.
    parts: Rate,
    basis: RateBasis,
}

/// The rate that is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RateBasis {
    Tasks,
    /// Used as soon as a running task has reported a step.
    Parts,
}

/// The line of one writer.
#[derive(Debug)]
struct ShownSource {
    id: SourceId,
    start: Duration,
    rate: Rate,
}

impl Display {
    pub(super) fn new(renderer: Renderer, output: Output, clock: Arc<Clock>) -> Self {
        Self {
            bars: Vec::new(),
            renderer,
            output,
            stop_count: clock.stop_count(),
            clock,
            suspensions: 0,
        }
    }

    /// Prepares for an operation at `now`. If the process was stopped, its shell may have written to the screen.
    fn begin(&mut self, now: Duration) {
        self.clock.advance_to(now);
        let stop_count = self.clock.stop_count();
        if self.stop_count != stop_count {
            self.stop_count = stop_count;
            self.renderer.invalidate();
        }
    }

    fn screen_access(&self) -> ScreenAccess {
        match self.suspensions {
            0 => ScreenAccess::Allowed,
            _ => ScreenAccess::Suspended,
        }
    }

    pub(super) fn interval(&self) -> Option<Duration> {
        self.renderer.interval()
    }

    /// Shows `bar` below all others, or as the last one within `parent`. Does nothing if the bar is shown already.
    pub(super) fn add(&mut self, now: Duration, bar: &Bar, parent: Option<&Bar>, reporter: ReporterId) {
        self.begin(now);
        if self.bars.iter().any(|shown| shown.bar.is_same(bar)) {
            return;
        }
        let parent_index =
            parent.and_then(|parent| self.bars.iter().position(|shown| shown.bar.is_same(parent)));
        let (index, parents) = match (parent_index, parent) {
            (Some(index), Some(parent)) => {
                let mut parents = self.bars[index].parents.clone();
                parents.push(parent.label());
                let later = &self.bars[index + 1..];
                let nested = later
                    .iter()
                    .take_while(|shown| shown.parents.starts_with(&parents));
                (index + 1 + nested.count(), parents)
            }
            _ => (self.bars.len(), Vec::new()),
        };
        let sample = bar.sample();
        let shown = ShownBar {
            bar: bar.clone(),
            reporter,
            parents,
            start: now,
            finish_time: bar.finish_time(&self.clock),
            start_position: sample.position,
            rate: BarRate::new(now, &sample),
            sources: Vec::new(),
        };
        self.bars.insert(index, shown);
    }

    /// Samples all bars and draws what is due at `now`, unless the display is suspended.
    pub(super) fn draw(&mut self, now: Duration) {
        self.begin(now);
        if self.screen_access() == ScreenAccess::Suspended {
            return;
        }
        let mut views = Vec::with_capacity(self.bars.len());
        self.bars.retain_mut(|shown| {
            let (view, sources) = shown.views(now);
            let state = view.sample.state;
            if state != BarState::Cleared {
                views.push(view);
                views.extend(sources);
            }
            state == BarState::Running
        });
        self.renderer.draw(now, &views, &self.output);
    }

    /// Finishes all bars of a reporter, with the end time `ended`, and draws their last lines.
    pub(super) fn finish(&mut self, now: Duration, ended: Instant, reporter: ReporterId) {
        self.begin(now);
        for shown in self.bars.iter().filter(|shown| shown.reporter == reporter) {
            shown.bar.finish_at(ended);
        }
        self.draw(now);
    }

    /// Removes all bars of a reporter. Bars that have finished since the last drawing still get their last lines.
    pub(super) fn abandon(&mut self, now: Duration, reporter: ReporterId) {
        self.begin(now);
        self.bars
            .retain(|shown| shown.reporter != reporter || shown.bar.is_finished());
        self.draw(now);
    }

    /// Ends all suspensions.
    pub(super) fn end_suspensions(&mut self) {
        self.suspensions = 0;
    }

    /// Writes whole lines above the bars.
    pub(super) fn print(&mut self, now: Duration, lines: &[u8]) -> io::Result<()> {
        self.begin(now);
        let screen = self.screen_access();
        self.renderer.print(now, lines, screen, &self.output)
    }

    /// Returns the current lines of running bars, for tests.
    pub(super) fn lines_in_memory(&self) -> &[String] {
        self.renderer.lines_in_memory()
    }

    /// Erases the bars, and draws none until [`resume`](Self::resume). Calls may be nested.
    pub(super) fn suspend(&mut self) {
        self.suspensions += 1;
        self.renderer.clear(&self.output);
    }

    pub(super) fn resume(&mut self, now: Duration) {
        self.begin(now);
        self.suspensions = self.suspensions.saturating_sub(1);
        if self.screen_access() == ScreenAccess::Allowed {
            self.renderer.restore(now, &self.output);
        }
    }
}

impl ShownBar {
    /// Returns views of the bar and of its writers with lines of their own.
    fn views(&mut self, now: Duration) -> (View, Vec<View>) {
        let mut sample = self.bar.sample();
        let sources = std::mem::take(&mut sample.sources);
        let sources = self.source_views(now, &sample.label, sources);
        self.rate.observe(now, &sample);
        // If the bar ends after it was sampled, the next drawing shows its end.
        let end = match sample.state {
            BarState::Running => now,
            BarState::Finished | BarState::Cleared => self.finish_time.get().unwrap_or(now),
        };
        let elapsed = end.saturating_sub(self.start);
        let (rate, eta) = match sample.state {
            BarState::Finished | BarState::Cleared => {
                let counted = sample.position.saturating_sub(self.start_position) as f64;
                let rate = counted / elapsed.as_secs_f64();
                ((rate.is_finite() && rate > 0.0).then_some(rate), None)
            }
            BarState::Running => (self.rate.per_second(now), self.rate.eta(now, &sample)),
        };
        let view = View {
            sample,
            parents: self.parents.clone(),
            elapsed,
            rate,
            eta,
        };
        (view, sources)
    }

    fn source_views(&mut self, now: Duration, label: &str, samples: Vec<(SourceId, Sample)>) -> Vec<View> {
        self.sources
            .retain(|shown| samples.iter().any(|(id, _)| *id == shown.id));
        let mut parents = self.parents.clone();
        parents.push(label.to_owned());
        let mut views = Vec::with_capacity(samples.len());
        for (id, sample) in samples {
            let index = self.sources.iter().position(|shown| shown.id == id);
            let index = index.unwrap_or_else(|| {
                self.sources.push(ShownSource {
                    id,
                    start: now,
                    rate: Rate::new(now, sample.position),
                });
                self.sources.len() - 1
            });
            let shown = &mut self.sources[index];
            shown.rate.observe(now, sample.position);
            views.push(View {
                sample,
                parents: parents.clone(),
                elapsed: now.saturating_sub(shown.start),
                rate: shown.rate.per_second(now),
                eta: None,
            });
        }
        views
    }
}

impl BarRate {
    fn new(now: Duration, sample: &Sample) -> Self {
        Self {
            tasks: Rate::new(now, sample.position),
            parts: Rate::for_parts(now, parts(sample)),
            basis: RateBasis::Tasks,
        }
    }

    fn observe(&mut self, now: Duration, sample: &Sample) {
        if !sample.parts.is_multiple_of(u128::from(PARTS)) {
            self.basis = RateBasis::Parts;
        }
        self.tasks.observe(now, sample.position);
        self.parts.observe(now, parts(sample));
    }

    fn per_second(&self, now: Duration) -> Option<f64> {
        match self.basis {
            RateBasis::Tasks => self.tasks.per_second(now),
            RateBasis::Parts => self.parts.per_second(now).map(|rate| rate / PARTS as f64),
        }
    }

    fn eta(&self, now: Duration, sample: &Sample) -> Option<Duration> {
        let total = sample.total.known()?;
        match self.basis {
            RateBasis::Tasks => eta(total.saturating_sub(sample.position), self.tasks.per_second(now)?),
            RateBasis::Parts => {
                let remaining = total.saturating_mul(PARTS).saturating_sub(parts(sample));
                eta(remaining, self.parts.per_second(now)?)
            }
        }
    }
}

/// Returns the parts of a sample. They saturate after 2^44 tasks.
fn parts(sample: &Sample) -> u64 {
    u64::try_from(sample.parts).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
