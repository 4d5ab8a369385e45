//! The stamp of a cluster: the policy that its configuration was rendered from.
//!
//! It is in the cluster's metadata, `filter_metadata.vkey: {policy, hosts}`. Hosts provide metadata as
//! protobuf (`envoy.config.core.v3.Metadata`), of which only the few necessary fields are read here.

use super::{UpstreamHost, UpstreamPattern};

/// What the configuration of a cluster declares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// SHA-256 of the policy that it was rendered from.
    pub policy: String,
    /// The hosts that it is for.
    pub hosts: Vec<UpstreamPattern>,
}

/// One field of a message (protobuf encoding: wire types 0, 1, 2 and 5).
struct Field<'a> {
    number: u64,
    /// The bytes of a length-delimited field; empty for numbers.
    bytes: &'a [u8],
}

/// Iterates over the fields of a message, up to its end or to the first invalid byte.
struct Fields<'a> {
    rest: &'a [u8],
}

impl Stamp {
    /// The namespace in the metadata.
    pub const NAMESPACE: &str = "vkey";

    /// The member that holds the policy's SHA-256, a string.
    pub const POLICY: &str = "policy";

    /// The member that holds the hosts, a list of strings.
    pub const HOSTS: &str = "hosts";

    /// The most hosts of a stamp. A stamp with more is ignored.
    pub const MAX_HOSTS: usize = 64;

    /// Parses the stamp in a cluster's metadata; `None` if there is no valid one.
    pub fn from_metadata(metadata: &[u8]) -> Option<Self> {
        // Metadata.filter_metadata = 1, Struct.fields = 1, both maps: entries of key = 1, value = 2.
        let own = map_entry(metadata, Self::NAMESPACE)?;
        let policy = std::str::from_utf8(string(map_entry(own, Self::POLICY)?)?).ok()?;
        let hosts = match map_entry(own, Self::HOSTS) {
            Some(value) => read_hosts(value)?,
            None => Vec::new(),
        };
        Some(Self { policy: policy.to_owned(), hosts })
    }

    /// Whether the stamp is for this policy and this host.
    pub fn holds_for(&self, policy: &str, host: &UpstreamHost<'_>) -> bool {
        self.policy == policy && self.is_for(host)
    }

    /// Whether the cluster is for this host.
    pub fn is_for(&self, host: &UpstreamHost<'_>) -> bool {
        self.hosts.iter().any(|pattern| pattern.matches(host))
    }
}

/// Value.list_value = 6, ListValue.values = 1.
fn read_hosts(value: &[u8]) -> Option<Vec<UpstreamPattern>> {
    let values = Fields { rest: last(value, 6)? }.filter(|field| field.number == 1);
    let hosts: Option<Vec<_>> = values
        .take(Stamp::MAX_HOSTS + 1)
        .map(|field| UpstreamPattern::parse(std::str::from_utf8(string(field.bytes)?).ok()?))
        .collect();
    hosts.filter(|hosts| hosts.len() <= Stamp::MAX_HOSTS)
}

/// Value.string_value = 3.
fn string(value: &[u8]) -> Option<&[u8]> {
    last(value, 3)
}

/// The value of a key in a map that is field 1 of a message. The last entry of a key counts.
fn map_entry<'a>(message: &'a [u8], key: &str) -> Option<&'a [u8]> {
    let entries = Fields { rest: message }.filter(|field| field.number == 1);
    let meant = entries.filter(|entry| last(entry.bytes, 1) == Some(key.as_bytes()));
    meant.last().and_then(|entry| last(entry.bytes, 2))
}

/// The bytes of a field. The last one of a number counts.
fn last(message: &[u8], number: u64) -> Option<&[u8]> {
    let fields = Fields { rest: message }.filter(|field| field.number == number);
    fields.last().map(|field| field.bytes)
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let tag = self.varint()?;
        let bytes = match tag & 7 {
            0 => self.varint().map(|_| [].as_slice()),
            1 => self.take(8).map(|_| [].as_slice()),
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                self.take(len)
            }
            5 => self.take(4).map(|_| [].as_slice()),
            _ => None,
        };
        if bytes.is_none() {
            self.rest = &[];
        }
        bytes.map(|bytes| Field { number: tag >> 3, bytes })
    }
}

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let len = bytes.len();
        let mut field = vec![number << 3 | 2];
        if len >= 0x80 {
            field.push(u8::try_from(len & 0x7f).unwrap() | 0x80);
        }
        field.push(u8::try_from(if len >= 0x80 { len >> 7 } else { len }).unwrap());
        field.extend(bytes);
        field
    }

    fn entry(key: &str, value: &[u8]) -> Vec<u8> {
        field(1, &[field(1, key.as_bytes()), field(2, value)].concat())
    }

    fn text(text: &str) -> Vec<u8> {
        field(3, text.as_bytes())
    }

    fn metadata(policy: &str, hosts: &[&str]) -> Vec<u8> {
        let hosts: Vec<u8> = hosts.iter().flat_map(|host| field(1, &text(host))).collect();
        let own =
            [entry(Stamp::POLICY, &text(policy)), entry(Stamp::HOSTS, &field(6, &hosts))].concat();
        [entry("istio", &entry("x", &text("y"))), entry(Stamp::NAMESPACE, &own)].concat()
    }

    #[test]
    fn a_stamp_is_found_among_other_metadata() {
        let policy = "ab".repeat(32);
        let stamp = Stamp::from_metadata(&metadata(&policy, &["api.openai.com", "*.example"]));
        let stamp = stamp.unwrap();
        assert_eq!(stamp.policy, policy);
        let for_host = |text: &str| stamp.is_for(&UpstreamHost::parse(text.as_bytes()));
        assert!(for_host("API.openai.com:443") && for_host("a.example") && !for_host("example"));
        assert!(stamp.holds_for(&policy, &UpstreamHost::parse(b"api.openai.com")));
        assert!(!stamp.holds_for("other", &UpstreamHost::parse(b"api.openai.com")));
    }

    #[test]
    fn invalid_bytes_are_ignored() {
        let whole = metadata("p", &["api.openai.com"]);
        for end in 0..whole.len() {
            assert!(Stamp::from_metadata(&whole[..end]).is_none(), "{end}");
        }
        for position in 0..whole.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut broken = whole.clone();
                broken[position] = byte;
                let _ = Stamp::from_metadata(&broken);
            }
        }
        assert_eq!(Stamp::from_metadata(&[0xff; 64]), None);
        assert_eq!(
            Stamp::from_metadata(&entry(Stamp::NAMESPACE, &entry(Stamp::POLICY, &field(2, b"x")))),
            None
        );
    }

    #[test]
    fn a_stamp_with_an_invalid_host_is_ignored() {
        assert_eq!(Stamp::from_metadata(&metadata("p", &["api.openai.com", "*"])), None);
        let many = vec!["a.example"; Stamp::MAX_HOSTS + 1];
        assert_eq!(Stamp::from_metadata(&metadata("p", &many)), None);
    }
}
