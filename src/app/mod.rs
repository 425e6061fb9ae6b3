//! The composition root: builds everything, spawns it, reloads it, shuts it down. The only module
//! that knows all others; it owns the runtimes and decides the numbers of threads.
//!
//! Threads: `io-*` (the data plane's runtimes), `compute-*` (the pool), `admin` (its runtime, the
//! configuration and signals), `registry` (the writer), `reaper`, `monitor`, `shadow` and `shadow-*`
//! (candidates that only shadow), `capture` and `upload`, `log`.

mod evidence;
mod reload;
mod rollouts;
mod source;
mod threads;
mod traces;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

pub use source::{ReadError, Source};

use crate::alert;
use crate::capture;
use crate::config::Config;
use crate::observe::{self, Told};
use crate::registry::Registry;
use crate::repository;
use crate::rollout;
use crate::scheduler::Pool;
use crate::server::{self, Health, LastReload};
use crate::telemetry::logging::{Format, Logging};
use crate::telemetry::trace::Tracer;
use crate::telemetry::{Telemetry, names};
use reload::Reloader;

/// Requests for a change of configuration that wait, at most.
const CONFIG_REQUESTS: usize = 16;

/// How often the exporter's housekeeping is done.
const UPKEEP: Duration = Duration::from_secs(1);

/// How long threads are waited for after the drain. What they do then holds up nobody.
const JOIN_AT_MOST: Duration = Duration::from_secs(2);

/// Facts of the build, for `--version`, metrics and status.
pub const BUILD: [(&str, &str); 4] = [
    ("version", env!("CARGO_PKG_VERSION")),
    ("commit", env!("BUILD_COMMIT")),
    ("target", env!("BUILD_TARGET")),
    ("rustc", env!("BUILD_RUSTC")),
];

/// Why the server did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The configuration is wrong: exit code 64.
    #[error(transparent)]
    Config(#[from] ReadError),
    /// A listener's address cannot be had.
    #[error("cannot listen on {address} ({key}): {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The configuration's key.
        key: &'static str,
        /// The operating system's words.
        error: std::io::Error,
    },
    /// Anything else.
    #[error("{0}")]
    Start(String),
}

