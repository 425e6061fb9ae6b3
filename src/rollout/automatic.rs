//! What happens without being asked for: the file's wish changes, a new version enters.

use std::collections::BTreeMap;

use super::change::{Said, Wanted};
use super::driver::Driver;
use super::wish;
use crate::monitor::times::now_ms;
use crate::monitor::verdict::State;
use crate::store::{Change, Store, StoreError};
use crate::telemetry::names;
use crate::traffic::Steering;

/// Rollouts of a model that are looked through for one of a new version.
const LOOKED_THROUGH: u32 = 200;

/// A model whose new versions begin by themselves.
struct Automatic {
    model: String,
    primary: u64,
    /// The highest version above the primary that serves, with its digest.
    newest: Option<(u64, String)>,
}

impl Driver {
    /// Models whose file has other wishes than when they were steered are the file's again.
    pub(super) async fn follow_the_file(&mut self) {
        let Ok(store) = self.parts.store.clone() else { return };
        let config = std::sync::Arc::clone(&self.parts.registry.live().config);
        let wishes: BTreeMap<String, String> = self
            .steered
            .keys()
            .filter_map(|model| Some((model.clone(), wish::of(&wish::settings(&config, model)?))))
            .collect();
        for (model, wish) in wishes {
            let Some(steered) = self.steered.get(&model).filter(|s| s.record.wish != wish) else {
                continue;
            };
            let rollout = self.active.get(&model).map(|active| active.record.clone());
            let change = wish::overruled(steered.record.clone(), rollout, &wish, "file", now_ms());
            let Change { rollout, .. } = &change;
            let rollout = rollout.clone();
            if let Err(error) = store.change(change).await {
                tracing::warn!(model, %error, "the file has other wishes, which wait for the store");
                continue;
            }
            if let Err(error) = self.parts.registry.steer(&model, None).await {
                tracing::error!(model, %error, "the file has other wishes, which cannot be done");
            }
            tracing::warn!(model, wish, "the file's wish has changed: it counts again");
            self.steered.remove(&model);
            if let Some(record) = rollout {
                self.ended(record, names::ROLLBACKS, "file", State::Drifted);
            }
        }
    }

    /// New versions of models that roll out by themselves begin as shadows.
    pub(super) async fn start_new_versions(&mut self) {
        let Ok(store) = self.parts.store.clone() else { return };
        for Automatic { model, primary, newest } in self.automatic() {
            if !self.steered.contains_key(&model) {
                // From now on a new version does not become primary by being there.
                let wanted = Wanted {
                    model: &model,
                    rollout: None,
                    steering: Some(Steering::primary(primary)),
                    said: Said {
                        who: "tidegate",
                        what: "held",
                        reason: "rollout.auto: new versions begin as shadows".to_owned(),
                    },
                    figures: String::new(),
                    is_urgent: false,
                };
                if let Err(error) = self.make(wanted).await {
                    tracing::error!(model, %error, "a model that rolls out by itself cannot be held");
                    continue;
                }
            }
            let Some((version, digest)) = newest else { continue };
            let key = (model.clone(), version, digest);
            if self.refused.contains(&key) {
                continue;
            }
            match has_been_tried(&*store, &key).await {
                Err(error) => tracing::warn!(model, %error, "a new version waits for the store"),
                Ok(true) => self.refused.push(key),
                Ok(false) => {
                    let reason = "a new version is in the repository";
                    if let Err(error) = self.begin(&model, Some(version), "tidegate", reason).await
                    {
                        tracing::error!(model, version, %error, "a new version does not begin by itself");
                        self.refused.push(key);
                    }
                }
            }
        }
    }

    /// Models that roll out by themselves and do not now.
    fn automatic(&self) -> Vec<Automatic> {
        let table = self.parts.registry.live();
        let idle = table.models.values().filter(|model| !self.active.contains_key(&*model.name));
        let automatic = idle.filter(|model| {
            wish::settings(&table.config, &model.name).is_some_and(|s| s.rollout.auto)
        });
        let found = automatic.map(|model| {
            let primary = model.policy.primary;
            let newest = model.versions.range(primary + 1..).next_back();
            let newest =
                newest.map(|(&number, serving)| (number, serving.version.loaded.digest.clone()));
            Automatic { model: model.name.to_string(), primary, newest }
        });
        found.collect()
    }
}

/// Whether a rollout of that file has ended before.
async fn has_been_tried(
    store: &dyn Store,
    (model, version, digest): &(String, u64, String),
) -> Result<bool, StoreError> {
    let rollouts = store.rollouts(Some(model.clone()), LOOKED_THROUGH).await?;
    Ok(rollouts.iter().any(|r| r.candidate == *version && r.candidate_digest == *digest))
}
