//! Bars on a terminal, drawn by indicatif.
//!
//! All bars are the lines of one indicatif bar, so that drawing a hundred bars is one write and not a hundred.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use console::{Term, measure_text_width, truncate_str};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle, TermLike};

use super::View;
use super::text::{LEAST_MISSED, Part, clean, parts};
use crate::bar::Total;
use crate::output::Output;

/// After a log line the bars come back at once, but not more often than this; else at the next drawing.
const RESTORE_INTERVAL: Duration = Duration::from_millis(50);

const BAR_WIDTHS: std::ops::RangeInclusive<usize> = 10..=40;

/// The characters of a bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Glyphs {
    Ascii,
    Unicode,
}

/// Whether text has colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Palette {
    Plain,
    Ansi,
}

/// The bars on the screen.
#[derive(Debug)]
pub(crate) struct Terminal {
    screen: MultiProgress,
    bar: ProgressBar,
    size: Size,
    glyphs: Glyphs,
    palette: Palette,
    /// What `bar` shows.
    text: Arc<Mutex<String>>,
    visibility: Visibility,
    restored: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Visibility {
    Shown,
    Cleared,
}

#[derive(Debug)]
enum Size {
    Of(Term),
    Fixed(u16),
}

impl Terminal {
    /// On standard error, which is a terminal.
    pub(crate) fn stderr(glyphs: Glyphs, palette: Palette) -> Self {
        let target = ProgressDrawTarget::term(Term::buffered_stderr(), 20);
        Self::new(target, Size::Of(Term::stderr()), glyphs, palette)
    }

    /// On anything that understands ANSI escape sequences and is `width` columns wide.
    pub(crate) fn ansi(output: Output, width: u16, glyphs: Glyphs, palette: Palette) -> Self {
        let width = width.max(1);
        let term = AnsiTerm {
            output,
            width,
            pending: Mutex::default(),
        };
        let target = ProgressDrawTarget::term_like(Box::new(term));
        Self::new(target, Size::Fixed(width), glyphs, palette)
    }

    fn new(target: ProgressDrawTarget, size: Size, glyphs: Glyphs, palette: Palette) -> Self {
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
            glyphs,
            palette,
            text,
            visibility: Visibility::Cleared,
            restored: None,
        }
    }

    pub(super) fn draw(&mut self, views: &[View], output: &Output) {
        let width = match &self.size {
            Size::Of(term) => term.size().1,
            Size::Fixed(width) => *width,
        };
        let lines = self.compose(views, usize::from(width));
        let mut ended = String::new();
        let mut running = Vec::new();
        for (view, line) in views.iter().zip(lines) {
            if view.is_running() {
                running.push(line);
            } else {
                ended += &line;
                ended += "\n";
            }
        }
        if !ended.is_empty() {
            self.clear();
            output.write_ignoring_errors(ended.as_bytes());
        }
        let running = running.join("\n");
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        if *text == running && self.visibility == Visibility::Shown {
            return;
        }
        *text = running;
        drop(text);
        self.show();
    }

    pub(super) fn clear(&mut self) {
        if self.visibility == Visibility::Shown {
            let _ = self.screen.clear();
            self.visibility = Visibility::Cleared;
        }
    }

