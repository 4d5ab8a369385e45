//! The newest revocations that a proxy has seen. A proxy may keep using an older configuration, on
//! open connections or after a rollback. What was revoked in between stays revoked.

use std::collections::{BTreeMap, BTreeSet};

use crate::record::{Name, Record, Writer, take, take_text};

/// The most keys and tenants of a list that is stored: one or two megabytes. Of a longer list only
/// the version is stored.
pub const MAX_KEPT: usize = 1 << 16;

/// The highest version that the proxy has seen; 0 before any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewestVersion(pub u64);

/// Keys that are revoked before they expire.
#[derive(Clone, Debug, Default)]
pub struct Revoked {
    /// The version of this list, so that a rollback is noticed.
    pub version: Option<u64>,
    /// Keys: a plain id means a key of any tenant, the form of [`revoked_key`] one of a single
    /// tenant. Keys attenuated from them are revoked too.
    pub keys: BTreeSet<String>,
    /// By tenant: keys minted before this second are revoked.
    pub tenants: BTreeMap<String, u64>,
}

/// A list of revocations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevocationList {
    version: u64,
    /// Whether the list was too long to be stored.
    is_cut: bool,
    /// Keys as the configuration has them, sorted. Trees would cost the module more code than all else here.
    keys: Vec<Box<str>>,
    /// By tenant, sorted: keys minted before this second are revoked.
    tenants: Vec<(Box<str>, u64)>,
}

/// What a revocation names a key by.
#[derive(Clone, Copy, Debug)]
pub struct KeyId<'a> {
    /// Its tenant.
    pub tenant: &'a str,
    /// Its id.
    pub jti: &'a str,
    /// When it was minted, Unix seconds.
    pub iat: u64,
}

/// Revocations that are newer than the plan's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Newer {
    /// There are none.
    #[default]
    None,
    /// These.
    List(Box<RevocationList>),
    /// There are some, but they are not known.
    Unknown,
}

/// The name of the record of the highest version.
pub fn version_name() -> Name {
    Name::new("r", "version")
}

/// The name of the record of the newest list.
pub fn list_name() -> Name {
    Name::new("r", "list")
}

// === impl Revoked ===

impl Revoked {
    /// Whether a key is revoked.
    pub fn covers(&self, key: &KeyId<'_>) -> bool {
        let issued_before = self.tenants.get(key.tenant);
        covers_key(key, self.keys.is_empty(), &|key| self.keys.contains(key))
            || issued_before.is_some_and(|time| key.iat < *time)
    }
}

/// A revoked key of one tenant as one text: the tenant, a `/` and the key's id. No id has a `/`.
pub fn revoked_key(tenant: &str, jti: &str) -> String {
    [tenant, "/", jti].concat()
}

/// Whether a list of revoked keys has a key.
#[inline(never)] // once, not for each kind of list
fn covers_key(key: &KeyId<'_>, is_empty: bool, has: &dyn Fn(&str) -> bool) -> bool {
    !is_empty && (has(key.jti) || has(&revoked_key(key.tenant, key.jti)))
}

// === impl RevocationList ===

impl RevocationList {
    /// The revocations of a configuration.
    pub fn new(revoked: &Revoked) -> Self {
        let version = revoked.version.unwrap_or(0);
        if revoked.keys.len().saturating_add(revoked.tenants.len()) > MAX_KEPT {
            return Self { version, is_cut: true, ..Self::default() };
        }
        let tenants = revoked.tenants.iter();
        Self {
            version,
            is_cut: false,
            keys: revoked.keys.iter().map(|key| key.as_str().into()).collect(),
            tenants: tenants.map(|(tenant, time)| (tenant.as_str().into(), *time)).collect(),
        }
    }

    /// The version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What a plan knows by this list when the highest version is `newest`.
    pub fn newer(self, newest: u64) -> Newer {
        let whole = self.version >= newest && !self.is_cut;
        if whole { Newer::List(Box::new(self)) } else { Newer::Unknown }
    }

