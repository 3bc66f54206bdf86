//! Bars in memory, for tests.

use super::layout::Style;
use super::view::View;
use crate::output::Output;

/// The lines that bars would have on a terminal of this size.
#[derive(Debug)]
pub(crate) struct Memory {
    style: Style,
    columns: u16,
    height: u16,
    lines: Vec<String>,
    is_cleared: bool,
}

impl Memory {
    pub(crate) fn new(style: Style, columns: u16, height: u16) -> Self {
        Self {
            style,
            columns,
            height,
            lines: Vec::new(),
            is_cleared: false,
        }
    }

    pub(super) fn draw(&mut self, views: &[View], output: &Output) {
        let columns = usize::from(self.columns.max(1));
        let layout = self.style.layout(views, columns, usize::from(self.height));
        output.write_ignoring_errors(layout.ended.as_bytes());
        self.lines = layout.running;
        self.is_cleared = false;
    }

    pub(super) fn clear(&mut self) {
        self.is_cleared = true;
    }

    pub(super) fn restore(&mut self) {
        self.is_cleared = false;
    }

    pub(super) fn lines(&self) -> &[String] {
        match self.is_cleared {
            true => &[],
            false => &self.lines,
        }
    }
}
