//! Steering, on the shipped models: version 1 of `car-loan` is its primary, version 2 stands by.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::{ChangeError, Registry, State};
use crate::config::Config;
use crate::scheduler::Pool;
use crate::telemetry::{Telemetry, names};
use crate::traffic::{Slot, Steering};

const MODEL: &str = "car-loan";

fn start(text: &str, steered: BTreeMap<String, Steering>) -> Registry {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let config = Arc::new(Config::parse(text, &folder, []).unwrap());
    let telemetry = Arc::new(Telemetry::default());
    let (pool, _) = Pool::start(1, telemetry.gauge(names::COMPUTE_BUSY, &[]), || {}).unwrap();
    Registry::start(config, &telemetry, pool, steered).unwrap().0
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// The model's versions with their slots.
fn slots(registry: &Registry) -> Vec<(u64, Slot)> {
    let table = registry.live();
    let versions = table.models[MODEL].versions.iter();
    versions.map(|(number, serving)| (*number, serving.slot)).collect()
}

#[test]
fn a_model_is_steered_by_one_swap_until_that_is_withdrawn() {
    let registry = start("[models.car-loan]\nversions = [1]\nprimary = 1", BTreeMap::new());
    assert_eq!(slots(&registry), [(1, Slot::Primary)]);
    let before = registry.live().generation;
    let shadow = Steering { shadows: vec![(2, 1.0)], ..Steering::primary(1) };
    let applied = run(registry.steer(MODEL, Some(shadow))).unwrap();
    assert_eq!(applied.generation, before + 1);
    assert!(applied.changes.iter().any(|c| c.contains("shadow 2: none -> 100 %, steered")));
    assert_eq!(slots(&registry), [(1, Slot::Primary), (2, Slot::Shadow)]);
    let canary = Steering { canaries: vec![(2, 0.25)], ..Steering::primary(1) };
    run(registry.steer(MODEL, Some(canary))).unwrap();
    assert_eq!(slots(&registry), [(1, Slot::Primary), (2, Slot::Canary)]);
    assert!(registry.live().route(MODEL, None).unwrap().split.is_some());
    let promoted = Steering { warm: vec![1], ..Steering::primary(2) };
    run(registry.steer(MODEL, Some(promoted))).unwrap();
    assert_eq!(slots(&registry), [(1, Slot::Standby), (2, Slot::Primary)]);
    // A plan says that the configuration waits.
    let config = Arc::clone(&registry.live().config);
    let plan = run(registry.plan(config)).unwrap();
    assert!(plan.changes.iter().any(|c| c.contains("is steered (primary 2)")), "{plan:?}");
    let applied = run(registry.steer(MODEL, None)).unwrap();
    assert!(applied.changes.iter().any(|change| change.contains("no longer steered")));
    assert_eq!(slots(&registry), [(1, Slot::Primary)]);
}

#[test]
fn steering_that_cannot_be_obeyed_changes_nothing() {
    let registry = start("[models.car-loan]\nversions = [1]\nprimary = 1", BTreeMap::new());
    let generation = registry.live().generation;
    let missing = Steering::primary(7);
    let refused = |model: &str, steering: Steering| run(registry.steer(model, Some(steering)));
    let error = refused(MODEL, missing).unwrap_err();
    assert!(error.to_string().contains("has no folder of that number"), "{error}");
    let twice = Steering { canaries: vec![(1, 0.5)], ..Steering::primary(1) };
    let error = refused(MODEL, twice).unwrap_err();
    assert!(error.to_string().contains("version 1 is the primary"), "{error}");
    let error = refused("nobody", Steering::primary(1)).unwrap_err();
    assert!(matches!(error, ChangeError::NoModel(_)), "{error}");
    assert_eq!(registry.live().generation, generation);
    assert_eq!(slots(&registry), [(1, Slot::Primary)]);
}

#[test]
fn what_was_steered_before_a_start_is_from_its_first_moment() {
    let steering = Steering { warm: vec![1], ..Steering::primary(2) };
    let text = "[models.car-loan]\nversions = [1]\nprimary = 1";
    let registry = start(text, BTreeMap::from([(MODEL.to_owned(), steering)]));
    assert_eq!(slots(&registry), [(1, Slot::Standby), (2, Slot::Primary)]);
    // One that is gone by now is trouble, and the model serves all the same.
    let registry = start(text, BTreeMap::from([(MODEL.to_owned(), Steering::primary(9))]));
    assert_eq!(slots(&registry), [(1, Slot::Primary)]);
    let table = registry.live();
    let trouble = table.index.iter().find(|entry| entry.version == Some(9)).unwrap();
    assert_eq!(trouble.state, State::Unavailable);
}
