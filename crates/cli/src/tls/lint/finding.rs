//! Findings and rules of lint.

use vkey::json::Json;

/// A defect.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Finding {
    /// The element with the defect.
    pub(super) element: Element,
    /// The violated rule.
    pub(super) rule: LintRule,
    /// The reason, in words.
    pub(super) reason: String,
    /// How to fix it, and where.
    pub(super) fix: String,
}

/// An element of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Element {
    /// A cluster.
    Cluster {
        /// The cluster's name.
        name: String,
        /// The host whose policy is violated.
        host: String,
    },
    /// The listener of this name.
    Listener(String),
    /// A route, or a container of routes: its location in words.
    Route(String),
}

/// Information that is not a defect.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Note {
    /// The name of the cluster or the listener.
    pub(super) place: String,
    /// The information.
    pub(super) text: String,
}

macro_rules! rules {
    ($($variant:ident $code:literal $about:literal,)*) => {
        /// The rules.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum LintRule {
            $(#[doc = $about] $variant,)*
        }

        impl LintRule {
            /// Every rule.
            pub(super) const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The id. Scripts depend on it.
            pub(super) fn id(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The description of the rule.
            pub(super) fn about(self) -> &'static str {
                match self { $(Self::$variant => $about,)* }
            }
        }
    };
}

rules! {
    AcceptUntrusted "accept_untrusted" "certificates are accepted although their chain is not verified",
    CaMissing "ca_missing" "no trusted authority, so no chain is verified",
    ClientCertificateMissing "client_certificate_missing" "the policy asks for a client certificate, and there is none",
    CredentialRetryElsewhere "credential_retry_elsewhere" "a retry can take a provider's credential to another cluster",
    CredentialsInFront "credentials_in_front" "the module holds provider credentials in front of the routes",
    CustomValidator "custom_validator" "another validator takes the place of all other verification",
    EscapedSlashesKept "escaped_slashes_kept" "paths keep escaped slashes, which separate segments for some readers only",
    ExpiredAccepted "expired_accepted" "expired certificates are accepted",
    GateFailOpen "gate_fail_open" "requests pass when the gate fails",
    GateMissing "gate_missing" "the gate is not among the cluster's HTTP filters",
    GateNotLast "gate_not_last" "another filter can change the request after the gate has judged it",
    HostDotKept "host_dot_kept" "hosts keep a dot at their end, so that two spellings choose two virtual hosts",
    HostPortKept "host_port_kept" "hosts keep their port, so that two spellings choose two virtual hosts",
    IdentityHeadersKept "identity_headers_kept" "a client's own identity headers reach the choice of a route",
    MirrorUngated "mirror_ungated" "requests are copied to a cluster without a gate",
    OpenHostUngated "open_host_ungated" "hosts that nobody lists lead to a cluster without a gate",
    PathNotNormalized "path_not_normalized" "paths keep their . and .. segments",
    PinsMissing "pins_missing" "the policy pins certificates, the cluster does not",
    PinsWrong "pins_wrong" "other certificates than the pinned ones are accepted",
    Plaintext "plaintext" "requests leave without TLS",
    RemoteAddressUnset "remote_address_unset" "the client itself can say which address it has",
    Renegotiation "allow_renegotiation" "the upstream may renegotiate",
    RouteByRemovedHeader "route_by_removed_header" "a route is chosen by a header that the module removes",
    SanMatchMissing "san_match_missing" "a chain is verified, but not for whom the certificate is",
    SanMatchWide "san_match_wide" "the match of names lets more in than the host",
    SanMatchWrong "san_match_wrong" "the match of names is for another host",
    SealMissing "seal_missing" "nothing refuses requests that the module has not allowed",
    SessionsResumed "sessions_resumed" "sessions are resumed, which go by the certificate of their first handshake",
    SkipExpired "skip_expired" "the policy's exception of the host has expired",
    SlashesNotMerged "slashes_not_merged" "paths keep adjacent slashes",
    SniFromHeader "sni_from_header" "a request header says which name is sent and verified",
    SniMissing "sni_missing" "no server name is sent",
    SniWrong "sni_wrong" "the server name that is sent is another host's",
    StampMissing "stamp_missing" "the cluster's metadata has no stamp that can be read",
    StampOtherHosts "stamp_other_hosts" "the stamp is for other hosts",
    StampStale "stamp_stale" "the stamp is of another policy",
    TlsContextObsolete "tls_context_obsolete" "TLS is set up by tls_context, which Envoy no longer reads",
    TransportSocketUnknown "transport_socket_unknown" "a transport socket of which it is not known that it is TLS",
    VersionCapped "version_capped" "the highest version of TLS is below the lowest that the policy allows",
    VersionLow "version_low" "versions of TLS below the policy's are allowed",
}

impl LintRule {
    /// The rule as JSON.
    pub(super) fn to_json(self) -> Json {
        Json::object([("rule", self.id().into()), ("about", self.about().into())])
    }
}

impl Finding {
    /// The finding as JSON.
    pub(super) fn to_json(&self) -> Json {
        let element = match &self.element {
            Element::Cluster { name, host } => vec![("cluster", name), ("host", host)],
            Element::Listener(name) => vec![("listener", name)],
            Element::Route(place) => vec![("route", place)],
        };
        let element = element.into_iter().map(|(member, text)| (member, text.as_str()));
        let rest =
            [("rule", self.rule.id()), ("reason", &*self.reason), ("fix", &*self.fix)].into_iter();
        let members = element.chain(rest).map(|(member, text)| (member.to_owned(), text.into()));
        Json::Object(members.collect())
    }
}

impl Note {
    /// The note as JSON.
    pub(super) fn to_json(&self) -> Json {
        Json::object([("place", self.place.as_str().into()), ("text", self.text.as_str().into())])
    }
}
