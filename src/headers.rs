//! Request headers as a host hands them out, and what one reading of them finds.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::decision::DenyReason;
use crate::key::token::{MAX_JWT_HEADER_BYTES, split_tag};

/// The prefix of the headers that tell the upstream who the caller is. Only the module sets them.
const IDENTITY_PREFIX: &[u8] = b"x-vkey-";

/// Headers by which frameworks let a client change the method, path or host that it asks for.
const OVERRIDES: [&[u8]; 13] = [
    b"forwarded",
    b"x-forwarded-host",
    b"x-forwarded-path",
    b"x-forwarded-uri",
    b"x-host",
    b"x-http-method",
    b"x-http-method-override",
    b"x-method-override",
    b"x-original-host",
    b"x-original-uri",
    b"x-original-url",
    b"x-rewrite-uri",
    b"x-rewrite-url",
];

/// Headers by which a client tells Envoy's router to send a request more than once, when, and where to
/// (Envoy: "HTTP header manipulation", router filter; original destination clusters).
const RETRIES: [&[u8]; 9] = [
    b"x-envoy-hedge-on-per-try-timeout",
    b"x-envoy-max-retries",
    b"x-envoy-original-dst-host",
    b"x-envoy-retriable-header-names",
    b"x-envoy-retriable-status-codes",
    b"x-envoy-retry-grpc-on",
    b"x-envoy-retry-on",
    b"x-envoy-upstream-rq-per-try-timeout-ms",
    b"x-envoy-upstream-rq-timeout-ms",
];

/// The header that names an MCP session (MCP, "Session Management").
pub const SESSION: &[u8] = b"mcp-session-id";

/// Headers that hold credentials, wherever keys are looked for. No browser sends one with a preflight.
const CREDENTIALS: [&[u8]; 6] = [
    b"api-key",
    b"authorization",
    b"cookie",
    b"proxy-authorization",
    b"x-api-key",
    b"x-goog-api-key",
];

/// What a user and a password start with.
const BASIC: &[u8] = b"basic ";

/// What every JWT starts with: base64url of `{"`.
const JWT_START: &[u8] = b"eyJ";

/// How long the header of a JWT is that names a ring, in base64url.
const JWT_HEADER_BYTES: RangeInclusive<usize> = 36..=MAX_JWT_HEADER_BYTES;

/// The length of a tag in base64url.
const TAG_TEXT_BYTES: usize = 43;

/// Shorter than any key, and than a tag.
const MIN_KEY_BYTES: usize = 40;

/// A header map as a host serialises it (proxy-wasm ABI 0.2.1, `proxy_get_header_map_pairs`): the
/// number of pairs, the lengths of each name and value, then the texts, each with a NUL behind it;
/// integers are 32 bits, little-endian. Names and values are bytes: no host promises UTF-8. It has
/// no `Debug`: keys are among the values.
#[derive(Clone, Default)]
pub struct Headers {
    pairs: Vec<u8>,
    spans: Vec<Span>,
    flawed: bool,
}

/// A header that may carry a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySource {
    /// The name, in lower case.
    pub header: String,
    /// The authentication scheme before the key (RFC 9110, section 11.1).
    pub scheme: Option<String>,
    /// The header is a list, and the key an item of it behind this prefix: a WebSocket subprotocol, which is
    /// all that a page can send besides the address (RFC 6455, section 11.3.4). Never with a scheme.
    pub item_prefix: Option<String>,
}

/// What becomes of credentials that are no keys of this gate, where a request carries them in key sources
/// beside a key that is. A request without such a key is refused whatever this says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignCredentials {
    /// The request is refused.
    Refuse,
    /// They are removed, as the key is.
    Drop,
    /// They go on to the upstream, and the key is removed.
    Forward,
}

/// The bytes are no header map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidPairs(());

#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    name_len: usize,
    value_len: usize,
}

