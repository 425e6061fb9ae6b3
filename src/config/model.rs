//! The settings of one model.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::Report;
use super::capture::{self, Capture};
use super::monitor::{self, Monitor};
use super::raw::{RawBatching, RawModel, RawPrimary, RawSignature, RawTensor, RawVersions};
use super::rollout::{self, Rollout};
use super::traffic::{self, Traffic};
use crate::tensor::{Datatype, NamedShapes, Signature, TensorSpec};

/// The most rows that one batch may be given.
const LARGEST_BATCH: usize = 65_536;

/// Valid settings of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// What it is for.
    pub description: Option<String>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Which versions serve.
    pub versions: Versions,
    /// Which one answers requests that name none; by default the highest that serves.
    pub primary: Option<Primary>,
    /// Names for versions.
    pub aliases: BTreeMap<String, u64>,
    /// Digests that versions must have.
    pub digests: BTreeMap<u64, String>,
    /// The longest a prediction may take; by default `limits.deadline`.
    pub deadline: Option<Duration>,
    /// Predictions accepted and not answered; by default `limits.in_flight`.
    pub max_in_flight: Option<usize>,
    /// Names of classes by output.
    pub labels: BTreeMap<String, Vec<String>>,
    /// Shapes of all inputs, by name, that versions are compiled for and first run with.
    pub shapes: Vec<NamedShapes>,
    /// The signature that every version must have.
    pub signature: Option<Signature>,
    /// Dynamic batching.
    pub batching: Batching,
    /// How it is watched.
    pub monitor: Monitor,
    /// How its new versions get to answer.
    pub rollout: Rollout,
    /// What is recorded of its predictions.
    pub capture: Capture,
    /// Which versions share its traffic.
    pub traffic: Traffic,
}

/// Which versions serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Versions {
    /// The highest ones, this many.
    Latest(usize),
    /// All that are there.
    All,
    /// These.
    Listed(Vec<u64>),
}

/// The version that answers requests that name none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Primary {
    /// By its number.
    Version(u64),
    /// By an alias.
    Alias(String),
}

impl fmt::Display for Primary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "{version}"),
            Self::Alias(alias) => write!(f, "'{alias}'"),
        }
    }
}

/// Dynamic batching.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batching {
    /// Rows of a batch; 0 turns batching off. Nothing where the cost model decides.
    pub max_batch: Option<usize>,
    /// How long a batch that is not full waits for more.
    pub max_delay: Duration,
    /// Rows of a batch that are preferred to larger ones.
    pub preferred: Vec<usize>,
}

/// Makes sense of `raw`, whose keys stand below `key`.
pub(super) fn validate(raw: RawModel, key: &str, report: &mut Report<'_>) -> Model {
    let at = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
    let aliases = raw.aliases.unwrap_or_default();
    for (alias, version) in &aliases {
        if !is_alias(alias) {
            report.add(
                &at(&format!("aliases.{alias}")),
                "an alias begins with a letter or '_' and goes on with letters, digits, '_', '-' and '.'",
            );
        }
        report.at_least(&at(&format!("aliases.{alias}")), *version, 1);
    }
    let versions = versions(raw.versions, &at("versions"), report);
    let primary = raw.primary.map(|primary| match primary {
        RawPrimary::Version(version) => {
            report.at_least(&at("primary"), version, 1);
            Primary::Version(version)
        }
        RawPrimary::Alias(alias) => {
            if report.is_merged && !aliases.contains_key(&alias) {
                let known: Vec<_> = aliases.keys().map(String::as_str).collect();
                let message = format!("there is no alias '{alias}'; aliases: {}", known.join(", "));
                report.add(&at("primary"), message);
            }
            Primary::Alias(alias)
        }
    });
    let digests = raw.digests.unwrap_or_default().into_iter().filter_map(|(version, digest)| {
        let key = at(&format!("digests.{version}"));
        let number = version.parse::<u64>().ok().filter(|&number| number > 0);
        if number.is_none() {
            report.add(&key, format!("expected a version number, got \"{version}\""));
        }
        if !is_digest(&digest) {
            report.add(
                &key,
                format!("expected \"sha256:\" and 64 hexadecimal digits, got \"{digest}\""),
            );
        }
        number.map(|number| (number, digest))
    });
    let digests = digests.collect();
    if let Some(max_in_flight) = raw.max_in_flight {
        report.at_least(&at("max_in_flight"), max_in_flight, 1);
    }
    if raw.deadline.is_some_and(|deadline| deadline.0.is_zero()) {
        report.add(&at("deadline"), "must be more than 0");
    }
    let batching = batching(raw.batching.unwrap_or_default(), &at("batching"), report);
    let monitor = monitor::validate(raw.monitor.unwrap_or_default(), &at("monitor"), report);
    let rollout = rollout::validate(raw.rollout.unwrap_or_default(), &at("rollout"), report);
    let capture = capture::validate(raw.capture.unwrap_or_default(), &at("capture"), report);
    let traffic =
        traffic::validate(raw.traffic.unwrap_or_default(), &at("traffic"), &aliases, report);
    let shapes = raw.shapes.unwrap_or_default();
    if shapes.iter().flat_map(NamedShapes::values).flatten().any(|&size| size == 0) {
        report.add(&at("shapes"), "expected sizes from 1 on");
    }
    Model {
        description: raw.description,
        owner: raw.owner,
        versions,
        primary,
        aliases,
        digests,
        deadline: raw.deadline.map(|deadline| deadline.0),
        max_in_flight: raw.max_in_flight,
        labels: raw.labels.unwrap_or_default(),
        shapes,
        signature: raw
            .signature
            .map(|signature| self::signature(signature, &at("signature"), report)),
        batching,
        monitor,
        rollout,
        capture,
        traffic,
    }
}

