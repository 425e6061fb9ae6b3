//! Durable state: rollouts, what steers models, and the history of what was changed and why.
//!
//! Behind one trait, [`Store`]; SQLite keeps it for one gateway. What is kept is opaque here: plans,
//! figures and steering are JSON that the rollouts' own module reads and writes.
//!
//! Invariants:
//! - a change is one transaction, on the disk when it returns: a rollout's state, what is to steer
//!   its model, and the line of history that says why are there together or not at all;
//! - no call waits longer than [`PATIENCE`]: a disk that hangs is an error, and nothing on the data
//!   plane ever calls here;
//! - a file whose schema is newer than this binary knows is refused, and left as it is.

mod sqlite;

use std::fmt::Debug;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use sqlite::Sqlite;

use crate::error::{Code, Fault};

/// How long one call may take.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What a call gives, later.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Why the store did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// A later binary has written it.
    #[error(
        "the store {path} has schema {found}, and this binary knows schema {known}: start the version that wrote it, or name another file as store.path (what was promoted is not known then)"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema that is known.
        known: i64,
    },
    /// It did not answer in time.
    #[error("the store {path} did not answer within {} s", PATIENCE.as_secs())]
    Slow {
        /// The file.
        path: PathBuf,
    },
    /// It failed.
    #[error("the store {path}: {reason}")]
    Failed {
        /// The file.
        path: PathBuf,
        /// The driver's words.
        reason: String,
    },
}

impl Fault for StoreError {
    fn code(&self) -> Code {
        Code::Unavailable
    }
}

/// A rollout as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutRecord {
    /// Its number; 0 before it is first written.
    pub id: i64,
    /// The model.
    pub model: String,
    /// The version that is tried.
    pub candidate: u64,
    /// Its digest.
    pub candidate_digest: String,
    /// The version that answered before.
    pub primary: u64,
    /// Its digest.
    pub primary_digest: String,
    /// Position of the stage that it is in.
    pub stage: u32,
    /// `running`, `paused`, `promoted`, `rolled_back` or `aborted`.
    pub state: String,
    /// Stages, gates and error rates: JSON.
    pub plan: String,
    /// Evidence of the stage so far: JSON.
    pub progress: String,
    /// When it began, in milliseconds since 1970.
    pub started_at: u64,
    /// When the stage began.
    pub stage_at: u64,
    /// When it was last written.
    pub updated_at: u64,
    /// Why it is in this state.
    pub reason: String,
}

/// What steers a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SteeringRecord {
    /// The model.
    pub model: String,
    /// Primary, canaries, shadows and warm versions: JSON.
    pub steering: String,
    /// What the configuration wished when it came into force: once it wishes something else,
    /// this is over.
    pub wish: String,
    /// Since when, in milliseconds since 1970.
    pub since: u64,
}

/// A line of history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryRecord {
    /// Its number; 0 before it is written.
    pub id: i64,
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// The model.
    pub model: String,
    /// Who: a person's name as given, or `gates`, `file`, `start`.
    pub who: String,
    /// What: `promoted`, `rolled back`, `stage`, ...
    pub what: String,
    /// What served before, in words.
    pub from: String,
    /// What serves after.
    pub to: String,
    /// Why, with its figures.
    pub reason: String,
    /// Digest of the primary before.
    pub digest_from: String,
    /// Digest of the primary after.
    pub digest_to: String,
    /// The evidence of all gates at that moment: JSON, or nothing.
    pub figures: String,
}

/// One change: all of it or none.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// The rollout's new state.
    pub rollout: Option<RolloutRecord>,
    /// What is to steer the model.
    pub steering: Option<SteeringChange>,
    /// What is said of it.
    pub history: Option<HistoryRecord>,
}

/// A change of what steers a model.
#[derive(Debug, Clone)]
pub enum SteeringChange {
    /// This from now on.
    Set(SteeringRecord),
    /// Nothing: the configuration alone.
    Withdraw {
        /// The model.
        model: String,
    },
}

/// What a start finds.
#[derive(Debug, Clone, Default)]
pub struct Remembered {
    /// Rollouts that have not ended.
    pub rollouts: Vec<RolloutRecord>,
    /// What steers models.
    pub steering: Vec<SteeringRecord>,
}

/// Durable state.
pub trait Store: Debug + Send + Sync {
    /// What has not ended.
    fn remembered(&self) -> Pending<'_, Remembered>;

    /// Makes a change and returns the rollout's number, where there is one.
    fn change(&self, change: Change) -> Pending<'_, Option<i64>>;

    /// Keeps a rollout's evidence; nothing where it has ended. Need not survive a power failure.
    fn progress(&self, rollout: i64, progress: String) -> Pending<'_, ()>;

    /// The newest lines of history of a model, or of all, the newest first.
    fn history(&self, model: Option<String>, most: u32) -> Pending<'_, Vec<HistoryRecord>>;

    /// The newest rollouts of a model, or of all, the newest first.
    fn rollouts(&self, model: Option<String>, most: u32) -> Pending<'_, Vec<RolloutRecord>>;
}
