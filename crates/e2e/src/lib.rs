//! Tests that need a real Envoy, an nginx or MCP peers, and those of the repository as a whole: see `tests`.
