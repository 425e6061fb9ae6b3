//! The one observation of an answer, fanned out to monitor, shadow and capture through bounded queues.
