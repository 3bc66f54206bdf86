//! The painter: indicatif draws the bars into memory, and the caller writes each drawing with one write.
//!
//! All bars are the lines of one indicatif bar, so that a drawing of a hundred bars is one write instead of a hundred.
//! indicatif splits the lines, draws them over the previous ones, and erases them. This module does three things that
//! indicatif cannot do:
//!
//! - **Erasing after a failed write.** indicatif assumes that each drawing was written, and neither draws nor erases in
//!   a panicking thread. If the screen differs from indicatif's last drawing, [`erase`] erases it, and indicatif starts
//!   again with a new target.
//! - **Ends of lines.** indicatif fills lines with blanks, and relies on terminals to wrap after the last column. When
//!   such a terminal becomes wider, it joins the lines again, and indicatif would erase log lines above them. Where a
//!   terminal and indicatif disagree on the width of an emoji, all lines shift. So [`Canvas`] ends each line except the
//!   last with a line break, and indicatif counts each line as one.
//! - **The write.** indicatif's own terminals block until the device takes the bytes.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use console::measure_text_width;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle, TermLike};

/// The contents of a screen. The cursor is at the end of the last line.
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

/// The number of lines, and the number of columns for which they were laid out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Shape {
    lines: usize,
    columns: usize,
}

#[derive(Debug)]
pub(super) struct Painter {
    screen: MultiProgress,
    bar: ProgressBar,
    /// The text of `bar`.
    text: Arc<Mutex<String>>,
    canvas: Canvas,
    /// The shape of indicatif's last drawing.
    last_drawing: Shape,
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
            last_drawing: Shape::default(),
        }
    }

    /// Whether indicatif can draw in this thread. [`erase`] works in any thread.
    pub(super) fn can_draw() -> bool {
        !std::thread::panicking()
    }

    /// Returns the sequence that replaces `before` by `after`. The last line is filled with blanks and the cursor is at
    /// its end, so that the output of another program starts on a new line.
    pub(super) fn repaint(&mut self, before: &Screen, after: &Screen) -> String {
        let (before, shape) = (before.shape(), after.shape());
        let mut sequence = String::new();
        if self.last_drawing != before || !Self::can_draw() {
            sequence += &erase(before, shape);
            self.screen.set_draw_target(self.canvas.target());
        } else if before == shape {
            // Drawing over the old lines does not flicker.
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
        self.last_drawing = shape;
        sequence + &self.canvas.take()
    }
}

