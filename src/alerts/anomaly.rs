//! What is unusual about the use of one key. It only ever raises an alert: nothing is refused for it.
//!
//! A stolen key is good, so no check refuses it; but it is used otherwise than before. A [`Watch`]
//! remembers of each key as much as it takes to notice: how many requests are usual, where they come
//! from, and how many are refused. All sums are of windows of [`WINDOW_SECS`], and a key raises at most
//! one alert in a window.

use std::net::IpAddr;

use crate::json::{Invalid, Node};
use crate::record::{crc32, take};

/// How long a window is, in seconds. Windows start at multiples of it in Unix time.
pub const WINDOW_SECS: u64 = 300;

/// How many networks of a key are remembered.
pub const NETWORKS: usize = 8;

/// How many windows the trailing mean looks back on: each counts 1/8 of what is left.
const MEAN_WINDOWS: u64 = 8;

/// The unit of the trailing mean, a fixed-point number.
const MEAN_UNIT: u64 = 256;

/// After as many idle windows every mean is 0: 2^64 (7/8)^512 is less than 1.
const MAX_IDLE_WINDOWS: u64 = 512;

/// The bit of the first byte that says whether the window has had its alert. The lower ones count the
/// networks.
const ALERTED: u8 = 0x80;

/// How much has to be unusual: the configuration's `anomaly.sensitivity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sensitivity {
    /// Reports what is hardly ever right.
    Low,
    /// Reports what is worth a look.
    Medium,
    /// Reports much, and busy keys often.
    High,
}

/// The numbers of one sensitivity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// [`Anomaly::Rate`]: more requests in this window than so many times the trailing mean.
    pub rate_factor: u32,
    /// [`Anomaly::Rate`]: at least so many requests in this window.
    pub rate_requests: u32,
    /// [`Anomaly::Rate`]: after at least so many windows, idle ones included.
    pub rate_windows: u8,
    /// [`Anomaly::Source`]: after at least so many requests of the key.
    pub source_requests: u32,
    /// [`Anomaly::Refusals`]: at least so many requests in this window.
    pub refusals_requests: u32,
    /// [`Anomaly::Refusals`]: at least so many of a hundred were refused.
    pub refusals_percent: u32,
}

const LOW: Thresholds = Thresholds {
    rate_factor: 10,
    rate_requests: 200,
    rate_windows: 12,
    source_requests: 1_000,
    refusals_requests: 50,
    refusals_percent: 90,
};

const MEDIUM: Thresholds = Thresholds {
    rate_factor: 5,
    rate_requests: 100,
    rate_windows: 6,
    source_requests: 100,
    refusals_requests: 20,
    refusals_percent: 50,
};

const HIGH: Thresholds = Thresholds {
    rate_factor: 3,
    rate_requests: 50,
    rate_windows: 3,
    source_requests: 10,
    refusals_requests: 10,
    refusals_percent: 25,
};

/// What is unusual.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Anomaly {
    /// Many more requests than usual.
    Rate,
    /// A client in a network that the key has not been used from lately.
    Source,
    /// A large part of the requests is refused.
    Refusals,
}

/// One request of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The address of the client, where known.
    pub source: Option<IpAddr>,
    /// Whether the request was refused.
    pub refused: bool,
    /// When it came, in Unix seconds.
    pub now_secs: u64,
}

/// What is remembered of the use of one key. Counts stop at their maximum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// The number of the window, which is its start in Unix time divided by [`WINDOW_SECS`].
    window: u64,
    /// Requests in the window.
    requests: u32,
    /// Refused requests in the window.
    refused: u32,
    /// Whether the window has had its alert.
    alerted: bool,
    /// Windows before, idle ones included.
    windows: u8,
    /// Trailing mean of the requests in a window, in 1/256.
    mean: u64,
    /// Requests in all windows.
    total: u32,
    /// Hashes of the last networks, the latest first.
    networks: Vec<u32>,
}

// === impl Sensitivity ===

impl Sensitivity {
    /// Every sensitivity, the lowest first.
    pub const ALL: [Self; 3] = [Self::Low, Self::Medium, Self::High];

    /// Reads the member `anomaly` of the configuration: an object with the one member `sensitivity`.
    ///
    /// # Errors
    ///
    /// When it is anything else, or the sensitivity is none of the three.
    pub fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let choices = Self::ALL.map(|sensitivity| (sensitivity.word(), sensitivity));
        node.members(&["sensitivity"])?.require("sensitivity")?.choice(&choices)
    }

    /// The name in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }

    /// The numbers that this sensitivity stands for.
    pub fn thresholds(self) -> Thresholds {
        match self {
            Self::Low => LOW,
            Self::Medium => MEDIUM,
            Self::High => HIGH,
        }
    }
}

// === impl Anomaly ===

impl Anomaly {
    /// Every anomaly. When a request shows several, the first of these is the one reported.
    pub const ALL: [Self; 3] = [Self::Rate, Self::Source, Self::Refusals];

    /// The name in an alert.
    pub fn word(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Source => "source",
            Self::Refusals => "refusals",
        }
    }
}

// === impl Watch ===

impl Watch {
    /// The most bytes that [`Watch::write`] writes.
    pub const MAX_BYTES: usize = 30 + NETWORKS * size_of::<u32>();

