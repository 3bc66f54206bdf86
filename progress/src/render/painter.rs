//! indicatif draws the bars into memory, and the caller writes all of a drawing at the same time.
//!
//! All bars are the lines of one indicatif bar, so that drawing a hundred bars is one write and not a hundred. indicatif
//! splits them, draws them over those that it drew before, and erases them. This module does three things that indicatif
//! cannot do:
//!
//! - **Erasing what indicatif does not know of.** indicatif takes every drawing for one that arrived, and draws and erases
//!   nothing in a thread that panics. Where the screen is another one, [`leave`] leaves it, and indicatif starts over with a
//!   new target.
//! - **Ends of lines.** indicatif fills lines with blanks, and relies on terminals to wrap after the last column. Terminals that
//!   become wider join such lines again: the same number of lines then includes log lines, which would be erased. Where a terminal
//!   and indicatif differ on the width of an emoji, all lines shift. So [`Canvas`] ends each line but the last by a line break,
//!   and indicatif counts each line as one.
//! - **The write.** indicatif's own terminals wait for the device.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use console::measure_text_width;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle, TermLike};

/// The bars on a screen. The cursor is behind the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Screen {
    Empty,
    Bars { lines: Vec<String>, columns: usize },
}

impl Screen {
    fn shape(&self) -> Shape {
        match self {
            Self::Empty => Shape::default(),
            Self::Bars { lines, columns } => Shape {
                lines: lines.len(),
                columns: *columns,
            },
        }
    }
}

/// How many lines of which width.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Shape {
    lines: usize,
    columns: usize,
}

#[derive(Debug)]
pub(super) struct Painter {
    screen: MultiProgress,
    bar: ProgressBar,
    /// What `bar` shows.
    text: Arc<Mutex<String>>,
    canvas: Canvas,
    /// What indicatif takes to be on the screen.
    known: Shape,
}

impl Painter {
    pub(super) fn new() -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let shown = Arc::clone(&text);
        let style = ProgressStyle::with_template("{bars}")
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .with_key("bars", move |_: &ProgressState, out: &mut dyn fmt::Write| {
                let _ = out.write_str(&lock(&shown));
            });
        let canvas = Canvas::default();
        let screen = MultiProgress::with_draw_target(canvas.target());
        let bar = screen.add(ProgressBar::new(0));
        bar.set_style(style);
        Self {
            screen,
            bar,
            text,
            canvas,
            known: Shape::default(),
        }
    }

    /// Whether it can draw in this thread. It can erase in any.
    pub(super) fn can_draw() -> bool {
        !std::thread::panicking()
    }

    /// Returns the sequence that replaces `before` by `after`. The cursor ends behind the last line. Blanks fill that line, so
    /// that another program's output begins in a line of its own.
    pub(super) fn repaint(&mut self, before: &Screen, after: &Screen) -> String {
        let (before, shape) = (before.shape(), after.shape());
        let mut sequence = String::new();
        if self.known != before || !Self::can_draw() {
            sequence += &leave(before, shape);
            self.screen.set_draw_target(self.canvas.target());
        } else if before == shape {
            // Drawing over them does not flicker.
            self.screen.set_move_cursor(true);
        } else {
            let _ = self.screen.clear();
            self.screen.set_move_cursor(false);
        }
        if let Screen::Bars { lines, columns } = after {
            *lock(&self.text) = lines.join("\n");
            self.canvas.begin(lines, *columns);
            self.bar.force_draw();
        }
        self.known = shape;
        sequence + &self.canvas.take()
    }
}

/// Moves the cursor from the last of the lines to the beginning of the first. If what comes next has another shape, erases
/// them.
///
/// After the terminal became narrower, some terminals break lines anew, so that bars take more lines than were drawn, and
/// some cut each. Taking too few leaves a piece of an old bar; taking too many would erase log lines.
fn leave(before: Shape, after: Shape) -> String {
    let mut sequence = match before.lines {
        0 => return String::new(),
        1 => "\r".to_owned(),
        lines => format!("\u{1b}[{}A\r", lines - 1),
    };
    if before != after {
        sequence += "\u{1b}[J";
    }
    sequence
}

/// indicatif's terminal: ECMA-48 sequences in memory.
#[derive(Debug, Clone, Default)]
struct Canvas(Arc<Mutex<Contents>>);

#[derive(Debug, Default)]
struct Contents {
    text: String,
    /// Columns of the terminal, and of the one that indicatif sees.
    columns: usize,
    width: u16,
    /// What indicatif writes next: blanks that fill the line follow each line.
    next: Next,
    /// Where the last line begins.
    line: usize,
    /// How many blanks fill the last line.
    blanks: Option<usize>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Next {
    #[default]
    Line,
    Blanks,
}

impl Canvas {
    fn target(&self) -> ProgressDrawTarget {
        ProgressDrawTarget::term_like(Box::new(self.clone()))
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        lock(&self.0)
    }

    /// The drawing of `lines` follows. None of them is wider than `columns`.
    fn begin(&self, lines: &[String], columns: usize) {
        let mut contents = self.contents();
        contents.columns = columns;
        // No text has more columns than bytes, whichever way they are counted.
        let longest = lines.iter().map(String::len).max();
        contents.width = u16::try_from(longest.unwrap_or(0)).unwrap_or(u16::MAX);
        contents.next = Next::Line;
    }

    fn take(&self) -> String {
        std::mem::take(&mut self.contents().text)
    }

