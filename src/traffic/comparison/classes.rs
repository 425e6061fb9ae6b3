//! The classes that two versions name: how often they agree, and which is taken for which.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::stats::effect::{Effects, Order, effects};

/// Classes that are told apart; the others are one.
const MOST_CLASSES: usize = 64;

const OTHERS: &str = "(others)";

/// What two versions call the same rows.
#[derive(Debug, Default)]
pub(super) struct Classes {
    names: Vec<String>,
    places: HashMap<String, u16>,
    /// Places of classes that have a number beside their name.
    numbered: Vec<(u64, u16)>,
    pairs: BTreeMap<(u16, u16), u64>,
    pub(super) agreed: u64,
    pub(super) rows: u64,
}

/// A pair of classes and its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Confused {
    /// What the primary said.
    pub primary: String,
    /// What the candidate said.
    pub candidate: String,
    /// Rows.
    pub rows: u64,
}

impl Classes {
    /// Counts a row; returns whether they agree.
    pub(super) fn count(&mut self, primary: &str, candidate: &str) -> bool {
        let pair = (self.place(primary), self.place(candidate));
        self.count_pair(pair, primary == candidate)
    }

    /// Counts a row by the classes' numbers, of which `name` makes names; returns whether they agree.
    pub(super) fn count_numbers(
        &mut self,
        primary: u64,
        candidate: u64,
        name: impl Fn(u64) -> String,
    ) -> bool {
        let of = self.place_of(primary, &name);
        let own = if primary == candidate { of } else { self.place_of(candidate, &name) };
        self.count_pair((of, own), primary == candidate)
    }

    fn place_of(&mut self, number: u64, name: impl Fn(u64) -> String) -> u16 {
        if let Some((_, place)) = self.numbered.iter().find(|(other, _)| *other == number) {
            return *place;
        }
        let place = self.place(&name(number));
        if self.numbered.len() < MOST_CLASSES {
            self.numbered.push((number, place));
        }
        place
    }

    fn count_pair(&mut self, pair: (u16, u16), agree: bool) -> bool {
        *self.pairs.entry(pair).or_default() += 1;
        self.rows += 1;
        self.agreed += u64::from(agree);
        agree
    }

    fn place(&mut self, name: &str) -> u16 {
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        let name = if self.names.len() < MOST_CLASSES { name } else { OTHERS };
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        let place = self.names.len() as u16;
        self.names.push(name.to_owned());
        self.places.insert(name.to_owned(), place);
        place
    }

    /// All pairs with rows, the most frequent first, those that agree included.
    pub(super) fn confusion(&self) -> Vec<Confused> {
        let mut confusion: Vec<Confused> = self
            .pairs
            .iter()
            .map(|(&(primary, candidate), &rows)| Confused {
                primary: self.names[usize::from(primary)].clone(),
                candidate: self.names[usize::from(candidate)].clone(),
                rows,
            })
            .collect();
        confusion.sort_by_key(|pair| std::cmp::Reverse(pair.rows));
        confusion
    }

    /// How far the candidate's classes are from the primary's.
    pub(super) fn drift(&self) -> Effects {
        let mut sides = [vec![0; self.names.len()], vec![0; self.names.len()]];
        for (&(primary, candidate), &rows) in &self.pairs {
            sides[0][usize::from(primary)] += rows;
            sides[1][usize::from(candidate)] += rows;
        }
        effects(&sides[0], &sides[1], Order::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_counted_and_classes_beyond_the_bound_are_one() {
        let mut classes = Classes::default();
        assert!(classes.count("yes", "yes"));
        assert!(!classes.count("yes", "no"));
        assert!(classes.count("no", "no"));
        let pair = |primary: &str, candidate: &str, rows| Confused {
            primary: primary.to_owned(),
            candidate: candidate.to_owned(),
            rows,
        };
        assert!(classes.confusion().contains(&pair("yes", "no", 1)));
        assert!(classes.drift().total_variation > 0.3);
        // By their numbers they are the same ones.
        assert!(classes.count_numbers(1, 1, |_| "yes".to_owned()));
        assert!(!classes.count_numbers(1, 0, |n| ["no", "yes"][n as usize].to_owned()));
        assert!(classes.confusion().contains(&pair("yes", "yes", 2)));
        assert!(classes.confusion().contains(&pair("yes", "no", 2)));
        for class in 0..1000 {
            assert!(!classes.count("yes", &class.to_string()));
        }
        assert_eq!((classes.agreed, classes.rows), (3, 1005));
        assert!(classes.confusion().len() <= MOST_CLASSES + 4);
        assert_eq!(classes.confusion()[0].candidate, OTHERS);
    }
}
