//! The renderers behind one small enum: bars at one moment in, text out.

#[cfg(feature = "indicatif")]
mod frame;
mod json;
mod lines;
#[cfg(feature = "indicatif")]
mod painter;
#[cfg(feature = "indicatif")]
mod rows;
#[cfg(feature = "indicatif")]
mod terminal;
mod text;

use std::io;
use std::time::Duration;

use crate::bar::{Life, PARTS, Role, Sample, Total};
use crate::output::Output;

#[cfg(feature = "indicatif")]
pub(crate) use frame::Frame;
pub(crate) use json::Json;
pub(crate) use lines::Lines;
#[cfg(feature = "indicatif")]
pub(crate) use rows::{Glyphs, Look, Palette};
#[cfg(feature = "indicatif")]
pub(crate) use terminal::{Terminal, USUAL_SIZE};

/// A bar at one moment, with what time tells about it.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) sample: Sample,
    /// The labels of the bars it is nested in, outermost first.
    pub(crate) parents: Vec<String>,
    pub(crate) elapsed: Duration,
    /// Steps per second: smoothed while it runs, over all its time once it ended.
    pub(crate) rate: Option<f64>,
    pub(crate) eta: Option<Duration>,
}

impl View {
    pub(crate) fn is_running(&self) -> bool {
        self.sample.life == Life::Running
    }

    /// From 0 to 1: of a bar how much of it is done, of a writer how much of its running task. `None` where the total
    /// is unknown.
    pub(crate) fn share(&self) -> Option<f64> {
        match (self.sample.role, self.sample.total) {
            (Role::Writer(steps), _) => steps.share(),
            (Role::Bar, Total::Unknown) => None,
            (Role::Bar, Total::Known(0)) => Some(1.0),
            (Role::Bar, Total::Known(total)) => {
                Some((self.sample.parts as f64 / PARTS as f64 / total as f64).min(1.0))
            }
        }
    }
}

/// Whose the screen is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Belongs {
    Mine,
    /// The program has asked for it, and not given it back.
    Others,
}

/// What draws.
#[derive(Debug)]
pub(crate) enum Renderer {
    #[cfg(feature = "indicatif")]
    Terminal(Terminal),
    /// Bars that only a test sees.
    #[cfg(feature = "indicatif")]
    Frame(Frame),
    Lines(Lines),
    Json(Json),
    Nothing,
}

impl Renderer {
    /// Whether it erases what it drew.
    pub(crate) fn is_terminal(&self) -> bool {
        match self {
            #[cfg(feature = "indicatif")]
            Self::Terminal(_) => true,
            _ => false,
        }
    }

    /// How long to sleep between two calls of [`draw`](Self::draw); `None` if there is nothing to draw ever.
    pub(crate) fn interval(&self) -> Option<Duration> {
        match self {
            #[cfg(feature = "indicatif")]
            Self::Terminal(_) | Self::Frame(_) => Some(Duration::from_millis(100)),
            Self::Lines(_) | Self::Json(_) => Some(Duration::from_millis(250)),
            Self::Nothing => None,
        }
    }

    /// Draws the bars: those that ended for the last time.
    pub(crate) fn draw(&mut self, now: Duration, views: &[View], output: &Output) {
        match self {
            #[cfg(feature = "indicatif")]
            Self::Terminal(terminal) => terminal.draw(views, output),
            #[cfg(feature = "indicatif")]
            Self::Frame(frame) => frame.draw(views, output),
            Self::Lines(lines) => lines.draw(now, views, output),
            Self::Json(json) => json.draw(now, views, output),
            Self::Nothing => {}
        }
    }

    /// Writes whole lines above what is drawn. If `screen` is [`Mine`](Belongs::Mine), the bars come back with them, unless
    /// that has just happened.
    pub(crate) fn print(
        &mut self,
        now: Duration,
        lines: &[u8],
        screen: Belongs,
        output: &Output,
    ) -> io::Result<()> {
        match self {
            #[cfg(feature = "indicatif")]
            Self::Terminal(terminal) => terminal.print(now, lines, screen, output),
            _ => {
                self.clear(output);
                let result = output.write(lines);
                if screen == Belongs::Mine {
                    self.restore(now, output);
                }
                result
            }
        }
    }

    /// Takes off the screen what does not stay, so that others can write to it.
    pub(crate) fn clear(&mut self, output: &Output) {
        #[cfg(feature = "indicatif")]
        match self {
            Self::Terminal(terminal) => terminal.clear(output),
            Self::Frame(frame) => frame.clear(),
            Self::Lines(_) | Self::Json(_) | Self::Nothing => {}
        }
        #[cfg(not(feature = "indicatif"))]
        let _ = output;
    }

    /// Others wrote to the screen: brings back what was cleared, unless that was just done.
    pub(crate) fn restore(&mut self, now: Duration, output: &Output) {
        #[cfg(feature = "indicatif")]
        match self {
            Self::Terminal(terminal) => terminal.restore(now, output),
            Self::Frame(frame) => frame.restore(),
            Self::Lines(_) | Self::Json(_) | Self::Nothing => {}
        }
        #[cfg(not(feature = "indicatif"))]
        let _ = (now, output);
    }

    /// Other programs may have written to the screen: nothing that was drawn may be erased.
    pub(crate) fn forget(&mut self) {
        #[cfg(feature = "indicatif")]
        if let Self::Terminal(terminal) = self {
            terminal.forget();
        }
    }

    /// The bars as they are on the screen, a line each, for those who test them.
    pub(crate) fn rows(&self) -> &[String] {
        match self {
            #[cfg(feature = "indicatif")]
            Self::Frame(frame) => frame.rows(),
            _ => &[],
        }
    }
}

/// When periodic lines are due: once early, so that one sees it works, then seldom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    next: Duration,
    every: Duration,
}

impl Schedule {
    /// The first after a second, or after `every` if that is shorter.
    pub(crate) fn new(every: Duration) -> Self {
        Self {
            next: every.min(Duration::from_secs(1)),
            every,
        }
    }

    fn is_due(&mut self, now: Duration) -> bool {
        let due = now >= self.next;
        if due {
            // On the grid, and never twice for what was slept through.
            let next = self.next.saturating_add(self.every);
            self.next = next.max(now.saturating_add(self.every / 2));
        }
        due
    }
}
