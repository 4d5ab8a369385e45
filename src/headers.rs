//! Request headers as a host hands them out, and what one reading of them finds.

mod pairs;
mod search;
mod sources;

pub use pairs::{Headers, InvalidPairs};
pub(crate) use search::percent_decoded;
pub use sources::KeySource;

use smallvec::SmallVec;

use crate::decision::DenyReason;
use crate::key::token::split_tag;
use search::{MIN_KEY_BYTES, basic_credentials, contains, holds_key};
use sources::{ClientKey, KeyList, sources_named};

/// The prefix of the headers that tell the upstream who the caller is. Only the module sets them.
const IDENTITY_PREFIX: &[u8] = b"x-vkey-";

/// Headers by which frameworks let a client change the method, path or host that it asks for. All begin with `f` or `x`.
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
/// (Envoy: "HTTP header manipulation", router filter; original destination clusters). All begin with `x`.
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

/// What happens to foreign credentials in key sources, next to a key of this gate. A request
/// without a key of this gate is refused in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignCredentials {
    /// The request is refused.
    Refuse,
    /// They are removed, as the key is.
    Drop,
    /// They are forwarded to the upstream, and the key is removed.
    Forward,
}

/// Names of headers. Few requests have more of them that matter.
pub type Names<'a> = SmallVec<[&'a [u8]; 4]>;

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
    /// Whether a pseudo header occurs twice: an error of the host, or an attack.
    pub doubled: bool,
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

    /// The entry of `x-forwarded-for` that the last but `hops - 1` proxy wrote; `None` if there are fewer.
    pub fn forwarded_for(&self, hops: usize) -> Option<&'a [u8]> {
        let values: Vec<&[u8]> = self.values(b"x-forwarded-for").collect();
        let entries = values.into_iter().rev().flat_map(|value| value.rsplit(|byte| *byte == b','));
        entries.into_iter().nth(hops.checked_sub(1)?)
    }

    /// What a new reading of the same headers finds.
    #[must_use]
    pub fn read_again(&self, sources: &[KeySource]) -> Self {
        Self::read(self.headers, sources)
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

    /// Whether the request is the preflight of a browser (Fetch Standard, "CORS-preflight fetch"):
    /// `OPTIONS` with one `Origin` and one `Access-Control-Request-Method`, and without what a
    /// browser never sends with them. A request with more needs a key.
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
        // Nearly every value is shorter than any key.
        let may_hold = |(name, value): &(&[u8], &[u8])| {
            value.len() >= MIN_KEY_BYTES && !self.is_expected(name)
        };
        let mut others = self.headers.iter().filter(may_hold);
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
    pub fn unforwardable(&self, judged: bool) -> Names<'a> {
        let overrides = if judged { self.overrides.as_slice() } else { &[] };
        let mut names = Names::from_slice(&self.sources);
        names.extend_from_slice(&self.unwanted);
        names.extend_from_slice(overrides);
        for list in self.lists.iter().filter(|list| list.holds_credential) {
            if self.others_of(list.name).is_empty() {
                names.push(list.name);
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
    pub fn unforwardable_trailers(&self, is_key: &dyn Fn(&[u8]) -> bool) -> Names<'a> {
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

    /// Every header, in the order of the host.
    pub fn fields(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.headers.iter()
    }

    /// Whether there is a header of that name.
    pub fn has(&self, name: &[u8]) -> bool {
        self.value(name).is_some()
    }

    /// The length of the body that the request announces, in bytes; `None` if it announces none.
    pub fn content_length(&self) -> Option<u64> {
        std::str::from_utf8(self.value(b"content-length")?).ok()?.parse().ok()
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
        self.values(name).next()
    }

    /// The values of all headers of that name, in whatever spelling.
    fn values(&self, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        let named = self.headers.iter().filter(move |(found, _)| found.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value)
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
        // The first letter says of most headers that they are none of these.
        let is_special = match name {
            [b'u' | b'U', ..] if name.eq_ignore_ascii_case(b"upgrade") => {
                self.upgrades = true;
                true
            }
            [b'f' | b'F' | b'x' | b'X', ..] => self.read_special(name, value),
            _ => false,
        };
        if !is_special {
            self.read_credential(name, value, sources);
        }
    }

    /// Reads the id of the request, or a header that is refused or removed. Returns whether it is one of these.
    fn read_special(&mut self, name: &'a [u8], value: &'a [u8]) -> bool {
        if name.eq_ignore_ascii_case(b"x-request-id") {
            self.request_id = Some(value);
        } else if is_identity(name) {
            self.claims_identity = true;
            push_once(&mut self.unwanted, name);
        } else if is_one_of(name, &OVERRIDES) {
            push_once(&mut self.overrides, name);
        } else if is_one_of(name, &RETRIES) {
            push_once(&mut self.unwanted, name);
        } else {
            return false;
        }
        true
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
    fn special_headers_are_found_in_every_spelling() {
        let special = OVERRIDES.into_iter().chain(RETRIES).chain([b"x-vkey-key".as_slice()]);
        for lower in special.map(|name| std::str::from_utf8(name).unwrap()) {
            let upper = lower.to_uppercase();
            for name in
                [lower.to_owned(), lower.replace('-', "_"), upper.clone(), upper.replace('-', "_")]
            {
                let map = headers(&[(&name, b"value")]);
                let head = RequestHead::read(&map, &[]);
                assert_eq!(head.unforwardable(true).to_vec(), [name.as_bytes()], "{name}");
            }
        }
        let map = headers(&[("Upgrade", b"websocket"), ("X-Request-Id", b"7")]);
        let head = RequestHead::read(&map, &[]);
        assert_eq!((head.upgrades, head.request_id), (true, Some(b"7".as_slice())));
    }

    #[test]
    fn identity_headers_are_known_in_every_spelling() {
        assert!(is_identity(b"x-vkey-key") && is_identity(b"X-Vkey_Anything"));
        assert!(!is_identity(b"x-vkey") && !is_identity(b"xx-vkey-key"));
    }
}
