//! Which version answers, which ones get copies, and how their answers compare: pure policy,
//! decided from names, numbers and tensors alone.
//!
//! A request may name a version by its number or by an alias; without one, the policy ([`Policy`])
//! chooses among the primary and its canaries by a hash of the request's key ([`split`]). Versions
//! that only get copies are shadows; what they answer is compared with what the primary answered
//! ([`comparison`]). Nothing here knows what a version is, where requests come from, or the time.

pub mod comparison;
mod policy;
pub mod split;

pub use comparison::Report;
pub use policy::{Policy, Slot, Steering};