/// What one pass over the headers of a request finds. It has no `Debug` either.
pub struct RequestHead<'a> {
    headers: &'a Headers,
    /// The method.
    pub method: Option<&'a [u8]>,
    /// The request target: path and query.
    pub target: Option<&'a [u8]>,
    /// The authority.
    pub authority: Option<&'a [u8]>,
    /// The id that proxies and servers log for the request.
    pub request_id: Option<&'a [u8]>,
    /// Whether the request asks for another protocol: CONNECT, or any `upgrade` header.
    pub upgrades: bool,
    /// A pseudo header is there twice: the host is confused, or the client confuses it.
    pub doubled: bool,
    /// The values of `x-forwarded-for`, in their order.
    pub forwarded_for: Vec<&'a [u8]>,
    /// Whether a header claims an identity that only the module may set.
    pub claims_identity: bool,
    /// The names of the headers that may carry a key.
    sources: Vec<&'a [u8]>,
    /// The lines of the lists of which an item may be a key.
    lists: Vec<KeyList<'a>>,
    /// The names of the headers that may change the method, path or host.
    overrides: Vec<&'a [u8]>,
    /// The names of the headers that claim an identity, and of those that ask for retries.
    unwanted: Vec<&'a [u8]>,
    credential: ClientKey<'a>,
    /// A credential beside a key that is no key of this gate.
    foreign: Option<&'a [u8]>,
}

/// A line of a list of which an item may be a key.
struct KeyList<'a> {
    name: &'a [u8],
    /// Whether an item is a credential.
    holds_credential: bool,
    /// The other items, in their order.
    others: Vec<&'a [u8]>,
}

/// The key that the client sent, as its key sources agree on it.
#[derive(Clone, Copy)]
enum ClientKey<'a> {
    /// The first two that differ.
    Conflict([&'a [u8]; 2]),
    Missing,
    One(&'a [u8]),
}

// === impl KeySource ===

impl KeySource {
    /// The credential of an item of a list, which has no spaces around it.
    pub fn credential_of_item<'a>(&self, item: &'a [u8]) -> Option<&'a [u8]> {
        let prefix = self.item_prefix.as_ref()?.as_bytes();
        item.strip_prefix(prefix).filter(|credential| !credential.is_empty())
    }

    /// The credential in a header's value that is no list, where it holds one of this source. Schemes have
    /// no case (RFC 9110, section 11.1).
    pub fn credential<'a>(&self, value: &'a [u8]) -> Option<&'a [u8]> {
        let value = value.trim_ascii();
        let Some(scheme) = &self.scheme else {
            return Some(value).filter(|value| !value.is_empty());
        };
        let (head, rest) = value.split_at_checked(scheme.len())?;
        let credential = rest.strip_prefix(b" ")?.trim_ascii_start();
        (head.eq_ignore_ascii_case(scheme.as_bytes()) && !credential.is_empty())
            .then_some(credential)
    }
}

// === impl Headers ===

impl Headers {
    /// Reads a serialised header map. No bytes at all are a map without headers.
    ///
    /// # Errors
    ///
    /// [`InvalidPairs`] when the lengths do not add up.
    pub fn from_pairs(pairs: Vec<u8>) -> Result<Self, InvalidPairs> {
        if pairs.is_empty() {
            return Ok(Self::default());
        }
        let mut words = pairs.chunks_exact(4).map(read_usize);
        let count =
            words.next().filter(|count| *count <= pairs.len() / 8).ok_or(InvalidPairs(()))?;
        let mut spans = Vec::with_capacity(count);
        let mut start = 4 + count * 8;
        for _ in 0..count {
            let (name_len, value_len) = words.next().zip(words.next()).ok_or(InvalidPairs(()))?;
            spans.push(Span { start, name_len, value_len });
            let end = start.checked_add(name_len).and_then(|end| end.checked_add(value_len));
            start = end.and_then(|end| end.checked_add(2)).ok_or(InvalidPairs(()))?;
        }
        if start != pairs.len() {
            return Err(InvalidPairs(()));
        }
        Ok(Self { pairs, spans, flawed: false })
    }

    /// What a host shows of headers that it does not show as they are: nothing.
    pub fn flawed() -> Self {
        Self::default().with_flaw()
    }

    /// Headers that contradict each other, or are not all that the client has sent.
    #[must_use]
    pub fn with_flaw(self) -> Self {
        Self { flawed: true, ..self }
    }

