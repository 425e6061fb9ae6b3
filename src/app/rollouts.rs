//! The store and the driver of rollouts, put together.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::{AppError, evidence};
use crate::config::Config;
use crate::monitor::times::now_ms;
use crate::observe::Monitors;
use crate::observe::shadow::Shadows;
use crate::registry::Registry;
use crate::rollout::{self, Driver, Recalled, Rollouts};
use crate::store::{Sqlite, Store, StoreError};
use crate::telemetry::Telemetry;

/// The store as it is found at a start, and what it remembers.
pub(super) struct Kept {
    store: Result<Arc<dyn Store>, String>,
    pub(super) recalled: Recalled,
}

/// Opens the store and reads what it remembers. One that a later binary wrote ends the start:
/// somebody is there to see it, and to serve other versions than were promoted helps nobody. One
/// that fails otherwise leaves the file alone in charge, and rollouts out of order: predictions
/// come first.
pub(super) fn open(config: &Config, runtime: &Handle) -> Result<Kept, AppError> {
    let Some(path) = &config.store else {
        let reason = "nothing can be rolled out, promoted or taken back without a store: set path under [store], such as path = \"tidegate.db\", and restart";
        return Ok(Kept { store: Err(reason.to_owned()), recalled: Recalled::default() });
    };
    let opened = runtime.block_on(async {
        let store: Arc<dyn Store> = Arc::new(Sqlite::open(path).await?);
        let recalled = rollout::recall(&store, config, now_ms()).await?;
        Ok((store, recalled))
    });
    match opened {
        Ok((store, recalled)) => Ok(Kept { store: Ok(store), recalled }),
        Err(error @ StoreError::Newer { .. }) => Err(AppError::Start(error.to_string())),
        Err(error) => {
            tracing::error!(%error, "the store cannot be opened: the file alone says what serves, and nothing can be rolled out");
            Ok(Kept {
                store: Err(format!(
                    "{error}; nothing can be rolled out until a restart finds it well"
                )),
                recalled: Recalled::default(),
            })
        }
    }
}

/// Makes the driver.
pub(super) fn start(
    kept: Kept,
    registry: &Registry,
    telemetry: &Arc<Telemetry>,
    (monitors, shadows): (&Monitors, &Shadows),
) -> (Rollouts, Driver) {
    let (watched, told, compared) = (monitors.clone(), monitors.clone(), shadows.clone());
    let parts = rollout::Parts {
        registry: registry.clone(),
        store: kept.store,
        telemetry: Arc::clone(telemetry),
        evidence: Box::new(move |table, model, primary, candidate| {
            let pairs = evidence::pairs(compared.comparisons(), model, primary, candidate);
            evidence::sample(&watched, pairs, table, (model, primary, candidate))
        }),
        outlet: Box::new(move |event| told.tell(event)),
    };
    rollout::start(parts, kept.recalled)
}
