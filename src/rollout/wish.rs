//! Where the file and the store disagree.
//!
//! The file is the wish, the store the history. What the store steers (a promotion, a rollback, a
//! rollout under way) holds as long as the file wishes what it wished when that came into force.
//! Once the file's `versions`, `primary`, `aliases` or traffic of the model are others, the file
//! counts again: the steering is withdrawn, a rollout under way ends, and history says so.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::config::{self, Config, Primary, Versions};
use crate::repository::SETTINGS_FILE;
use crate::store::{
    Change, HistoryRecord, RolloutRecord, SteeringChange, SteeringRecord, Store, StoreError,
};
use crate::traffic::Steering;

/// Larger files than this are no settings.
const LARGEST: u64 = 1 << 20;

/// What a model's settings ask for, in words that are compared and shown.
pub(super) fn of(settings: &config::Model) -> String {
    let versions = match &settings.versions {
        Versions::Latest(n) => format!("the latest {n}"),
        Versions::All => "all".to_owned(),
        Versions::Listed(listed) => format!("{listed:?}"),
    };
    let primary = match &settings.primary {
        None => "the highest".to_owned(),
        Some(Primary::Version(version)) => version.to_string(),
        Some(Primary::Alias(alias)) => format!("'{alias}'"),
    };
    let mut wish = format!("versions {versions}, primary {primary}");
    let aliases: Vec<String> =
        settings.aliases.iter().map(|(alias, version)| format!("'{alias}' = {version}")).collect();
    let shares = |list: &[(config::Target, f64)]| {
        list.iter().map(|(target, share)| format!("{target}: {share}")).collect::<Vec<_>>()
    };
    for (what, list) in [
        ("aliases", aliases),
        ("canaries", shares(&settings.traffic.canaries)),
        ("shadows", shares(&settings.traffic.shadows)),
    ] {
        if !list.is_empty() {
            wish = format!("{wish}, {what} {}", list.join(", "));
        }
    }
    wish
}

/// The settings of a model under a configuration; nothing where they cannot be read, which the
/// registry complains about.
pub(super) fn settings(config: &Config, model: &str) -> Option<config::Model> {
    let path = config.repository.path.join(model).join(SETTINGS_FILE);
    config.model(model, read(&path).as_deref()).ok()
}

fn read(path: &Path) -> Option<String> {
    let size = std::fs::metadata(path).ok()?.len();
    if size > LARGEST { None } else { std::fs::read_to_string(path).ok() }
}

/// What a start takes up again.
#[derive(Debug, Default)]
pub struct Recalled {
    /// What steers models, for the registry's first table.
    pub steered: BTreeMap<String, Steering>,
    pub(super) steering: Vec<SteeringRecord>,
    pub(super) rollouts: Vec<RolloutRecord>,
}

/// Reads the store before anything serves: what it steers and the file still agrees with, and
/// rollouts that have not ended. What the file has overruled meanwhile is ended in the store.
pub async fn recall(
    store: &Arc<dyn Store>,
    config: &Config,
    now: u64,
) -> Result<Recalled, StoreError> {
    let remembered = store.remembered().await?;
    let mut recalled = Recalled::default();
    let mut rollouts = remembered.rollouts;
    for record in remembered.steering {
        // A model that is not there keeps its steering: it may come back.
        let wish = settings(config, &record.model).map(|settings| of(&settings));
        let steering: Option<Steering> = serde_json::from_str(&record.steering).ok();
        match (wish, steering) {
            (wish, Some(steering)) if wish.as_ref().is_none_or(|wish| *wish == record.wish) => {
                recalled.steered.insert(record.model.clone(), steering);
                recalled.steering.push(record);
            }
            (wish, _) => {
                let position = rollouts.iter().position(|rollout| rollout.model == record.model);
                let rollout = position.map(|position| rollouts.remove(position));
                let wish = wish.unwrap_or_default();
                store.change(overruled(record, rollout, &wish, "start", now)).await?;
            }
        }
    }
    recalled.rollouts = rollouts;
    Ok(recalled)
}

/// The end of what the file does not wish any more.
pub(super) fn overruled(
    steering: SteeringRecord,
    rollout: Option<RolloutRecord>,
    wish: &str,
    who: &str,
    now: u64,
) -> Change {
    let SteeringRecord { model, steering, wish: before, .. } = steering;
    let reason = format!(
        "the configuration's wish has changed from \"{before}\" to \"{wish}\": it counts again"
    );
    let (digest_from, digest_to) = (String::new(), String::new());
    let rollout = rollout.map(|rollout| RolloutRecord {
        state: super::states::ABORTED.to_owned(),
        reason: reason.clone(),
        updated_at: now,
        ..rollout
    });
    Change {
        rollout,
        steering: Some(SteeringChange::Withdraw { model: model.clone() }),
        history: Some(HistoryRecord {
            id: 0,
            at: now,
            model,
            who: who.to_owned(),
            what: "overruled by the file".to_owned(),
            from: steering,
            to: wish.to_owned(),
            reason,
            digest_from,
            digest_to,
            figures: String::new(),
        }),
    }
}

/// What a steering does, in a few words.
pub(super) fn words(steering: &Steering) -> String {
    let mut words = format!("primary {}", steering.primary);
    for (what, list) in [("canary", &steering.canaries), ("shadow", &steering.shadows)] {
        for (version, share) in list {
            words = format!("{words}, {what} {version} at {:.4}", share);
        }
    }
    if !steering.warm.is_empty() {
        let warm: Vec<String> = steering.warm.iter().map(u64::to_string).collect();
        words = format!("{words}, {} kept warm", warm.join(", "));
    }
    words
}
