//! Failed authentications, counted per source in a table of fixed size.
//!
//! Unauthenticated clients decide how many bad keys arrive and from where, so their requests must
//! not make memory grow: the table is [`SHARDS`] records of [`WAYS`] entries, and the size of a
//! record never changes. An attacker with many networks can evict entries. That costs an alert or
//! ends a block early.
//!
//! A good client may share its address with a bad one. So only requests without a valid key are
//! checked against the table: a block never refuses a valid key.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::json::{Invalid, Node};
use crate::record::{Name, Record, Writer, crc32, take};

/// How many shards a table has, numbered from 0.
pub const SHARDS: u8 = 64;

/// How many sources a shard remembers.
pub const WAYS: usize = 8;

/// Bytes of an entry: family, network, start of the window, failures, whether alerted, end of the
/// block.
const ENTRY_BYTES: usize = 30;

const EMPTY: [u8; ENTRY_BYTES] = [0; ENTRY_BYTES];

const MAX_THRESHOLD: u32 = 1_000_000;

/// The longest window and the longest block. Nobody lifts a block by hand, so it should not outlast
/// a day.
const MAX_SECS: u64 = 24 * 3600;

/// When a source is reported, and for how long it is blocked: the configuration's `auth_failures`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureRules {
    /// The number of failures in a window that raises the alert, 1 to 1,000,000.
    pub threshold: u32,
    /// The length of a window in seconds, 1 s to 24 h.
    pub window_secs: u64,
    /// How long a source is blocked after the alert, in seconds, at most 24 h; 0 disables blocks.
    pub block_secs: u64,
}

/// The network that a request comes from: an IPv4 address, the /64 of an IPv6 address (one client
/// can choose any address in it), or unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(Network);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Network {
    Unknown,
    V4(u32),
    /// The upper half of the address.
    V6(u64),
}

/// What follows from one failed authentication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailureOutcome {
    /// Whether to raise an alert: the failure reached the threshold, once per window.
    pub alert: bool,
    /// Until when the source is blocked, in Unix seconds. The failure that reached the threshold is
    /// not yet blocked: it gets the usual reply, and those after it are blocked.
    pub blocked_until_secs: Option<u64>,
}

/// One record of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shard {
    slots: [Option<Entry>; WAYS],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    source: Source,
    /// When the window started: the time of its first failure.
    since_secs: u64,
    /// Failures of the window.
    failures: u32,
    alerted: bool,
    blocked_until_secs: Option<u64>,
}

/// How well a slot suits a source, best first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum SlotRank {
    Own,
    Empty,
    Over,
    Counting { failures: u32, since_secs: u64 },
    Blocked { until_secs: u64 },
}

// === impl FailureRules ===

impl FailureRules {
    /// Reads the member `auth_failures` of the configuration: `threshold`, `window` and
    /// `block_for`, each with a default.
    ///
    /// # Errors
    ///
    /// [`Invalid`] if a member is unknown or out of range.
    pub fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let members = node.members(&["threshold", "window", "block_for"])?;
        let default = Self::default();
        Ok(Self {
            threshold: members.read("threshold", threshold)?.unwrap_or(default.threshold),
            window_secs: members.read("window", window)?.unwrap_or(default.window_secs),
            block_secs: members.read("block_for", block)?.unwrap_or(default.block_secs),
        })
    }
}

impl Default for FailureRules {
    /// Five failures in five minutes raise an alert; nothing is blocked.
    fn default() -> Self {
        Self { threshold: 5, window_secs: 300, block_secs: 0 }
    }
}

fn threshold(node: &Node<'_>) -> Result<u32, Invalid> {
    let threshold = node.integer().ok().and_then(|number| u32::try_from(number).ok());
    let threshold = threshold.filter(|threshold| (1..=MAX_THRESHOLD).contains(threshold));
    threshold.ok_or_else(|| node.expected("1 to 1000000"))
}

fn window(node: &Node<'_>) -> Result<u64, Invalid> {
    match node.seconds()? {
        seconds @ 1..=MAX_SECS => Ok(seconds),
        _ => Err(node.expected("1s to 24h")),
    }
}

fn block(node: &Node<'_>) -> Result<u64, Invalid> {
    match node.seconds()? {
        seconds @ 0..=MAX_SECS => Ok(seconds),
        _ => Err(node.expected("at most 24h")),
    }
}

// === impl Source ===

/// The source of an address. An IPv4-mapped IPv6 address counts as IPv4. A client with one IPv6
/// address usually has its whole /64, and could send each bad key from another address in it.
pub fn source_network(address: IpAddr) -> Source {
    Source(match address.to_canonical() {
        IpAddr::V4(v4) => Network::V4(v4.to_bits()),
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h, ..] = v6.octets();
            Network::V6(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
        }
    })
}

impl Source {
    /// The source of all requests whose address is not known.
    pub const UNKNOWN: Self = Self(Network::Unknown);

    /// The name of the record that counts this source.
    pub fn shard(self) -> Name {
        shard_name(self.shard_number())
    }

    /// The number of its shard, less than [`SHARDS`].
    fn shard_number(self) -> u8 {
        let (family, network) = self.parts();
        let [a, b, c, d, e, f, g, h] = network.to_le_bytes();
        let [low, ..] = crc32(&[family, a, b, c, d, e, f, g, h]).to_le_bytes();
        low % SHARDS
    }

    /// The family and the network, as stored in the record. The numbers of families never change; 0
    /// marks an empty entry.
    fn parts(self) -> (u8, u64) {
        match self.0 {
            Network::Unknown => (1, 0),
            Network::V4(address) => (4, address.into()),
            Network::V6(upper) => (6, upper),
        }
    }

