//! Where retired versions end.
//!
//! A version taken out of the table may still answer requests accepted before. Whoever dropped
//! the last reference would free the model, which for a large one takes milliseconds, on an I/O
//! thread. So the reaper holds a reference of its own to each retired version, and drops it, on
//! its thread, once nobody else does. A retired version is in no table, so its count cannot rise
//! again but through requests that hold it already.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::table::LiveTable;
use super::version::Version;
use crate::telemetry::Gauge;

/// How often retired versions are looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// What was taken out of service by one commit.
#[derive(Debug)]
pub(super) struct Retired {
    /// The table before. It holds the versions too, and readers may still look at it.
    pub(super) table: Arc<LiveTable>,
    /// The versions that the next table does not have.
    pub(super) versions: Vec<Arc<Version>>,
}

/// Starts the reaper. It ends when the sender is gone and everything is dropped.
pub(super) fn start(retiring: Gauge) -> std::io::Result<(Sender<Retired>, JoinHandle<()>)> {
    let (sender, receiver) = channel();
    let thread = std::thread::Builder::new()
        .name("reaper".to_owned())
        .spawn(move || reap(&receiver, &retiring))?;
    Ok((sender, thread))
}

fn reap(receiver: &Receiver<Retired>, retiring: &Gauge) {
    let mut tables: Vec<Arc<LiveTable>> = Vec::new();
    let mut versions: Vec<Arc<Version>> = Vec::new();
    let mut connected = true;
    while connected || !versions.is_empty() || !tables.is_empty() {
        let idle = tables.is_empty() && versions.is_empty();
        let received = match idle {
            true => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => receiver.recv_timeout(INTERVAL),
        };
        match received {
            Ok(retired) => {
                tables.push(retired.table);
                versions.extend(retired.versions);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) if idle => return,
            Err(RecvTimeoutError::Disconnected) => {
                connected = false;
                std::thread::sleep(INTERVAL);
            }
        }
        // Tables first: they hold versions.
        tables.retain(|table| Arc::strong_count(table) > 1);
        versions.retain(|version| Arc::strong_count(version) > 1);
        retiring.set(versions.len() as f64);
    }
}
