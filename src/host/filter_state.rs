//! Filter states: how the module passes values to other filters, to access loggers, and to itself in
//! another filter.

/// A filter state of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterState {
    /// The audit line, for access loggers.
    Audit,
    /// The names of the provider credentials that the request may get, separated by spaces. Mirrored
    /// requests have no filter state, and so get no credential.
    Credentials,
    /// The word that a request needs to pass the seal after the module: see docs/deploy-envoy.md.
    Decision,
    /// The id of the key, for a filter that limits requests of the whole cluster.
    Key,
    /// The tenant of the key, for the same filter.
    Tenant,
    /// The tokens that the request is charged in the end, in decimal digits, for the same filter.
    Tokens,
    /// The verdict of the upstream gate on the connection. All attempts of a request share it.
    Upstream,
}

impl FilterState {
    /// The key under which the module sets it.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Audit => "vkey.audit",
            Self::Credentials => "vkey.credential",
            Self::Decision => "vkey.decision",
            Self::Key => "vkey.key",
            Self::Tenant => "vkey.tenant",
            Self::Tokens => "vkey.tokens",
            Self::Upstream => "vkey.upstream",
        }
    }

    /// The key under which others read it: Envoy adds the prefix `wasm.`.
    pub const fn shown_key(self) -> &'static str {
        match self {
            Self::Audit => "wasm.vkey.audit",
            Self::Credentials => "wasm.vkey.credential",
            Self::Decision => "wasm.vkey.decision",
            Self::Key => "wasm.vkey.key",
            Self::Tenant => "wasm.vkey.tenant",
            Self::Tokens => "wasm.vkey.tokens",
            Self::Upstream => "wasm.vkey.upstream",
        }
    }

    /// The path of the property that contains it, its parts joined by NUL.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Audit => "filter_state\0wasm.vkey.audit",
            Self::Credentials => "filter_state\0wasm.vkey.credential",
            Self::Decision => "filter_state\0wasm.vkey.decision",
            Self::Key => "filter_state\0wasm.vkey.key",
            Self::Tenant => "filter_state\0wasm.vkey.tenant",
            Self::Tokens => "filter_state\0wasm.vkey.tokens",
            Self::Upstream => "filter_state\0wasm.vkey.upstream",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::FilterState;

    #[test]
    fn the_keys_for_setting_and_reading_agree() {
        for state in [
            FilterState::Audit,
            FilterState::Credentials,
            FilterState::Decision,
            FilterState::Key,
            FilterState::Tenant,
            FilterState::Tokens,
            FilterState::Upstream,
        ] {
            assert_eq!(state.shown_key(), format!("wasm.{}", state.key()));
            assert_eq!(state.path(), format!("filter_state\0{}", state.shown_key()));
        }
    }
}
