//! Overrides from the environment: `TIDEGATE_LIMITS__BODY=1MiB` for `limits.body`.
//!
//! Two underscores stand for a dot; a variable without them is no override, since others choose
//! names as well (Kubernetes sets `TIDEGATE_SERVICE_HOST` beside a service of that name). Names of
//! models are matched with what the file has, without regard to case and with `_` for `-`. A
//! value is read as TOML where that gives something that fits, else it is taken as text.

use serde::Deserialize;
use toml::{Table, Value};

use super::problem::{Place, Problem};
use super::raw::RawConfig;

const PREFIX: &str = "TIDEGATE_";

/// Sets in `table` what `environment` overrides, one variable after the other: one that does not
/// fit is a problem of its own and leaves the others be.
pub(super) fn apply(
    table: &mut Table,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Vec<Problem> {
    let mut variables: Vec<_> = environment
        .into_iter()
        .filter(|(name, _)| name.starts_with(PREFIX) && name.contains("__"))
        .collect();
    variables.sort();
    let mut problems = Vec::new();
    for (name, text) in variables {
        let key = key(table, &name);
        let candidates = [value(&text), Some(Value::String(text.clone()))];
        let mut error = String::new();
        let fits = candidates.into_iter().flatten().any(|value| {
            let mut changed = table.clone();
            if set(&mut changed, &key, value).is_none() {
                "is a value and not a table of keys".clone_into(&mut error);
                return false;
            }
            match RawConfig::deserialize(Value::Table(changed.clone())) {
                Ok(_) => {
                    *table = changed;
                    true
                }
                Err(refused) => {
                    refused.message().clone_into(&mut error);
                    false
                }
            }
        });
        if !fits {
            problems.push(Problem {
                key: key.join("."),
                place: Place::Variable(name),
                message: error,
            });
        }
    }
    problems
}

/// The key's segments.
fn key(table: &Table, name: &str) -> Vec<String> {
    let name = name.strip_prefix(PREFIX).unwrap_or(name);
    let mut segments: Vec<String> = name.split("__").map(str::to_lowercase).collect();
    if let [section, model, ..] = segments.as_mut_slice()
        && section == "models"
    {
        let models = table.get("models").and_then(Value::as_table);
        let mut known = models.into_iter().flat_map(Table::keys);
        let same = |name: &&String| name.to_lowercase().replace('-', "_") == *model;
        if let Some(found) = known.find(same) {
            model.clone_from(found);
        }
    }
    segments
}

fn value(text: &str) -> Option<Value> {
    let mut document: Table = toml::from_str(&format!("value = {text}")).ok()?;
    document.remove("value").filter(|_| document.is_empty())
}

fn set(table: &mut Table, key: &[String], value: Value) -> Option<()> {
    let (last, path) = key.split_last()?;
    let mut table = table;
    for segment in path {
        let entry = table.entry(segment.clone()).or_insert_with(|| Value::Table(Table::new()));
        table = entry.as_table_mut()?;
    }
    table.insert(last.clone(), value);
    Some(())
}