    /// Whether the headers contradict each other, or are not all that the client has sent.
    pub fn is_flawed(&self) -> bool {
        self.flawed
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Serialises a header map as a host does.
    pub fn to_pairs(headers: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let word = |len: usize| u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
        let mut pairs = word(headers.len()).to_vec();
        for (name, value) in headers {
            pairs.extend([word(name.len()), word(value.len())].concat());
        }
        for (name, value) in headers {
            pairs.extend([name.as_slice(), &[0], value, &[0]].concat());
        }
        pairs
    }

    /// Bytes of all names and values.
    pub fn total_bytes(&self) -> u64 {
        let bytes = |span: &Span| span.name_len.saturating_add(span.value_len);
        let total = self.spans.iter().map(bytes).fold(0, usize::saturating_add);
        u64::try_from(total).unwrap_or(u64::MAX)
    }

    /// Every header, in the order of the host.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.spans.iter().map(|span| {
            let value_start = span.start + span.name_len + 1;
            (self.slice(span.start, span.name_len), self.slice(value_start, span.value_len))
        })
    }

    fn slice(&self, start: usize, len: usize) -> &[u8] {
        self.pairs.get(start..start + len).unwrap_or_default()
    }
}

// === impl RequestHead ===

impl<'a> RequestHead<'a> {
    /// Reads the headers once.
    pub fn read(headers: &'a Headers, sources: &[KeySource]) -> Self {
        let mut head = Self::new(headers);
        for (name, value) in headers.iter() {
            match name {
                b":method" => head.doubled |= head.method.replace(value).is_some(),
                b":path" => head.doubled |= head.target.replace(value).is_some(),
                b":authority" => head.doubled |= head.authority.replace(value).is_some(),
                // Extended CONNECT (RFC 8441) where the host shows it as it came.
                b":protocol" => head.upgrades = true,
                _ => head.read_field(name, value, sources),
            }
        }
        head.upgrades |= head.method.is_some_and(|method| method.eq_ignore_ascii_case(b"connect"));
        head
    }

    /// Bytes of all names and values.
    pub fn total_bytes(&self) -> u64 {
        self.headers.total_bytes()
    }