fn batching(raw: RawBatching, key: &str, report: &mut Report<'_>) -> Batching {
    let RawBatching { max_batch, max_delay, mut preferred } = raw;
    let most = max_batch.unwrap_or(0);
    if most > LARGEST_BATCH {
        let message = format!("must be at most {LARGEST_BATCH}, got {most}");
        report.add(&format!("{key}.max_batch"), message);
    }
    if let Some(size) = preferred.iter().find(|&&size| size == 0 || size > most) {
        let message = format!("expected sizes from 1 to max_batch ({most}), got {size}");
        report.add(&format!("{key}.preferred"), message);
    }
    if most <= 1 && !max_delay.0.is_zero() {
        let message = "needs max_batch, the rows of a batch that it waits for";
        report.add(&format!("{key}.max_delay"), message);
    }
    preferred.sort_unstable();
    Batching { max_batch, max_delay: max_delay.0, preferred }
}

fn versions(raw: Option<RawVersions>, key: &str, report: &mut Report<'_>) -> Versions {
    match raw {
        None => Versions::Latest(1),
        Some(RawVersions::Word(word)) if word == "latest" => Versions::Latest(1),
        Some(RawVersions::Word(word)) if word == "all" => Versions::All,
        Some(RawVersions::Word(word)) => {
            report.add(key, format!("expected \"latest\", \"all\", {{ latest = 2 }} or a list of version numbers, got \"{word}\""));
            Versions::All
        }
        Some(RawVersions::Latest(latest)) => {
            report.at_least(key, latest.latest, 1);
            Versions::Latest(latest.latest)
        }
        Some(RawVersions::Listed(listed)) => {
            if listed.is_empty() || listed.contains(&0) {
                report.add(key, format!("expected version numbers from 1 on, got {listed:?}"));
            }
            Versions::Listed(listed)
        }
    }
}

fn signature(raw: RawSignature, key: &str, report: &mut Report<'_>) -> Signature {
    let mut specs = |tensors: Vec<RawTensor>| {
        let specs = tensors.into_iter().filter_map(|tensor| {
            let RawTensor { name, datatype, shape } = tensor;
            let known = Datatype::from_name(&datatype);
            if known.is_none() {
                let all = Datatype::ALL.map(Datatype::name).join(", ");
                report.add(key, format!("tensor '{name}': expected a datatype of {all}, got \"{datatype}\""));
            }
            if let Some(dim) = shape.iter().find(|&&dim| dim == 0 || dim < -1) {
                report.add(key, format!("tensor '{name}': expected dimensions from 1 on, or -1 for a free one, got {dim}"));
            }
            let shape = shape.into_iter().map(|dim| usize::try_from(dim).ok()).collect();
            Some(TensorSpec { name, datatype: known?, shape })
        });
        specs.collect()
    };
    Signature { inputs: specs(raw.inputs), outputs: specs(raw.outputs) }
}

pub(super) fn is_alias(name: &str) -> bool {
    let begins = |c: char| c.is_ascii_alphabetic() || c == '_';
    let goes_on = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    name.starts_with(begins) && name.chars().all(goes_on)
}

fn is_digest(text: &str) -> bool {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(is_hex))
}
