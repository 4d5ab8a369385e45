//! Requests whose bodies decide, on a real Envoy.

mod gateway;
mod held;
mod metered;
mod unheld;
