//! Reading recorded predictions back: files to requests.
//!
//! A request of several rows is several rows of a file, one after the other: they are put together
//! again here. Columns are found by name, so that files of other versions of this program, and files
//! that other programs have written anew, are read as long as they have them.

mod extract;
mod requests;
mod summary;

use std::path::{Path, PathBuf};

pub use extract::extract;
pub use requests::{Recorded, Requests};
pub use summary::{BatchKey, Summary, batch_key, summarize};

use super::folder;

/// Why recorded predictions cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be opened.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        error: std::io::Error,
    },
    /// It holds something else.
    #[error("{path}: not a file of recorded predictions: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is none.
    #[error("{path}: there are no recorded predictions below it")]
    Nothing {
        /// The folder.
        path: PathBuf,
    },
}

/// The files of recorded predictions below `path`, or that file, in the order of time; of one model
/// where one is given.
pub fn files(path: &Path, model: Option<&str>) -> Result<Vec<PathBuf>, ReadError> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    if !path.is_dir() {
        let error = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(ReadError::Io { path: path.to_owned(), error });
    }
    let mut found = Vec::new();
    let mut folders = vec![path.to_owned()];
    let of_model = model.map(|model| format!("model={model}"));
    while let Some(inner) = folders.pop() {
        let entries = std::fs::read_dir(&inner)
            .map_err(|error| ReadError::Io { path: inner.clone(), error })?;
        for entry in entries.flatten().map(|entry| entry.path()) {
            let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_others = name.starts_with("model=")
                && of_model.as_ref().is_some_and(|of_model| name != *of_model);
            if entry.is_dir() && !is_others && !name.starts_with('.') {
                folders.push(entry);
            } else if folder::is_whole(&name) {
                found.push(entry);
            }
        }
    }
    // Names begin with times.
    found.sort_by_key(|file| file.file_name().map(std::ffi::OsStr::to_owned));
    if found.is_empty() {
        return Err(ReadError::Nothing { path: path.to_owned() });
    }
    Ok(found)
}

/// What this process' kernels are chosen by, as files have it.
#[must_use]
pub fn cpu_features() -> String {
    super::thread::cpu_features()
}
