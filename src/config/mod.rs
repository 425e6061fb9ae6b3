//! The configuration: the file as written ([`raw`]), and what it means ([`Config`]).
//!
//! Pure: text and environment come in, a valid configuration or a list of problems comes out; no
//! file is read here. Unknown keys are problems, so that a typing error is found by whoever made
//! it. Settings of a model come from three places, the first that has a key wins:
//! `[models.NAME]` of the configuration, `model.toml` in the model's folder, `[defaults]`.

mod alerts;
mod capture;
mod cors;
mod difference;
mod environment;
mod model;
mod monitor;
mod problem;
mod raw;
mod rollout;
mod shared_memory;
mod tracing;
mod traffic;
mod units;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use sha2::{Digest, Sha256};

pub use alerts::{Address, AlertEvent, AlertTarget, Alerts, EventMode, TargetKind, check_url};
pub use capture::{Always, Capture, Captures, Redaction};
pub use cors::Cors;
pub use difference::{Change, Effect, difference};
pub use model::{Batching, Model, Primary, Versions};
pub use monitor::{
    Classical, FalseAlarms, FeatureKind, FeatureSettings, Labels, Monitor, Rule, Season, Segment,
    Then, When,
};
pub use problem::{ConfigErrors, Place, Problem};
pub use raw::{Access, LogFormat};
pub use rollout::{Gates, Rollout, Stage, StageKind};
pub use shared_memory::SharedMemory;
pub use tracing::{TraceProtocol, Tracing};
pub use traffic::{
    Comparison, RemoteFormat, RemoteShadow, Shadowing, Sticky, Target, Tolerance, Traffic,
};
pub use units::{ByteSize, HumanDuration};

use raw::{RawConfig, RawModel, RawThreads};

/// The largest number of threads that can be asked for.
const MOST_THREADS: u16 = 512;

/// Observations that may wait: their places are taken when the server starts.
const MOST_OBSERVATIONS: usize = 1 << 20;

/// A valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Listeners and threads.
    pub server: Server,
    /// What clients may use.
    pub limits: Limits,
    /// How the server ends.
    pub shutdown: Shutdown,
    /// Where models come from.
    pub repository: Repository,
    /// What is logged.
    pub log: Log,
    /// How changes of the file are taken.
    pub reload: Reload,
    /// What may wait to be observed.
    pub observe: Observe,
    /// What recorded predictions may take of the machine.
    pub capture: Captures,
    /// What copies of requests may take of the machine.
    pub shadowing: Shadowing,
    /// Where spans go.
    pub tracing: Tracing,
    /// Who is told of drift.
    pub alerts: Alerts,
    /// Where rollouts and what was promoted are kept; nothing where they are not.
    pub store: Option<PathBuf>,
    /// The models that are named, with their settings.
    pub models: BTreeMap<String, Model>,
    /// `sha256:` and 64 hexadecimal digits over every key and its value, overrides included;
    /// comments and the order of keys do not matter.
    pub digest: String,
    /// The file's folder, which paths are relative to.
    pub folder: PathBuf,
    /// Every key, dotted, with its value as text.
    keys: BTreeMap<String, String>,
    defaults: RawModel,
    named: BTreeMap<String, RawModel>,
}

/// `[server]`
#[derive(Debug, Clone)]
pub struct Server {
    /// The data plane's address.
    pub http: SocketAddr,
    /// The data plane's address for gRPC; nothing where it is off.
    pub grpc: Option<SocketAddr>,
    /// The admin plane's address.
    pub admin: SocketAddr,
    /// Runtimes that share out the data plane's connections.
    pub shards: ThreadCount,
    /// Threads of all of them.
    pub io_threads: ThreadCount,
    /// Threads of the compute pool.
    pub compute_threads: ThreadCount,
    /// Whether every answer says how long each part of it took.
    pub timing: bool,
    /// Whose pages may use the data plane from a browser.
    pub cors: Cors,
    /// Whether clients on this machine may leave tensors in shared memory.
    pub shared_memory: SharedMemory,
}

/// A number of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThreadCount {
    /// By the cores.
    Auto,
    /// This many.
    Fixed(usize),
}

/// `[limits]`
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a body, after decompression.
    pub body: u64,
    /// Time for a request's head.
    pub header_time: Duration,
    /// Time for a request's body.
    pub body_time: Duration,
    /// Time that a connection may stay open without a request.
    pub idle_time: Duration,
    /// Connections of a plane.
    pub connections: usize,
    /// Predictions accepted and not answered, over all models.
    pub in_flight: usize,
    /// The longest a prediction may take.
    pub deadline: Duration,
}

/// `[shutdown]`
#[derive(Debug, Clone, Copy)]
pub struct Shutdown {
    /// Time between turning unready and not accepting any more.
    pub delay: Duration,
    /// Time for what was accepted.
    pub drain: Duration,
}