    /// The credential of the request.
    ///
    /// # Errors
    ///
    /// [`DenyReason::KeyMissing`], or [`DenyReason::KeyConflict`] when two sources disagree.
    pub fn credential(&self) -> Result<&'a [u8], DenyReason> {
        match self.credential {
            ClientKey::Conflict(_) => Err(DenyReason::KeyConflict),
            ClientKey::Missing => Err(DenyReason::KeyMissing),
            ClientKey::One(credential) => Ok(credential),
        }
    }

    /// The same request where credentials that are no keys of this gate do not count beside one that is.
    /// `is_own` is asked about each. Where they go on, only the headers that hold the key are removed, and a
    /// header that holds both, in two lines, is a conflict: lines of one name cannot be removed alone.
    #[cold]
    #[must_use]
    pub fn without_foreign(
        mut self,
        rule: ForeignCredentials,
        sources: &[KeySource],
        is_own: impl Fn(&[u8]) -> bool,
    ) -> Self {
        match (rule, self.credential) {
            (ForeignCredentials::Refuse, _) => return self,
            (ForeignCredentials::Drop, ClientKey::Missing | ClientKey::One(_)) => return self,
            (ForeignCredentials::Drop, _) | (ForeignCredentials::Forward, _) => {}
        }
        // Envoy joins lines of `authorization`, so that a key may stand behind another credential.
        let is_own = |text: &[u8]| is_own(text) || holds_key(text, None, &is_own);
        let (mut own, mut foreign) = (ClientKey::Missing, Vec::new());
        let (mut holding, mut lists) = (Vec::new(), Vec::new());
        for (name, value) in self.headers.iter() {
            let is_list = sources_named(name, sources).any(|source| source.item_prefix.is_some());
            if is_list {
                lists.push(KeyList::read(name, value, sources, |found| {
                    if is_own(found) {
                        own = own.and(found);
                        return true;
                    }
                    foreign.push((name, found));
                    rule != ForeignCredentials::Forward
                }));
                continue;
            }
            let found = sources_named(name, sources).find_map(|source| source.credential(value));
            match found {
                Some(found) if is_own(found) => {
                    own = own.and(found);
                    push_once(&mut holding, name);
                }
                Some(found) => foreign.push((name, found)),
                None => {}
            }
        }
        if matches!(own, ClientKey::Missing) {
            return self;
        }
        if rule == ForeignCredentials::Forward {
            let is_shared = |(name, _): &&(&[u8], &[u8])| is_among(name, &holding);
            if let Some((_, shared)) = foreign.iter().find(is_shared) {
                own = own.and(shared);
            }
            self.sources = holding;
        }
        self.lists = lists;
        self.credential = own;
        self.foreign = foreign.first().map(|(_, credential)| *credential);
        self
    }

    /// Whether the request is the preflight of a browser (Fetch Standard, "CORS-preflight fetch"): `OPTIONS` with
    /// one `Origin` and one `Access-Control-Request-Method`, and without what a browser never sends with them.
    /// Whoever sends more is asked for a key.
    #[cold]
    pub fn is_preflight(&self) -> bool {
        // Envoy joins two of these by a comma, which none has.
        let is_one = |value: &[u8]| !value.is_empty() && !value.contains(&b',');
        let is_there = |name| self.value(name).is_some_and(is_one);
        let has_body = self.value(b"content-length").is_some_and(|length| length != b"0")
            || self.value(b"transfer-encoding").is_some();
        // Routes may match on any header, and removing one could change the route after it was judged. Lint
        // knows the sources.
        let is_private =
            |(name, _): (&[u8], _)| is_one_of(name, &CREDENTIALS) && !self.sources.contains(&name);
        let more = self.claims_identity
            || self.overrides_target()
            || self.upgrades
            || has_body
            || self.headers.iter().any(is_private);
        self.method == Some(b"OPTIONS")
            && is_there(b"origin")
            && is_there(b"access-control-request-method")
            && !self.doubles_any(&[b"origin", b"access-control-request-method", b"content-length"])
            && matches!(self.credential, ClientKey::Missing)
            && !(more || self.doubled || self.is_flawed())
    }

    /// The tags of all credentials, good or not: what must not be printed. Of one without a tag all of it.
    pub fn tags(&self) -> impl Iterator<Item = &'a [u8]> {
        let credentials = match self.credential {
            ClientKey::Conflict([first, second]) => [Some(first), Some(second)],
            ClientKey::Missing => [None; 2],
            ClientKey::One(credential) => [Some(credential), self.foreign],
        };
        let tag = |credential| split_tag(credential).map_or(credential, |(_, tag)| tag);
        credentials.into_iter().flatten().map(tag)
    }

    /// Whether the request line itself holds a key, from where it cannot be removed. `is_key` is asked
    /// about what has the form of a JWT.
    pub fn line_holds_key(&self, is_key: &dyn Fn(&[u8]) -> bool) -> bool {
        let line = [self.method, self.target, self.authority];
        let tag = self.tag();
        line.into_iter().flatten().any(|text| holds_key(text, tag, is_key))
    }

    /// Whether a header that is no key source holds a key. Routes may match on any header, so removing
    /// one could change the route after it was judged.
    pub fn holds_stray_key(&self, is_key: &dyn Fn(&[u8]) -> bool) -> bool {
        let tag = self.tag();
        let mut others = self.headers.iter().filter(|(name, _)| !self.is_expected(name));
        let mut items = self.lists.iter().flat_map(|list| &list.others);
        others.any(|(_, value)| {
            let encoded = basic_credentials(value);
            holds_key(value, tag, is_key)
                || encoded.is_some_and(|text| holds_key(&text, tag, is_key))
        }) || items.any(|item| holds_key(item, tag, is_key))
    }

    /// Whether a header may change the method, path or host that the request asks for.
    pub fn overrides_target(&self) -> bool {
        !self.overrides.is_empty()
    }

    /// The names of the headers that must not reach the upstream. `judged`: a rule has judged the method,
    /// path or host, which no header may change behind it.
    pub fn unforwardable(&self, judged: bool) -> Vec<&'a [u8]> {
        let overrides = if judged { self.overrides.as_slice() } else { &[] };
        let mut names = [self.sources.as_slice(), &self.unwanted, overrides].concat();
        for list in self.lists.iter().filter(|list| list.holds_credential) {
            if self.others_of(list.name).is_empty() {
                push_once(&mut names, list.name);
            }
        }
        names
    }

    /// Lists that go on without the key among their items: the name, and what is left. Items that are no
    /// text (RFC 6455, section 4.1: tokens) are left out.
    pub fn shortened_lists(&self) -> Vec<(&'a str, String)> {
        let mut lists: Vec<(&str, String)> = Vec::new();
        for list in self.lists.iter().filter(|list| list.holds_credential) {
            let others = self.others_of(list.name);
            let Ok(name) = std::str::from_utf8(list.name) else { continue };
            if !others.is_empty()
                && lists.iter().all(|(known, _)| !known.eq_ignore_ascii_case(name))
            {
                lists.push((name, others.join(", ")));
            }
        }
        lists
    }

    /// The items of all lines of a list that are no credentials.
    fn others_of(&self, name: &[u8]) -> Vec<&'a str> {
        let lines = self.lists.iter().filter(|line| line.name.eq_ignore_ascii_case(name));
        lines
            .flat_map(|line| &line.others)
            .filter_map(|item| std::str::from_utf8(item).ok())
            .collect()
    }

    /// The names of the trailers that must not reach the upstream, where these are the trailers of a
    /// request: those that would be unwanted as headers, and whatever holds a key. No route is chosen by
    /// a trailer.
    pub fn unforwardable_trailers(&self, is_key: &dyn Fn(&[u8]) -> bool) -> Vec<&'a [u8]> {
        let mut names = self.unforwardable(true);
        let others = self.headers.iter().filter(|(name, _)| !names.contains(name));
        let holding: Vec<_> = others
            .filter(|(_, value)| holds_key(value, None, is_key))
            .map(|(name, _)| name)
            .collect();
        names.extend(holding);
        names
    }

    /// Whether the response to the request may open an MCP session: a `POST` that names none, whose client takes
    /// an event stream (MCP, "Streamable HTTP").
    pub fn may_open_session(&self) -> bool {
        let mut accepted = self.headers.iter().filter(|(name, _)| is_spelled(name, b"accept"));
        self.method == Some(b"POST")
            && accepted.any(|(_, types)| contains(types, b"text/event-stream"))
            && self.value(SESSION).is_none()
    }

    /// The MCP session that the request ends. To the upstream it is what a header makes of it that overrides the
    /// method.
    pub fn ended_session(&self) -> Option<&'a [u8]> {
        let is_end = self.method == Some(b"DELETE") && !self.overrides_target();
        if !is_end || self.doubles_any(&[SESSION]) {
            return None;
        }
        self.value(SESSION)
    }

    /// Whether what is shown of the headers cannot be judged.
    pub fn is_flawed(&self) -> bool {
        self.headers.is_flawed()
    }

    /// Whether one of these headers is there more than once, in whatever spelling.
    pub fn doubles_any(&self, names: &[&[u8]]) -> bool {
        names.iter().any(|name| {
            let named = |(found, _): &(&[u8], &[u8])| found.eq_ignore_ascii_case(name);
            self.headers.iter().filter(named).nth(1).is_some()
        })
    }

    /// The first header of that name, in whatever spelling.
    fn value(&self, name: &[u8]) -> Option<&'a [u8]> {
        let mut named = self.headers.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| value)
    }

    /// Whether the header is a key source, or a pseudo header, which `line_holds_key` covers. The items of a
    /// list that are no credentials are looked at by themselves.
    fn is_expected(&self, name: &[u8]) -> bool {
        name.starts_with(b":")
            || self.sources.contains(&name)
            || self.lists.iter().any(|list| list.name == name)
    }

    /// The text of the credential's tag.
    fn tag(&self) -> Option<&'a [u8]> {
        match self.credential {
            ClientKey::One(credential) => split_tag(credential).map(|(_, tag)| tag),
            ClientKey::Conflict(_) | ClientKey::Missing => None,
        }
    }

    fn new(headers: &'a Headers) -> Self {
        Self {
            headers,
            method: None,
            target: None,
            authority: None,
            request_id: None,
            upgrades: false,
            doubled: false,
            forwarded_for: Vec::new(),
            claims_identity: false,
            sources: Vec::new(),
            lists: Vec::new(),
            overrides: Vec::new(),
            unwanted: Vec::new(),
            credential: ClientKey::Missing,
            foreign: None,
        }
    }

    fn read_field(&mut self, name: &'a [u8], value: &'a [u8], sources: &[KeySource]) {
        if name.eq_ignore_ascii_case(b"upgrade") {
            self.upgrades = true;
        } else if name.eq_ignore_ascii_case(b"x-request-id") {
            self.request_id = Some(value);
        } else if name.eq_ignore_ascii_case(b"x-forwarded-for") {
            self.forwarded_for.push(value);
        } else if is_identity(name) {
            self.claims_identity = true;
            push_once(&mut self.unwanted, name);
        } else if is_one_of(name, &OVERRIDES) {
            push_once(&mut self.overrides, name);
        } else if is_one_of(name, &RETRIES) {
            push_once(&mut self.unwanted, name);
        } else {
            self.read_credential(name, value, sources);
        }
    }

    /// A header may be a source more than once, with several schemes.
    fn read_credential(&mut self, name: &'a [u8], value: &'a [u8], all: &[KeySource]) {
        let mut sources = sources_named(name, all).peekable();
        match sources.peek() {
            None => return,
            Some(source) if source.item_prefix.is_some() => {
                let list = KeyList::read(name, value, all, |found| {
                    self.credential = self.credential.and(found);
                    true
                });
                return self.lists.push(list);
            }
            Some(_) => {}
        }
        push_once(&mut self.sources, name);
        if let Some(found) = sources.find_map(|source| source.credential(value)) {
            self.credential = self.credential.and(found);
        }
    }
}

