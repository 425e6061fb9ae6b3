//! Where versions come from: a folder laid out as
//! `<model>/<version>/model.onnx`, with an optional `<model>/model.toml` and, beside the model file,
//! an optional `golden.json` and an optional `baseline.json`.
//!
//! Looking is separate from loading. [`scan`] says what is there and what may be loaded;
//! [`read`] reads one version, and refuses one that changed while it was read.
//!
//! Invariants:
//! - a version half written is never loaded: names other than those above are not looked at, a
//!   file younger than the settling time is reported as settling, and a file is read as a whole
//!   between two looks that agree;
//! - a fault in one model's folder does not hide the others.

mod watch;

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

pub use watch::{Watch, watch};

/// The model's file in a version's folder.
pub const MODEL_FILE: &str = "model.onnx";
/// The golden requests in a version's folder.
pub const GOLDEN_FILE: &str = "golden.json";
/// The baseline in a version's folder.
pub const BASELINE_FILE: &str = "baseline.json";
/// The settings in a model's folder.
pub const SETTINGS_FILE: &str = "model.toml";

/// The largest `model.toml`, `golden.json` and `baseline.json` that are read.
const LARGEST_TEXT: u64 = 64 << 20;

/// What a look at the repository found, by model name.
pub type Scan = BTreeMap<String, FoundModel>;

/// One model's folder.
#[derive(Debug, Clone, Default)]
pub struct FoundModel {
    /// The text of `model.toml`; an error where it is there and cannot be read.
    pub settings: Option<Result<String, String>>,
    /// Versions by number.
    pub versions: BTreeMap<u64, FoundVersion>,
}

/// One version's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundVersion {
    /// It can be loaded.
    Settled(Fingerprint),
    /// It was written to so recently that it may still grow; look again after this long.
    Settling(Duration),
    /// The folder is there without a model file.
    Missing,
    /// The file cannot be looked at.
    Unreadable(String),
}

/// What tells one content of a version's folder from another without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    model: Stamp,
    golden: Option<Stamp>,
    baseline: Option<Stamp>,
}

/// What tells one content of a file from another without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    size: u64,
    modified: SystemTime,
    inode: u64,
}

/// Why a version cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The operating system refuses.
    #[error("cannot read {file}: {error}")]
    Io {
        /// The file's name within the version's folder.
        file: &'static str,
        /// The operating system's words.
        error: io::Error,
    },
    /// The file is larger than the limit.
    #[error("{file} has {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// The file's name within the version's folder.
        file: &'static str,
        /// Its size.
        size: u64,
        /// The limit, `repository.model_size` for a model.
        limit: u64,
    },
    /// It is being written to.
    #[error("{file} changed while it was read")]
    Changed {
        /// The file's name within the version's folder.
        file: &'static str,
    },
}

/// The content of a version's folder.
#[derive(Debug)]
pub struct VersionFiles {
    /// The bytes of `model.onnx`.
    pub model: Vec<u8>,
    /// The bytes of `golden.json`, where there is one.
    pub golden: Option<Vec<u8>>,
    /// The bytes of `baseline.json`, where there is one; why not, where it cannot be read: a version
    /// serves without.
    pub baseline: Option<Result<Vec<u8>, String>>,
}

/// Looks at the repository. `is_model_name` says which folders are models; others are passed
/// over, as are version folders whose name is not a positive integer. O(models × versions).
pub fn scan(
    root: &Path,
    settle: Duration,
    is_model_name: impl Fn(&str) -> bool,
) -> io::Result<Scan> {
    let mut scan = Scan::new();
    for (name, path) in folders(root)? {
        if is_model_name(&name) {
            scan.insert(name, scan_model(&path, settle));
        }
    }
    Ok(scan)
}

fn scan_model(path: &Path, settle: Duration) -> FoundModel {
    let settings = read_settings(&path.join(SETTINGS_FILE));
    // A model's folder that vanishes while it is looked at has no versions.
    let folders = folders(path).unwrap_or_default();
    let versions = folders.into_iter().filter_map(|(name, path)| {
        let version = version_number(&name)?;
        Some((version, scan_version(&path, settle)))
    });
    FoundModel { settings, versions: versions.collect() }
}

/// The version number that a folder's name stands for: digits without a leading zero.
fn version_number(name: &str) -> Option<u64> {
    let is_plain = !name.starts_with('0') && name.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| name.parse().ok()).flatten()
}

fn scan_version(path: &Path, settle: Duration) -> FoundVersion {
    let metadata = match fs::metadata(path.join(MODEL_FILE)) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return FoundVersion::Missing,
        Err(error) => return FoundVersion::Unreadable(error.to_string()),
    };
    let model = stamp_of(&metadata);
    let [golden, baseline] = [GOLDEN_FILE, BASELINE_FILE].map(|file| stamp(&path.join(file)));
    let beside = golden.iter().chain(&baseline).map(|stamp| stamp.modified);
    let youngest = beside.fold(model.modified, SystemTime::max);
    // A time in the future says nothing about what is going on now.
    let age = SystemTime::now().duration_since(youngest).unwrap_or(settle);
    match settle.checked_sub(age) {
        Some(rest) if !rest.is_zero() => FoundVersion::Settling(rest),
        _ => FoundVersion::Settled(Fingerprint { model, golden, baseline }),
    }
}

fn read_settings(path: &Path) -> Option<Result<String, String>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => return Some(Err(error.to_string())),
    };
    let mut text = String::new();
    let read = Read::take(&mut file, LARGEST_TEXT).read_to_string(&mut text);
    Some(read.map(|_| text).map_err(|error| error.to_string()))
}

