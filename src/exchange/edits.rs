//! The changes to a forwarded request.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::config::UpstreamCredential;
use crate::engine::{Engine, KnownKey};
use crate::headers::{Names, RequestHead};
use crate::upstream_tls::UpstreamHost;

/// Says that a credential was attached before routing. No credential has a `+` in its name.
pub const ATTACHED: &str = "+attached";

/// Begins the word that says until when, and to which host, an attached credential may go without TLS.
const PLAINTEXT: &str = "+plaintext=";

/// The word for a credential that is attached before routing, if it may go without TLS to a host that no rule of the
/// policy is for.
fn plaintext_word(until_secs: u64, authority: Option<&[u8]>) -> Option<String> {
    if until_secs == 0 {
        return None;
    }
    let host = UpstreamHost::parse(authority?);
    let is_readable = host != UpstreamHost::Unreadable;
    is_readable.then(|| format!("{PLAINTEXT}{until_secs}={host}"))
}

/// Until when an attached credential may go to a host without TLS, if a word says that of this host; Unix seconds.
pub fn plaintext_until(word: &str, host: &UpstreamHost<'_>) -> Option<u64> {
    let (until_secs, named) = word.strip_prefix(PLAINTEXT)?.split_once('=')?;
    let until_secs = until_secs.parse().ok()?;
    (named == host.to_string()).then_some(until_secs)
}

/// The changes to a forwarded request. It has no `Debug`, because it may contain a provider's credential.
#[derive(Default)]
pub struct Edits<'a> {
    /// Headers to remove, by name.
    pub remove: Names<'a>,
    /// Lists that replace longer ones.
    pub shorten: Vec<(&'a str, String)>,
    /// Headers to add.
    pub add: SmallVec<[(&'static str, Cow<'a, str>); 3]>,
    /// A provider's credential, which replaces the header that the client sent.
    pub replace: Option<(&'a str, &'a str)>,
    /// What upstream gates learn about credentials: the names of those that the request may have, and [`ATTACHED`] if
    /// one is set here, with a word about its `plaintext`.
    pub credentials: Vec<Cow<'a, str>>,
    /// The key, for a filter that limits requests of the whole cluster.
    pub caller: Option<&'a KnownKey>,
}

impl<'a> Edits<'a> {
    /// The names of the client's headers that are removed or changed.
    pub fn changed(&self) -> Names<'a> {
        let shortened = self.shorten.iter().map(|(name, _)| name.as_bytes());
        self.remove.iter().copied().chain(shortened).collect()
    }

    /// The edits of a request that needs no key: everything private is removed, and no identity is set.
    pub fn without_key(head: &RequestHead<'a>) -> Self {
        let shorten = head.shortened_lists();
        Self { remove: head.unforwardable(true), shorten, ..Self::default() }
    }

    /// The edits of a request of a key: everything private is removed, and the identity is set.
    pub fn forward(engine: &'a Engine, key: &'a KnownKey, head: &RequestHead<'a>) -> Self {
        // What is not judged may be overridden: the upstream does with it what it would do without the module.
        let is_judged =
            key.restricts_target() || key.depends_on_bodies() || engine.settings().llm.audit_tokens;
        let credential = engine.credential(head.authority);
        let mut add = SmallVec::new();
        if engine.settings().identity_headers {
            add.push(("x-vkey-key", Cow::Borrowed(key.jti())));
            add.push(("x-vkey-tenant", Cow::Borrowed(key.tenant())));
            add.extend(key.sub_header().map(|sub| ("x-vkey-sub", Cow::Borrowed(sub))));
        }
        Self {
            remove: head.unforwardable(head.overrides_target() && is_judged),
            shorten: head.shortened_lists(),
            add,
            replace: credential.map(|c| (c.header.as_str(), c.value.as_str())),
            credentials: credential_words(engine, credential, head.authority),
            caller: engine.settings().limits.of_cluster.then_some(key),
        }
    }
}

/// What upstream gates learn about the credentials of a request.
fn credential_words<'a>(
    engine: &'a Engine,
    attached: Option<&UpstreamCredential>,
    authority: Option<&'a [u8]>,
) -> Vec<Cow<'a, str>> {
    if attached.is_none() && engine.settings().grants.is_empty() {
        return Vec::new();
    }
    let plaintext = attached.and_then(|c| plaintext_word(c.plaintext_until_secs, authority));
    let attached = attached.map(|_| Cow::Borrowed(ATTACHED));
    let granted = engine.granted(authority).map(Cow::Borrowed);
    attached.into_iter().chain(plaintext.map(Cow::Owned)).chain(granted).collect()
}