// === impl KeyList ===

impl<'a> KeyList<'a> {
    /// Reads a line. `takes` is told each credential, and says whether it is left out of the others.
    fn read(
        name: &'a [u8],
        value: &'a [u8],
        sources: &[KeySource],
        mut takes: impl FnMut(&'a [u8]) -> bool,
    ) -> Self {
        let mut list = Self { name, holds_credential: false, others: Vec::new() };
        for item in items(value) {
            let credential = |source: &KeySource| source.credential_of_item(item);
            match sources_named(name, sources).find_map(credential) {
                Some(found) if takes(found) => list.holds_credential = true,
                _ => list.others.push(item),
            }
        }
        list
    }
}

/// The items of a list (RFC 9110, section 5.6.1).
fn items(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let items = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    items.filter(|item| !item.is_empty())
}

// === impl ClientKey ===

impl<'a> ClientKey<'a> {
    /// What the sources agree on when one more holds a credential.
    fn and(self, found: &'a [u8]) -> Self {
        match self {
            Self::Missing => Self::One(found),
            Self::One(earlier) if earlier == found => Self::One(found),
            Self::One(earlier) => Self::Conflict([earlier, found]),
            conflict @ Self::Conflict(_) => conflict,
        }
    }
}

/// The sources that a header is.
fn sources_named<'s>(name: &[u8], sources: &'s [KeySource]) -> impl Iterator<Item = &'s KeySource> {
    let named = |source: &&KeySource| name.eq_ignore_ascii_case(source.header.as_bytes());
    sources.iter().filter(named)
}