/// Serves until SIGTERM or SIGINT, then drains. Returns when everything accepted is answered or
/// the drain limit has passed.
pub fn serve(source: Source) -> Result<(), AppError> {
    let started = Instant::now();
    let admin_runtime = threads::admin_runtime().map_err(start_error)?;
    // Caught from the first moment: one that comes while models are loaded ends the server well.
    let ends = {
        let _entered = admin_runtime.enter();
        Ends::caught().map_err(start_error)?
    };
    let config = Arc::new(source.read()?);
    // Held to the end, so that the last line is written too.
    let logging = Arc::new(install_log(&config)?);
    install_panic_hook();
    let telemetry = Arc::new(Telemetry::default());
    telemetry.gauge(names::BUILD_INFO, &BUILD).set(1.0);
    let (http, admin) =
        (listen(config.server.http, "server.http")?, listen(config.server.admin, "server.admin")?);
    let grpc = config.server.grpc.map(|address| listen(address, "server.grpc")).transpose()?;
    let addresses = (local(&http)?, local(&admin)?);
    let grpc_address = grpc.as_ref().map(local).transpose()?;
    let n_threads = threads::Threads::of(&config.server);
    let busy = telemetry.gauge(names::COMPUTE_BUSY, &[]);
    let (pool, compute) =
        Pool::start(n_threads.compute, busy, threads::yield_to_io).map_err(start_error)?;
    let mut kept = rollouts::open(&config, admin_runtime.handle())?;
    let steered = std::mem::take(&mut kept.recalled.steered);
    let (registry, registry_threads) =
        Registry::start(Arc::clone(&config), &telemetry, pool.clone(), steered.clone())
            .map_err(AppError::Start)?;
    kept.recalled.steered = steered;
    let alerts = alert::start(&config.alerts, &telemetry, admin_runtime.handle());
    let (tracer, exporting) = traces::start(&config.tracing, &telemetry, admin_runtime.handle())
        .map_err(AppError::Start)?;
    let told = alerts.clone();
    let (monitors, monitor_thread) = observe::start(
        registry.clone(),
        &telemetry,
        &config.observe,
        threads::yield_to_all,
        move |what| match what {
            Told::Changed(event) => told.offer(*event),
            Told::Over { model, version, segment, feature } => {
                told.resolve(&model, version, segment.as_deref(), feature.as_deref());
            }
        },
    )
    .map_err(start_error)?;
    let (capture, capture_thread) = capture::start(
        &telemetry,
        &config.capture,
        &config.digest,
        &config.folder,
        // As much as it needs, since what is not written in time is lost; it needs little.
        threads::yield_to_io,
    )
    .map_err(start_error)?;
    let (shadows, shadow_thread) = observe::shadow::start(
        &registry,
        monitors.clone(),
        &telemetry,
        config.shadowing,
        n_threads.shadows,
        threads::take_what_is_left,
    )
    .map_err(start_error)?;
    let (rollouts, driver) = rollouts::start(kept, &registry, &telemetry, (&monitors, &shadows));
    let recording = capture.clone();
    shadows.tell(move |disagreed| observe::disagreements::record(&recording, disagreed));
    let shards = threads::Shards::start(n_threads).map_err(start_error)?;
    let health = Arc::new(Health::default());
    let (drain, drains) = watch::channel(false);
    let parts = server::Parts {
        registry: registry.clone(),
        telemetry: Arc::clone(&telemetry),
        health: Arc::clone(&health),
        monitors,
        rollouts,
        capture,
        tracer: tracer.clone(),
        shadows,
        drain: drains,
    };
    let data = {
        let runtimes = shards.handles();
        // The first shard accepts for all.
        let _entered = runtimes[0].enter();
        let listener = tokio::net::TcpListener::from_std(http).map_err(start_error)?;
        let grpc = grpc.map(tokio::net::TcpListener::from_std).transpose().map_err(start_error)?;
        let (accepting, plane) = server::data_plane(&parts, listener, grpc, runtimes);
        drop(runtimes[0].spawn(accepting));
        plane
    };
    tracing::info!(
        http = %addresses.0,
        grpc = %grpc_address.map_or_else(|| "off".to_owned(), |address| address.to_string()),
        admin = %addresses.1,
        models = registry.live().models.len(),
        ms = started.elapsed().as_secs_f64() * 1e3,
        version = env!("CARGO_PKG_VERSION"),
        "serving"
    );
    let admin_part = AdminPart {
        source,
        parts,
        registry: registry.clone(),
        telemetry,
        logging: Arc::clone(&logging),
        alerts,
        driver,
        tracer,
    };
    let limits = config.shutdown;
    admin_runtime.block_on(admin_part.run(admin, ends, async {
        health.drain();
        tracing::info!(
            delay_ms = limits.delay.as_millis(),
            drain_ms = limits.drain.as_millis(),
            "shutting down"
        );
        tokio::time::sleep(limits.delay).await;
        // Nobody listens any more only if the data plane is gone already.
        let _ = drain.send(true);
        let deadline = Instant::now() + limits.drain;
        let left = data.drained(deadline).await;
        if left > 0 {
            tracing::warn!(connections = left, "the drain limit passed; these are cut off");
        }
        // Requests that ended last are in the queue by now.
        if let Some(exporting) = exporting {
            exporting.end(deadline).await;
        }
    }))?;
    // Nothing that holds the registry is left but the monitor: its writer ends with them.
    drop((registry, data));
    let shadow_thread = shadow_thread.end();
    let monitor_thread = monitor_thread.end();
    let capture_threads = capture_thread.end();
    pool.close();
    shards.shut_down(JOIN_AT_MOST);
    admin_runtime.shutdown_timeout(JOIN_AT_MOST);
    let threads = registry_threads.0.into_iter().chain(compute);
    let threads = threads.chain([monitor_thread, shadow_thread]);
    threads::join(threads, JOIN_AT_MOST);
    // What was recorded is written, as long as what was accepted may be answered.
    threads::join(capture_threads.into_iter(), limits.drain.max(JOIN_AT_MOST));
    tracing::info!("ended");
    drop(logging);
    Ok(())
}

