//! Decisions, and the reasons of denials.

use std::fmt;

/// The decision on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The request is forwarded.
    Allow,
    /// The request is refused.
    Deny(DenyReason),
    /// A browser's CORS preflight, which is forwarded without a key.
    Preflight,
    /// The request needs no key: the configuration makes it public, or it asks whether the gate is ready.
    Public,
    /// The request is forwarded although it would be refused, because the configuration has `"mode":
    /// "shadow"`.
    Shadow(DenyReason),
}

/// Whether denials of access and limits are enforced. Authentication always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They are.
    Enforce,
    /// They are logged, and the request is forwarded.
    Shadow,
}

/// The kind of a denial, which decides the HTTP status. The numbers index the counts in a cell, so they
/// never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum DenyClass {
    /// The client must send a valid key.
    Unauthenticated = 0,
    /// The key does not allow this.
    Forbidden = 1,
    /// The request is malformed or ambiguous.
    BadRequest = 2,
    /// A limit is exhausted.
    Limited = 3,
    /// The connection to the upstream violates the policy.
    Upstream = 4,
    /// The proxy cannot decide.
    Unavailable = 5,
}

impl DenyClass {
    /// The number of classes.
    pub const COUNT: usize = 6;

    /// Every class, in the order of its number.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Unauthenticated,
        Self::Forbidden,
        Self::BadRequest,
        Self::Limited,
        Self::Upstream,
        Self::Unavailable,
    ];

    /// The name in the usage reply.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::BadRequest => "bad_request",
            Self::Limited => "limited",
            Self::Upstream => "upstream",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Defines each reason once: variant, stable code, class, and message.
macro_rules! deny_reasons {
    ($($variant:ident $code:literal $class:ident $message:literal,)*) => {
        /// Why a request is refused. Audit lines, replies and the command use the same code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum DenyReason {
            $(#[doc = $message] $variant,)*
        }

        impl DenyReason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The stable code.
            pub fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The code as the proxy's own logs show it.
            pub fn details(self) -> &'static str {
                match self { $(Self::$variant => concat!("vkey_", $code),)* }
            }

            /// The class, which decides the HTTP status.
            pub fn class(self) -> DenyClass {
                match self { $(Self::$variant => DenyClass::$class,)* }
            }

            /// The message for people.
            pub fn message(self) -> &'static str {
                match self { $(Self::$variant => $message,)* }
            }
        }
    };
}

deny_reasons! {
    KeyMissing "key_missing" Unauthenticated "no virtual key was sent",
    KeyConflict "key_conflict" Unauthenticated "two different credentials were sent",
    KeyMalformed "key_malformed" Unauthenticated "the credential is not a virtual key",
    KeyUnknown "key_unknown" Unauthenticated "no ring of the keyring signs such keys",
    KeySignature "key_signature" Unauthenticated "the key's tag is not the ring's",
    KeyNotYetValid "key_not_yet_valid" Unauthenticated "the key is not valid yet",
    KeyExpired "key_expired" Unauthenticated "the key has expired",
    KeyRetired "key_retired" Unauthenticated "the key's signing key has aged out",
    KeyRevoked "key_revoked" Unauthenticated "the key, its tenant or its ring is revoked",
    KeyAudience "key_audience" Unauthenticated "the key is for another audience",
    CaveatUnsupported "caveat_unsupported" Unauthenticated "the key carries a restriction that is not understood, or costs too much to judge",
    TierUnknown "tier_unknown" Forbidden "the key's tier or tenant is not configured here",
    Source "source" Forbidden "the key may not be used from this address",
    Method "method" Forbidden "the key may not use this method",
    Host "host" Forbidden "the key may not be used for this host",
    Path "path" Forbidden "the key may not be used for this path",
    ClientCert "client_cert" Forbidden "the key is bound to another client certificate",
    Model "model" Forbidden "the key may not use this model",
    McpCall "mcp_call" Forbidden "the key may not make this MCP call",
    KeyInUrl "key_in_url" BadRequest "the request line holds a key; send a key in a header alone, and replace this one: URLs are logged",
    PathAmbiguous "path_ambiguous" BadRequest "the path can be read in more than one way; send it in plain form",
    BodyUnreadable "body_unreadable" BadRequest "the body cannot be read as what it should be",
    BodyTooLarge "body_too_large" BadRequest "the body is larger than the gate reads; send a smaller one",
    HeaderMismatch "header_mismatch" BadRequest "a header claims an identity, which only the gate may state, or contradicts the request",
    Rate "rate" Limited "the key's rate is used up",
    Quota "quota" Limited "the key's quota is used up",
    TenantRate "tenant_rate" Limited "the tenant's rate is used up",
    TenantQuota "tenant_quota" Limited "the tenant's quota is used up",
    ChildRate "child_rate" Limited "the rate of the narrowed key is used up",
    ChildQuota "child_quota" Limited "the narrowed key has no room",
    SourceBlocked "source_blocked" Limited "too many failed authentications from this address or network",
    LeaseSpent "lease_spent" Limited "the share of this proxy in a budget is spent, and it has asked for more; try again",
    ClusterRate "cluster_rate" Limited "a limit of the whole cluster is used up",
    UpstreamPlaintext "upstream_plaintext" Upstream "the connection to the upstream is not encrypted",
    UpstreamVersion "upstream_version" Upstream "the upstream speaks a version of TLS that the policy does not allow",
    UpstreamPin "upstream_pin" Upstream "the upstream's certificate is none of those pinned",
    UpstreamName "upstream_name" Upstream "the upstream's certificate does not bear the name of the host",
    UpstreamClientCert "upstream_client_cert" Upstream "the gate holds no client certificate for the upstream",
    UpstreamUnproven "upstream_unproven" Upstream "nothing proves that the upstream satisfies the policy",
    NotReady "not_ready" Unavailable "the gate is not ready; its operator finds the cause in the proxy's log",
    Contention "contention" Unavailable "the key's counts are being written by too many requests at once; try again",
    LedgerLost "ledger_lost" Unavailable "the ledger of budgets does not respond, and the share of this proxy is spent; try again",
    ClusterUnknown "cluster_unknown" Unavailable "nothing says whether the limits of the whole cluster have room; try again",
}

