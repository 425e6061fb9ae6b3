//! One version's rows on their way into files.
//!
//! Rows are gathered as columns, encoded some thousands at a time, so that no moment costs much, and
//! put on the disk as a row group. Until that has happened they are kept: where the disk fails, the
//! file is completed as far as it got, and after a while the same rows go into another.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;

use super::columns::{Columns, Process};
use super::file::OpenFile;
use super::folder;
use super::offered::{Reason, Taken};
use super::subject::{Scores, Subject};
use crate::tensor::Tensor;

/// Rows that are encoded at once.
const ENCODED: usize = 4096;

/// Bytes that are encoded at once.
const ENCODED_BYTES: usize = 1 << 20;

/// Rows of a row group.
const GROUP: usize = 64 << 10;

/// Bytes of a row group, before compression.
const GROUP_BYTES: usize = 16 << 20;

/// How long a disk that failed is left alone, at first and at most.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

const DAY: u64 = 86_400_000;

/// A file that is whole.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) bytes: u64,
}

/// What became of something.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Rows that are on the disk now.
    pub(super) rows: u64,
    /// Bytes that they take.
    pub(super) bytes: u64,
    /// Rows that are lost.
    pub(super) lost: u64,
    /// Files that are whole now.
    pub(super) closed: Vec<Closed>,
    /// What failed.
    pub(super) errors: Vec<io::Error>,
}

/// Rows and files of one version.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) subject: Arc<Subject>,
    pub(super) root: PathBuf,
    columns: Columns,
    /// Encoded rows that are not safe yet, and how many of them the file has.
    pending: Vec<RecordBatch>,
    n_written: usize,
    pending_rows: usize,
    pending_bytes: usize,
    /// When the oldest row that is not safe came, and its day since 1970.
    oldest: Option<(Instant, u64)>,
    file: Option<(OpenFile, u64)>,
    n_files: u64,
    /// Until when the disk is left alone, and for how long next time.
    trouble: Option<(Instant, Duration)>,
}

impl Stream {
    pub(super) fn new(subject: Arc<Subject>, root: PathBuf) -> Self {
        Self {
            columns: Columns::new(&subject),
            subject,
            root,
            pending: Vec::new(),
            n_written: 0,
            pending_rows: 0,
            pending_bytes: 0,
            oldest: None,
            file: None,
            n_files: 0,
            trouble: None,
        }
    }

    /// Bytes that are gathered and not safe.
    pub(super) fn bytes(&self) -> usize {
        self.pending_bytes + self.columns.bytes()
    }

    /// Whether there is neither a row nor a file.
    pub(super) fn is_idle(&self) -> bool {
        self.file.is_none() && self.pending_rows == 0 && self.columns.n_rows() == 0
    }

    /// Takes a request, unless it is none that is wanted.
    pub(super) fn take(
        &mut self,
        taken: &Taken<'_>,
        config: &str,
        process: &Process,
        progress: &mut Progress,
    ) {
        let scores = score(&self.subject, taken);
        if taken.reason == Reason::IfOutlier {
            let is_outlier = |scores: &Scores| scores.rows.iter().any(|s| *s > scores.threshold);
            if !scores.as_ref().is_some_and(is_outlier) {
                return;
            }
        }
        let day = taken.at / DAY;
        let present = self.file.as_ref().map(|(_, day)| *day).or(self.oldest.map(|(_, day)| day));
        if present.is_some_and(|present| day > present) {
            self.close(process, progress);
        }
        let is_full = |stream: &Self| {
            stream.pending_rows + stream.columns.n_rows() >= GROUP || stream.bytes() >= GROUP_BYTES
        };
        if is_full(self) {
            self.flush(process, progress);
            if is_full(self) {
                let rows = taken.inputs.first().and_then(|t| t.shape.first()).copied();
                progress.lost += match self.subject.splits() {
                    true => rows.unwrap_or(1).max(1) as u64,
                    false => 1,
                };
                return;
            }
        }
        self.oldest.get_or_insert_with(|| (Instant::now(), day));
        self.columns.push(&self.subject, taken, scores.as_ref(), config);
        if self.columns.n_rows() >= ENCODED || self.columns.bytes() >= ENCODED_BYTES {
            self.encode(process, progress);
        }
    }

