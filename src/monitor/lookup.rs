//! Categories to cells.

use super::cells::Cells;
use super::feature::Values;
use super::text;

/// Small whole numbers, whose cells stand in an array.
const SMALL: usize = 256;

/// Finds the cells of categories: by the texts' hashes, or by the numbers' bits.
#[derive(Debug, Clone)]
pub(super) struct Lookup {
    /// Key and cell; a power of two, at most half of it used. Key 0 is an empty place, as it is
    /// the hash of no text and the bits of 0.0, which `zero` is for.
    places: Vec<(u64, u8)>,
    /// The cell of the number 0.
    zero: u8,
    /// Cells of the numbers from 0 on.
    small: Vec<u8>,
    unknown: u8,
    missing: u8,
}

impl Lookup {
    pub(super) fn new(cells: &Cells, values: Values) -> Result<Self, String> {
        let Cells::Categorical { categories, others, is_open } = cells else {
            return Err("its cells are not categories".to_owned());
        };
        let byte = |cell: Option<usize>| {
            cell.and_then(|cell| u8::try_from(cell).ok()).ok_or("it has too many cells")
        };
        let other = byte(cells.other())?;
        let new = byte(cells.new_category())?;
        let missing = byte(Some(cells.missing()))?;
        let unknown = if *is_open { other } else { new };
        let mut keys = Vec::new();
        for (cell, category) in categories.iter().enumerate() {
            let key = key(category, values)
                .ok_or_else(|| format!("'{category}' is no value of its datatype"))?;
            keys.push((key, byte(Some(cell))?));
        }
        for other_key in hashes(others)? {
            keys.push((other_key, other));
        }
        let n_places = (2 * keys.len()).next_power_of_two().max(8);
        let mut lookup = Self {
            places: vec![(0, unknown); n_places],
            zero: unknown,
            small: Vec::new(),
            unknown,
            missing,
        };
        for (key, cell) in keys {
            lookup.insert(key, cell);
        }
        if values != Values::Text {
            lookup.small = (0..SMALL).map(|n| lookup.of_key((n as f64).to_bits())).collect();
        }
        Ok(lookup)
    }

    pub(super) fn missing(&self) -> u8 {
        self.missing
    }

    fn insert(&mut self, key: u64, cell: u8) {
        if key == 0 {
            self.zero = cell;
            return;
        }
        let mask = self.places.len() - 1;
        let mut place = slot(key) & mask;
        // Ends: at most half of the places are used.
        while self.places[place].0 != 0 && self.places[place].0 != key {
            place = (place + 1) & mask;
        }
        // The first of two equal keys keeps its cell.
        if self.places[place].0 == 0 {
            self.places[place] = (key, cell);
        }
    }

    fn of_key(&self, key: u64) -> u8 {
        if key == 0 {
            return self.zero;
        }
        let mask = self.places.len() - 1;
        let mut place = slot(key) & mask;
        loop {
            match self.places[place] {
                (0, _) => return self.unknown,
                (other, cell) if other == key => return cell,
                _ => place = (place + 1) & mask,
            }
        }
    }

    pub(super) fn texts(&self, hashes: &[u64], out: &mut [u8]) {
        for (out, &hash) in out.iter_mut().zip(hashes) {
            *out = if hash == text::MISSING { self.missing } else { self.of_key(hash) };
        }
    }

    pub(super) fn singles(&self, values: &[f32], out: &mut [u8]) {
        for (out, &value) in out.iter_mut().zip(values) {
            // The conversion saturates, and makes 0 of NaN.
            let small = value as u8;
            *out = match f32::from(small) == value {
                true => self.small[usize::from(small)],
                false => self.number(f64::from(value)),
            };
        }
    }

    pub(super) fn doubles(&self, values: &[f64], out: &mut [u8]) {
        for (out, &value) in out.iter_mut().zip(values) {
            let small = value as u8;
            *out = match f64::from(small) == value {
                true => self.small[usize::from(small)],
                false => self.number(value),
            };
        }
    }

    fn number(&self, value: f64) -> u8 {
        // Adding 0 makes one zero of two.
        if value.is_nan() { self.missing } else { self.of_key((value + 0.0).to_bits()) }
    }
}

fn slot(key: u64) -> usize {
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize
}

/// What a category is looked up by.
pub(super) fn key(category: &str, values: Values) -> Option<u64> {
    match values {
        Values::Text => Some(text::hash(category.as_bytes())),
        Values::Boolean => match category {
            "false" => Some(0.0_f64.to_bits()),
            "true" => Some(1.0_f64.to_bits()),
            _ => None,
        },
        _ => {
            let number: f64 = category.parse().ok()?;
            (!number.is_nan()).then(|| (number + 0.0).to_bits())
        }
    }
}

/// A number as the name of a category.
pub(super) fn name(number: f64, values: Values) -> String {
    match values {
        Values::Boolean if number == 0.0 => "false".to_owned(),
        Values::Boolean => "true".to_owned(),
        _ => (number + 0.0).to_string(),
    }
}

/// Hashes as 16 hexadecimal digits each.
pub(super) fn write_hashes(hashes: &[u64]) -> String {
    hashes.iter().map(|hash| format!("{hash:016x}")).collect()
}

pub(super) fn hashes(text: &str) -> Result<Vec<u64>, String> {
    let wrong = || "others: expected 16 hexadecimal digits a category".to_owned();
    let (hashes, rest) = text.as_bytes().as_chunks::<16>();
    if !rest.is_empty() {
        return Err(wrong());
    }
    let hash = |digits: &[u8; 16]| {
        let digits = std::str::from_utf8(digits).ok()?;
        let is_plain = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
    };
    hashes.iter().map(|digits| hash(digits).ok_or_else(wrong)).collect()
}