    /// Whether a key is revoked.
    pub fn covers(&self, key: &KeyId<'_>) -> bool {
        let has = |key: &str| self.keys.binary_search_by(|listed| (**listed).cmp(key)).is_ok();
        let tenant = self.tenants.binary_search_by(|(name, _)| (**name).cmp(key.tenant));
        let issued_before = tenant.ok().and_then(|index| self.tenants.get(index));
        covers_key(key, self.keys.is_empty(), &has)
            || issued_before.is_some_and(|(_, time)| key.iat < *time)
    }
}

impl Record for NewestVersion {
    const VERSION: u8 = 10;

    fn fresh() -> Self {
        Self::default()
    }

    fn write(&self, record: &mut Writer<'_>) {
        record.put(self.0.to_le_bytes());
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        take(bytes).map(u64::from_le_bytes).map(Self)
    }
}

impl Record for RevocationList {
    const VERSION: u8 = 13;

    fn fresh() -> Self {
        Self::default()
    }

    fn write(&self, record: &mut Writer<'_>) {
        record.put(self.version.to_le_bytes());
        record.put([self.is_cut.into()]);
        record.put(count(self.keys.len()));
        self.keys.iter().for_each(|key| record.put_text(key));
        record.put(count(self.tenants.len()));
        for (tenant, issued_before) in &self.tenants {
            record.put_text(tenant);
            record.put(issued_before.to_le_bytes());
        }
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let mut list = Self { version: take(bytes).map(u64::from_le_bytes)?, ..Self::default() };
        let [is_cut] = take(bytes)?;
        list.is_cut = is_cut != 0;
        for _ in 0..take(bytes).map(u32::from_le_bytes)? {
            list.keys.push(take_text(bytes)?);
        }
        for _ in 0..take(bytes).map(u32::from_le_bytes)? {
            let tenant = take_text(bytes)?;
            list.tenants.push((tenant, take(bytes).map(u64::from_le_bytes)?));
        }
        Some(list)
    }
}

/// No list that is kept is longer than this can say.
fn count(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::record::{decode, encode};

    fn key<'a>(jti: &'a str, tenant: &'a str, iat: u64) -> KeyId<'a> {
        KeyId { tenant, jti, iat }
    }

    fn revoked(version: u64, keys: &[&str]) -> Revoked {
        Revoked {
            version: Some(version),
            keys: keys.iter().map(|jti| (*jti).to_owned()).collect(),
            tenants: BTreeMap::from([("acme".to_owned(), 1_790_000_000)]),
        }
    }

    #[test]
    fn a_list_covers_what_its_configuration_revokes() {
        let revoked = revoked(7, &["k1", "k2", "initech/k5"]);
        let list = RevocationList::new(&revoked);
        for key in [
            key("k1", "globex", 1_790_000_000),
            key("k3", "globex", 1_790_000_000),
            key("k3", "acme", 1_789_999_999),
            key("k3", "acme", 1_790_000_000),
            key("k5", "initech", 1_790_000_000),
            key("k5", "Initech", 1_790_000_000),
            key("k5", "globex", 1_790_000_000),
            key("K5", "initech", 1_790_000_000),
        ] {
            assert_eq!(list.covers(&key), revoked.covers(&key), "{key:?}");
        }
        assert!(list.covers(&key("k5", "initech", 1_790_000_000)));
        assert!(!list.covers(&key("k5", "globex", 1_790_000_000)));
        let read = decode(&list_name(), &encode(&list_name(), &list));
        assert_eq!(read, Ok(list));
    }

    #[test]
    fn a_list_that_is_older_than_the_newest_version_says_nothing() {
        let list = RevocationList::new(&revoked(7, &["k1"]));
        assert_eq!(list.clone().newer(7), Newer::List(Box::new(list.clone())));
        assert_eq!(list.newer(8), Newer::Unknown);
    }

    #[test]
    fn a_list_that_is_too_long_is_known_by_its_version() {
        let mut revoked = revoked(9, &[]);
        revoked.keys = (0..MAX_KEPT).map(|number| format!("k{number}")).collect();
        let list = RevocationList::new(&revoked);
        let record = encode(&list_name(), &list);
        assert!(record.len() < 64, "{}", record.len());
        assert_eq!(
            decode::<RevocationList>(&list_name(), &record).unwrap().newer(9),
            Newer::Unknown
        );
        revoked.keys.pop_first();
        let list = RevocationList::new(&revoked);
        assert!(matches!(list.newer(9), Newer::List(_)));
    }
}