    fn move_cursor(&self, n: usize, direction: char) -> io::Result<()> {
        // The sequence takes 0 for 1.
        if n > 0 {
            self.contents().text += &format!("\u{1b}[{n}{direction}");
        }
        Ok(())
    }
}

impl Contents {
    fn write(&mut self, text: &str) {
        match self.next {
            Next::Line if text == "\r" => self.text += text,
            Next::Line => {
                if let Some(blanks) = self.blanks.take() {
                    // Behind a full line, the cursor is still on its last column, which this would erase.
                    self.text += if blanks > 0 { "\u{1b}[K\r\n" } else { "\r\n" };
                }
                self.line = self.text.len();
                self.text += text;
                self.next = Next::Blanks;
            }
            Next::Blanks => {
                let line = self.text.get(self.line..).unwrap_or_default();
                self.blanks = Some(self.columns.saturating_sub(measure_text_width(line)));
                self.next = Next::Line;
            }
        }
    }
}

impl TermLike for Canvas {
    fn width(&self) -> u16 {
        self.contents().width.max(1)
    }

    /// Bars are made for the height that there is.
    fn height(&self) -> u16 {
        u16::MAX
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

    fn write_line(&self, text: &str) -> io::Result<()> {
        let mut contents = self.contents();
        contents.text += text;
        contents.text += "\r\n";
        Ok(())
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.contents().write(text);
        Ok(())
    }

    /// Nothing is below bars but pieces of them, where the terminal became narrower.
    fn clear_line(&self) -> io::Result<()> {
        self.contents().text += "\r\u{1b}[J";
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let mut contents = self.contents();
        if let Some(blanks) = contents.blanks.take() {
            contents.text.extend(std::iter::repeat_n(' ', blanks));
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bars(lines: &[&str], columns: usize) -> Screen {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        Screen::Bars { lines, columns }
    }

    /// A painter that has drawn `screen`.
    fn after(screen: &Screen) -> Painter {
        let mut painter = Painter::new();
        painter.repaint(&Screen::Empty, screen);
        painter
    }

    #[test]
    fn a_drawing_ends_in_the_last_column() {
        let draw = |screen| Painter::new().repaint(&Screen::Empty, &screen);
        assert_eq!(draw(bars(&["abc", "wx"], 3)), "abc\r\nwx ");
        assert_eq!(draw(bars(&["ab", "推"], 3)), "ab\u{1b}[K\r\n推 ");
        assert_eq!(draw(bars(&[" "], 1)), " ");
        assert_eq!(draw(Screen::Empty), "");
    }

    #[test]
    fn bars_of_the_same_shape_are_drawn_over() {
        let (old, new) = (bars(&["a", "b", "c"], 3), bars(&["d", "e", "f"], 3));
        let over = "\u{1b}[2A\rd\u{1b}[K\r\ne\u{1b}[K\r\nf  ";
        assert_eq!(after(&old).repaint(&old, &new), over);
        // The same without indicatif's knowledge.
        assert_eq!(Painter::new().repaint(&old, &new), over);
    }

    #[test]
    fn bars_of_another_shape_replace_erased_ones() {
        let old = bars(&["a", "b"], 3);
        let erased = "\u{1b}[1A\r\u{1b}[J\u{1b}[1B\r\u{1b}[J\u{1b}[1A";
        assert_eq!(after(&old).repaint(&old, &Screen::Empty), erased);
        assert_eq!(
            after(&old).repaint(&old, &bars(&["c"], 3)),
            format!("{erased}c  ")
        );
    }

    #[test]
    fn what_is_on_the_screen_counts_and_not_what_was_drawn() {
        let (one, two) = (bars(&["a"], 3), bars(&["b", "c"], 3));
        // The drawing of one did not arrive.
        let mut painter = after(&two);
        painter.repaint(&two, &one);
        assert_eq!(painter.repaint(&two, &Screen::Empty), "\u{1b}[1A\r\u{1b}[J");
        // Others have written to the screen.
        assert_eq!(after(&two).repaint(&Screen::Empty, &one), "a  ");
    }

    #[test]
    fn emoji_take_a_line_however_wide_terminals_find_them() {
        // Two columns or six; two columns or one.
        for emoji in ["👨\u{200d}👩\u{200d}👧", "❤\u{fe0f}"] {
            let screen = bars(&["log", &format!("{emoji}ab")], 4);
            let mut painter = Painter::new();
            let drawing = painter.repaint(&Screen::Empty, &screen);
            assert_eq!(drawing, format!("log\u{1b}[K\r\n{emoji}ab"));
            let over = format!("\u{1b}[1A\r{drawing}");
            assert_eq!(painter.repaint(&screen, &screen), over);
        }
    }

    #[test]
    fn a_thread_that_panics_erases_and_does_not_draw() {
        struct Erase(Painter, Screen, Arc<Mutex<String>>);
        impl Drop for Erase {
            fn drop(&mut self) {
                assert!(!Painter::can_draw());
                *lock(&self.2) = self.0.repaint(&self.1, &Screen::Empty);
            }
        }
        let screen = bars(&["a", "b"], 3);
        let erased = Arc::new(Mutex::new(String::new()));
        let erase = Erase(after(&screen), screen, Arc::clone(&erased));
        let panicked = std::thread::spawn(move || {
            let _erase = erase;
            std::panic::resume_unwind(Box::new("a panic"));
        });
        assert!(panicked.join().is_err());
        assert_eq!(*lock(&erased), "\u{1b}[1A\r\u{1b}[J");
    }
}
