//! Alerts: use of a key that is unusual, and failed authentications of one source.

pub mod anomaly;
pub mod failures;