/// Whether a header claims an identity that only the module may set.
pub(crate) fn is_identity(name: &[u8]) -> bool {
    name.get(..IDENTITY_PREFIX.len()).is_some_and(|start| is_spelled(start, IDENTITY_PREFIX))
}

/// Whether the module removes or refuses a header that is no key source.
pub fn is_unwanted(name: &[u8]) -> bool {
    is_identity(name) || is_one_of(name, &OVERRIDES) || is_one_of(name, &RETRIES)
}

fn is_one_of(name: &[u8], names: &[&[u8]]) -> bool {
    names.iter().any(|known| is_spelled(name, known))
}

/// Whether a name is another in lower case. Servers that turn headers into variables read `x_vkey_key`
/// as `x-vkey-key`, so both spellings count.
fn is_spelled(name: &[u8], lower: &[u8]) -> bool {
    let plain = |byte: &u8| {
        if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }
    };
    name.len() == lower.len() && name.iter().map(plain).eq(lower.iter().copied())
}

/// Whether a name is one of others, in whatever case.
fn is_among(name: &[u8], names: &[&[u8]]) -> bool {
    names.iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// Each name is removed once, which removes all headers of that name.
fn push_once<'a>(names: &mut Vec<&'a [u8]>, name: &'a [u8]) {
    if !names.contains(&name) {
        names.push(name);
    }
}

/// Whether a text holds a key: the tag of this one, which is the part that makes it a key, or what begins
/// like a key or has the form of a JWT, and `is_key` takes for one. Escapes are resolved once, as a server
/// behind would do.
#[inline(never)]
fn holds_key(text: &[u8], tag: Option<&[u8]>, is_key: &dyn Fn(&[u8]) -> bool) -> bool {
    // Shorter than any tag, as nearly every header is.
    if text.len() < MIN_KEY_BYTES {
        return false;
    }
    let text = percent_decoded(text);
    let starts_key = |window: &[u8]| {
        window.strip_prefix(b"vk1.").is_some_and(|rest| rest.iter().copied().all(is_key_byte))
    };
    let mut windows = text.windows(MIN_KEY_BYTES).enumerate();
    windows.any(|(start, window)| starts_key(window) && text.get(start..).is_some_and(is_key))
        || tag.is_some_and(|tag| contains(&text, tag))
        || jwts(&text).any(is_key)
}

