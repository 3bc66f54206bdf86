//! The layout of bars: lines that fit into the width of a terminal, with bars one below the other.

use console::{measure_text_width, truncate_str};
use shm_buffers::Printable;

use super::text::{OMISSION_ORDER, OMITTED_BEFORE_BAR, Part, parts};
use super::view::View;

const BAR_WIDTHS: std::ops::RangeInclusive<usize> = 10..=40;

/// The characters of a bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Charset {
    Ascii,
    Unicode,
}

/// Whether text has colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Palette {
    Plain,
    Ansi,
}

/// The style of bars.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    pub(crate) charset: Charset,
    pub(crate) palette: Palette,
}

/// The lines of all bars.
pub(super) struct Layout {
    /// The bars that ended, as whole lines.
    pub(super) ended: String,
    /// The lines of running bars, without line breaks.
    pub(super) running: Vec<String>,
}

impl Style {
    /// Lays out bars in lines of at most `width` columns. All bars begin and end in the same columns. There are at most
    /// `height` lines of running bars; if that is too few, the last line shows the number of the others.
    pub(super) fn layout(self, views: &[View], width: usize, height: usize) -> Layout {
        let running = views.iter().filter(|view| view.is_running()).count();
        let (shown, hidden) = match running.checked_sub(height.max(1)) {
            None | Some(0) => (running, 0),
            Some(excess) => (running - excess - 1, excess + 1),
        };
        let mut seen = 0;
        let fitting = views.iter().filter(|view| {
            seen += usize::from(view.is_running());
            !view.is_running() || seen <= shown
        });
        let fitting: Vec<&View> = fitting.collect();
        let mut layout = Layout {
            ended: String::new(),
            running: Vec::new(),
        };
        for (view, line) in fitting.iter().zip(self.lines(&fitting, width)) {
            if view.is_running() {
                layout.running.push(line);
            } else {
                layout.ended += &line;
                layout.ended += "\n";
            }
        }
        if hidden > 0 {
            let more = format!("{} {hidden} more", self.charset.ellipsis());
            layout.running.push(truncate_str(&more, width, "").into_owned());
        }
        layout
    }

    fn lines(self, views: &[&View], width: usize) -> Vec<String> {
        let labels: Vec<String> = views
            .iter()
            .map(|view| {
                format!(
                    "{}{}",
                    "  ".repeat(view.parents.len()),
                    Printable(&view.sample.label)
                )
            })
            .collect();
        let widest = labels.iter().map(|label| measure_text_width(label)).max();
        let label_width = widest.unwrap_or(0).min(width / 3);
        let contents: Vec<LineContent> = views
            .iter()
            .map(|view| LineContent::fit(view, label_width, width))
            .collect();
        let bar_width = contents.iter().filter_map(|content| content.bar_width).min();
        let line = |(label, (view, content)): (&String, (&&View, &LineContent))| {
            let label = truncate_str(label, label_width, self.charset.ellipsis());
            let blanks = label_width.saturating_sub(measure_text_width(&label));
            let mut line = label.into_owned() + &" ".repeat(blanks) + "  ";
            if let (Some(_), Some(columns)) = (content.bar_width, bar_width) {
                line += &self.palette.paint("32", self.charset.bar(view, columns));
                line += "  ";
            }
            let texts: Vec<String> = content
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
        labels.iter().zip(views.iter().zip(&contents)).map(line).collect()
    }
}

/// The parts of a bar's line that fit, besides the label.
struct LineContent {
    parts: Vec<(Part, String)>,
    /// The largest width of the bar itself, in columns; `None` if it does not fit.
    bar_width: Option<usize>,
}

impl LineContent {
    fn fit(view: &View, label_width: usize, width: usize) -> Self {
        let mut parts = parts(view);
        let has_bar = view.fraction().is_some();
        let remaining_width = |parts: &[(Part, String)]| {
            let texts: usize = parts.iter().map(|(_, text)| measure_text_width(text) + 2).sum();
            // The line is the label, two blanks, and the texts with ", " between them.
            (width + 2).checked_sub(label_width + 2 + texts)
        };
        let bar_width = |parts: &[(Part, String)]| {
            // A multiple of five, so that it does not change whenever a number gets one more digit.
            let columns = remaining_width(parts)?.checked_sub(2)? / 5 * 5;
            let columns = columns.min(*BAR_WIDTHS.end());
            (has_bar && BAR_WIDTHS.contains(&columns)).then_some(columns)
        };
        let without = |parts: &[(Part, String)], omitted: &[Part]| -> Vec<(Part, String)> {
            let mut parts = parts.to_vec();
            parts.retain(|(part, _)| !omitted.contains(part));
            parts
        };
        // The first parts are omitted before the bar, the others after it.
        for n in 0..=OMITTED_BEFORE_BAR {
            let fewer = without(&parts, &OMISSION_ORDER[..n]);
            if let Some(columns) = bar_width(&fewer) {
                return Self {
                    parts: fewer,
                    bar_width: Some(columns),
                };
            }
        }
        for n in 0..=OMISSION_ORDER.len() {
            let fewer = without(&parts, &OMISSION_ORDER[..n]);
            if remaining_width(&fewer).is_some() || n == OMISSION_ORDER.len() {
                parts = fewer;
                break;
            }
        }
        Self {
            parts,
            bar_width: None,
        }
    }
}

impl Charset {
    fn bar(self, view: &View, columns: usize) -> String {
        let fraction = view.fraction().unwrap_or(1.0);
        let eighths = (fraction * (columns * 8) as f64) as usize;
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