/// `[repository]`
#[derive(Debug, Clone)]
pub struct Repository {
    /// The folder.
    pub path: PathBuf,
    /// Whether file events are used.
    pub watch: bool,
    /// Time between two looks.
    pub poll: Option<Duration>,
    /// How long a file must be left alone before it is loaded.
    pub settle: Duration,
    /// Bytes of a model file.
    pub model_size: u64,
    /// Whether the data plane takes load and unload.
    pub api: bool,
}

/// `[log]`
#[derive(Debug, Clone)]
pub struct Log {
    /// A level, or filter directives.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
    /// Which requests leave a line.
    pub access: Access,
}

/// `[reload]`
#[derive(Debug, Clone, Copy)]
pub struct Reload {
    /// Whether a change of the file is applied by itself.
    pub watch: bool,
}

/// `[observe]`
#[derive(Debug, Clone, Copy)]
pub struct Observe {
    /// Observations that wait, at most.
    pub queue: usize,
    /// Bytes of the tensors that they keep alive, at most.
    pub queue_size: usize,
}

impl Config {
    /// Reads `text` under the overrides of `environment`. Paths are relative to `folder`, the
    /// file's.
    pub fn parse(
        text: &str,
        folder: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let one = |problem| ConfigErrors(vec![problem]);
        // Once for messages with lines, which need the text; then as a table, for the overrides.
        if let Err(error) = toml::from_str::<RawConfig>(text) {
            return Err(one(Problem::of_toml(&error, text)));
        }
        let mut table: toml::Table =
            toml::from_str(text).map_err(|error| one(Problem::of_toml(&error, text)))?;
        let mut problems = environment::apply(&mut table, environment);
        let raw = RawConfig::deserialize(toml::Value::Table(table))
            .map_err(|error| one(Problem::of_toml(&error, text)))?;
        let config =
            validate(raw, folder, &mut Report { text, problems: &mut problems, is_merged: false });
        if problems.is_empty() { Ok(config) } else { Err(ConfigErrors(problems)) }
    }

    /// The settings of a model, whose `model.toml` holds `file`.
    pub fn model(&self, name: &str, file: Option<&str>) -> Result<Model, ConfigErrors> {
        let text = file.unwrap_or_default();
        let of_file: RawModel = toml::from_str(text)
            .map_err(|error| ConfigErrors(vec![Problem::of_toml(&error, text)]))?;
        let named = self.named.get(name).cloned().unwrap_or_default();
        let raw = named.over(of_file).over(self.defaults.clone());
        let mut problems = Vec::new();
        let model = model::validate(
            raw,
            "",
            &mut Report { text, problems: &mut problems, is_merged: true },
        );
        if problems.is_empty() { Ok(model) } else { Err(ConfigErrors(problems)) }
    }
}

/// Whether `name` can be a model's: letters, digits, `_`, `-` and `.`, not beginning with `.` or
/// `-`.
#[must_use]
pub fn is_model_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    name.len() <= 255
        && !name.starts_with(['.', '-'])
        && !name.is_empty()
        && name.chars().all(is_plain)
}

/// Collects problems with their lines.
struct Report<'a> {
    text: &'a str,
    problems: &'a mut Vec<Problem>,
    /// Whether the settings of a model are all there: what `model.toml` adds is not known while
    /// the configuration is read.
    is_merged: bool,
}

impl Report<'_> {
    fn add(&mut self, key: &str, message: impl Into<String>) {
        self.problems.push(Problem::of_key(key, self.text, message.into()));
    }

    /// `value` where it is at least `least`; otherwise a problem.
    fn at_least<T: PartialOrd + std::fmt::Display + Copy>(
        &mut self,
        key: &str,
        value: T,
        least: T,
    ) {
        if value < least {
            self.add(key, format!("must be at least {least}, got {value}"));
        }
    }
}

