//! Pages with hostile records.
