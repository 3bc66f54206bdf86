//! Bars as lines of text: what fits into a width, with bars one below the other.

use console::{measure_text_width, truncate_str};

use super::View;
use super::text::{LEAST_MISSED, NOTES, Part, parts};
use crate::escape::escape;

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

/// How lines look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) glyphs: Glyphs,
    pub(crate) palette: Palette,
}

impl Look {
    /// Bars that ended, a line each, and the lines of those that run: at most `height`, the last of which tells how
    /// many more there are. Lines have at most `width` columns; bars begin and end in the same ones.
    pub(super) fn compose(self, views: &[View], width: usize, height: usize) -> (String, Vec<String>) {
        let running = views.iter().filter(|view| view.is_running()).count();
        let (shown, more) = match running.checked_sub(height.max(1)) {
            None | Some(0) => (running, 0),
            Some(more) => (running - more - 1, more + 1),
        };
        let mut seen = 0;
        let fitting = views.iter().filter(|view| {
            seen += usize::from(view.is_running());
            !view.is_running() || seen <= shown
        });
        let fitting: Vec<&View> = fitting.collect();
        let mut ended = String::new();
        let mut running = Vec::new();
        for (view, line) in fitting.iter().zip(self.lines(&fitting, width)) {
            if view.is_running() {
                running.push(line);
            } else {
                ended += &line;
                ended += "\n";
            }
        }
        if more > 0 {
            let more = format!("{} {more} more", self.glyphs.ellipsis());
            running.push(truncate_str(&more, width, "").into_owned());
        }
        (ended, running)
    }

    fn lines(self, views: &[&View], width: usize) -> Vec<String> {
        let labels: Vec<String> = views
            .iter()
            .map(|view| "  ".repeat(view.parents.len()) + &escape(&view.sample.label))
            .collect();
        let widest = labels.iter().map(|label| measure_text_width(label)).max();
        let label_width = widest.unwrap_or(0).min(width / 3);
        let rows: Vec<Row> = views
            .iter()
            .map(|view| Row::fit(view, label_width, width))
            .collect();
        let bar_width = rows.iter().filter_map(|row| row.bar).min();
        let line = |(label, (view, row)): (&String, (&&View, &Row))| {
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
        let has_bar = view.share().is_some();
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
        for n in 0..=NOTES {
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
        let share = view.share().unwrap_or(1.0);
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
