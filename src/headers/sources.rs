//! Key sources: the headers that may carry a key, and what they carry.

/// A header that may carry a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySource {
    /// The name, in lower case.
    pub header: String,
    /// The authentication scheme before the key (RFC 9110, section 11.1).
    pub scheme: Option<String>,
    /// If set, the header is a list, and the key an item of it after this prefix: a WebSocket
    /// subprotocol, the only header a page can set (RFC 6455, section 11.3.4). Never set with a
    /// scheme.
    pub item_prefix: Option<String>,
}

/// A line of a list of which an item may be a key.
pub(super) struct KeyList<'a> {
    pub(super) name: &'a [u8],
    /// Whether an item is a credential.
    pub(super) holds_credential: bool,
    /// The other items, in their order.
    pub(super) others: Vec<&'a [u8]>,
}

/// The key that the client sent, as its key sources agree on it.
#[derive(Clone, Copy)]
pub(super) enum ClientKey<'a> {
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

// === impl KeyList ===

impl<'a> KeyList<'a> {
    /// Reads a line. `takes` is told each credential, and says whether it is left out of the others.
    pub(super) fn read(
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
    /// The key after another source has shown a credential.
    pub(super) fn and(self, found: &'a [u8]) -> Self {
        match self {
            Self::Missing => Self::One(found),
            Self::One(earlier) if earlier == found => Self::One(found),
            Self::One(earlier) => Self::Conflict([earlier, found]),
            conflict @ Self::Conflict(_) => conflict,
        }
    }
}

/// The key sources with the name of a header.
pub(super) fn sources_named<'s>(
    name: &[u8],
    sources: &'s [KeySource],
) -> impl Iterator<Item = &'s KeySource> {
    let named = |source: &&KeySource| name.eq_ignore_ascii_case(source.header.as_bytes());
    sources.iter().filter(named)
}
