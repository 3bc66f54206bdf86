//! Bars on a terminal, redrawn in place.
//!
//! A drawing is one write of the sequence that [`Painter`] makes, and relies on nothing but what was written before. What
//! could not be written was not drawn, so a terminal that does not read for a while later gets the newest state.

use std::io;
use std::time::Duration;

use console::Term;

use super::painter::{Painter, Screen};
use super::rows::Look;
use super::{Belongs, View};
use crate::output::{Drawn, Output};
use crate::tty;

/// After a log line the bars are redrawn with it, but not more often than this; else at the next drawing.
const RESTORE_INTERVAL: Duration = Duration::from_millis(50);

/// Columns and rows of a terminal that reports none.
pub(crate) const USUAL_SIZE: (u16, u16) = (80, 24);

/// The bars on the screen.
#[derive(Debug)]
pub(crate) struct Terminal {
    device: Device,
    /// Columns and rows where the device reports none.
    size: (u16, u16),
    look: Look,
    /// The lines as they should be, and for how many columns they were made.
    lines: Vec<String>,
    columns: usize,
    /// The screen's contents.
    screen: Screen,
    painter: Painter,
    restored: Option<Duration>,
}

#[derive(Debug)]
enum Device {
    Stderr(Term),
    /// Anything that understands the sequences.
    Other,
}

impl Terminal {
    /// Draws on standard error. `size` is for a terminal that reports none.
    pub(crate) fn stderr(size: (u16, u16), look: Look) -> Self {
        Self::new(Device::Stderr(Term::stderr()), size, look)
    }

    /// On anything that understands the sequences and has this size.
    pub(crate) fn ansi(size: (u16, u16), look: Look) -> Self {
        Self::new(Device::Other, size, look)
    }

    fn new(device: Device, size: (u16, u16), look: Look) -> Self {
        Self {
            device,
            size,
            look,
            lines: Vec::new(),
            columns: 0,
            screen: Screen::Empty,
            painter: Painter::new(),
            restored: None,
        }
    }

    /// Columns and rows, one at least.
    fn size(&self) -> (usize, usize) {
        let reported = match &self.device {
            Device::Stderr(term) => term.size_checked().map(|(rows, columns)| (columns, rows)),
            Device::Other => None,
        };
        let (columns, rows) = reported.unwrap_or(self.size);
        (usize::from(columns.max(1)), usize::from(rows.max(1)))
    }

    /// Whether bars may be drawn now. In the background they may not: the screen then is the shell's, or another job's, and
    /// whatever is on it is not known afterwards.
    fn may_draw(&mut self) -> bool {
        let may = match self.device {
            Device::Stderr(_) => tty::stderr_in_foreground(),
            Device::Other => true,
        };
        if !may {
            self.forget();
        }
        may
    }

    /// Other programs have written to the screen: earlier drawings stay where they are.
    pub(super) fn forget(&mut self) {
        self.screen = Screen::Empty;
    }

    pub(super) fn draw(&mut self, views: &[View], output: &Output) {
        let (columns, rows) = self.size();
        let (ended, running) = self.look.compose(views, columns, rows);
        (self.lines, self.columns) = (running, columns);
        let bars = match self.may_draw() {
            true => self.wanted(),
            false => Screen::Empty,
        };
        if ended.is_empty() {
            self.show(bars, output);
        } else {
            let _ = self.write(ended.as_bytes(), bars, output);
        }
    }

    /// Writes whole lines above the bars, which come back with them if that was not just done.
    pub(super) fn print(
        &mut self,
        now: Duration,
        text: &[u8],
        screen: Belongs,
        output: &Output,
    ) -> io::Result<()> {
        let bars = match self.may_draw() && screen == Belongs::Mine && self.may_restore(now) {
            true => self.wanted(),
            false => Screen::Empty,
        };
        self.write(text, bars, output)
    }

    fn may_restore(&mut self, now: Duration) -> bool {
        let recent = self
            .restored
            .is_some_and(|last| now.saturating_sub(last) < RESTORE_INTERVAL);
        // What was made for another width waits for the next drawing.
        let may = !recent && self.size().0 == self.columns;
        if may {
            self.restored = Some(now);
        }
        may
    }

    /// Takes the bars off, writes `text`, and draws `bars`.
    fn write(&mut self, text: &[u8], bars: Screen, output: &Output) -> io::Result<()> {
        let mut bytes = self.painter.repaint(&self.screen, &Screen::Empty).into_bytes();
        bytes.extend_from_slice(text);
        bytes.extend_from_slice(self.painter.repaint(&Screen::Empty, &bars).as_bytes());
        output.write(&bytes)?;
        self.screen = bars;
        Ok(())
    }

    fn show(&mut self, wanted: Screen, output: &Output) {
        if wanted == self.screen {
            return;
        }
        let frame = self.painter.repaint(&self.screen, &wanted);
        if output.draw(frame.as_bytes()) == Drawn::Yes {
            self.screen = wanted;
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
            self.show(self.wanted(), output);
        }
    }

    /// Returns what the screen should show. A thread that panics shows nothing, and the next drawing brings the bars back.
    fn wanted(&self) -> Screen {
        if self.lines.is_empty() || !Painter::can_draw() {
            return Screen::Empty;
        }
        Screen::Bars {
            lines: self.lines.clone(),
            columns: self.columns,
        }
    }
}
