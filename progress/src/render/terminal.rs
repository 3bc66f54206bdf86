//! Bars on a terminal, redrawn in place.
//!
//! A drawing is one write of ECMA-48 sequences, and relies on nothing but what was drawn before. What could not be drawn
//! was not drawn, so a terminal that does not read for a while later gets the newest state.

use std::io;
use std::time::Duration;

use console::{Term, measure_text_width};

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
    restored: Option<Duration>,
}

#[derive(Debug)]
enum Device {
    Stderr(Term),
    /// Anything that understands the sequences.
    Other,
}

/// The bars on the screen. The cursor is behind the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Screen {
    Empty,
    Bars { lines: Vec<String>, columns: usize },
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
        let mut bytes = self.erase().into_bytes();
        bytes.extend_from_slice(text);
        bytes.extend_from_slice(bars.drawing().as_bytes());
        output.write(&bytes)?;
        self.screen = bars;
        Ok(())
    }

    fn show(&mut self, wanted: Screen, output: &Output) {
        if wanted == self.screen {
            return;
        }
        let frame = match (&self.screen, &wanted) {
            // As many lines as before, of the same width: each replaces one, and nothing flickers.
            (
                Screen::Bars { lines, columns },
                Screen::Bars {
                    lines: new,
                    columns: now,
                },
            ) if lines.len() == new.len() && columns == now => up(lines.len()) + &wanted.drawing(),
            _ => self.erase() + &wanted.drawing(),
        };
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

    fn wanted(&self) -> Screen {
        match self.lines.is_empty() {
            true => Screen::Empty,
            false => Screen::Bars {
                lines: self.lines.clone(),
                columns: self.columns,
            },
        }
    }

    /// Takes the bars off the screen, and goes to where the first began.
    ///
    /// After the terminal became narrower, some terminals break lines anew, so that bars take more lines than were drawn, and
    /// some cut each. Taking too few leaves a piece of an old bar; taking too many would erase log lines.
    fn erase(&self) -> String {
        match &self.screen {
            Screen::Empty => String::new(),
            Screen::Bars { lines, .. } => up(lines.len()) + "\u{1b}[J",
        }
    }
}

impl Screen {
    /// Returns the sequence that draws it where the cursor is, in the first column. The cursor stays behind the last line,
    /// which is filled with blanks, so that another program's output begins in a line of its own.
    fn drawing(&self) -> String {
        let Self::Bars { lines, columns } = self else {
            return String::new();
        };
        let mut drawing = String::new();
        for (index, line) in lines.iter().enumerate() {
            drawing += line;
            let blank = columns.saturating_sub(measure_text_width(line));
            if index + 1 == lines.len() {
                drawing.extend(std::iter::repeat_n(' ', blank));
            } else {
                // Behind a full line, the cursor is still on its last column, which this would erase.
                drawing += if blank > 0 { "\u{1b}[K\r\n" } else { "\r\n" };
            }
        }
        drawing
    }
}

/// Moves the cursor from the last of `lines` lines to the beginning of the first.
fn up(lines: usize) -> String {
    match lines.saturating_sub(1) {
        0 => "\r".into(),
        up => format!("\u{1b}[{up}A\r"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bars(lines: &[&str], columns: usize) -> Screen {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        Screen::Bars { lines, columns }
    }

    #[test]
    fn a_drawing_ends_in_the_last_column() {
        assert_eq!(bars(&["abc", "wx"], 3).drawing(), "abc\r\nwx ");
        assert_eq!(bars(&["ab", "推"], 3).drawing(), "ab\u{1b}[K\r\n推 ");
        assert_eq!(Screen::Empty.drawing(), "");
    }

    #[test]
    fn bars_are_left_upwards() {
        assert_eq!(up(1), "\r");
        assert_eq!(up(3), "\u{1b}[2A\r");
    }
}
