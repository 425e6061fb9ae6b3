//! What is in a cell, in words.

use super::Cells;

impl Cells {
    /// What is in a cell: `below 12`, `(41, 57]`, `0`, `above 99`, `missing`, `infinite`, `red`,
    /// `other`, `new category`. Numbers have at most six digits.
    #[must_use]
    pub fn label(&self, cell: usize) -> String {
        match self {
            Self::Numeric { edges } => {
                let n = edges.len();
                match cell {
                    _ if n == 0 && cell == 0 => "any number".to_owned(),
                    0 => format!("below {}", short(next_up(edges[0]))),
                    _ if cell < n => {
                        let (low, high) = (edges[cell - 1], edges[cell]);
                        match next_up(low) >= high {
                            true => short(high),
                            false => format!("({}, {}]", short(low), short(high)),
                        }
                    }
                    _ if cell == n => format!("above {}", short(edges[n - 1])),
                    _ if cell == n + 1 => "missing".to_owned(),
                    _ => "infinite".to_owned(),
                }
            }
            Self::Categorical { categories, .. } => match cell.checked_sub(categories.len()) {
                None => categories[cell].clone(),
                Some(0) => "other".to_owned(),
                Some(1) => "new category".to_owned(),
                Some(_) => "missing".to_owned(),
            },
        }
    }
}

/// The next number of the precision that the edge was made in.
fn next_up(edge: f64) -> f64 {
    let single = edge as f32;
    if f64::from(single) == edge { f64::from(single.next_up()) } else { edge.next_up() }
}

/// A number with at most six significant digits.
pub(crate) fn short(number: f64) -> String {
    let size = number.abs();
    if number == 0.0 || size < 1e-30 {
        return "0".to_owned();
    }
    if !(1e-4..1e9).contains(&size) {
        let text = format!("{number:.5e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let digits = if digits.contains('.') { trim(digits) } else { digits };
        return format!("{digits}e{exponent}");
    }
    let before = size.log10().floor() as i32 + 1;
    let after = usize::try_from(6 - before).unwrap_or(0);
    let text = format!("{number:.after$}");
    if text.contains('.') { trim(&text).to_owned() } else { text }
}

fn trim(digits: &str) -> &str {
    digits.trim_end_matches('0').trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (number, text) in [
            (0.0, "0"),
            (-1e-45, "0"),
            (1.0, "1"),
            (-2.5, "-2.5"),
            (1.0 / 3.0, "0.333333"),
            (123_456.789, "123457"),
            (1_234_567.0, "1234567"),
            (1.5e12, "1.5e12"),
            (-2.0e-7, "-2e-7"),
        ] {
            assert_eq!(short(number), text);
        }
    }

    #[test]
    fn labels_say_what_is_in_a_cell() {
        let below = f64::from(1.0_f32.next_down());
        let cells = Cells::Numeric { edges: vec![below, 1.0, 2.5] };
        let labels: Vec<String> = (0..cells.len()).map(|cell| cells.label(cell)).collect();
        assert_eq!(labels, ["below 1", "1", "(1, 2.5]", "above 2.5", "missing", "infinite"]);
        let categories = vec!["red".to_owned()];
        let cells = Cells::Categorical { categories, others: String::new(), is_open: false };
        let labels: Vec<String> = (0..cells.len()).map(|cell| cells.label(cell)).collect();
        assert_eq!(labels, ["red", "other", "new category", "missing"]);
        assert_eq!((cells.other(), cells.new_category(), cells.missing()), (Some(1), Some(2), 3));
    }
}
