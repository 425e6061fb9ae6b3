//! Where the configuration comes from: a file and the environment.

use std::path::{Path, PathBuf};

use crate::config::{Config, ConfigErrors};
use crate::repository;

/// Larger files than this are no configuration.
const LARGEST: u64 = 16 << 20;

/// The configuration's file. The environment is read when the file is.
#[derive(Debug, Clone)]
pub struct Source {
    path: PathBuf,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {error}; name another with --config")]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        error: std::io::Error,
    },
    /// The file does not make sense.
    #[error("{path}: the configuration is not valid\n{errors}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All that is wrong with it.
        errors: ConfigErrors,
    },
}

impl Source {
    /// The configuration in the file at `path`.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What tells one content of the file from another without reading it; nothing where it is not
    /// there.
    pub(super) fn stamp(&self) -> Option<repository::Stamp> {
        repository::stamp(&self.path)
    }

    /// Reads and validates the file under the environment's overrides.
    pub fn read(&self) -> Result<Config, ReadError> {
        let failed = |error| ReadError::Io { path: self.path.clone(), error };
        let size = std::fs::metadata(&self.path).map_err(failed)?.len();
        if size > LARGEST {
            return Err(failed(std::io::Error::other("the file is too large for a configuration")));
        }
        let text = std::fs::read_to_string(&self.path).map_err(failed)?;
        self.parse(&text)
    }

    /// Validates `text` as if it stood in the file.
    pub fn parse(&self, text: &str) -> Result<Config, ReadError> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        Config::parse(text, folder, std::env::vars())
            .map_err(|errors| ReadError::Invalid { path: self.path.clone(), errors })
    }
}
