//! What serves, and the one way to change it.
//!
//! The live table ([`LiveTable`]) stands behind one `ArcSwap`; a request loads it once and sees
//! one consistent state. Every change, whatever asks for it, is *prepare* (everything that can
//! fail: read, check, compile, run) then *commit* (one store, which cannot). One writer thread
//! does all of them, one after the other, so changes never race and readers never wait.
//!
//! Invariants:
//! - a failed prepare leaves the table as it was, but for the index, which tells the reason;
//! - a version taken out of the table goes on answering what was accepted before; it is dropped
//!   by the reaper, never on an I/O thread;
//! - the table's primaries and aliases only ever name versions that are in it.

mod golden;
mod latency;
mod memory;
mod metrics;
mod naming;
mod prepare;
mod reaper;
mod reconcile;
mod recording;
mod select;
mod steer;
mod table;
#[cfg(test)]
mod tests;
mod version;
mod watch;
mod words;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::thread::JoinHandle;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::oneshot;

pub use latency::{LATENCY_CELLS, LatencyCounts, latency_bound};
pub use metrics::{CopyMetrics, Protocol, SlotMetrics};
pub use recording::Recording;
pub use table::{
    Copies, IndexEntry, LiveTable, Model, Remote, ResolveError, Route, Serving, Shadow, Split,
    State,
};
pub use version::{Loaded, Statistics, StatisticsView, Timings, Version};
pub use writer::{Applied, ChangeError};

use crate::config::Config;
use crate::scheduler::Pool;
use crate::telemetry::{Telemetry, names, render_info};
use crate::traffic::Steering;
use writer::{Command, Writer};

/// Commands that wait for the writer, at most. Beyond it callers are told to come back.
const COMMANDS: usize = 64;

/// A handle on what serves. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry {
    live: Arc<ArcSwap<LiveTable>>,
    commands: SyncSender<Command>,
}

/// The writer's and the reaper's threads. They end when every [`Registry`] is gone.
#[derive(Debug)]
pub struct Threads(pub Vec<JoinHandle<()>>);

impl Registry {
    /// Starts the writer and the reaper, and looks at the repository for the first time: when
    /// this returns, what can serve serves. The models of `steered` are steered so from the first
    /// moment. Fails where the repository cannot be looked at.
    pub fn start(
        config: Arc<Config>,
        telemetry: &Arc<Telemetry>,
        pool: Pool,
        steered: BTreeMap<String, Steering>,
    ) -> Result<(Self, Threads), String> {
        let live = Arc::new(ArcSwap::from_pointee(LiveTable::empty(Arc::clone(&config))));
        let retiring = telemetry.gauge(names::RETIRING, &[]);
        let thread = |error: std::io::Error| format!("cannot start a thread: {error}");
        let (retired, reaper) = reaper::start(retiring).map_err(thread)?;
        let mut writer = Writer::new(Arc::clone(&live), Arc::clone(telemetry), pool, retired);
        writer.first_look(&config, steered)?;
        let (commands, receiver) = mpsc::sync_channel(COMMANDS);
        let writer = std::thread::Builder::new()
            .name("registry".to_owned())
            .spawn(move || writer.run(&receiver))
            .map_err(thread)?;
        let shown = Arc::downgrade(&live);
        telemetry.add_collector(move |out| {
            if let Some(live) = shown.upgrade() {
                render_table(&live.load(), out);
            }
        });
        Ok((Self { live, commands }, Threads(vec![writer, reaper])))
    }

    /// What serves now. Hold the guard for as long as the request is decided, not across an
    /// `.await`.
    #[must_use]
    pub fn live(&self) -> Guard<Arc<LiveTable>> {
        self.live.load()
    }

    /// Has the writer look at the repository soon. Never blocks; looks asked for while one is
    /// due are that one.
    pub fn look(&self) {
        // A full queue means that the writer is about to look anyway.
        match self.commands.try_send(Command::Look) {
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }

    /// Loads what the repository has for `model`, also what failed or was unloaded before.
    pub async fn load(&self, model: &str) -> Result<Applied, ChangeError> {
        let model = model.to_owned();
        self.ask(|reply| Command::Load { model, reply }).await
    }

    /// Takes `model` out of service until it is loaded by name again.
    pub async fn unload(&self, model: &str) -> Result<Applied, ChangeError> {
        let model = model.to_owned();
        self.ask(|reply| Command::Unload { model, reply }).await
    }

    /// Steers `model`: its primary, canaries and shadows are those of `steering`, whatever its
    /// settings say, and the versions named are loaded and kept; with nothing its settings count
    /// again. One atomic change of what serves, after everything that can fail: where a version
    /// cannot be loaded, or takes other requests than the primary, nothing changes.
    pub async fn steer(
        &self,
        model: &str,
        steering: Option<Steering>,
    ) -> Result<Applied, ChangeError> {
        let model = model.to_owned();
        self.ask(|reply| Command::Steer { model, steering, reply }).await
    }

    /// Applies another configuration, whole or not at all.
    pub async fn configure(&self, config: Arc<Config>) -> Result<Applied, ChangeError> {
        self.ask(|reply| Command::Configure { config, dry_run: false, reply }).await
    }

    /// What applying another configuration would change.
    pub async fn plan(&self, config: Arc<Config>) -> Result<Applied, ChangeError> {
        self.ask(|reply| Command::Configure { config, dry_run: true, reply }).await
    }

    async fn ask(
        &self,
        command: impl FnOnce(writer::Reply) -> Command,
    ) -> Result<Applied, ChangeError> {
        let (reply, answer) = oneshot::channel();
        self.commands.try_send(command(reply)).map_err(|error| match error {
            TrySendError::Full(_) => ChangeError::Busy,
            TrySendError::Disconnected(_) => ChangeError::ShuttingDown,
        })?;
        answer.await.unwrap_or(Err(ChangeError::ShuttingDown))
    }
}

fn render_table(table: &LiveTable, out: &mut String) {
    let series = table.servings().map(|serving| {
        let version = &serving.version;
        vec![
            ("model", &*version.model),
            ("version", version.number_text.as_str()),
            ("digest", version.loaded.digest.as_str()),
            ("slot", serving.slot.label()),
        ]
    });
    render_info(out, names::MODEL_INFO, series);
    render_info(out, names::CONFIG_INFO, [vec![("digest", table.config.digest.as_str())]]);
}

/// Does what starting would do, without serving: the table that would serve. For checking a
/// configuration.
pub fn check(
    config: &Arc<Config>,
    telemetry: &Arc<Telemetry>,
    pool: Pool,
) -> Result<LiveTable, String> {
    writer::prepare_once(config, telemetry, pool)
}
