//! Aligned columns.

use super::{Paint, Tone, safe};

/// Rows under a header; columns are as wide as their widest cell.
#[derive(Debug)]
pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<(String, Option<Tone>)>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    /// Adds a row. Empty cells are shown as `-`.
    pub fn row<const N: usize>(&mut self, cells: [(String, Option<Tone>); N]) {
        let cells = cells.into_iter().map(|(text, tone)| {
            let text = if text.is_empty() { "-".to_owned() } else { safe(&text).into_owned() };
            (text, tone)
        });
        self.rows.push(cells.collect());
    }

    /// Adds a column on the left.
    pub fn put_first(&mut self, name: &'static str, cells: Vec<String>) {
        self.header.insert(0, name);
        for (row, cell) in self.rows.iter_mut().zip(cells) {
            row.insert(0, (safe(&cell).into_owned(), None));
        }
    }

    /// The table as text; the last column is not padded.
    pub fn render(&self, paint: Paint) -> String {
        let mut widths: Vec<usize> = self.header.iter().map(|name| name.chars().count()).collect();
        for row in &self.rows {
            for (width, (text, _)) in widths.iter_mut().zip(row) {
                *width = (*width).max(text.chars().count());
            }
        }
        let mut out = String::new();
        let header = self.header.iter().map(|name| ((*name).to_owned(), Some(Tone::Faint))).collect();
        for row in std::iter::once(&header).chain(&self.rows) {
            for (at, (text, tone)) in row.iter().enumerate() {
                let last = at + 1 == row.len();
                out += &tone.map_or_else(|| text.clone(), |tone| paint.word(tone, text));
                if !last {
                    let padding = widths[at] - text.chars().count() + 2;
                    out.extend(std::iter::repeat_n(' ', padding));
                }
            }
            out.push('\n');
        }
        out
    }
}

/// A cell without colour.
pub fn plain(text: impl Into<String>) -> (String, Option<Tone>) {
    (text.into(), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["NAME", "PORT"]);
        table.row([plain("reviews"), plain("9080")]);
        table.row([plain("a"), plain("")]);
        assert_eq!(table.render(Paint::plain()), "NAME     PORT\nreviews  9080\na        -\n");
    }
}
