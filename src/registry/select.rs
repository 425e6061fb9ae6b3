//! Which of a model's versions serve, and which of them answers: decided from numbers and states
//! alone.

use std::collections::BTreeMap;

use super::table::State;
use crate::config::{self, Primary, Versions};
use crate::repository::Fingerprint;
use crate::traffic::Policy;

/// What may become of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Candidate {
    /// It is loaded and can serve; the note says what is wrong although it can.
    Loaded { note: String },
    /// Its files are there and have not been tried.
    Loadable(Fingerprint),
    /// Its files are being written to.
    Settling,
    /// It cannot serve.
    Failed { reason: String },
}

/// What is chosen from a model's versions.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// Versions that serve, ascending.
    pub(super) live: Vec<u64>,
    /// Versions that should serve and are to be loaded first.
    pub(super) to_load: Vec<(u64, Fingerprint)>,
    /// What the repository index says of each version.
    pub(super) index: BTreeMap<u64, (State, String)>,
}

/// Chooses from `candidates` under the policy `versions`.
///
/// With `latest = n`, the n highest versions that can serve: one that failed or is still being
/// written makes room for the one below it. Loading such a one costs time at the first look only.
pub(super) fn select(candidates: &BTreeMap<u64, Candidate>, versions: &Versions) -> Selection {
    let mut selection = Selection::default();
    let mut room = match versions {
        Versions::Latest(n) => *n,
        Versions::All | Versions::Listed(_) => usize::MAX,
    };
    for (&version, candidate) in candidates.iter().rev() {
        let listed = match versions {
            Versions::Listed(listed) => listed.contains(&version),
            Versions::All | Versions::Latest(_) => true,
        };
        let (state, reason) = match candidate {
            _ if !listed => (State::Idle, "not among the listed versions".to_owned()),
            _ if room == 0 => (State::Idle, "not among the latest versions".to_owned()),
            Candidate::Loaded { note } => {
                selection.live.push(version);
                room -= 1;
                (State::Ready, note.clone())
            }
            Candidate::Loadable(fingerprint) => {
                selection.to_load.push((version, fingerprint.clone()));
                room -= 1;
                (State::Loading, String::new())
            }
            Candidate::Settling => (State::Loading, "its files are being written to".to_owned()),
            Candidate::Failed { reason } => (State::Unavailable, reason.clone()),
        };
        selection.index.insert(version, (state, reason));
    }
    if let Versions::Listed(listed) = versions {
        for &version in listed.iter().filter(|version| !candidates.contains_key(version)) {
            let reason = "listed, but the repository has no folder of that number".to_owned();
            selection.index.insert(version, (State::Unavailable, reason));
        }
    }
    selection.live.reverse();
    selection
}

/// The policy under `settings` with these versions live, and what of the settings could not be
/// done. An alias, and a primary that is named, only ever mean a live version: one that is not
/// live leaves what stood before, and without that there is none.
pub(super) fn policy(
    settings: &config::Model,
    live: &[u64],
    before: Option<&Policy>,
) -> (Option<Policy>, Vec<String>) {
    let mut problems = Vec::new();
    let is_live = |version: &u64| live.contains(version);
    let mut aliases = BTreeMap::new();
    for (alias, version) in &settings.aliases {
        let kept = before.and_then(|policy| policy.aliases.get(alias)).copied().filter(is_live);
        let target = Some(*version).filter(is_live).or(kept);
        if target != Some(*version) {
            let stays =
                kept.map_or_else(String::new, |kept| format!("; it stays at version {kept}"));
            problems.push(format!("alias '{alias}': version {version} does not serve{stays}"));
        }
        aliases.extend(target.map(|target| (alias.clone(), target)));
    }
    let kept = before.map(|policy| policy.primary).filter(is_live);
    let primary = match &settings.primary {
        None => live.last().copied(),
        Some(named) => {
            let target = match named {
                Primary::Version(version) => Some(*version).filter(is_live),
                Primary::Alias(alias) => aliases.get(alias).copied(),
            };
            if target.is_none() && !live.is_empty() {
                let stays = match kept {
                    Some(kept) => format!("version {kept} stays primary"),
                    None => "no version serves in its place".to_owned(),
                };
                problems.push(format!("primary {named} does not serve; {stays}"));
            }
            target.or(kept)
        }
    };
    (primary.map(|primary| Policy { primary, aliases }), problems)
}