    /// Makes columns of the rows, and hands them to the file where one is open.
    fn encode(&mut self, process: &Process, progress: &mut Progress) {
        let rows = self.columns.n_rows();
        if rows == 0 {
            return;
        }
        self.pending_bytes += self.columns.bytes();
        match self.columns.finish(&self.subject, process) {
            Ok(batch) => {
                self.pending_rows += rows;
                self.pending.push(batch);
            }
            Err(error) => {
                progress.lost += rows as u64;
                progress.errors.push(io::Error::other(error));
            }
        }
        if self.file.is_some()
            && let Err(error) = self.write()
        {
            self.fail(error, progress);
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let Some((file, _)) = &mut self.file else { return Ok(()) };
        for batch in &self.pending[self.n_written..] {
            file.write(batch)?;
            self.n_written += 1;
        }
        Ok(())
    }

    /// Puts all rows on the disk, unless it is left alone.
    pub(super) fn flush(&mut self, process: &Process, progress: &mut Progress) {
        self.encode(process, progress);
        let is_left_alone = self.trouble.is_some_and(|(until, _)| Instant::now() < until);
        if self.pending.is_empty() || is_left_alone {
            return;
        }
        let before = self.file.as_ref().map_or(0, |(file, _)| file.bytes);
        if let Err(error) = self.put(process) {
            self.fail(error, progress);
            return;
        }
        self.trouble = None;
        progress.rows += self.pending_rows as u64;
        self.forget();
        let Some((file, _)) = &self.file else { return };
        progress.bytes += file.bytes.saturating_sub(before);
        if file.bytes >= self.subject.settings.roll_size {
            self.complete(progress);
        }
    }

    fn put(&mut self, process: &Process) -> io::Result<()> {
        if self.file.is_none() {
            let day = self.oldest.map_or(0, |(_, day)| day);
            let path = self.name(process, day);
            self.file = Some((OpenFile::create(&path, self.columns.schema())?, day));
            self.n_files += 1;
            self.n_written = 0;
        }
        self.write()?;
        match &mut self.file {
            Some((file, _)) => file.flush(),
            None => Ok(()),
        }
    }

    /// `model=M/date=D/20261126T131415.123Z-v2-0f3a9c21-7.parquet`
    fn name(&self, process: &Process, day: u64) -> PathBuf {
        let about = &self.subject.about;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(0);
        let run: String = process.run_id.chars().take(8).collect();
        let name =
            format!("{}-v{}-{run}-{}.parquet", folder::stamp(now), about.version, self.n_files);
        folder::of_day(&self.root, &about.model, &folder::date(day * DAY)).join(name)
    }

    fn forget(&mut self) {
        self.pending.clear();
        (self.n_written, self.pending_rows, self.pending_bytes) = (0, 0, 0);
        self.oldest = None;
    }

    /// The disk failed: the file is given up as it is, and the rows are kept for another.
    fn fail(&mut self, error: io::Error, progress: &mut Progress) {
        progress.errors.push(error);
        self.n_written = 0;
        let wait = self.trouble.map_or(WAITS.0, |(_, wait)| (wait * 2).min(WAITS.1));
        self.trouble = Some((Instant::now() + wait, wait));
        if let Some((file, _)) = self.file.take() {
            let rows = file.rows;
            match file.abandon() {
                Ok(closed) => progress.closed.extend(closed.map(|(_, bytes)| Closed { bytes })),
                // What was flushed is completed by the next start; only if its folder is gone is it lost.
                Err(error) => {
                    tracing::debug!(%error, rows, "a file is left for the next start");
                }
            }
        }
    }

    fn complete(&mut self, progress: &mut Progress) {
        let Some((file, _)) = self.file.take() else { return };
        match file.close() {
            Ok(closed) => progress.closed.extend(closed.map(|(_, bytes)| Closed { bytes })),
            Err(error) => progress.errors.push(error),
        }
    }

    /// Puts all rows on the disk and completes the file.
    pub(super) fn close(&mut self, process: &Process, progress: &mut Progress) {
        self.flush(process, progress);
        self.complete(progress);
    }

    /// Gives up what could not be written.
    pub(super) fn end(&mut self, process: &Process, progress: &mut Progress) {
        // The last chance, whenever the last one was.
        self.trouble = None;
        self.close(process, progress);
        progress.lost += (self.pending_rows + self.columns.n_rows()) as u64;
        self.forget();
    }

    /// What time alone asks for.
    pub(super) fn tick(&mut self, process: &Process, progress: &mut Progress) {
        let settings = &self.subject.settings;
        let is_over = |since: Instant, most: Duration| since.elapsed() >= most;
        let flushes = self.oldest.is_some_and(|(since, _)| is_over(since, settings.flush));
        let rolls = self.file.as_ref().is_some_and(|(f, _)| is_over(f.opened, settings.roll_time));
        if rolls {
            self.close(process, progress);
        } else if flushes {
            self.flush(process, progress);
        }
    }

    /// The folder that its files are below.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }
}

fn score(subject: &Subject, taken: &Taken<'_>) -> Option<Scores> {
    let scorer = subject.scorer()?;
    if taken.inputs.is_empty() || taken.outputs.is_empty() {
        return None;
    }
    let tensors = |tensors: &[crate::handoff::Copied<'_>]| {
        tensors.iter().map(|copied| copied.to_tensor()).collect::<Option<Vec<Tensor>>>()
    };
    scorer.score(&tensors(&taken.inputs)?, &tensors(&taken.outputs)?)
}
