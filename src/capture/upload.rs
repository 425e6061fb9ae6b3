//! Files of the spool on their way to object stores.
//!
//! The spool's folders are the only state: a thread looks for whole files there, puts the oldest
//! first, and removes what has arrived. So a store that is down, and a process that died, cost time
//! and nothing else, until the spool is full.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Builder;

use super::folder;
use super::store::{Store, URL};
use crate::telemetry::{Counter, Gauge, Telemetry, names};

/// How long is waited for news, and between two tries.
const REST: Duration = Duration::from_secs(1);

/// The longest time between two tries.
const LONGEST: Duration = Duration::from_secs(30);

/// The longest that a file may take.
const OF_A_FILE: Duration = Duration::from_secs(600);

/// What the writing thread and the uploading one share.
pub(super) struct Uploads {
    /// URLs and the folders of their files.
    destinations: Mutex<Vec<(String, PathBuf)>>,
    bytes: AtomicU64,
    woken: AtomicBool,
    /// Whether no more files come.
    ended: AtomicBool,
    spool: PathBuf,
    uploaded: Counter,
    failed: Counter,
    waiting: Gauge,
}

impl std::fmt::Debug for Uploads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uploads").field("spool", &self.spool).finish_non_exhaustive()
    }
}

impl Uploads {
    pub(super) fn new(telemetry: &Telemetry, spool: PathBuf) -> Arc<Self> {
        let counter = |outcome| telemetry.counter(names::CAPTURE_UPLOADS, &[("outcome", outcome)]);
        Arc::new(Self {
            destinations: Mutex::default(),
            bytes: AtomicU64::new(0),
            woken: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            spool,
            uploaded: counter("ok"),
            failed: counter("failed"),
            waiting: telemetry.gauge(names::CAPTURE_SPOOLED, &[]),
        })
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Files of `folder` go to `url`, which is written there for the next start.
    pub(super) fn add(&self, url: &str, folder: &Path) {
        let mut destinations = self.destinations.lock().unwrap_or_else(PoisonError::into_inner);
        if destinations.iter().all(|(known, _)| known != url) {
            destinations.push((url.to_owned(), folder.to_owned()));
        }
        drop(destinations);
        let written =
            std::fs::create_dir_all(folder).and_then(|()| std::fs::write(folder.join(URL), url));
        if let Err(error) = written {
            tracing::warn!(%error, folder = %folder.display(), "the spool cannot be written to");
        }
    }

    /// A file of so many bytes waits.
    pub(super) fn closed(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.wake();
    }

    fn wake(&self) {
        self.woken.store(true, Ordering::Release);
    }

    /// No more files come: the thread puts what it can, and ends.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.wake();
    }

    fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// What an earlier process left.
    fn find(&self) {
        let entries = std::fs::read_dir(&self.spool).into_iter().flatten().flatten();
        for folder in entries.map(|entry| entry.path()) {
            if let Ok(url) = std::fs::read_to_string(folder.join(URL)) {
                // Files that its death left open are completed here too.
                folder::recover(&folder);
                self.add(&url, &folder);
            }
        }
    }

    fn files(&self) -> Vec<(String, PathBuf, folder::Found)> {
        let destinations = self.destinations.lock().unwrap_or_else(PoisonError::into_inner);
        let files = destinations.iter().flat_map(|(url, root)| {
            let found = folder::find(root, None, folder::is_whole);
            found.into_iter().map(move |file| (url.clone(), root.clone(), file))
        });
        files.collect()
    }

    /// Puts every file that waits; whether all arrived.
    async fn pass(&self, stores: &mut Vec<(String, Store)>) -> Result<(), String> {
        let files = self.files();
        let mut left: u64 = files.iter().map(|(_, _, file)| file.bytes).sum();
        self.note(left);
        for (url, root, file) in files {
            if stores.iter().all(|(known, _)| *known != url) {
                stores.push((url.clone(), Store::open(&url)?));
            }
            let Some((_, store)) = stores.iter().find(|(known, _)| *known == url) else { continue };
            let name = file.path.strip_prefix(&root).unwrap_or(&file.path);
            let name = name.to_string_lossy();
            let put = store.put(&name, &file.path);
            match tokio::time::timeout(OF_A_FILE, put).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(format!("{url}: {error}")),
                Err(_) => return Err(format!("{url}: a file took longer than {OF_A_FILE:?}")),
            }
            self.uploaded.increment(1);
            left -= file.bytes;
            if let Err(error) = std::fs::remove_file(&file.path) {
                return Err(format!("{}: {error}", file.path.display()));
            }
            if let Some(day) = file.path.parent() {
                // Fails where something else is still in it, which is right.
                drop(std::fs::remove_dir(day));
            }
            self.note(left);
        }
        Ok(())
    }

    fn note(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
        self.waiting.set(bytes as f64);
    }
}

/// Starts the thread, on which `begin` runs first. It ends after [`Uploads::end`].
pub(super) fn start(uploads: Arc<Uploads>, begin: fn()) -> std::io::Result<JoinHandle<()>> {
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    std::thread::Builder::new().name("upload".to_owned()).spawn(move || {
        begin();
        uploads.find();
        let mut stores = Vec::new();
        let mut wait = REST;
        loop {
            // A last look after the end, for what the writing thread completed meanwhile.
            let was_ended = uploads.is_ended();
            let has_any =
                !uploads.destinations.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
            if has_any {
                match runtime.block_on(uploads.pass(&mut stores)) {
                    Ok(()) => wait = REST,
                    Err(error) => {
                        uploads.failed.increment(1);
                        wait = (wait * 2).min(LONGEST);
                        tracing::warn!(
                            error,
                            again_in_ms = wait.as_millis(),
                            spooled = uploads.bytes(),
                            "files wait for their object store"
                        );
                    }
                }
            }
            if was_ended {
                break;
            }
            let rested = std::time::Instant::now();
            while rested.elapsed() < wait && !uploads.is_ended() {
                std::thread::sleep(Duration::from_millis(50));
                if wait == REST && uploads.woken.swap(false, Ordering::AcqRel) {
                    break;
                }
            }
        }
    })
}
