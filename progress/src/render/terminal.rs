//! Bars on a terminal, drawn by indicatif.
//!
//! All bars are the lines of one indicatif bar, so that drawing a hundred bars is one write and not a hundred.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle, TermLike};

use super::View;
use super::rows::Look;
use crate::output::Output;

/// After a log line the bars come back at once, but not more often than this; else at the next drawing.
const RESTORE_INTERVAL: Duration = Duration::from_millis(50);

/// The bars on the screen.
#[derive(Debug)]
pub(crate) struct Terminal {
    screen: MultiProgress,
    bar: ProgressBar,
    size: Size,
    look: Look,
    /// What `bar` shows.
    text: Arc<Mutex<String>>,
    visibility: Visibility,
    restored: Option<Duration>,
    /// Columns and lines of the last drawing.
    drawn: (usize, usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Visibility {
    Shown,
    Cleared,
}

#[derive(Debug)]
enum Size {
    Of(Term),
    Fixed { columns: u16, rows: u16 },
}

impl Size {
    /// Columns and rows, one at least.
    fn now(&self) -> (usize, usize) {
        let (rows, columns) = match self {
            Self::Of(term) => term.size(),
            Self::Fixed { columns, rows } => (*rows, *columns),
        };
        (usize::from(columns.max(1)), usize::from(rows.max(1)))
    }
}

impl Terminal {
    /// On standard error, which is a terminal.
    pub(crate) fn stderr(look: Look) -> Self {
        Self::new(stderr_target(), Size::Of(Term::stderr()), look)
    }

    /// On anything that understands ANSI escape sequences and has this size.
    pub(crate) fn ansi(output: Output, columns: u16, rows: u16, look: Look) -> Self {
        let (columns, rows) = (columns.max(1), rows.max(1));
        let term = AnsiTerm {
            output,
            columns,
            rows,
            pending: Mutex::default(),
        };
        let target = ProgressDrawTarget::term_like(Box::new(term));
        Self::new(target, Size::Fixed { columns, rows }, look)
    }

    fn new(target: ProgressDrawTarget, size: Size, look: Look) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let shown = Arc::clone(&text);
        let style = ProgressStyle::with_template("{bars}")
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .with_key("bars", move |_: &ProgressState, out: &mut dyn fmt::Write| {
                let _ = out.write_str(&shown.lock().unwrap_or_else(PoisonError::into_inner));
            });
        let screen = MultiProgress::with_draw_target(target);
        let bar = screen.add(ProgressBar::new(0));
        bar.set_style(style);
        Self {
            screen,
            bar,
            size,
            look,
            text,
            visibility: Visibility::Cleared,
            restored: None,
            drawn: (0, 0),
        }
    }

    pub(super) fn draw(&mut self, views: &[View], output: &Output) {
        let (columns, rows) = self.size.now();
        let (ended, running) = self.look.compose(views, columns, rows);
        if !ended.is_empty() {
            self.clear();
            output.write_ignoring_errors(ended.as_bytes());
        }
        let resized = self.visibility == Visibility::Shown && self.drawn.0 != columns;
        if resized {
            self.clear();
        }
        let drawn = (columns, running.len());
        let running = running.join("\n");
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        if *text == running && self.visibility == Visibility::Shown {
            return;
        }
        *text = running;
        drop(text);
        self.drawn = drawn;
        self.show();
    }

    pub(super) fn clear(&mut self) {
        if self.visibility == Visibility::Cleared {
            return;
        }
        self.visibility = Visibility::Cleared;
        let (columns, lines) = self.drawn;
        match (&self.size, self.size.now().0) {
            (Size::Of(term), now) if now != columns => {
                let _ = term.write_str(&erase(lines_after_resize(lines, columns, now)));
                // What indicatif knows of the screen is no longer true, and it must not move the cursor by it.
                self.screen.set_draw_target(stderr_target());
            }
            _ => {
                let _ = self.screen.clear();
            }
        }
    }

    pub(super) fn restore(&mut self, now: Duration) {
        let recent = self
            .restored
            .is_some_and(|last| now.saturating_sub(last) < RESTORE_INTERVAL);
        // What was made for another width waits for the next drawing.
        if self.visibility == Visibility::Cleared && !recent && self.size.now().0 == self.drawn.0 {
            self.restored = Some(now);
            self.show();
        }
    }

    fn show(&mut self) {
        let empty = self
            .text
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty();
        if empty {
            self.clear();
        } else {
            self.bar.force_draw();
            self.visibility = Visibility::Shown;
        }
    }
}

fn stderr_target() -> ProgressDrawTarget {
    ProgressDrawTarget::term(Term::buffered_stderr(), 20)
}

/// How many of the last lines on the screen are surely bars, after `lines` were drawn in full width and the terminal
/// changed from `before` to `now` columns.
///
/// Some terminals break lines anew then, so that bars take more or fewer lines, and some cut or extend each. Nobody
/// can know which. Taking too few leaves a piece of an old bar; taking too many would erase log lines.
fn lines_after_resize(lines: usize, before: usize, now: usize) -> usize {
    lines.min((lines * before).div_ceil(now))
}

/// Erases the line that the cursor is in and those above, `lines` in all, and goes to where the first began.
fn erase(lines: usize) -> String {
    match lines.saturating_sub(1) {
        0 => "\r\u{1b}[J".into(),
        up => format!("\u{1b}[{up}A\r\u{1b}[J"),
    }
}

/// A terminal behind a plain writer: ECMA-48 sequences, one write for each drawing.
#[derive(Debug)]
struct AnsiTerm {
    output: Output,
    columns: u16,
    rows: u16,
    pending: Mutex<String>,
}

impl AnsiTerm {
    fn push(&self, text: &str) -> io::Result<()> {
        self.pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_str(text);
        Ok(())
    }

    fn move_cursor(&self, n: usize, direction: char) -> io::Result<()> {
        match n {
            0 => Ok(()), // the sequence takes 0 for 1
            _ => self.push(&format!("\u{1b}[{n}{direction}")),
        }
    }
}

impl TermLike for AnsiTerm {
    fn width(&self) -> u16 {
        self.columns
    }

    fn height(&self) -> u16 {
        self.rows
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'D')
    }

    fn write_line(&self, s: &str) -> io::Result<()> {
        self.push(s)?;
        self.push("\n")
    }

    fn write_str(&self, s: &str) -> io::Result<()> {
        self.push(s)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.push("\r\u{1b}[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let text = std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        match text.is_empty() {
            true => Ok(()),
            false => self.output.write(text.as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resize_never_costs_log_lines() {
        // Three bars in 80 columns: 240 characters that may be broken anew, or three lines that may be cut.
        let cases = [(120, 2), (240, 1), (1000, 1), (81, 3), (79, 3), (40, 3), (1, 3)];
        for (now, lines) in cases {
            assert_eq!(lines_after_resize(3, 80, now), lines, "{now} columns");
        }
        assert_eq!(erase(1), "\r\u{1b}[J");
        assert_eq!(erase(3), "\u{1b}[2A\r\u{1b}[J");
    }
}