    /// Takes a watch off the input, as [`Watch::write`] wrote it, and leaves what follows. `None`
    /// when the input does not start with one; what is left of it then means nothing.
    pub fn read(input: &mut &[u8]) -> Option<Self> {
        let [head] = take(input)?;
        let mut watch = Self {
            alerted: head & ALERTED != 0,
            window: u64::from_le_bytes(take(input)?),
            requests: u32::from_le_bytes(take(input)?),
            refused: u32::from_le_bytes(take(input)?),
            windows: u8::from_le_bytes(take(input)?),
            mean: u64::from_le_bytes(take(input)?),
            total: u32::from_le_bytes(take(input)?),
            networks: Vec::new(),
        };
        let networks = usize::from(head & !ALERTED);
        if networks > NETWORKS || watch.refused > watch.requests || watch.requests > watch.total {
            return None;
        }
        for _ in 0..networks {
            watch.networks.push(u32::from_le_bytes(take(input)?));
        }
        Some(watch)
    }

    /// Appends at most [`Watch::MAX_BYTES`]: the number of networks and whether alerted, window,
    /// requests, refused, windows, mean, total, networks; integers little-endian.
    pub fn write(&self, record: &mut Vec<u8>) {
        let networks = u8::try_from(self.networks.len()).unwrap_or(0); // never more than NETWORKS
        record.push(if self.alerted { networks | ALERTED } else { networks });
        record.extend_from_slice(&self.window.to_le_bytes());
        record.extend_from_slice(&self.requests.to_le_bytes());
        record.extend_from_slice(&self.refused.to_le_bytes());
        record.push(self.windows);
        record.extend_from_slice(&self.mean.to_le_bytes());
        record.extend_from_slice(&self.total.to_le_bytes());
        for network in &self.networks {
            record.extend_from_slice(&network.to_le_bytes());
        }
    }

    /// Counts one request, and says what is unusual if this is the first in its window with which
    /// something is. A clock that goes back counts into the latest window there was.
    pub fn observe(&mut self, seen: &Observation, sensitivity: Sensitivity) -> Option<Anomaly> {
        self.enter(seen.now_secs / WINDOW_SECS);
        let thresholds = sensitivity.thresholds();
        let used_before = self.total >= thresholds.source_requests;
        let elsewhere = self.visit(seen.source);
        self.total = self.total.saturating_add(1);
        self.requests = self.requests.saturating_add(1);
        self.refused = self.refused.saturating_add(seen.refused.into());
        if self.alerted {
            return None;
        }
        let unusual = Anomaly::ALL.into_iter().find(|anomaly| match anomaly {
            Anomaly::Rate => self.is_rate_unusual(&thresholds),
            Anomaly::Source => elsewhere && used_before,
            Anomaly::Refusals => self.are_refusals_unusual(&thresholds),
        });
        self.alerted = unusual.is_some();
        unusual
    }

    /// Records that the request observed last was refused after all.
    pub fn refuse(&mut self) {
        self.refused = self.refused.saturating_add(1).min(self.requests);
    }

    /// Closes the windows before this one, the idle ones too.
    fn enter(&mut self, window: u64) {
        if self.total == 0 {
            self.window = window;
        }
        let passed = window.saturating_sub(self.window);
        if passed == 0 {
            return;
        }
        self.close(self.requests);
        for _ in 0..(passed - 1).min(MAX_IDLE_WINDOWS) {
            self.close(0);
        }
        self.window = window;
        self.requests = 0;
        self.refused = 0;
        self.alerted = false;
    }

    /// Takes a window into the mean. The first ones have equal weights, so that a first window which
    /// the key saw the end of only does not make all that follow look like a burst.
    fn close(&mut self, requests: u32) {
        self.windows = self.windows.saturating_add(1);
        let weight = u64::from(self.windows).min(MEAN_WINDOWS);
        let earlier = self.mean.saturating_mul(weight - 1);
        self.mean = earlier.saturating_add(u64::from(requests) * MEAN_UNIT) / weight;
    }

    /// Remembers the network of a client, and says whether it was not one of the last. An unknown
    /// address is never elsewhere.
    fn visit(&mut self, source: Option<IpAddr>) -> bool {
        let Some(network) = source.map(network_hash) else {
            return false;
        };
        let elsewhere = !self.networks.contains(&network);
        self.networks.retain(|earlier| *earlier != network);
        self.networks.insert(0, network);
        self.networks.truncate(NETWORKS);
        elsewhere
    }

    fn is_rate_unusual(&self, thresholds: &Thresholds) -> bool {
        let usual = self.mean.saturating_mul(thresholds.rate_factor.into());
        self.windows >= thresholds.rate_windows
            && self.requests >= thresholds.rate_requests
            && u64::from(self.requests) * MEAN_UNIT > usual
    }

    fn are_refusals_unusual(&self, thresholds: &Thresholds) -> bool {
        let (refused, requests) = (u64::from(self.refused), u64::from(self.requests));
        self.requests >= thresholds.refusals_requests
            && refused * 100 >= requests * u64::from(thresholds.refusals_percent)
    }
}

/// A hash of the network that a client is in: the /24 of an IPv4 address, the /48 of an IPv6 one.
fn network_hash(address: IpAddr) -> u32 {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            crc32(&[4, a, b, c])
        }
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, ..] = v6.octets();
            crc32(&[6, a, b, c, d, e, f])
        }
    }
}

#[cfg(test)]
mod tests;
