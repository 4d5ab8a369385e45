//! Alerts: unusual use of a key, and repeated failed authentications from one source.

pub mod anomaly;
pub mod failures;
