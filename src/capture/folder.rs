//! The folders that files are in: `model=M/date=YYYY-MM-DD/`. What a process left behind there, and
//! what is too old.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;

use super::file::{self, FOOT, NEW, PART};

/// `2026-11-26` of milliseconds since 1970, in UTC.
pub(super) fn date(at: u64) -> String {
    let moment = i64::try_from(at / 1000).ok();
    let moment = moment.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    let moment = moment.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    format!("{:04}-{:02}-{:02}", moment.year(), u8::from(moment.month()), moment.day())
}

/// `20261126T131415.123Z` of milliseconds since 1970: names sort by it.
pub(super) fn stamp(at: u64) -> String {
    let seconds = at / 1000 % 86_400;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let day = date(at).replace('-', "");
    format!("{day}T{hour:02}{minute:02}{second:02}.{:03}Z", at % 1000)
}

/// The folder of a model's files of a day.
pub(super) fn of_day(root: &Path, model: &str, date: &str) -> PathBuf {
    root.join(format!("model={model}")).join(format!("date={date}"))
}

/// A file that was left, or is whole.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) modified: SystemTime,
}

/// All files below `root/model=*/date=*/` whose name `wants`; of one model where one is given. A
/// folder that is not there has none.
pub(super) fn find(root: &Path, model: Option<&str>, wants: impl Fn(&str) -> bool) -> Vec<Found> {
    let entries = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let is_named = |path: &Path, beginning: &str| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|n| n.starts_with(beginning))
    };
    let models = match model {
        Some(model) => vec![root.join(format!("model={model}"))],
        None => entries(root).into_iter().filter(|path| is_named(path, "model=")).collect(),
    };
    let mut found = Vec::new();
    for day in models.iter().flat_map(|model| entries(model)) {
        if !is_named(&day, "date=") {
            continue;
        }
        for path in entries(&day) {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let Ok(facts) = path.metadata() else { continue };
            if wants(name) && facts.is_file() {
                let modified = facts.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                found.push(Found { path, bytes: facts.len(), modified });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

pub(super) fn is_whole(name: &str) -> bool {
    name.ends_with(".parquet") && !name.starts_with('.')
}

/// Completes what processes that are gone left in `root`: the files, and what could not be completed.
pub(super) fn recover(root: &Path) -> (Vec<(PathBuf, u64)>, Vec<io::Error>) {
    let is_part = |name: &str| name.starts_with('.') && name.ends_with(PART);
    let (mut whole, mut errors) = (Vec::new(), Vec::new());
    for found in find(root, None, is_part) {
        match file::complete(&found.path) {
            Ok(completed) => whole.extend(completed),
            Err(error) => errors.push(error),
        }
    }
    // Ends whose files are complete already, and those that were not complete themselves.
    let is_end =
        |name: &str| name.starts_with('.') && (name.ends_with(FOOT) || name.ends_with(NEW));
    for found in find(root, None, is_end) {
        if !found.path.with_extension(PART).exists() {
            drop(std::fs::remove_file(&found.path));
        }
    }
    (whole, errors)
}

/// Removes a model's files that are older than `keep_time`, then the oldest until the others have at
/// most `keep_size` bytes. Returns how many.
pub(super) fn retain(
    root: &Path,
    model: &str,
    keep_time: Option<Duration>,
    keep_size: Option<u64>,
    now: SystemTime,
) -> usize {
    let mut files = find(root, Some(model), is_whole);
    files.sort_by_key(|file| file.modified);
    let mut left: u64 = files.iter().map(|file| file.bytes).sum();
    let mut removed = 0;
    for file in files {
        let age = now.duration_since(file.modified).unwrap_or_default();
        let is_old = keep_time.is_some_and(|most| age > most);
        let is_much = keep_size.is_some_and(|most| left > most);
        if (is_old || is_much) && std::fs::remove_file(&file.path).is_ok() {
            left -= file.bytes;
            removed += 1;
            if let Some(day) = file.path.parent() {
                // Fails where something else is still in it, which is right.
                drop(std::fs::remove_dir(day));
            }
        }
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_time() {
        assert_eq!(date(1_790_000_000_123), "2026-09-21");
        assert_eq!(stamp(1_790_000_000_123), "20260921T141320.123Z");
        assert_eq!(date(951_868_799_999), "2000-02-29");
    }

    #[test]
    fn the_old_and_what_is_too_much_goes() {
        let folder = tempfile::tempdir().unwrap();
        let day = of_day(folder.path(), "m", "2026-11-26");
        std::fs::create_dir_all(&day).unwrap();
        let now = SystemTime::now();
        for (name, age) in [("a", 300), ("b", 200), ("c", 100), ("d", 0)] {
            let path = day.join(format!("{name}.parquet"));
            std::fs::write(&path, [0; 100]).unwrap();
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(now - Duration::from_secs(age)).unwrap();
        }
        std::fs::write(day.join(".e.parquet.part"), [0; 1000]).unwrap();
        assert_eq!(retain(folder.path(), "m", Some(Duration::from_secs(250)), None, now), 1);
        assert_eq!(retain(folder.path(), "m", None, Some(250), now), 1);
        let left = find(folder.path(), None, is_whole);
        let names: Vec<_> = left.iter().map(|file| file.path.file_name().unwrap()).collect();
        assert_eq!(names, ["c.parquet", "d.parquet"]);
    }
}
