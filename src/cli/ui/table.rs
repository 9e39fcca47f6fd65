//! Rows of cells in columns.

use std::io;

use super::Out;

/// Rows that are printed with their cells under one another.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<Vec<u8>>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn with_headings(headings: &[&str]) -> Self {
        let headings = headings.iter().map(|heading| heading.to_uppercase().into_bytes()).collect();
        Self { rows: vec![headings] }
    }

    /// Adds a row.
    pub(crate) fn push(&mut self, cells: impl IntoIterator<Item = impl Into<Vec<u8>>>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Prints the rows, two spaces between columns, nothing behind the last cell.
    pub(crate) fn print(&self, out: &mut Out<'_>) -> io::Result<()> {
        use io::Write;
        let rows: Vec<Vec<_>> =
            self.rows.iter().map(|row| row.iter().map(|cell| out.shown(cell).into_owned()).collect()).collect();
        let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |cell: &Vec<u8>| String::from_utf8_lossy(cell).chars().count();
        let widths: Vec<_> =
            (0..columns).map(|at| rows.iter().filter_map(|row| row.get(at)).map(width).max().unwrap_or(0)).collect();
        for row in &rows {
            for (at, cell) in row.iter().enumerate() {
                out.write_all(cell)?;
                if at + 1 < row.len() {
                    write!(out, "{:1$}", "", widths[at] - width(cell) + 2)?;
                }
            }
            writeln!(out)?;
        }
        Ok(())
    }
}
