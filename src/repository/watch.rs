//! File events: a hint to look, never a fact by itself.
//!
//! What an event says is not used; whoever is called looks at the files and decides. A missed
//! event costs the time until the next poll.

use std::path::Path;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

/// Watches for as long as it lives.
#[derive(Debug)]
pub struct Watch {
    _watcher: RecommendedWatcher,
}

/// Calls `changed` after anything below `path` may have changed: on a thread of the watcher's,
/// often several times for one change. Fails where the system has no watches left or `path` does
/// not exist.
pub fn watch(path: &Path, changed: impl Fn() + Send + 'static) -> Result<Watch, String> {
    let handler = move |event: notify::Result<Event>| {
        if event.as_ref().map_or(true, is_change) {
            changed();
        }
    };
    let mut watcher = notify::recommended_watcher(handler).map_err(|error| error.to_string())?;
    watcher.watch(path, RecursiveMode::Recursive).map_err(|error| error.to_string())?;
    Ok(Watch { _watcher: watcher })
}

/// Opening and reading, which is what looking does, are not changes.
fn is_change(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}