    fn from_parts(family: u8, network: u64) -> Option<Self> {
        match family {
            1 if network == 0 => Some(Self::UNKNOWN),
            4 => u32::try_from(network).ok().map(|address| Self(Network::V4(address))),
            6 => Some(Self(Network::V6(network))),
            _ => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Network::Unknown => f.write_str("an unknown address"),
            Network::V4(address) => Ipv4Addr::from_bits(address).fmt(f),
            Network::V6(upper) => write!(f, "{}/64", Ipv6Addr::from_bits(u128::from(upper) << 64)),
        }
    }
}

// === impl Shard ===

impl Shard {
    /// Counts one failed authentication of a source that belongs to this shard.
    ///
    /// A window starts with its first failure. The failure that reaches the threshold raises the
    /// alert and starts the block, if the rules set one. During the block nothing is counted; the
    /// first failure after it starts a new window. A clock that goes back stays in the current
    /// window and block.
    ///
    /// A new source takes an empty slot; else one whose window or block has ended; else the slot of
    /// the source with the fewest failures, and of those the oldest; else, if all are blocked, the
    /// one whose block ends first.
    pub fn fail(&mut self, source: Source, now_secs: u64, rules: &FailureRules) -> FailureOutcome {
        let rank =
            |slot: &&mut Option<Entry>| SlotRank::new(slot.as_ref(), source, now_secs, rules);
        let Some(slot) = self.slots.iter_mut().min_by_key(rank) else {
            return FailureOutcome::default(); // never: there are slots
        };
        slot.take_if(|entry| entry.source != source || entry.is_over(now_secs, rules));
        slot.get_or_insert(Entry::new(source, now_secs)).fail(now_secs, rules)
    }
}

/// The name of a shard. All names have the same length, and so have all records.
pub fn shard_name(number: u8) -> Name {
    Name::new("f", &format!("{number:02}"))
}

/// An empty entry is all zero, so the size of a record never changes.
impl Record for Shard {
    const VERSION: u8 = 3;

    fn fresh() -> Self {
        Self::default()
    }

    fn write(&self, record: &mut Writer<'_>) {
        for slot in &self.slots {
            match slot {
                Some(entry) => entry.write(record),
                None => record.put(EMPTY),
            }
        }
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let mut shard = Self::default();
        for slot in &mut shard.slots {
            *slot = read_slot(bytes)?;
        }
        Some(shard)
    }
}

/// One entry, or `None` inside for an empty one.
fn read_slot(input: &mut &[u8]) -> Option<Option<Entry>> {
    let bytes: [u8; ENTRY_BYTES] = take(input)?;
    if bytes == EMPTY { Some(None) } else { Entry::read(&bytes).map(Some) }
}

// === impl Entry ===

impl Entry {
    fn new(source: Source, now_secs: u64) -> Self {
        Self { source, since_secs: now_secs, failures: 0, alerted: false, blocked_until_secs: None }
    }

    fn read(mut input: &[u8]) -> Option<Self> {
        let [family] = take(&mut input)?;
        let network = u64::from_le_bytes(take(&mut input)?);
        Some(Self {
            source: Source::from_parts(family, network)?,
            since_secs: u64::from_le_bytes(take(&mut input)?),
            failures: u32::from_le_bytes(take(&mut input)?),
            alerted: match take(&mut input)? {
                [0] => false,
                [1] => true,
                _ => return None,
            },
            blocked_until_secs: match u64::from_le_bytes(take(&mut input)?) {
                0 => None,
                until_secs => Some(until_secs),
            },
        })
    }

    fn write(&self, record: &mut Writer<'_>) {
        let (family, network) = self.source.parts();
        record.put([family]);
        record.put(network.to_le_bytes());
        record.put(self.since_secs.to_le_bytes());
        record.put(self.failures.to_le_bytes());
        record.put([self.alerted.into()]);
        record.put(self.blocked_until_secs.unwrap_or(0).to_le_bytes());
    }

    /// Counts a failure in a window or block that has not ended.
    fn fail(&mut self, now_secs: u64, rules: &FailureRules) -> FailureOutcome {
        if let Some(until_secs) = self.block_end(rules) {
            return FailureOutcome { alert: false, blocked_until_secs: Some(until_secs) };
        }
        self.failures = self.failures.saturating_add(1);
        // `>=` because the threshold may have been lowered within the window.
        let alert = !self.alerted && self.failures >= rules.threshold;
        if alert {
            self.alerted = true;
            // A clock that went back since the window started must not shorten the block.
            let until_secs = now_secs.max(self.since_secs).saturating_add(rules.block_secs);
            self.blocked_until_secs = (rules.block_secs > 0).then_some(until_secs);
        }
        FailureOutcome { alert, blocked_until_secs: None }
    }

    /// When the block ends, if there is one. Rules without blocks lift the blocks of earlier rules.
    fn block_end(&self, rules: &FailureRules) -> Option<u64> {
        self.blocked_until_secs.filter(|_| rules.block_secs > 0)
    }

    /// Whether the block has ended, or else the window.
    fn is_over(&self, now_secs: u64, rules: &FailureRules) -> bool {
        let window_end = self.since_secs.saturating_add(rules.window_secs);
        now_secs >= self.block_end(rules).unwrap_or(window_end)
    }
}

// === impl SlotRank ===

impl SlotRank {
    fn new(slot: Option<&Entry>, source: Source, now_secs: u64, rules: &FailureRules) -> Self {
        let Some(entry) = slot else {
            return Self::Empty;
        };
        if entry.source == source {
            Self::Own
        } else if entry.is_over(now_secs, rules) {
            Self::Over
        } else if let Some(until_secs) = entry.block_end(rules) {
            Self::Blocked { until_secs }
        } else {
            Self::Counting { failures: entry.failures, since_secs: entry.since_secs }
        }
    }
}

#[cfg(test)]
mod tests;
