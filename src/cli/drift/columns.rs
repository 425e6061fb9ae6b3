//! Text in columns, which may have colour: widths are of what is seen.

use console::{Alignment, measure_text_width, pad_str, style, truncate_str};

/// Columns of text, each as wide as its widest cell.
pub(in crate::cli) struct Columns {
    rows: Vec<Vec<String>>,
    /// Which columns are numbers.
    right: &'static [usize],
}

impl Columns {
    pub(in crate::cli) fn new(header: &[&str], right: &'static [usize]) -> Self {
        let bold = |name: &&str| style(*name).bold().to_string();
        Self { rows: vec![header.iter().map(bold).collect()], right }
    }

    pub(in crate::cli) fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// Lines that fit the terminal, where there is one.
    pub(in crate::cli) fn write(&self, text: &mut String) {
        let n_columns = self.rows.first().map_or(0, Vec::len);
        let widest = |column: usize| {
            self.rows.iter().map(|row| measure_text_width(&row[column])).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..n_columns).map(widest).collect();
        let terminal = console::Term::stdout().size_checked().map(|(_, width)| usize::from(width));
        for row in &self.rows {
            let cells = row.iter().enumerate().map(|(column, cell)| {
                let is_right = self.right.contains(&column);
                let alignment = if is_right { Alignment::Right } else { Alignment::Left };
                pad_str(cell, widths[column], alignment, None).into_owned()
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            let line = match terminal {
                Some(width) => truncate_str(&line, width, "…").into_owned(),
                None => line,
            };
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
}
