//! Which of a model's versions serve: decided from numbers and states alone. Which of them answers is
//! [`super::steer`]'s.

use std::collections::{BTreeMap, BTreeSet};

use super::table::State;
use crate::config::Versions;
use crate::repository::Fingerprint;

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

/// Chooses from `candidates` under the policy `versions`; those of `named` serve besides, whatever
/// the policy says.
///
/// With `latest = n`, the n highest versions that can serve: one that failed or is still being
/// written makes room for the one below it. Loading such a one costs time at the first look only.
pub(super) fn select(
    candidates: &BTreeMap<u64, Candidate>,
    versions: &Versions,
    named: &BTreeSet<u64>,
) -> Selection {
    let mut selection = Selection::default();
    let mut room = match versions {
        Versions::Latest(n) => *n,
        Versions::All | Versions::Listed(_) => usize::MAX,
    };
    for (&version, candidate) in candidates.iter().rev() {
        let is_named = named.contains(&version);
        let listed = match versions {
            _ if is_named => true,
            Versions::Listed(listed) => listed.contains(&version),
            Versions::All | Versions::Latest(_) => true,
        };
        let place = usize::from(!is_named);
        let (state, reason) = match candidate {
            _ if !listed => (State::Idle, "not among the listed versions".to_owned()),
            _ if room < place => (State::Idle, "not among the latest versions".to_owned()),
            Candidate::Loaded { note } => {
                selection.live.push(version);
                room -= place;
                (State::Ready, note.clone())
            }
            Candidate::Loadable(fingerprint) => {
                selection.to_load.push((version, fingerprint.clone()));
                room -= place;
                (State::Loading, String::new())
            }
            Candidate::Settling => (State::Loading, "its files are being written to".to_owned()),
            Candidate::Failed { reason } => (State::Unavailable, reason.clone()),
        };
        selection.index.insert(version, (state, reason));
    }
    let listed = if let Versions::Listed(listed) = versions { listed.as_slice() } else { &[] };
    for (&version, word) in
        listed.iter().map(|v| (v, "listed")).chain(named.iter().map(|v| (v, "named for traffic")))
    {
        if !candidates.contains_key(&version) {
            let reason = format!("{word}, but the repository has no folder of that number");
            selection.index.insert(version, (State::Unavailable, reason));
        }
    }
    selection.live.reverse();
    selection
}
