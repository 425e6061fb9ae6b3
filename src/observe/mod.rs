//! A STAND-IN for the handle to the monitors, until the one that holds running recorders is here.
//!
//! It has the methods that the admin plane, the metrics and the commands use, over verdicts that
//! are put into it. Replace the whole file.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Code, Fault};
use crate::monitor::render::{CellSnapshot, Figures};
use crate::monitor::verdict::{Event, Histogram, History, Verdict};

/// Everything that is watched. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Monitors {
    inner: Arc<Mutex<Vec<Arc<Verdict>>>>,
}

/// Why a command to a monitor did nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommandError {
    /// There is no such version, segment or feature.
    #[error("{0}")]
    Unknown(String),
    /// It is there, and in a state in which this makes no sense.
    #[error("{0}")]
    Conflict(String),
}

impl Fault for CommandError {
    fn code(&self) -> Code {
        match self {
            Self::Unknown(_) => Code::NotFound,
            Self::Conflict(_) => Code::Conflict,
        }
    }
}

impl Monitors {
    /// The newest verdict of every watched stream.
    #[must_use]
    pub fn verdicts(&self) -> Vec<Arc<Verdict>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One statistic over time.
    #[must_use]
    pub fn history(
        &self,
        model: &str,
        version: u64,
        segment: Option<&str>,
        feature: &str,
    ) -> Option<History> {
        self.stream(model, version, segment, feature)?;
        Some(History { feature: feature.to_owned(), points: Vec::new() })
    }

    /// A feature's cells in the baseline and in a window.
    #[must_use]
    pub fn histogram(
        &self,
        model: &str,
        version: u64,
        segment: Option<&str>,
        feature: &str,
        window: &str,
    ) -> Option<Histogram> {
        self.stream(model, version, segment, feature)?;
        let (feature, window) = (feature.to_owned(), window.to_owned());
        Some(Histogram {
            feature,
            window,
            cells: Vec::new(),
            baseline: Vec::new(),
            live: Vec::new(),
        })
    }

    /// Changes of state whose number is above `after`, oldest first; the newest 1,000 are kept.
    #[must_use]
    pub fn events(&self, _after: u64) -> Vec<Event> {
        Vec::new()
    }

    /// Marks drift as seen by `who`: of a feature, or of all. Returns how many drifted.
    pub fn acknowledge(
        &self,
        model: &str,
        version: u64,
        _segment: Option<&str>,
        _feature: Option<&str>,
        _who: &str,
    ) -> Result<usize, CommandError> {
        self.version(model, version).map(|()| 0)
    }

    /// Ends the learning of a baseline with the rows so far.
    pub fn freeze(&self, model: &str, version: u64) -> Result<(), CommandError> {
        self.version(model, version)?;
        Err(CommandError::Conflict("its baseline is not being learned".to_owned()))
    }

    /// Learns a new baseline from the rows to come.
    pub fn rebase(
        &self,
        model: &str,
        version: u64,
        _rows: Option<u64>,
    ) -> Result<(), CommandError> {
        self.version(model, version)
    }

    /// Cell counts, of models whose configuration asks for them.
    #[must_use]
    pub fn cells(&self) -> Vec<CellSnapshot> {
        Vec::new()
    }

    /// What the monitor itself does.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures::default()
    }

    fn version(&self, model: &str, version: u64) -> Result<(), CommandError> {
        let is_there = |v: &Arc<Verdict>| v.subject.model == model && v.subject.version == version;
        match self.verdicts().iter().any(is_there) {
            true => Ok(()),
            false => Err(CommandError::Unknown(format!("{model} {version} is not watched"))),
        }
    }

    fn stream(
        &self,
        model: &str,
        version: u64,
        segment: Option<&str>,
        feature: &str,
    ) -> Option<Arc<Verdict>> {
        let is_meant = |verdict: &Arc<Verdict>| {
            let subject = &verdict.subject;
            subject.model == model
                && subject.version == version
                && subject.segment.as_deref() == segment
                && verdict.features.iter().any(|f| f.name == feature)
        };
        self.verdicts().into_iter().find(is_meant)
    }
}
