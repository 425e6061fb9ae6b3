//! Shared memory of clients on the same machine: tensors in files of `/dev/shm` instead of messages.
//!
//! A client makes such a file, registers a part of it as a region, and names the region in its
//! requests: inputs are read from there, outputs written to it.
//!
//! Invariants:
//! - nothing is mapped: elements are copied into memory of our own and out of it. So bytes that were
//!   checked stay as they are, and a file that its owner cuts is an error and no SIGBUS;
//! - a key names a regular file in `/dev/shm` itself, with the configured beginning;
//! - a request takes no lock: the table of regions is swapped as a whole;
//! - regions are bounded in number and size, and a file never grows beyond the region for us.

mod region;

#[cfg(test)]
mod tests;

pub use region::Span;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use serde::Serialize;

use crate::error::{Code, Fault};
use region::Region;

/// Bytes that a region's name may have.
const LONGEST_NAME: usize = 1024;

/// Why there is no such region, or no such part of one.
#[derive(Debug, thiserror::Error)]
pub enum RegionError {
    /// The name is none.
    #[error("name: expected 1 to {LONGEST_NAME} bytes, got {0}")]
    Name(usize),
    /// The key is none.
    #[error("key '{key}': {reason}")]
    Key {
        /// As it came.
        key: String,
        /// What was expected.
        reason: String,
    },
    /// There is nothing of that name in `/dev/shm`.
    #[error("key '{0}': there is no such shared memory on this machine")]
    NoMemory(String),
    /// The region would be empty, too large, or longer than its file.
    #[error("byte_size: {0}")]
    Size(String),
    /// The name is taken.
    #[error("region '{0}' is registered already; unregister it first")]
    Taken(String),
    /// There is no room for another.
    #[error("{most} regions are registered, which is the limit (server.shared_memory.regions)")]
    Full {
        /// The limit.
        most: usize,
    },
    /// No region has that name.
    #[error("no region '{0}' is registered")]
    Unknown(String),
    /// The part is not within the region.
    #[error("{size} bytes from {offset} on are not within region '{region}', which has {length}")]
    Outside {
        /// The region's name.
        region: Box<str>,
        /// The region's bytes.
        length: u64,
        /// Where the part begins.
        offset: u64,
        /// The part's bytes.
        size: u64,
    },
    /// The file was cut after it was registered.
    #[error("region '{0}' is shorter than it was when it was registered")]
    Cut(Box<str>),
    /// The system refuses.
    #[error("region '{region}': {error}")]
    System {
        /// The region's name.
        region: Box<str>,
        /// Why.
        error: std::io::Error,
    },
}

impl Fault for RegionError {
    fn code(&self) -> Code {
        match self {
            Self::NoMemory(_) | Self::Unknown(_) => Code::NotFound,
            Self::Taken(_) | Self::Full { .. } => Code::Conflict,
            _ => Code::InvalidArgument,
        }
    }
}

/// A region as it was registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct RegionStatus {
    /// Its name.
    pub name: String,
    /// The name of its file, as the client gave it.
    pub key: String,
    /// Where in the file it begins.
    pub offset: u64,
    /// Its bytes.
    pub byte_size: u64,
}

type Table = BTreeMap<Box<str>, Arc<Region>>;

/// The regions that are registered.
#[derive(Debug)]
pub struct Regions {
    prefix: String,
    most: usize,
    largest: u64,
    table: ArcSwap<Table>,
    /// Held while the table is changed.
    changing: Mutex<()>,
}

impl Regions {
    /// None yet: at most `most`, each of at most `largest` bytes, in files whose names begin with
    /// `prefix`.
    #[must_use]
    pub fn new(prefix: &str, most: usize, largest: u64) -> Self {
        let (prefix, table, changing) = (prefix.to_owned(), ArcSwap::default(), Mutex::default());
        Self { prefix, most, largest, table, changing }
    }

    /// Registers `byte_size` bytes of the file `key` as `name`, from `offset` on.
    pub fn register(
        &self,
        name: &str,
        key: &str,
        offset: u64,
        byte_size: u64,
    ) -> Result<(), RegionError> {
        if !(1..=LONGEST_NAME).contains(&name.len()) {
            return Err(RegionError::Name(name.len()));
        }
        let region = Region::open(name, key, &self.prefix, (offset, byte_size), self.largest)?;
        self.change(|table| {
            if table.contains_key(name) {
                return Err(RegionError::Taken(name.to_owned()));
            }
            if table.len() >= self.most {
                return Err(RegionError::Full { most: self.most });
            }
            table.insert(name.into(), Arc::new(region));
            Ok(())
        })
    }

    /// Forgets a region, or all. One that is not there is no error: it is as it should be. A request
    /// that has found its region keeps it. Returns how many there were.
    pub fn unregister(&self, name: Option<&str>) -> usize {
        self.change(|table| {
            let before = table.len();
            match name {
                None => table.clear(),
                Some(name) => drop(table.remove(name)),
            }
            before - table.len()
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = Table::clone(&self.table.load());
        let outcome = change(&mut table);
        self.table.store(Arc::new(table));
        outcome
    }

    /// All regions, or one.
    pub fn status(&self, name: Option<&str>) -> Result<Vec<RegionStatus>, RegionError> {
        let table = self.table.load();
        match name {
            None => Ok(table.values().map(|region| region.status()).collect()),
            Some(name) => match table.get(name) {
                Some(region) => Ok(vec![region.status()]),
                None => Err(RegionError::Unknown(name.to_owned())),
            },
        }
    }

    /// A part of a region: `size` bytes from `offset` on.
    pub fn span(&self, name: &str, offset: u64, size: u64) -> Result<Span, RegionError> {
        let region = self.table.load().get(name).cloned();
        let region = region.ok_or_else(|| RegionError::Unknown(name.to_owned()))?;
        Span::of(region, offset, size)
    }

    /// Whether there is a region of at least `size` bytes.
    #[must_use]
    pub fn any_from(&self, size: u64) -> bool {
        self.table.load().values().any(|region| region.size() >= size)
    }
}
