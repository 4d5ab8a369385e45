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
    /// The configuration that `--config` names.
    Configuration,
    /// The listener of this name.
    Listener(String),
    /// A route, or a container of routes: its location in words.
    Route(String),
}

impl Element {
    /// The host of a cluster of which no host is known.
    pub(super) const UNKNOWN_HOST: &'static str = "-";
}

/// Information that is not a defect.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Note {
    /// The name of the cluster or the listener.
    pub(super) place: String,
    /// The information.
    pub(super) text: String,
}

/// How serious a finding is, in the order in which findings are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// A request, a credential or an answer can reach somebody else, or passes unchecked.
    Error,
    /// Something else still refuses it, or the configuration cannot be checked.
    Warning,
}

impl Severity {
    /// The word in the output. Scripts depend on it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// An item, and the input that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct InFile<T> {
    /// The position of the input.
    pub(super) file: usize,
    /// The item.
    pub(super) item: T,
}

impl<T> InFile<T> {
    /// An item of an input.
    pub(super) fn new(file: usize, item: T) -> Self {
        Self { file, item }
    }
}

macro_rules! rules {
    ($($variant:ident $severity:ident $code:literal $about:literal,)*) => {
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

            /// How serious a violation is.
            pub(super) fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity,)* }
            }

            /// The description of the rule.
            pub(super) fn about(self) -> &'static str {
                match self { $(Self::$variant => $about,)* }
            }
        }
    };
}

rules! {
    AcceptUntrusted Error "accept_untrusted" "certificates are accepted although their chain is not verified",
    AuditLineInvalid Error "audit_line_invalid" "the access log prints the audit record in a format that makes no audit lines",
    AuditLineLost Error "audit_line_lost" "audit lines are set for the access log, which does not print them",
    CaMissing Error "ca_missing" "no trusted authority, so no chain is verified",
    ClientCertificateMissing Error "client_certificate_missing" "the policy asks for a client certificate, and there is none",
    ClusterLimitsOpen Error "cluster_limits_open" "the module counts on limits of the whole cluster, which nothing enforces, or not always",
    ConfigurationRefused Error "configuration_refused" "the module refuses its configuration",
    CredentialNeverSent Error "credential_never_sent" "a provider's credential can never go out",
    CredentialRetryElsewhere Error "credential_retry_elsewhere" "a retry can take a provider's credential to another cluster",
    CredentialsInFront Error "credentials_in_front" "the module holds provider credentials in front of the routes",
    CustomValidator Error "custom_validator" "another validator takes the place of all other verification",
    EndpointsMissing Warning "endpoints_missing" "no endpoint of the cluster can be read, so it may be for any host",
    EscapedSlashesKept Warning "escaped_slashes_kept" "paths keep escaped slashes, which separate segments for some readers only",
    ExpiredAccepted Error "expired_accepted" "expired certificates are accepted",
    GateFailOpen Error "gate_fail_open" "requests pass when the gate fails",
    GateMissing Error "gate_missing" "the gate is not among the cluster's HTTP filters",
    GateNotLast Error "gate_not_last" "another filter can change the request after the gate has judged it",
    HostDotKept Warning "host_dot_kept" "hosts keep a dot at their end, so that two spellings choose two virtual hosts",
    HostPortKept Warning "host_port_kept" "hosts keep their port, so that two spellings choose two virtual hosts",
    IdentityHeadersKept Error "identity_headers_kept" "a client's own identity headers reach the choice of a route",
    MirrorUngated Error "mirror_ungated" "requests are copied to a cluster without a gate",
    ModuleMissing Error "module_missing" "a seal without the module refuses every request",
    ModuleSwitchedOff Error "module_switched_off" "the module does not run for the requests of a route or a listener",
    ModuleUnread Warning "module_unread" "a filter that may be the module comes by discovery, and is not in the input",
    OpenHostUngated Error "open_host_ungated" "hosts that nobody lists lead to a cluster without a gate",
    PathNotNormalized Warning "path_not_normalized" "paths keep their . and .. segments",
    PinsMissing Error "pins_missing" "the policy pins certificates, the cluster does not",
    PinsWrong Error "pins_wrong" "other certificates than the pinned ones are accepted",
    Plaintext Error "plaintext" "requests leave without TLS",
    RemoteAddressUnset Error "remote_address_unset" "the client itself can say which address it has",
    Renegotiation Warning "allow_renegotiation" "the upstream may renegotiate",
    RouteByRemovedHeader Error "route_by_removed_header" "a route is chosen by a header that the module removes",
    SanMatchMissing Error "san_match_missing" "a chain is verified, but not for whom the certificate is",
    SanMatchWide Error "san_match_wide" "the match of names lets more in than the host",
    SanMatchWrong Error "san_match_wrong" "the match of names is for another host",
    SealMissing Error "seal_missing" "nothing refuses requests that the module has not allowed",
    SessionsResumed Warning "sessions_resumed" "sessions are resumed, which go by the certificate of their first handshake",
    SkipExpired Warning "skip_expired" "the policy's exception of the host has expired",
    SlashesNotMerged Warning "slashes_not_merged" "paths keep adjacent slashes",
    SniFromHeader Error "sni_from_header" "a request header says which name is sent and verified",
    SniMissing Warning "sni_missing" "no server name is sent",
    SniWrong Error "sni_wrong" "the server name that is sent is another host's",
    StampMissing Warning "stamp_missing" "the cluster's metadata has no stamp that can be read",
    StampOtherHosts Warning "stamp_other_hosts" "the stamp is for other hosts",
    StampStale Warning "stamp_stale" "the stamp is of another policy",
    TlsContextObsolete Error "tls_context_obsolete" "TLS is set up by tls_context, which Envoy no longer reads",
    TransportSocketUnknown Error "transport_socket_unknown" "a transport socket of which it is not known that it is TLS",
    VariableMissing Error "variable_missing" "a variable that the configuration names does not reach the module",
    VersionCapped Error "version_capped" "the highest version of TLS is below the lowest that the policy allows",
    VersionLow Error "version_low" "versions of TLS below the policy's are allowed",
}

impl LintRule {
    /// The rule as JSON.
    pub(super) fn to_json(self) -> Json {
        Json::object([
            ("rule", self.id().into()),
            ("severity", self.severity().word().into()),
            ("about", self.about().into()),
        ])
    }
}

impl Finding {
    /// The finding as JSON, in the file of this name.
    pub(super) fn to_json(&self, file: &str) -> Json {
        let element = match &self.element {
            Element::Cluster { name, host } => {
                vec![("cluster", name.as_str()), ("host", host.as_str())]
            }
            Element::Configuration => vec![("configuration", "--config")],
            Element::Listener(name) => vec![("listener", name.as_str())],
            Element::Route(place) => vec![("route", place.as_str())],
        };
        let severity = self.rule.severity().word();
        let rest = [
            ("rule", self.rule.id()),
            ("severity", severity),
            ("file", file),
            ("reason", &*self.reason),
            ("fix", &*self.fix),
        ];
        let members =
            element.into_iter().chain(rest).map(|(member, text)| (member.to_owned(), text.into()));
        Json::Object(members.collect())
    }
}

impl Note {
    /// The note as JSON, in the file of this name.
    pub(super) fn to_json(&self, file: &str) -> Json {
        Json::object([
            ("place", self.place.as_str().into()),
            ("file", file.into()),
            ("text", self.text.as_str().into()),
        ])
    }
}
