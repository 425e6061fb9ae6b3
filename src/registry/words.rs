//! What a change changes, in words: for the log, for whoever asked, for a plan.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::table::{LiveTable, Model};
use crate::traffic::Policy;

/// What serves after and not before, and the other way round, in words.
pub(super) fn changes(before: &LiveTable, after: &LiveTable) -> Vec<String> {
    let mut changes = Vec::new();
    let names = before.models.keys().chain(after.models.keys());
    let names: BTreeSet<_> = names.collect();
    for name in names {
        let (old, new) = (before.models.get(name), after.models.get(name));
        let version = |model: Option<&Model>, number: u64| {
            model.and_then(|model| model.versions.get(&number)).map(|s| Arc::clone(&s.version))
        };
        let numbers = old.into_iter().chain(new).flat_map(|model| model.versions.keys().copied());
        for number in numbers.collect::<BTreeSet<_>>() {
            match (version(old, number), version(new, number)) {
                (None, Some(version)) => {
                    changes.push(format!(
                        "{name}: version {number} goes live ({})",
                        version.loaded.digest
                    ));
                }
                (Some(_), None) => changes.push(format!("{name}: version {number} is retired")),
                (Some(old), Some(new)) if !Arc::ptr_eq(&old.loaded, &new.loaded) => {
                    changes.push(format!(
                        "{name}: version {number} is replaced ({})",
                        new.loaded.digest
                    ));
                }
                (Some(old), Some(new)) if !Arc::ptr_eq(&old, &new) => {
                    changes.push(format!("{name}: version {number} gets other settings"));
                }
                _ => {}
            }
        }
        if let (Some(old), Some(new)) = (old, new)
            && old.policy != new.policy
        {
            changes.push(format!("{name}: {}", policy_change(&old.policy, &new.policy)));
        }
    }
    changes
}

fn policy_change(old: &Policy, new: &Policy) -> String {
    let mut parts = Vec::new();
    if old.primary != new.primary {
        parts.push(format!("primary {} -> {}", old.primary, new.primary));
    }
    let names = old.aliases.keys().chain(new.aliases.keys());
    for alias in names.collect::<BTreeSet<_>>() {
        let text = |version: Option<&u64>| version.map_or("none".to_owned(), u64::to_string);
        let (old, new) = (old.aliases.get(alias), new.aliases.get(alias));
        if old != new {
            parts.push(format!("alias '{alias}' {} -> {}", text(old), text(new)));
        }
    }
    for (what, old, new) in
        [("canary", &old.canaries, &new.canaries), ("shadow", &old.shadows, &new.shadows)]
    {
        let share = |list: &[(u64, f64)], version: u64| {
            list.iter().find(|(number, _)| *number == version).map(|(_, share)| *share)
        };
        let text = |share: Option<f64>| share.map_or("none".to_owned(), percent);
        let numbers = old.iter().chain(new).map(|(number, _)| *number);
        for number in numbers.collect::<BTreeSet<_>>() {
            let (old, new) = (share(old, number), share(new, number));
            if old != new {
                parts.push(format!("{what} {number}: {} -> {}", text(old), text(new)));
            }
        }
    }
    if old.sticky != new.sticky {
        parts.push(format!("sticky by {} -> {}", old.sticky, new.sticky));
    }
    match (old.is_steered, new.is_steered) {
        (false, true) => parts.push("steered".to_owned()),
        (true, false) => parts.push("no longer steered".to_owned()),
        _ => {}
    }
    parts.join(", ")
}

/// A share as people write it: `5 %`.
fn percent(share: f64) -> String {
    // Shares are written with few digits; what binary makes of them is rounded away.
    format!("{} %", (share * 1e8).round() / 1e6)
}

/// Models whose settings do not decide what serves, for a plan.
pub(super) fn steered(table: &LiveTable) -> Vec<String> {
    let mut models: Vec<&Model> =
        table.models.values().filter(|model| model.policy.is_steered).collect();
    models.sort_unstable_by_key(|model| &model.name);
    let lines = models.into_iter().map(|model| {
        let Policy { primary, canaries, shadows, .. } = &model.policy;
        let shares = |what: &str, list: &[(u64, f64)]| -> String {
            list.iter().map(|(n, share)| format!(", {what} {n} {}", percent(*share))).collect()
        };
        format!(
            "{}: is steered (primary {primary}{}{}); primary, canaries and shadows of the configuration wait until that ends",
            model.name,
            shares("canary", canaries),
            shares("shadow", shadows),
        )
    });
    lines.collect()
}

/// Tells the log of a change, and of what is not as wished any more.
pub(super) fn log(
    before: &LiveTable,
    after: &LiveTable,
    changes: &[String],
    trigger: &'static str,
) {
    for change in changes {
        tracing::info!(trigger, change, "swapped");
    }
    let new =
        after.index.iter().filter(|entry| entry.is_trouble() && !before.index.contains(entry));
    for entry in new {
        let version = entry.version.map(tracing::field::display);
        tracing::warn!(trigger, model = %entry.model, version, reason = entry.reason, "not as wished");
    }
}
