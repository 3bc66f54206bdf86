//! Bars on a terminal, redrawn in place.
//!
//! A drawing is one write of the sequence that [`Painter`] returns, and depends only on what was written before. A
//! drawing that could not be written did not happen, so a terminal that was blocked for some time gets the newest state
//! afterwards.

use std::io;
use std::time::Duration;

use console::Term;

use super::layout::Style;
use super::painter::{Painter, Screen};
use super::view::{ScreenAccess, View};
use crate::output::{FrameResult, Output};
use crate::tty;

/// The shortest time between two log lines with which the bars are redrawn. After other log lines, the next drawing
/// redraws them.
const RESTORE_INTERVAL: Duration = Duration::from_millis(50);

/// Columns and rows of a terminal that does not report its size.
pub(crate) const DEFAULT_SIZE: (u16, u16) = (80, 24);

/// Bars on a terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    device: Device,
    /// Columns and rows, if the device does not report them.
    size: (u16, u16),
    style: Style,
    /// The newest lines, and the number of columns for which they were laid out.
    lines: Vec<String>,
    columns: usize,
    /// The current contents of the screen.
    screen: Screen,
    painter: Painter,
    last_restore: Option<Duration>,
}

#[derive(Debug)]
enum Device {
    Stderr(Term),
    /// Any output that interprets the sequences.
    Other,
}

impl Terminal {
    /// Returns a terminal on standard error. `size` is its size if it does not report one.
    pub(crate) fn stderr(size: (u16, u16), style: Style) -> Self {
        Self::new(Device::Stderr(Term::stderr()), size, style)
    }

    /// Returns a terminal of this size on any output that interprets the sequences.
    pub(crate) fn ansi(size: (u16, u16), style: Style) -> Self {
        Self::new(Device::Other, size, style)
    }

    fn new(device: Device, size: (u16, u16), style: Style) -> Self {
        Self {
            device,
            size,
            style,
            lines: Vec::new(),
            columns: 0,
            screen: Screen::Empty,
            painter: Painter::new(),
            last_restore: None,
        }
    }

    /// Returns columns and rows, at least one of each.
    fn size(&self) -> (usize, usize) {
        let reported = match &self.device {
            Device::Stderr(term) => term.size_checked().map(|(rows, columns)| (columns, rows)),
            Device::Other => None,
        };
        let (columns, rows) = reported.unwrap_or(self.size);
        (usize::from(columns.max(1)), usize::from(rows.max(1)))
    }

    /// Whether bars may be drawn now. In the background they may not: another job or the shell then uses the screen,
    /// and its contents are not known afterwards.
    fn may_draw(&mut self) -> bool {
        let may = match self.device {
            Device::Stderr(_) => tty::stderr_in_foreground(),
            Device::Other => true,
        };
        if !may {
            self.invalidate();
        }
        may
    }

    /// Abandons earlier drawings, which stay where they are, because other programs have written to the screen.
    pub(super) fn invalidate(&mut self) {
        self.screen = Screen::Empty;
    }

    pub(super) fn draw(&mut self, views: &[View], output: &Output) {
        let (columns, rows) = self.size();
        let layout = self.style.layout(views, columns, rows);
        (self.lines, self.columns) = (layout.running, columns);
        let bars = match self.may_draw() {
            true => self.newest_screen(),
            false => Screen::Empty,
        };
        if layout.ended.is_empty() {
            self.show(bars, output);
        } else {
            let _ = self.write(layout.ended.as_bytes(), bars, output);
        }
    }

    /// Writes whole lines above the bars, and redraws the bars with them unless they were just restored.
    pub(super) fn print(
        &mut self,
        now: Duration,
        text: &[u8],
        screen: ScreenAccess,
        output: &Output,
    ) -> io::Result<()> {
        let bars = match self.may_draw() && screen == ScreenAccess::Allowed && self.may_restore(now) {
            true => self.newest_screen(),
            false => Screen::Empty,
        };
        self.write(text, bars, output)
    }

    fn may_restore(&mut self, now: Duration) -> bool {
        let recent = self
            .last_restore
            .is_some_and(|last| now.saturating_sub(last) < RESTORE_INTERVAL);
        // After a change of the width, the next drawing lays out new lines.
        let may = !recent && self.size().0 == self.columns;
        if may {
            self.last_restore = Some(now);
        }
        may
    }

    /// Erases the bars, writes `text`, and draws `bars`.
    fn write(&mut self, text: &[u8], bars: Screen, output: &Output) -> io::Result<()> {
        let mut bytes = self.painter.repaint(&self.screen, &Screen::Empty).into_bytes();
        bytes.extend_from_slice(text);
        bytes.extend_from_slice(self.painter.repaint(&Screen::Empty, &bars).as_bytes());
        output.write(&bytes)?;
        self.screen = bars;
        Ok(())
    }

    fn show(&mut self, screen: Screen, output: &Output) {
        if screen == self.screen {
            return;
        }
        let frame = self.painter.repaint(&self.screen, &screen);
        if output.write_frame(frame.as_bytes()) == FrameResult::Written {
            self.screen = screen;
        }
    }

    pub(super) fn clear(&mut self, output: &Output) {
        let _ = self.may_draw();
        if self.screen != Screen::Empty {
            let _ = self.write(b"", Screen::Empty, output);
        }
    }

    pub(super) fn restore(&mut self, now: Duration, output: &Output) {
        if self.screen == Screen::Empty && self.may_draw() && self.may_restore(now) {
            self.show(self.newest_screen(), output);
        }
    }

    /// Returns the contents that the screen should have. In a panicking thread it is empty, and the next drawing
    /// restores the bars.
    fn newest_screen(&self) -> Screen {
        if self.lines.is_empty() || !Painter::can_draw() {
            return Screen::Empty;
        }
        Screen::Bars {
            lines: self.lines.clone(),
            columns: self.columns,
        }
    }
}
