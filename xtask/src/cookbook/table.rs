//! [`Table`]: rows that recipes print, as a table in Markdown.

use std::fmt;

/// A table whose columns are aligned.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(head: &[&str]) -> Self {
        let head = head.iter().map(|cell| (*cell).to_owned()).collect();
        Self { rows: vec![head] }
    }

    /// Adds the rows of a text: lines with tabs between the cells. Other lines are skipped.
    pub(super) fn add(&mut self, text: &str) {
        let rows = text.lines().filter(|line| line.contains('\t'));
        self.rows
            .extend(rows.map(|row| row.split('\t').map(str::to_owned).collect()));
    }

    /// Returns the width of a column in characters.
    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, row) in self.rows.iter().enumerate() {
            for (column, cell) in row.iter().enumerate() {
                write!(f, "| {cell:width$} ", width = self.width(column))?;
            }
            writeln!(f, "|")?;
            if index == 0 {
                let rules = (0..row.len()).map(|column| "-".repeat(self.width(column) + 2));
                writeln!(f, "|{}|", rules.collect::<Vec<_>>().join("|"))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_aligned_and_other_lines_skipped() {
        let mut table = Table::new(&["model", "shared"]);
        table.add("a long name\t7 MB\nsome warning\nb\t");
        let expected = "\
            | model       | shared |\n\
            |-------------|--------|\n\
            | a long name | 7 MB   |\n\
            | b           |        |\n";
        assert_eq!(table.to_string(), expected);
    }
}