impl DenyReason {
    /// Whether a bad credential was presented. A missing key does not count, nor does one that was
    /// valid once.
    pub fn is_failed_authentication(self) -> bool {
        self.class() == DenyClass::Unauthenticated
            && !matches!(self, Self::KeyMissing | Self::KeyRetired)
    }

    /// Whether shadow mode only records it, and forwards the request.
    pub fn is_recorded(self) -> bool {
        match self.class() {
            DenyClass::Forbidden | DenyClass::Limited => true,
            DenyClass::Unavailable => self == Self::LedgerLost,
            DenyClass::Unauthenticated | DenyClass::BadRequest | DenyClass::Upstream => false,
        }
    }

    /// The reason with that code.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.code() == code)
    }
}

impl fmt::Display for DenyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Decision {
    /// Whether the request is forwarded.
    pub fn forwards(self) -> bool {
        !matches!(self, Self::Deny(_))
    }

    /// Whether the request is forwarded for a key.
    pub fn has_key(self) -> bool {
        matches!(self, Self::Allow | Self::Shadow(_))
    }

    /// The decision if a key may not do what it asks. In shadow mode it is only logged.
    pub fn refused(reason: DenyReason, mode: Mode) -> Self {
        match mode {
            Mode::Shadow if reason.class() == DenyClass::Forbidden => Self::Shadow(reason),
            Mode::Enforce | Mode::Shadow => Self::Deny(reason),
        }
    }

    /// The decision if a limit has no room for a request that is allowed otherwise. In shadow mode it is
    /// only logged, unless the key itself turned out to be invalid.
    pub fn limited(reason: DenyReason, mode: Mode) -> Self {
        match mode {
            Mode::Shadow if reason.is_recorded() => Self::Shadow(reason),
            Mode::Enforce | Mode::Shadow => Self::Deny(reason),
        }
    }

    /// The decision if nothing is counted: limits cannot be enforced then, so a request that has limits is
    /// refused.
    #[must_use]
    pub fn without_counts(self, limited: bool) -> Self {
        if limited && self.forwards() { Self::Deny(DenyReason::NotReady) } else { self }
    }

    /// The word in the audit line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny(_) => "deny",
            Self::Preflight => "preflight",
            Self::Public => "public",
            Self::Shadow(_) => "shadow",
        }
    }

    /// Why the request is refused, or would be without shadow mode.
    pub fn reason(self) -> Option<DenyReason> {
        match self {
            Self::Allow | Self::Preflight | Self::Public => None,
            Self::Deny(reason) | Self::Shadow(reason) => Some(reason),
        }
    }
}

/// The word in audit lines and metrics for a request that the module never saw: an earlier filter replied,
/// e.g. a health check, or the client disconnected.
pub const UNSEEN: &str = "unseen";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_parsed_to_their_reason() {
        for reason in DenyReason::ALL {
            assert_eq!(DenyReason::from_code(reason.code()), Some(*reason));
        }
        assert_eq!(DenyReason::from_code("no_such_reason"), None);
    }

    #[test]
    fn classes_keep_their_numbers() {
        for (index, class) in DenyClass::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, index);
        }
    }
}
