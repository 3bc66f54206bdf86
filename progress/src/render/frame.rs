//! Bars that are not drawn but kept, for tests.

use super::View;
use super::rows::Look;
use crate::output::Output;

/// The lines that bars would have on a terminal of this size.
#[derive(Debug)]
pub(crate) struct Frame {
    look: Look,
    columns: u16,
    height: u16,
    rows: Vec<String>,
    cleared: bool,
}

impl Frame {
    pub(crate) fn new(look: Look, columns: u16, height: u16) -> Self {
        Self {
            look,
            columns,
            height,
            rows: Vec::new(),
            cleared: false,
        }
    }

    pub(super) fn draw(&mut self, views: &[View], output: &Output) {
        let columns = usize::from(self.columns.max(1));
        let (ended, running) = self.look.compose(views, columns, usize::from(self.height));
        output.write_ignoring_errors(ended.as_bytes());
        self.rows = running;
        self.cleared = false;
    }

    pub(super) fn clear(&mut self) {
        self.cleared = true;
    }

    pub(super) fn restore(&mut self) {
        self.cleared = false;
    }

    pub(super) fn rows(&self) -> &[String] {
        match self.cleared {
            true => &[],
            false => &self.rows,
        }
    }
}
