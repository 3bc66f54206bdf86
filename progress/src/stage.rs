//! What is on the screen: the bars that are shown, and what draws them. Time is injected.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bar::{Bar, Life, PARTS, Sample};
use crate::clock::Clock;
use crate::end::End;
use crate::output::Output;
use crate::rate::{Rate, eta};
use crate::render::{Belongs, Renderer, View};

#[derive(Debug)]
pub(crate) struct Stage {
    shown: Vec<Shown>,
    renderer: Renderer,
    output: Output,
    /// What bars take the time of their end from.
    clock: Arc<Clock>,
    /// How many stops of the process the renderer knows of.
    stops: u64,
    /// How many have asked for the screen and not given it back.
    suspended: usize,
}

/// One of the reporters that share a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member(pub(crate) u64);

#[derive(Debug)]
struct Shown {
    bar: Bar,
    of: Member,
    parents: Vec<String>,
    since: Duration,
    end: Arc<End>,
    first: u64,
    pace: Pace,
    rows: Vec<ShownRow>,
}

/// How fast a bar moves.
#[derive(Debug)]
struct Pace {
    whole: Rate,
    /// Counts in [`PARTS`], with what is done of running tasks.
    parts: Rate,
    /// Which of them tells more.
    grain: Grain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grain {
    Whole,
    /// From the first time on that a running task told how far it is.
    Parts,
}

/// A writer's line.
#[derive(Debug)]
struct ShownRow {
    source: u64,
    since: Duration,
    rate: Rate,
}

impl Stage {
    pub(crate) fn new(renderer: Renderer, output: Output, clock: Arc<Clock>) -> Self {
        Self {
            shown: Vec::new(),
            renderer,
            output,
            stops: clock.stops(),
            clock,
            suspended: 0,
        }
    }

    /// It is `now`. Where the process was stopped, its shell may have written to the screen.
    fn begin(&mut self, now: Duration) {
        self.clock.catch_up(now);
        let stops = self.clock.stops();
        if self.stops != stops {
            self.stops = stops;
            self.renderer.forget();
        }
    }

    fn screen(&self) -> Belongs {
        match self.suspended {
            0 => Belongs::Mine,
            _ => Belongs::Others,
        }
    }

    pub(crate) fn interval(&self) -> Option<Duration> {
        self.renderer.interval()
    }

    /// Shows `bar` below all others, or as the last of those within `parent`.
    pub(crate) fn add(&mut self, now: Duration, bar: &Bar, parent: Option<&Bar>, of: Member) {
        self.begin(now);
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
        let sample = bar.sample();
        let shown = Shown {
            bar: bar.clone(),
            of,
            parents,
            since: now,
            end: bar.show(&self.clock),
            first: sample.position,
            pace: Pace::new(now, &sample),
            rows: Vec::new(),
        };
        self.shown.insert(at, shown);
    }

    /// Samples all bars and draws what is to be drawn now.
    pub(crate) fn tick(&mut self, now: Duration) {
        self.begin(now);
        if self.screen() == Belongs::Others {
            return;
        }
        let mut views = Vec::with_capacity(self.shown.len());
        self.shown.retain_mut(|shown| {
            let (view, rows) = shown.views(now);
            let life = view.sample.life;
            if life != Life::Dismissed {
                views.push(view);
                views.extend(rows);
            }
            life == Life::Running
        });
        self.renderer.draw(now, &views, &self.output);
    }

    /// Ends all bars of a member, as of then, and draws them for the last time.
    pub(crate) fn finish(&mut self, now: Duration, ended: Instant, member: Member) {
        self.begin(now);
        for shown in self.shown.iter().filter(|shown| shown.of == member) {
            shown.bar.finish_at(ended);
        }
        self.tick(now);
    }

    /// Takes all bars of a member off the screen. Those that have ended since the last drawing were promised a last line.
    pub(crate) fn abandon(&mut self, now: Duration, member: Member) {
        self.begin(now);
        self.shown
            .retain(|shown| shown.of != member || shown.bar.has_finished());
        self.tick(now);
    }

    /// Takes the screen back from whoever still has it.
    pub(crate) fn reclaim(&mut self) {
        self.suspended = 0;
    }

