//! Small things of several owners, copied one after the other into memory that is kept.

use super::{Block, Copies};

/// Entries with what was copied for them, and with their owners. Cleared, it keeps its memory.
#[derive(Debug)]
pub struct Entries<O, E> {
    /// The bytes and the tensors.
    pub copies: Copies,
    owners: Vec<O>,
    entries: Vec<E>,
}

impl<O, E> Default for Entries<O, E> {
    fn default() -> Self {
        Self { copies: Copies::default(), owners: Vec::new(), entries: Vec::new() }
    }
}

impl<O, E> Entries<O, E> {
    /// The position of the next entry's owner: of the last one where `is_it`, or of the one that `make`
    /// gives.
    pub fn own(&mut self, is_it: impl FnOnce(&O) -> bool, make: impl FnOnce() -> O) -> usize {
        if !self.owners.last().is_some_and(is_it) {
            self.owners.push(make());
        }
        self.owners.len() - 1
    }

    /// Adds an entry.
    pub fn add(&mut self, entry: E) {
        self.entries.push(entry);
    }

    /// All owners, by their positions.
    #[must_use]
    pub fn owners(&self) -> &[O] {
        &self.owners
    }

    /// All entries, in their order.
    #[must_use]
    pub fn entries(&self) -> &[E] {
        &self.entries
    }
}

impl<O, E> Block for Entries<O, E> {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn bytes(&self) -> usize {
        self.copies.len()
    }

    fn clear(&mut self) {
        self.copies.clear();
        self.owners.clear();
        self.entries.clear();
    }
}
