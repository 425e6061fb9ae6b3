//! Tables on the terminal.

use std::fmt;

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{ContentArrangement, Row};

use crate::tensor::{Specs, TensorSpec};

/// A table that fits the terminal where there is one.
pub(super) struct Table(comfy_table::Table);

impl Table {
    pub(super) fn new<T: Into<String>>(header: impl IntoIterator<Item = T>) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_preset(UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
        if let Some((_, columns)) = console::Term::stdout().size_checked() {
            table.set_width(columns);
        }
        table.set_header(Row::from(header.into_iter().map(Into::into).collect::<Vec<String>>()));
        Self(table)
    }

    pub(super) fn push<T: Into<String>>(&mut self, row: impl IntoIterator<Item = T>) {
        self.0.add_row(Row::from(row.into_iter().map(Into::into).collect::<Vec<String>>()));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Declarations on one line.
pub(super) fn specs(specs: &[TensorSpec]) -> String {
    Specs(specs).to_string()
}