/// The signals that end the server.
struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Ends {
    /// Called within a runtime.
    fn caught() -> std::io::Result<Self> {
        let [terminate, interrupt] = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
        Ok(Self { terminate: terminate?, interrupt: interrupt? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// What runs on the admin thread.
struct AdminPart {
    source: Source,
    parts: server::Parts,
    registry: Registry,
    telemetry: Arc<Telemetry>,
    logging: Arc<Logging>,
    alerts: alert::Sender,
    driver: rollout::Driver,
    tracer: Tracer,
}

impl AdminPart {
    /// Serves the admin plane, reloads and signals until the process is told to end, then runs
    /// `drain`; a second signal ends it at once.
    async fn run(
        self,
        listener: TcpListener,
        mut ends: Ends,
        drain: impl Future<Output = ()>,
    ) -> Result<(), AppError> {
        let Self { source, parts, registry, telemetry, logging, alerts, driver, tracer } = self;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(start_error)?;
        let now = unix_seconds();
        let last_reload = LastReload {
            applied_at: now,
            attempted_at: now,
            outcome: "applied",
            ..LastReload::default()
        };
        let last_reload = Arc::new(Mutex::new(last_reload));
        let (requests, received) = mpsc::channel(CONFIG_REQUESTS);
        let (accepting, _plane) =
            server::admin_plane(&parts, listener, requests, Arc::clone(&last_reload), now);
        let reloader = Reloader {
            source,
            registry: registry.clone(),
            telemetry: Arc::clone(&telemetry),
            logging,
            alerts,
            rollouts: parts.rollouts.clone(),
            capture: parts.capture.clone(),
            tracer,
            last: last_reload,
        };
        let looks = registry.clone();
        let _watch = watch_repository(&registry, move || looks.look());
        let background = async {
            tokio::join!(accepting, reloader.run(received), driver.run(), upkeep(&telemetry));
        };
        tokio::pin!(background);
        tokio::select! {
            () = &mut background => {}
            () = ends.next() => {}
        }
        tokio::select! {
            () = drain => {}
            // The admin plane and its metrics answer during the drain.
            () = async { background.await; std::future::pending().await } => {}
            () = ends.next() => tracing::warn!("a second signal: ending at once"),
        }
        Ok(())
    }
}

async fn upkeep(telemetry: &Telemetry) {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        telemetry.run_upkeep();
    }
}

fn watch_repository(
    registry: &Registry,
    look: impl Fn() + Send + 'static,
) -> Option<repository::Watch> {
    let table = registry.live();
    let repository = &table.config.repository;
    if !repository.watch {
        return None;
    }
    match repository::watch(&repository.path, look) {
        Ok(watch) => Some(watch),
        Err(error) => {
            tracing::warn!(
                error,
                "no file events for the repository; it is looked at every repository.poll"
            );
            None
        }
    }
}

fn install_log(config: &Config) -> Result<Logging, AppError> {
    let format = match config.log.format {
        crate::config::LogFormat::Auto => Format::Auto,
        crate::config::LogFormat::Text => Format::Text,
        crate::config::LogFormat::Json => Format::Json,
    };
    Logging::install(&config.log.level, format).map_err(AppError::Start)
}

/// Panics are caught where they happen; the log says where that was.
fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        let payload = info.payload();
        let message = payload
            .downcast_ref::<&str>()
            .map(ToString::to_string)
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        tracing::error!(location, message, thread, "panic");
    }));
}

fn listen(address: SocketAddr, key: &'static str) -> Result<TcpListener, AppError> {
    let failed = |error| AppError::Listen { address, key, error };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

fn local(listener: &TcpListener) -> Result<SocketAddr, AppError> {
    listener.local_addr().map_err(start_error)
}

fn start_error(error: std::io::Error) -> AppError {
    AppError::Start(error.to_string())
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The default place of the configuration.
#[must_use]
pub fn default_config() -> PathBuf {
    PathBuf::from("config/tidegate.toml")
}
