//! Filter states: what the module tells the proxy's other filters, its access loggers, and itself in another filter.

/// A filter state of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterState {
    /// The audit line, for access loggers.
    Audit,
    /// Which provider credentials the request may have: words with a space between them. Mirrored requests have no
    /// filter state, and so no credential.
    Credentials,
    /// The word that lets a request through the seal behind the module: see docs/deploy-envoy.md.
    Decision,
    /// What the upstream's own gate made of the connection. Attempts of one request share it.
    Upstream,
}

impl FilterState {
    /// The key that the module sets it by.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Audit => "vkey.audit",
            Self::Credentials => "vkey.credential",
            Self::Decision => "vkey.decision",
            Self::Upstream => "vkey.upstream",
        }
    }

    /// The key that others find it by: Envoy puts `wasm.` before what a module sets.
    pub const fn shown_key(self) -> &'static str {
        match self {
            Self::Audit => "wasm.vkey.audit",
            Self::Credentials => "wasm.vkey.credential",
            Self::Decision => "wasm.vkey.decision",
            Self::Upstream => "wasm.vkey.upstream",
        }
    }

    /// The path of the property that shows it, its parts joined by NUL.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Audit => "filter_state\0wasm.vkey.audit",
            Self::Credentials => "filter_state\0wasm.vkey.credential",
            Self::Decision => "filter_state\0wasm.vkey.decision",
            Self::Upstream => "filter_state\0wasm.vkey.upstream",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::FilterState;

    #[test]
    fn what_is_set_is_what_is_found() {
        for state in [
            FilterState::Audit,
            FilterState::Credentials,
            FilterState::Decision,
            FilterState::Upstream,
        ] {
            assert_eq!(state.shown_key(), format!("wasm.{}", state.key()));
            assert_eq!(state.path(), format!("filter_state\0{}", state.shown_key()));
        }
    }
}