    pub(super) fn restore(&mut self, now: Duration) {
        let recent = self
            .restored
            .is_some_and(|last| now.saturating_sub(last) < RESTORE_INTERVAL);
        if self.visibility == Visibility::Cleared && !recent {
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

    /// A line of at most `width` columns for each bar; bars begin and end in the same columns.
    fn compose(&self, views: &[View], width: usize) -> Vec<String> {
        let labels: Vec<String> = views
            .iter()
            .map(|view| "  ".repeat(view.parents.len()) + &clean(&view.sample.label))
            .collect();
        let widest = labels.iter().map(|label| measure_text_width(label)).max();
        let label_width = widest.unwrap_or(0).min(width / 3);
        let rows: Vec<Row> = views
            .iter()
            .map(|view| Row::fit(view, label_width, width))
            .collect();
        let bar_width = rows.iter().filter_map(|row| row.bar).min();
        let line = |(label, (view, row)): (&String, (&View, &Row))| {
            let label = truncate_str(label, label_width, self.glyphs.ellipsis());
            let blanks = label_width.saturating_sub(measure_text_width(&label));
            let mut line = label.into_owned() + &" ".repeat(blanks) + "  ";
            if let (Some(_), Some(columns)) = (row.bar, bar_width) {
                line += &self.palette.paint("32", self.glyphs.bar(view, columns));
                line += "  ";
            }
            let texts: Vec<String> = row
                .parts
                .iter()
                .map(|(part, text)| match part {
                    Part::Failed => self.palette.paint("31", text.clone()),
                    _ => text.clone(),
                })
                .collect();
            line += &texts.join(", ");
            truncate_str(&line, width, "").into_owned()
        };
        labels.iter().zip(views.iter().zip(&rows)).map(line).collect()
    }
}

/// What fits of one bar.
struct Row {
    parts: Vec<(Part, String)>,
    /// Columns for the bar itself.
    bar: Option<usize>,
}

impl Row {
    fn fit(view: &View, label_width: usize, width: usize) -> Self {
        let mut parts = parts(view);
        let has_bar = matches!(view.sample.total, Total::Known(_));
        let room = |parts: &[(Part, String)]| {
            let texts: usize = parts.iter().map(|(_, text)| measure_text_width(text) + 2).sum();
            // label, two blanks, texts with ", " between
            (width + 2).checked_sub(label_width + 2 + texts)
        };
        let bar = |parts: &[(Part, String)]| {
            // In steps of five, so that it does not jump whenever a number gets one more digit.
            let columns = room(parts)?.checked_sub(2)? / 5 * 5;
            let columns = columns.min(*BAR_WIDTHS.end());
            (has_bar && BAR_WIDTHS.contains(&columns)).then_some(columns)
        };
        let without = |parts: &[(Part, String)], left_out: &[Part]| -> Vec<(Part, String)> {
            let mut parts = parts.to_vec();
            parts.retain(|(part, _)| !left_out.contains(part));
            parts
        };
        // The bar is worth more than the notes, and less than failures, time and rate.
        for n in 0..=3 {
            let fewer = without(&parts, &LEAST_MISSED[..n]);
            if let Some(columns) = bar(&fewer) {
                return Self {
                    parts: fewer,
                    bar: Some(columns),
                };
            }
        }
        for n in 0..=LEAST_MISSED.len() {
            let fewer = without(&parts, &LEAST_MISSED[..n]);
            if room(&fewer).is_some() || n == LEAST_MISSED.len() {
                parts = fewer;
                break;
            }
        }
        Self { parts, bar: None }
    }
}

impl Glyphs {
    fn bar(self, view: &View, columns: usize) -> String {
        let share = match view.sample.total {
            Total::Known(0) | Total::Unknown => 1.0,
            Total::Known(total) => (view.sample.position as f64 / total as f64).min(1.0),
        };
        let eighths = (share * (columns * 8) as f64) as usize;
        let (full, part) = (eighths / 8, eighths % 8);
        let mut bar: String = match self {
            Self::Ascii => "#".repeat(full),
            Self::Unicode => "█".repeat(full),
        };
        if self == Self::Unicode && part > 0 {
            bar.push(['▏', '▎', '▍', '▌', '▋', '▊', '▉'][part - 1]);
        }
        let blank = match self {
            Self::Ascii => "-",
            Self::Unicode => "░",
        };
        let rest = columns - measure_text_width(&bar);
        bar + &blank.repeat(rest)
    }

    fn ellipsis(self) -> &'static str {
        match self {
            Self::Ascii => "~",
            Self::Unicode => "…",
        }
    }
}

impl Palette {
    fn paint(self, code: &str, text: String) -> String {
        match self {
            Self::Plain => text,
            Self::Ansi => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        }
    }
}

/// A terminal behind a plain writer: ECMA-48 sequences, one write for each drawing.
#[derive(Debug)]
struct AnsiTerm {
    output: Output,
    width: u16,
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
        self.width
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