/// A user and a password that are long enough for a key (RFC 7617): clients send keys as passwords.
fn basic_credentials(value: &[u8]) -> Option<Vec<u8>> {
    let (scheme, encoded) = value.split_at_checked(BASIC.len())?;
    if value.len() < MIN_KEY_BYTES || !scheme.eq_ignore_ascii_case(BASIC) {
        return None;
    }
    let plain = |byte: &u8| match byte {
        b'+' => b'-',
        b'/' => b'_',
        byte => *byte,
    };
    let padding = |byte: &&u8| **byte != b'=';
    let encoded: Vec<u8> = encoded.trim_ascii().iter().take_while(padding).map(plain).collect();
    URL_SAFE_NO_PAD.decode(encoded).ok()
}

/// What has the form of a JWT that could be a key, whatever stands before and after it: a header of a
/// length that keys have, claims, and a tag.
fn jwts(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let starts = text.windows(JWT_START.len()).enumerate().filter(|(_, w)| *w == JWT_START);
    starts.filter_map(|(start, _)| {
        let rest = text.get(start..)?;
        let dot = |from: usize| Some(from + rest.get(from..)?.iter().position(|b| *b == b'.')?);
        let header_end = dot(0).filter(|end| JWT_HEADER_BYTES.contains(end))?;
        let claims_end = dot(header_end + 1)?;
        rest.get(..claims_end + 1 + TAG_TEXT_BYTES)
    })
}

/// Whether a text holds another one. Comparing first bytes first spares nearly all comparisons.
fn contains(text: &[u8], part: &[u8]) -> bool {
    let is_part = |window: &[u8]| window.first() == part.first() && window == part;
    text.windows(part.len().max(1)).any(is_part)
}

fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

/// Resolves escapes (RFC 3986, section 2.1); what is none stays as it is.
pub(crate) fn percent_decoded(text: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = text.iter().position(|byte| *byte == b'%') else {
        return Cow::Borrowed(text);
    };
    let (plain, mut rest) = text.split_at_checked(first).unwrap_or((text, &[]));
    let mut decoded = plain.to_vec();
    while let Some((byte, behind)) = rest.split_first() {
        let escape = behind.split_at_checked(2).filter(|_| *byte == b'%');
        let escaped = escape.and_then(|(digits, after)| Some((hex(digits)?, after)));
        let (byte, after) = escaped.unwrap_or((*byte, behind));
        decoded.push(byte);
        rest = after;
    }
    Cow::Owned(decoded)
}

fn hex(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'))?;
    u8::from_str_radix(text, 16).ok()
}

fn read_usize(bytes: &[u8]) -> usize {
    let word = bytes.try_into().map_or(0, u32::from_le_bytes);
    usize::try_from(word).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&str, &[u8])]) -> Headers {
        let owned: Vec<_> =
            list.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect();
        Headers::from_pairs(Headers::to_pairs(&owned)).unwrap()
    }

    #[test]
    fn a_header_map_reads_back() {
        let map = headers(&[(":method", b"GET"), ("x", b"\x80\xff\x00"), ("empty", b"")]);
        let all: Vec<_> = map.iter().collect();
        assert_eq!(
            all,
            [(b":method".as_slice(), b"GET".as_slice()), (b"x", b"\x80\xff\x00"), (b"empty", b"")]
        );
        assert_eq!(Headers::from_pairs(Vec::new()).unwrap().iter().count(), 0);
        assert_eq!(Headers::from_pairs(vec![0; 4]).unwrap().iter().count(), 0);
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let pairs = Headers::to_pairs(&[(b"name".to_vec(), b"value".to_vec())]);
        for len in 1..pairs.len() {
            assert!(Headers::from_pairs(pairs[..len].to_vec()).is_err(), "{len}");
        }
        for index in 0..12 {
            let mut lying = pairs.clone();
            lying[index] = 0xFF;
            assert!(Headers::from_pairs(lying).is_err(), "{index}");
        }
    }

    #[test]
    fn identity_headers_are_known_in_every_spelling() {
        assert!(is_identity(b"x-vkey-key") && is_identity(b"X-Vkey_Anything"));
        assert!(!is_identity(b"x-vkey") && !is_identity(b"xx-vkey-key"));
    }
}
