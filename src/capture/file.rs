//! One Parquet file from its first row to its name.
//!
//! It is written as `.NAME.parquet.part`. After each row group the bytes are synchronised with the
//! disk, and what a reader would need at the end of the file, were it closed now, is written beside
//! it as `.NAME.parquet.foot`. Closing appends the end and renames the file. A file whose process
//! died is cut off behind its last whole row group, given the end that was kept, and renamed: nothing
//! that was flushed is lost, and nobody ever sees half a file. Whether its process lives shows the
//! lock on the file, which ends with the process.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::{FileMetaData, ParquetMetaData, ParquetMetaDataWriter};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::names;

pub(super) const PART: &str = "part";
pub(super) const FOOT: &str = "foot";
pub(super) const NEW: &str = "foot-new";

/// Bytes before the end of a file that is kept: where it belongs.
const OFFSET: usize = 8;

/// A file that is being written.
#[derive(Debug)]
pub(super) struct OpenFile {
    writer: ArrowWriter<File>,
    part: PathBuf,
    /// Seconds since 1970 do not go backwards here.
    pub(super) opened: Instant,
    /// Rows of whole row groups.
    pub(super) rows: u64,
    /// Bytes of whole row groups.
    pub(super) bytes: u64,
}

fn hidden(path: &Path, ending: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{ending}"))
}

/// The name that a hidden file gets when it is whole.
fn visible(part: &Path) -> Option<PathBuf> {
    let name = part.file_name()?.to_str()?;
    let name = name.strip_prefix('.')?.strip_suffix(PART)?.strip_suffix('.')?;
    Some(part.with_file_name(name))
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    let error = error.into();
    // The operating system's own error says more than what a library made of it.
    match error.downcast::<io::Error>() {
        Ok(error) => *error,
        Err(error) => io::Error::other(error),
    }
}

/// Which columns have few different values.
fn properties(schema: &SchemaRef) -> WriterProperties {
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .set_max_row_group_row_count(None);
    for field in schema.fields() {
        let path = ColumnPath::new(vec![field.name().clone()]);
        if matches!(field.data_type(), arrow_schema::DataType::Dictionary(..)) {
            builder = builder.set_column_dictionary_enabled(path, true);
        } else if field.name() == names::TIME {
            builder = builder.set_column_statistics_enabled(path, EnabledStatistics::Chunk);
        }
    }
    builder.build()
}

impl OpenFile {
    /// Opens the file that will be called `path`.
    pub(super) fn create(path: &Path, schema: &SchemaRef) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let part = hidden(path, PART);
        let file = OpenOptions::new().write(true).read(true).create_new(true).open(&part)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::Error(error) => error,
            TryLockError::WouldBlock => io::Error::other("another process has the file"),
        })?;
        let options = ArrowWriterOptions::new()
            .with_properties(properties(schema))
            .with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(file, SchemaRef::clone(schema), options);
        let writer = writer.map_err(failed)?;
        Ok(Self { writer, part, opened: Instant::now(), rows: 0, bytes: 0 })
    }

    /// Adds rows to the open row group.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> io::Result<()> {
        self.writer.write(batch).map_err(failed)
    }

    /// Ends the row group: its rows outlive the process from now on.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.writer.flush().map_err(failed)?;
        self.writer.sync()?;
        let file = self.writer.inner();
        file.sync_data()?;
        let end = file.metadata()?.len();
        self.keep_foot(end)?;
        let groups = self.writer.flushed_row_groups();
        self.rows = groups.iter().map(|group| u64::try_from(group.num_rows()).unwrap_or(0)).sum();
        self.bytes = end;
        Ok(())
    }

    fn keep_foot(&self, end: u64) -> io::Result<()> {
        let groups = self.writer.flushed_row_groups().to_vec();
        let Some(first) = groups.first() else { return Ok(()) };
        let rows = groups.iter().map(|group| group.num_rows()).sum();
        let schema = first.schema_descr_ptr();
        let about = FileMetaData::new(1, rows, Some(created_by()), None, schema, None);
        let mut foot = end.to_le_bytes().to_vec();
        ParquetMetaDataWriter::new(&mut foot, &ParquetMetaData::new(about, groups))
            .finish()
            .map_err(failed)?;
        let kept = self.part.with_extension(FOOT);
        let new = self.part.with_extension(NEW);
        let mut file = File::create(&new)?;
        file.write_all(&foot)?;
        file.sync_data()?;
        std::fs::rename(new, kept)
    }

    /// Completes the file; its path, and its bytes. One without rows is removed.
    pub(super) fn close(self) -> io::Result<Option<(PathBuf, u64)>> {
        let part = self.part.clone();
        drop(self.writer);
        complete(&part)
    }

    /// Gives the file up where it is: what was flushed is completed if that can be done now, else by
    /// the next start.
    pub(super) fn abandon(self) -> io::Result<Option<(PathBuf, u64)>> {
        self.close()
    }
}

fn created_by() -> String {
    concat!("tidegate version ", env!("CARGO_PKG_VERSION")).to_owned()
}

/// Makes a hidden file whose writer is gone a whole one; nothing where it has no rows, or its process
/// lives. Returns its path and its bytes.
pub(super) fn complete(part: &Path) -> io::Result<Option<(PathBuf, u64)>> {
    let Some(path) = visible(part) else { return Ok(None) };
    let mut file = match OpenOptions::new().write(true).open(part) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let kept = part.with_extension(FOOT);
    let foot = match std::fs::read(&kept) {
        Ok(foot) => foot,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Nothing was ever flushed.
            std::fs::remove_file(part)?;
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let (end, foot) = foot.split_first_chunk::<OFFSET>().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{} is too short", kept.display()))
    })?;
    let end = u64::from_le_bytes(*end);
    if file.metadata()?.len() < end {
        let message = format!("{} is shorter than it was", part.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    file.set_len(end)?;
    file.seek(SeekFrom::Start(end))?;
    file.write_all(foot)?;
    file.sync_all()?;
    std::fs::rename(part, &path)?;
    // Without its file the end is worth nothing; the next start would remove it as well.
    drop(std::fs::remove_file(kept));
    drop(std::fs::remove_file(part.with_extension(NEW)));
    if let Some(folder) = path.parent() {
        // The name is on the disk as well where the file system can do that.
        drop(File::open(folder).and_then(|folder| folder.sync_all()));
    }
    Ok(Some((path, end + foot.len() as u64)))
}
