//! What the words in audit lines mean.

use vkey::decision::DenyReason;

/// How far a connection to an upstream can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// It satisfies the policy.
    Proven,
    /// The policy has no rule for it.
    Unlisted,
    /// An exception lets it pass unverified.
    Skipped,
    /// It was refused.
    Refused,
}

/// The members of an audit line in their order, and what they mean (docs/audit.md, "The line").
pub(super) const MEMBERS: [(&str, &str); 37] = [
    ("vkey", "The version of the format; - if the gate never saw the request."),
    ("ts", "When the gate first saw the request."),
    ("host", "The node id of the proxy."),
    ("req", "The id of the request, x-request-id. The client has it too."),
    ("decision", "What the gate decided."),
    ("reason", "Why the request was refused."),
    ("kid", "The signing key that signed the key: its ring and epoch."),
    ("jti", "The id of the key."),
    ("tenant", "The tenant of the key."),
    ("sub", "Whom the key was issued to."),
    ("tier", "The tier of the key, which has its limits."),
    ("caveats", "How many restrictions were added to the key after it was minted."),
    ("src", "The address of the client, as the gate counts it."),
    ("method", "The HTTP method."),
    ("authority", "The host that the client named."),
    (
        "path",
        "The path. One in a form that can be read in more than one way is as the client wrote it.",
    ),
    ("query_keys", "The names in the query. Their values are not logged."),
    (
        "model",
        "The model that was asked for, and with → the one that the response names, if that is another.",
    ),
    ("mcp", "The MCP call: method, what it names, server, and revision of MCP."),
    ("tokens", "The tokens: in and out, total is what was charged, src says how they are known."),
    ("cost", "What the tokens cost, in millionths of a US dollar."),
    ("tls_verdict", "The verdict on the connection to the upstream."),
    ("tls_policy", "The SHA-256 of the upstream-TLS policy that is compiled into the gate."),
    (
        "anomaly",
        "What was unusual about the use of the key. Only the first such request of a window has it.",
    ),
    (
        "plan",
        "The configuration in force: the beginning of its SHA-256, and the version of its revocations.",
    ),
    ("chain", "The chain that the record is in."),
    ("seq", "The place of the record in its chain, counted from 0."),
    ("prev", "The MAC of the record before it; empty in the first."),
    ("mac", "The MAC of the record, with the audit secret. Who changes the record cannot make it."),
    (
        "start",
        "When the request began, as the proxy saw it. From here on the members are the proxy's, and no MAC covers them.",
    ),
    ("peer", "The address at the other end of the connection."),
    ("status", "The HTTP status of the response."),
    ("bytes_in", "Bytes of the body that the client sent."),
    ("bytes_out", "Bytes of the body that the client got."),
    ("duration_ns", "How long the request took, in nanoseconds."),
    ("upstream", "The address of the upstream."),
    ("flags", "Envoy's flags of the response."),
];

/// Why a request was refused, in a sentence without a full stop.
pub(super) fn reason(code: &str) -> Option<&'static str> {
    DenyReason::from_code(code).map(DenyReason::message)
}

/// What a decision means.
pub(super) fn decision(word: &str) -> Option<&'static str> {
    Some(match word {
        "allow" => "the request was forwarded",
        "deny" => "the request was refused",
        "shadow" => {
            "the request was forwarded, although it would be refused if the gate enforced it"
        }
        "preflight" => "a browser's preflight, which needs no key",
        "public" => "a public request, which needs no key",
        "unseen" => "the proxy replied before the gate saw the request",
        _ => return None,
    })
}

/// What an anomaly means.
pub(super) fn anomaly(word: &str) -> Option<&'static str> {
    Some(match word {
        "rate" => "the key was used far more often than usual",
        "source" => "a client in a network that is new for the key used it",
        "refusals" => "many requests of the key were refused",
        _ => return None,
    })
}

