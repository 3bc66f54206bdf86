//! Renderers, behind one enum: views of bars in, text out.

mod json;
#[cfg(feature = "indicatif")]
mod layout;
mod lines;
#[cfg(feature = "indicatif")]
mod memory;
#[cfg(feature = "indicatif")]
mod painter;
mod schedule;
#[cfg(feature = "indicatif")]
mod terminal;
mod text;
mod view;

use std::io;
use std::time::Duration;

use crate::output::Output;

pub(crate) use json::Json;
#[cfg(feature = "indicatif")]
pub(crate) use layout::{Charset, Palette, Style};
pub(crate) use lines::Lines;
#[cfg(feature = "indicatif")]
pub(crate) use memory::Memory;
pub(crate) use schedule::Schedule;
#[cfg(feature = "indicatif")]
pub(crate) use terminal::{DEFAULT_SIZE, Terminal};
pub(crate) use view::{ScreenAccess, View};

/// Draws bars.
#[derive(Debug)]
pub(crate) enum Renderer {
    #[cfg(feature = "indicatif")]
    Terminal(Terminal),
    /// Bars for a test.
    #[cfg(feature = "indicatif")]
    Memory(Memory),
    Lines(Lines),
    Json(Json),
    Nothing,
}

impl Renderer {
    /// Whether it erases its drawings.
    pub(crate) fn is_terminal(&self) -> bool {
        match self {
            #[cfg(feature = "indicatif")]
            Self::Terminal(_) => true,
            _ => false,
        }
    }

    /// Returns the time between two calls of [`draw`](Self::draw), or `None` if there is never anything to draw.
    pub(crate) fn interval(&self) -> Option<Duration> {
        match self {
            #[cfg(feature = "indicatif")]
            Self::Terminal(_) | Self::Memory(_) => Some(Duration::from_millis(100)),
            Self::Lines(_) | Self::Json(_) => Some(Duration::from_millis(250)),
            Self::Nothing => None,
        }
    }

    /// Draws the bars. Bars that ended are drawn for the last time.
    pub(crate) fn draw(&mut self, now: Duration, views: &[View], output: &Output) {
        match self {
            #[cfg(feature = "indicatif")]
            Self::Terminal(terminal) => terminal.draw(views, output),
            #[cfg(feature = "indicatif")]
            Self::Memory(memory) => memory.draw(views, output),
            Self::Lines(lines) => lines.draw(now, views, output),
            Self::Json(json) => json.draw(now, views, output),
            Self::Nothing => {}
        }
    }

    /// Writes whole lines above the bars, and draws the bars again if `screen` allows it and they were not just
    /// restored.
    pub(crate) fn print(
        &mut self,
        now: Duration,
        lines: &[u8],
        screen: ScreenAccess,
        output: &Output,
    ) -> io::Result<()> {
        match self {
            #[cfg(feature = "indicatif")]
            Self::Terminal(terminal) => terminal.print(now, lines, screen, output),
            _ => {
                self.clear(output);
                let result = output.write(lines);
                if screen == ScreenAccess::Allowed {
                    self.restore(now, output);
                }
                result
            }
        }
    }

    /// Erases the bars, so that the program can write to the screen.
    pub(crate) fn clear(&mut self, output: &Output) {
        #[cfg(feature = "indicatif")]
        match self {
            Self::Terminal(terminal) => terminal.clear(output),
            Self::Memory(memory) => memory.clear(),
            Self::Lines(_) | Self::Json(_) | Self::Nothing => {}
        }
        #[cfg(not(feature = "indicatif"))]
        let _ = output;
    }

    /// Draws the bars again after [`clear`](Self::clear), unless they were just restored.
    pub(crate) fn restore(&mut self, now: Duration, output: &Output) {
        #[cfg(feature = "indicatif")]
        match self {
            Self::Terminal(terminal) => terminal.restore(now, output),
            Self::Memory(memory) => memory.restore(),
            Self::Lines(_) | Self::Json(_) | Self::Nothing => {}
        }
        #[cfg(not(feature = "indicatif"))]
        let _ = (now, output);
    }

    /// Abandons the drawn bars without erasing them, because other programs may have written to the screen.
    pub(crate) fn invalidate(&mut self) {
        #[cfg(feature = "indicatif")]
        if let Self::Terminal(terminal) = self {
            terminal.invalidate();
        }
    }

    /// Returns the lines of the bars in memory.
    pub(crate) fn lines_in_memory(&self) -> &[String] {
        match self {
            #[cfg(feature = "indicatif")]
            Self::Memory(memory) => memory.lines(),
            _ => &[],
        }
    }
}
