//! One region: its file, and copies out of it and into it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{RegionError, RegionStatus};

/// Where the C library's `shm_open` has its files.
const FOLDER: &str = "/dev/shm";

/// Bytes that a file's name may have.
const LONGEST_KEY: usize = 255;

/// A registered part of a file.
#[derive(Debug)]
pub(super) struct Region {
    name: Box<str>,
    key: Box<str>,
    offset: u64,
    size: u64,
    file: File,
}

impl Region {
    /// Opens the file `key`, of which `place` (offset and size) is to be the region.
    pub(super) fn open(
        name: &str,
        key: &str,
        prefix: &str,
        place: (u64, u64),
        largest: u64,
    ) -> Result<Self, RegionError> {
        let (offset, size) = place;
        let file = open(key, prefix)?;
        let system = |error: std::io::Error| RegionError::System { region: name.into(), error };
        let length = file.metadata().map_err(system)?.len();
        if size == 0 || size > largest {
            return Err(RegionError::Size(format!(
                "expected 1 to {largest} (server.shared_memory.region_size), got {size}"
            )));
        }
        if offset.checked_add(size).is_none_or(|end| end > length) {
            return Err(RegionError::Size(format!(
                "{size} bytes from offset {offset} on are not within '{key}', which has {length}"
            )));
        }
        Ok(Self { name: name.into(), key: key.into(), offset, size, file })
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn status(&self) -> RegionStatus {
        RegionStatus {
            name: self.name.to_string(),
            key: self.key.to_string(),
            offset: self.offset,
            byte_size: self.size,
        }
    }
}

/// Opens a file of [`FOLDER`]. What is not a regular file is refused, without waiting for anybody: a
/// pipe and a link are in nobody's way.
fn open(key: &str, prefix: &str) -> Result<File, RegionError> {
    let refused = |reason: String| RegionError::Key { key: key.to_owned(), reason };
    // `shm_open` takes names with a slash before them.
    let name = key.strip_prefix('/').unwrap_or(key);
    let is_plain = !matches!(name, "" | "." | "..") && !name.contains(['/', '\0']);
    if !is_plain || name.len() > LONGEST_KEY {
        return Err(refused(format!(
            "expected the name of a file in {FOLDER}, of at most {LONGEST_KEY} bytes and without '/' but at its beginning"
        )));
    }
    if !name.starts_with(prefix) {
        let reason =
            format!("expected a name that begins with '{prefix}' (server.shared_memory.prefix)");
        return Err(refused(reason));
    }
    let flags =
        OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open(format!("{FOLDER}/{name}"), flags, Mode::empty());
    let file = file.map_err(|error| match error {
        Errno::NOENT => RegionError::NoMemory(key.to_owned()),
        Errno::ACCESS | Errno::PERM => {
            refused("the server has no permission to read and write it".to_owned())
        }
        Errno::LOOP | Errno::ISDIR | Errno::NXIO => refused(NOT_REGULAR.to_owned()),
        error => refused(std::io::Error::from(error).to_string()),
    })?;
    let stat = rustix::fs::fstat(&file);
    let stat = stat.map_err(|error| refused(std::io::Error::from(error).to_string()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(refused(NOT_REGULAR.to_owned()));
    }
    Ok(file.into())
}

const NOT_REGULAR: &str = "expected shared memory, that is, a regular file";

/// A part of a region, which stays there for as long as somebody holds it.
#[derive(Debug, Clone)]
pub struct Span {
    region: Arc<Region>,
    /// Within the region.
    offset: u64,
    size: usize,
}

impl PartialEq for Span {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.region, &other.region)
            && (self.offset, self.size) == (other.offset, other.size)
    }
}

impl Eq for Span {}

impl Span {
    pub(super) fn of(region: Arc<Region>, offset: u64, size: u64) -> Result<Self, RegionError> {
        let fits = offset.checked_add(size).is_some_and(|end| end <= region.size);
        match usize::try_from(size) {
            Ok(size) if fits => Ok(Self { region, offset, size }),
            _ => {
                let (name, length) = (region.name.clone(), region.size);
                Err(RegionError::Outside { region: name, length, offset, size })
            }
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// A copy of its bytes. O(size).
    pub fn read(&self) -> Result<Bytes, RegionError> {
        let mut data = Vec::with_capacity(self.size);
        while data.len() < self.size {
            let at = self.place() + data.len() as u64;
            match rustix::io::pread(&self.region.file, spare_capacity(&mut data), at) {
                Ok(0) => return Err(RegionError::Cut(self.region.name.clone())),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(self.system(error.into())),
            }
        }
        // More may have been taken than was asked for.
        data.truncate(self.size);
        Ok(data.into())
    }

    /// Copies `data`, which must not be longer, to its beginning. O(length).
    pub fn write(&self, data: &[u8]) -> Result<(), RegionError> {
        if data.len() > self.size {
            return Err(RegionError::Outside {
                region: self.region.name.clone(),
                length: self.region.size,
                offset: self.offset,
                size: data.len() as u64,
            });
        }
        // A file that was cut grows again by this, to the region's end at most.
        self.region.file.write_all_at(data, self.place()).map_err(|error| self.system(error))
    }

    /// Where in the file it begins: registered regions end within their files, so this fits.
    fn place(&self) -> u64 {
        self.region.offset + self.offset
    }

    fn system(&self, error: std::io::Error) -> RegionError {
        RegionError::System { region: self.region.name.clone(), error }
    }
}