/// What a verdict on a connection means, and how far it can be trusted (docs/upstream-tls.md, "Verdicts").
pub(super) fn verdict(word: &str) -> (&'static str, Trust) {
    match word {
        "verified" => ("The connection showed all that the policy asks for.", Trust::Proven),
        "stamped" => (
            "The host does not show all that the policy asks for. The cluster carries the stamp of the policy, which vouches for it.",
            Trust::Proven,
        ),
        "skip" => (
            "Nothing was verified: the policy skips the host until a given day. Whoever is on the way can read these requests.",
            Trust::Skipped,
        ),
        "plaintext" => (
            "There was no TLS: a credential is allowed without it until a given day.",
            Trust::Skipped,
        ),
        "unlisted" => {
            ("The policy has no rule for the host. It was observed, not verified.", Trust::Unlisted)
        }
        word => (refused_verdict(word), Trust::Refused),
    }
}

fn refused_verdict(word: &str) -> &'static str {
    match DenyReason::from_code(word) {
        Some(DenyReason::UpstreamPlaintext) => "Refused: the connection was not encrypted.",
        Some(DenyReason::UpstreamVersion) => {
            "Refused: the version of TLS was lower than the policy allows."
        }
        Some(DenyReason::UpstreamPin) => "Refused: the certificate is not among the pins.",
        Some(DenyReason::UpstreamName) => "Refused: the certificate does not name the host.",
        Some(DenyReason::UpstreamClientCert) => {
            "Refused: the proxy has no client certificate for the connection."
        }
        Some(DenyReason::UpstreamUnproven) => {
            "Refused: nothing shows that the connection satisfies the policy."
        }
        _ => "Refused.",
    }
}

/// What a finding means (docs/audit.md, "Verify a trail").
pub(super) fn finding(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "changed" => "A line does not match its MAC: it was changed, or another secret made it.",
        "missing" => "Records before one that is there are missing.",
        "cut" => "Records at the end of a chain are missing: an anchor counts them.",
        "doubled" => "A record was read twice.",
        "moved" => "A record stands after a later one of its chain.",
        "unlinked" => "A record matches its MAC and contradicts the one next to it.",
        "contradiction" => "An anchor matches its MAC and contradicts a record.",
        "unreadable" => "A line begins like an audit line and cannot be read.",
        _ => return None,
    })
}

// === impl Trust ===

impl Trust {
    /// The class of its badge.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Proven => "good",
            Self::Unlisted => "neutral",
            Self::Skipped => "warn",
            Self::Refused => "bad",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vkey::audit::{Line, Mask, Outcome};

    #[test]
    fn every_member_of_a_line_is_explained_in_its_place() {
        let line =
            Line { record: Some(vkey::audit::AuditRecord::default()), outcome: Outcome::default() };
        let text = line.write(&Mask::default());
        let written: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&text).unwrap();
        let position = |name: &str| text.find(&format!("\"{name}\":")).unwrap();
        let known: Vec<&str> = MEMBERS.iter().map(|(name, _)| *name).collect();
        for name in written.keys() {
            assert!(known.contains(&name.as_str()), "{name} is not explained");
        }
        let linked = ["chain", "seq", "prev", "mac"];
        let present: Vec<_> = known.iter().filter(|name| !linked.contains(name)).collect();
        assert!(present.windows(2).all(|two| position(two[0]) < position(two[1])), "{text}");
    }

    #[test]
    fn every_reason_and_every_verdict_has_words() {
        for reason in DenyReason::ALL {
            assert!(super::reason(reason.code()).is_some());
            let is_upstream = reason.code().starts_with("upstream_");
            let (meaning, trust) = verdict(reason.code());
            assert_eq!((meaning != "Refused.", trust), (is_upstream, Trust::Refused), "{meaning}");
        }
        assert_eq!(verdict("skip").1, Trust::Skipped);
        for word in ["verified", "stamped"] {
            assert_eq!(verdict(word).1, Trust::Proven);
        }
    }
}
