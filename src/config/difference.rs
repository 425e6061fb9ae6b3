//! What differs between two configurations, and whether it can be applied without a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::Config;

/// Keys that only a restart can change: sockets and threads exist once.
const NEEDS_RESTART: &[&str] = &[
    "server.http",
    "server.grpc",
    "server.admin",
    "server.shards",
    "server.io_threads",
    "server.compute_threads",
    "server.shared_memory.enabled",
    "server.shared_memory.prefix",
    "server.shared_memory.regions",
    "server.shared_memory.region_size",
    "log.format",
    "repository.watch",
    "observe.queue",
    "observe.queue_size",
    "store.path",
    "capture.queue",
    "capture.queue_size",
    "capture.spool",
    "capture.spool_size",
    "capture.hash_key_env",
    "shadowing.queue",
    "shadowing.queue_size",
    "shadowing.concurrency",
    "shadowing.timeout",
    "tracing.endpoint",
    "tracing.protocol",
    "tracing.queue",
    "tracing.timeout",
    "tracing.service",
];

/// The same for tables whose keys the user makes up.
const TABLES_NEED_RESTART: [&str; 2] = ["tracing.attributes.", "tracing.headers_env."];

/// One key that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key, dotted.
    pub key: String,
    /// The value before; nothing where it was not set.
    pub from: Option<String>,
    /// The value after; nothing where it is not set.
    pub to: Option<String>,
    /// When it takes effect.
    pub effect: Effect,
}

/// When a change takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// With the reload.
    Live,
    /// With the next start.
    Restart,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
        let effect = match self.effect {
            Effect::Live => "applies at once",
            Effect::Restart => "needs a restart",
        };
        write!(f, "{}: {} -> {} ({effect})", self.key, text(&self.from), text(&self.to))
    }
}

/// The keys that differ, sorted.
#[must_use]
pub fn difference(from: &Config, to: &Config) -> Vec<Change> {
    let (from, to) = (&from.keys, &to.keys);
    let keys: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    keys.into_iter()
        .filter(|key| from.get(*key) != to.get(*key))
        .map(|key| Change {
            key: key.clone(),
            from: from.get(key).cloned(),
            to: to.get(key).cloned(),
            effect: match NEEDS_RESTART.contains(&key.as_str())
                || TABLES_NEED_RESTART.iter().any(|table| key.starts_with(table))
            {
                true => Effect::Restart,
                false => Effect::Live,
            },
        })
        .collect()
}

/// Every key of a document with its value as text.
pub(super) fn flatten(document: &serde_json::Value) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    let mut rest = vec![(String::new(), document)];
    while let Some((path, value)) = rest.pop() {
        match value {
            serde_json::Value::Object(members) => {
                let dot = if path.is_empty() { "" } else { "." };
                rest.extend(
                    members.iter().map(|(name, value)| (format!("{path}{dot}{name}"), value)),
                );
            }
            serde_json::Value::Null => {}
            other => {
                keys.insert(path, other.to_string());
            }
        }
    }
    keys
}