fn validate(raw: RawConfig, folder: &Path, report: &mut Report<'_>) -> Config {
    let document = serde_json::to_value(&raw).unwrap_or_default();
    let keys = difference::flatten(&document);
    let digest = Sha256::digest(keys.iter().map(|(k, v)| format!("{k}={v}\n")).collect::<String>());
    let digest = digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let RawConfig {
        server,
        limits,
        shutdown,
        repository,
        log,
        reload,
        observe,
        capture,
        shadowing,
        tracing,
        alerts,
        store,
        defaults,
        models,
    } = raw;
    let server = Server {
        http: address("server.http", &server.http, report),
        grpc: match server.grpc.as_str() {
            "off" => None,
            text => Some(address("server.grpc", text, report)),
        },
        admin: address("server.admin", &server.admin, report),
        shards: threads("server.shards", &server.shards, report),
        io_threads: threads("server.io_threads", &server.io_threads, report),
        compute_threads: threads("server.compute_threads", &server.compute_threads, report),
        timing: server.timing,
        cors: cors::validate(server.cors, report),
        shared_memory: shared_memory::validate(server.shared_memory, report),
    };
    for (key, address, other, others) in [
        ("server.admin", Some(server.admin), "server.http", Some(server.http)),
        ("server.grpc", server.grpc, "server.http", Some(server.http)),
        ("server.grpc", server.grpc, "server.admin", Some(server.admin)),
    ] {
        if let Some(address) = address.filter(|a| address == others && a.port() != 0) {
            report.add(key, format!("must differ from {other}, both are {address}"));
        }
    }
    let millisecond = HumanDuration(Duration::from_millis(1));
    for (key, value) in [
        ("limits.header_time", limits.header_time),
        ("limits.body_time", limits.body_time),
        ("limits.idle_time", limits.idle_time),
        ("limits.deadline", limits.deadline),
    ] {
        report.at_least(key, value, millisecond);
    }
    report.at_least("limits.body", limits.body, ByteSize(1));
    report.at_least("limits.connections", limits.connections, 1);
    report.at_least("limits.in_flight", limits.in_flight, 1);
    report.at_least("observe.queue_size", observe.queue_size, ByteSize(1));
    if !(1..=MOST_OBSERVATIONS).contains(&observe.queue) {
        let message = format!("expected 1 to {MOST_OBSERVATIONS}, got {}", observe.queue);
        report.add("observe.queue", message);
    }
    report.at_least("repository.model_size", repository.model_size, ByteSize(1));
    if repository.path.is_empty() {
        report.add("repository.path", "must name a folder");
    }
    let shadowing = traffic::shadowing(&shadowing, report);
    let tracing = tracing::validate(tracing, report);
    let alerts = alerts::validate(alerts, folder, report);
    if store.path.as_ref().is_some_and(String::is_empty) {
        report.add("store.path", "must name a file");
    }
    let capture = capture::validate_machine(capture, report);
    let mut named = BTreeMap::new();
    let mut validated = BTreeMap::new();
    for (name, model) in models {
        let key = format!("models.{name}");
        if !is_model_name(&name) {
            report.add(&key, "a model's name has letters, digits, '_', '-' and '.', and begins with none of '.' and '-'");
        }
        let merged = model.clone().over(defaults.clone());
        validated.insert(name.clone(), model::validate(merged, &key, report));
        named.insert(name, model);
    }
    model::validate(defaults.clone(), "defaults", report);
    Config {
        server,
        limits: Limits {
            body: limits.body.0,
            header_time: limits.header_time.0,
            body_time: limits.body_time.0,
            idle_time: limits.idle_time.0,
            connections: limits.connections,
            in_flight: limits.in_flight,
            deadline: limits.deadline.0,
        },
        shutdown: Shutdown { delay: shutdown.delay.0, drain: shutdown.drain.0 },
        repository: Repository {
            path: folder.join(&repository.path),
            watch: repository.watch,
            poll: Some(repository.poll.0).filter(|poll| !poll.is_zero()),
            settle: repository.settle.0,
            model_size: repository.model_size.0,
            api: repository.api,
        },
        log: Log { level: log.level, format: log.format, access: log.access },
        reload: Reload { watch: reload.watch },
        observe: Observe {
            queue: observe.queue,
            queue_size: usize::try_from(observe.queue_size.0).unwrap_or(usize::MAX),
        },
        capture,
        shadowing,
        tracing,
        alerts,
        store: store.path.map(|path| folder.join(path)),
        models: validated,
        folder: folder.to_owned(),
        digest: format!("sha256:{digest}"),
        keys,
        defaults,
        named,
    }
}

fn address(key: &str, text: &str, report: &mut Report<'_>) -> SocketAddr {
    text.parse().unwrap_or_else(|_| {
        report.add(
            key,
            format!("expected an address and a port such as \"127.0.0.1:8000\", got \"{text}\""),
        );
        SocketAddr::from(([127, 0, 0, 1], 0))
    })
}

fn threads(key: &str, raw: &RawThreads, report: &mut Report<'_>) -> ThreadCount {
    match raw {
        RawThreads::Count(count @ 1..=MOST_THREADS) => ThreadCount::Fixed(usize::from(*count)),
        RawThreads::Word(word) if word == "auto" => ThreadCount::Auto,
        RawThreads::Count(count) => {
            report.add(
                key,
                format!("expected \"auto\" or a number from 1 to {MOST_THREADS}, got {count}"),
            );
            ThreadCount::Auto
        }
        RawThreads::Word(word) => {
            report.add(
                key,
                format!("expected \"auto\" or a number from 1 to {MOST_THREADS}, got \"{word}\""),
            );
            ThreadCount::Auto
        }
    }
}

#[cfg(test)]
mod tests;