/// Returns the sequence that moves the cursor from the last line to the beginning of the first, and erases the lines if
/// the next drawing has another shape.
///
/// When a terminal becomes narrower, some terminals wrap the old lines, so that the bars occupy more rows; others cut
/// them. This function assumes that they are cut. Otherwise a piece of an old bar stays on the screen, but no log line
/// is erased.
fn erase(before: Shape, after: Shape) -> String {
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

/// The terminal on which indicatif draws: ECMA-48 sequences in memory.
#[derive(Debug, Clone, Default)]
struct Canvas(Arc<Mutex<Contents>>);

#[derive(Debug, Default)]
struct Contents {
    text: String,
    /// The columns of the real terminal.
    columns: usize,
    /// The columns that are reported to indicatif.
    width: u16,
    next: Next,
    /// The index in `text` where the last line begins.
    line_start: usize,
    /// The number of blanks that fill the last line.
    blanks: Option<usize>,
}

/// The next text from indicatif, which writes each line and then the blanks that fill it.
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

    /// Prepares for the drawing of `lines`, none of which is wider than `columns`.
    fn begin(&self, lines: &[String], columns: usize) {
        let mut contents = self.contents();
        contents.columns = columns;
        // The number of columns is at most the number of bytes, even where programs disagree on the width of a text.
        let longest = lines.iter().map(String::len).max();
        contents.width = u16::try_from(longest.unwrap_or(0)).unwrap_or(u16::MAX);
        contents.next = Next::Line;
    }

    fn take(&self) -> String {
        std::mem::take(&mut self.contents().text)
    }

    fn move_cursor(&self, n: usize, direction: char) -> io::Result<()> {
        // In the sequence, 0 means 1.
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
                    // At the end of a full line, the cursor is still on the last column, and the sequence would erase
                    // that.
                    self.text += if blanks > 0 { "\u{1b}[K\r\n" } else { "\r\n" };
                }
                self.line_start = self.text.len();
                self.text += text;
                self.next = Next::Blanks;
            }
            Next::Blanks => {
                let line = self.text.get(self.line_start..).unwrap_or_default();
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

    /// Returns a height without limit: the caller draws no more lines than fit.
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

    /// Also erases everything below: there can only be pieces of bars from before the terminal became narrower.
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

    /// Returns a painter that has drawn `screen`.
    fn painter_of(screen: &Screen) -> Painter {
        let mut painter = Painter::new();
        painter.repaint(&Screen::Empty, screen);
        painter
    }

    #[test]
    fn drawing_ends_in_the_last_column() {
        let draw = |screen| Painter::new().repaint(&Screen::Empty, &screen);
        assert_eq!(draw(bars(&["abc", "wx"], 3)), "abc\r\nwx ");
        assert_eq!(draw(bars(&["ab", "推"], 3)), "ab\u{1b}[K\r\n推 ");
        assert_eq!(draw(bars(&[" "], 1)), " ");
        assert_eq!(draw(Screen::Empty), "");
    }

    #[test]
    fn bars_are_drawn_over_bars_of_the_same_shape() {
        let (old, new) = (bars(&["a", "b", "c"], 3), bars(&["d", "e", "f"], 3));
        let over = "\u{1b}[2A\rd\u{1b}[K\r\ne\u{1b}[K\r\nf  ";
        assert_eq!(painter_of(&old).repaint(&old, &new), over);
        // The same if indicatif has not drawn the old bars.
        assert_eq!(Painter::new().repaint(&old, &new), over);
    }

    #[test]
    fn bars_of_another_shape_are_erased_first() {
        let old = bars(&["a", "b"], 3);
        let erased = "\u{1b}[1A\r\u{1b}[J\u{1b}[1B\r\u{1b}[J\u{1b}[1A";
        assert_eq!(painter_of(&old).repaint(&old, &Screen::Empty), erased);
        assert_eq!(
            painter_of(&old).repaint(&old, &bars(&["c"], 3)),
            format!("{erased}c  ")
        );
    }

    #[test]
    fn repaint_starts_from_the_screen_and_not_from_the_last_drawing() {
        let (one, two) = (bars(&["a"], 3), bars(&["b", "c"], 3));
        // The drawing of one bar was not written.
        let mut painter = painter_of(&two);
        painter.repaint(&two, &one);
        assert_eq!(painter.repaint(&two, &Screen::Empty), "\u{1b}[1A\r\u{1b}[J");
        // Another program has written to the screen.
        assert_eq!(painter_of(&two).repaint(&Screen::Empty, &one), "a  ");
    }

    #[test]
    fn line_with_an_emoji_is_one_line_at_any_width_of_the_emoji() {
        // Terminals show the first in two or six columns, the second in one or two.
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
    fn panicking_thread_erases_and_does_not_draw() {
        struct Erase(Painter, Screen, Arc<Mutex<String>>);
        impl Drop for Erase {
            fn drop(&mut self) {
                assert!(!Painter::can_draw());
                *lock(&self.2) = self.0.repaint(&self.1, &Screen::Empty);
            }
        }
        let screen = bars(&["a", "b"], 3);
        let erased = Arc::new(Mutex::new(String::new()));
        let erase = Erase(painter_of(&screen), screen, Arc::clone(&erased));
        let panicked = std::thread::spawn(move || {
            let _erase = erase;
            std::panic::resume_unwind(Box::new("a panic"));
        });
        assert!(panicked.join().is_err());
        assert_eq!(*lock(&erased), "\u{1b}[1A\r\u{1b}[J");
    }
}