/// Reads the version in `root/model/version`, whose model file has at most `limit` bytes.
pub fn read(root: &Path, model: &str, version: u64, limit: u64) -> Result<VersionFiles, ReadError> {
    let path: PathBuf = [root, Path::new(model), Path::new(&version.to_string())].iter().collect();
    let model = read_file(&path, MODEL_FILE, limit)?;
    let golden = read_optional(&path, GOLDEN_FILE).transpose()?;
    let baseline = read_optional(&path, BASELINE_FILE);
    let baseline = match baseline {
        // Being written to: the whole is read again, as with the other files.
        Some(Err(changed @ ReadError::Changed { .. })) => return Err(changed),
        other => other.map(|read| read.map_err(|error| error.to_string())),
    };
    Ok(VersionFiles { model, golden, baseline })
}

/// A file that need not be there.
fn read_optional(folder: &Path, file: &'static str) -> Option<Result<Vec<u8>, ReadError>> {
    match read_file(folder, file, LARGEST_TEXT) {
        Err(ReadError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => None,
        read => Some(read),
    }
}

fn read_file(folder: &Path, file: &'static str, limit: u64) -> Result<Vec<u8>, ReadError> {
    let failed = |error| ReadError::Io { file, error };
    let path = folder.join(file);
    let mut opened = File::open(&path).map_err(failed)?;
    let before = stamp_of(&opened.metadata().map_err(failed)?);
    if before.size > limit {
        return Err(ReadError::TooLarge { file, size: before.size, limit });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(before.size).unwrap_or(0));
    Read::take(&mut opened, limit).read_to_end(&mut bytes).map_err(failed)?;
    // The path, not the open file: a rename over it is a change as well.
    let after = stamp_of(&fs::metadata(&path).map_err(failed)?);
    if after != before || bytes.len() as u64 != before.size {
        return Err(ReadError::Changed { file });
    }
    Ok(bytes)
}

/// The stamp of a file; nothing where it cannot be looked at.
#[must_use]
pub fn stamp(path: &Path) -> Option<Stamp> {
    fs::metadata(path).ok().map(|metadata| stamp_of(&metadata))
}

fn stamp_of(metadata: &Metadata) -> Stamp {
    let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    Stamp { size: metadata.len(), modified, inode: inode(metadata) }
}

#[cfg(unix)]
fn inode(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_: &Metadata) -> u64 {
    0
}

/// The folders in `path`, links to folders included, with names that are UTF-8.
fn folders(path: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let path = entry.path();
        if let (true, Ok(name)) = (path.is_dir(), entry.file_name().into_string()) {
            folders.push((name, path));
        }
    }
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, path: &str, content: &[u8]) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    #[test]
    fn only_models_and_positive_versions_are_found() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "a/1/model.onnx", b"x");
        put(root.path(), "a/01/model.onnx", b"x");
        put(root.path(), "a/0/model.onnx", b"x");
        put(root.path(), "a/-1/model.onnx", b"x");
        put(root.path(), "a/2.tmp/model.onnx", b"x");
        put(root.path(), "a/3/model.onnx.tmp", b"x");
        put(root.path(), "a/99999999999999999999/model.onnx", b"x");
        put(root.path(), "a/model.toml", b"owner = 'me'");
        put(root.path(), ".hidden/1/model.onnx", b"x");
        put(root.path(), "README.md", b"x");
        let scan = scan(root.path(), Duration::ZERO, |name| !name.starts_with('.')).unwrap();
        assert_eq!(scan.keys().collect::<Vec<_>>(), ["a"]);
        let versions = &scan["a"].versions;
        assert_eq!(versions.keys().collect::<Vec<_>>(), [&1, &3]);
        assert!(matches!(versions[&1], FoundVersion::Settled(_)));
        assert_eq!(versions[&3], FoundVersion::Missing);
        assert_eq!(scan["a"].settings, Some(Ok("owner = 'me'".to_owned())));
    }

    #[test]
    fn a_young_file_is_settling_and_an_old_one_is_not() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "a/1/model.onnx", b"x");
        let hour = Duration::from_secs(3600);
        let found = scan(root.path(), hour, |_| true).unwrap();
        assert!(matches!(found["a"].versions[&1], FoundVersion::Settling(rest) if rest <= hour));
        let file = File::options().write(true).open(root.path().join("a/1/model.onnx")).unwrap();
        file.set_modified(SystemTime::now() - 2 * hour).unwrap();
        let found = scan(root.path(), hour, |_| true).unwrap();
        assert!(matches!(found["a"].versions[&1], FoundVersion::Settled(_)));
    }

    #[test]
    fn a_replaced_file_has_another_fingerprint() {
        let root = tempfile::tempdir().unwrap();
        let look =
            || scan(root.path(), Duration::ZERO, |_| true).unwrap()["a"].versions[&1].clone();
        put(root.path(), "a/1/model.onnx", b"x");
        let before = look();
        assert_eq!(before, look());
        put(root.path(), "a/1/model.onnx", b"yy");
        assert_ne!(before, look());
        let before = look();
        put(root.path(), "a/1/golden.json", b"{}");
        assert_ne!(before, look());
    }

    #[test]
    fn a_file_beyond_the_limit_is_not_read() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "a/1/model.onnx", b"12345");
        let error = read(root.path(), "a", 1, 4).unwrap_err();
        assert_eq!(error.to_string(), "model.onnx has 5 bytes, more than the limit of 4");
        assert_eq!(read(root.path(), "a", 1, 5).unwrap().model, b"12345");
    }
}