    /// Writes whole lines above the bars.
    pub(crate) fn print(&mut self, now: Duration, lines: &[u8]) -> io::Result<()> {
        self.begin(now);
        let screen = self.screen();
        self.renderer.print(now, lines, screen, &self.output)
    }

    /// All bars that are on the screen, a line each; for tests only.
    pub(crate) fn rows(&self) -> &[String] {
        self.renderer.rows()
    }

    pub(crate) fn suspend(&mut self) {
        self.suspended += 1;
        self.renderer.clear(&self.output);
    }

    pub(crate) fn resume(&mut self, now: Duration) {
        self.begin(now);
        self.suspended = self.suspended.saturating_sub(1);
        if self.screen() == Belongs::Mine {
            self.renderer.restore(now, &self.output);
        }
    }
}

impl Shown {
    /// The bar and its writers' lines.
    fn views(&mut self, now: Duration) -> (View, Vec<View>) {
        let mut sample = self.bar.sample();
        let rows = std::mem::take(&mut sample.rows);
        let rows = self.row_views(now, &sample.label, rows);
        self.pace.observe(now, &sample);
        // A bar may end while this runs, after it was sampled: then it is drawn as ended the next time.
        let until = match sample.life {
            Life::Running => now,
            Life::Finished | Life::Dismissed => self.end.at().unwrap_or(now),
        };
        let elapsed = until.saturating_sub(self.since);
        let (rate, left) = match sample.life {
            Life::Finished | Life::Dismissed => {
                let counted = sample.position.saturating_sub(self.first) as f64;
                let rate = counted / elapsed.as_secs_f64();
                ((rate.is_finite() && rate > 0.0).then_some(rate), None)
            }
            Life::Running => (self.pace.per_second(now), self.pace.left(now, &sample)),
        };
        let view = View {
            sample,
            parents: self.parents.clone(),
            elapsed,
            rate,
            eta: left,
        };
        (view, rows)
    }

    fn row_views(&mut self, now: Duration, label: &str, rows: Vec<(u64, Sample)>) -> Vec<View> {
        self.rows
            .retain(|shown| rows.iter().any(|(source, _)| *source == shown.source));
        let mut parents = self.parents.clone();
        parents.push(label.to_owned());
        let mut views = Vec::with_capacity(rows.len());
        for (source, sample) in rows {
            let index = self.rows.iter().position(|shown| shown.source == source);
            let index = index.unwrap_or_else(|| {
                self.rows.push(ShownRow {
                    source,
                    since: now,
                    rate: Rate::new(now, sample.position),
                });
                self.rows.len() - 1
            });
            let shown = &mut self.rows[index];
            shown.rate.observe(now, sample.position);
            views.push(View {
                sample,
                parents: parents.clone(),
                elapsed: now.saturating_sub(shown.since),
                rate: shown.rate.per_second(now),
                eta: None,
            });
        }
        views
    }
}

impl Pace {
    fn new(now: Duration, sample: &Sample) -> Self {
        Self {
            whole: Rate::new(now, sample.position),
            parts: Rate::of_parts(now, in_parts(sample)),
            grain: Grain::Whole,
        }
    }

    fn observe(&mut self, now: Duration, sample: &Sample) {
        if !sample.parts.is_multiple_of(u128::from(PARTS)) {
            self.grain = Grain::Parts;
        }
        self.whole.observe(now, sample.position);
        self.parts.observe(now, in_parts(sample));
    }

    fn per_second(&self, now: Duration) -> Option<f64> {
        match self.grain {
            Grain::Whole => self.whole.per_second(now),
            Grain::Parts => self.parts.per_second(now).map(|rate| rate / PARTS as f64),
        }
    }

    fn left(&self, now: Duration, sample: &Sample) -> Option<Duration> {
        let total = sample.total.known()?;
        match self.grain {
            Grain::Whole => eta(total.saturating_sub(sample.position), self.whole.per_second(now)?),
            Grain::Parts => {
                let left = total.saturating_mul(PARTS).saturating_sub(in_parts(sample));
                eta(left, self.parts.per_second(now)?)
            }
        }
    }
}

/// Enough for 17 million million tasks.
fn in_parts(sample: &Sample) -> u64 {
    u64::try_from(sample.parts).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
