//! Verdicts out: webhook (CloudEvents), Alertmanager.
