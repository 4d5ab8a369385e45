//! Anomalies in the use of one key. They raise alerts; nothing is refused because of them.
//!
//! A stolen key is valid, so no check refuses it, but it is used differently. A [`Watch`] keeps
//! enough of the history of a key to notice: how many requests are usual, which networks they come
//! from, and how many are refused. Counts are per window of [`WINDOW_SECS`], and a key raises at
//! most one alert per window.

use std::net::IpAddr;

use smallvec::SmallVec;

use crate::json::{Invalid, Node};
use crate::record::{Writer, crc32, take};

/// The length of a window in seconds. Windows start at multiples of it in Unix time.
pub const WINDOW_SECS: u64 = 300;

/// The number of networks that are remembered of a key.
pub const NETWORKS: usize = 8;

/// The weight of the trailing mean: each new window counts 1/8.
const MEAN_WINDOWS: u64 = 8;

/// The unit of the trailing mean, a fixed-point number.
const MEAN_UNIT: u64 = 256;

/// After this many idle windows every mean is 0: 2^64 (7/8)^512 is less than 1.
const MAX_IDLE_WINDOWS: u64 = 512;

/// The bit of the first byte that is set once the window has raised its alert. The lower bits count
/// the networks.
const ALERTED: u8 = 0x80;

/// How sensitive detection is: the configuration's `anomaly.sensitivity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sensitivity {
    /// Reports only what is almost certainly wrong.
    Low,
    /// Reports what is worth checking.
    Medium,
    /// Reports a lot, and busy keys often.
    High,
}

/// The thresholds of one sensitivity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// [`Anomaly::Rate`]: requests in this window are more than this many times the trailing mean.
    pub rate_factor: u32,
    /// [`Anomaly::Rate`]: the least number of requests in this window.
    pub rate_requests: u32,
    /// [`Anomaly::Rate`]: the least number of earlier windows, including idle ones.
    pub rate_windows: u8,
    /// [`Anomaly::Source`]: the least number of earlier requests of the key.
    pub source_requests: u32,
    /// [`Anomaly::Refusals`]: the least number of requests in this window.
    pub refusals_requests: u32,
    /// [`Anomaly::Refusals`]: the least percentage of refused requests.
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

/// A kind of unusual use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Anomaly {
    /// Many more requests than usual.
    Rate,
    /// A client in a network that the key was not used from lately.
    Source,
    /// A large part of the requests is refused.
    Refusals,
}

/// One request of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The address of the client, if known.
    pub source: Option<IpAddr>,
    /// Whether the request was refused.
    pub refused: bool,
    /// When it arrived, in Unix seconds.
    pub now_secs: u64,
}

/// The remembered use of one key. Counts saturate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// The number of the window, which is its start in Unix time divided by [`WINDOW_SECS`].
    window: u64,
    /// Requests in the window.
    requests: u32,
    /// Refused requests in the window.
    refused: u32,
    /// Whether the window has raised its alert.
    alerted: bool,
    /// Earlier windows, including idle ones.
    windows: u8,
    /// Trailing mean of the requests in a window, in 1/256.
    mean: u64,
    /// Requests in all windows.
    total: u32,
    /// Hashes of the last networks, the latest first.
    networks: SmallVec<[u32; NETWORKS]>,
}

// === impl Sensitivity ===

impl Sensitivity {
    /// Every sensitivity, the lowest first.
    pub const ALL: [Self; 3] = [Self::Low, Self::Medium, Self::High];

    /// Reads the member `anomaly` of the configuration: an object with the one member `sensitivity`.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for anything else, or an unknown sensitivity.
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

    /// The thresholds of this sensitivity.
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
    /// Every anomaly. If a request shows several, the first in this order is reported.
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

    /// Reads a watch that [`Watch::write`] wrote, and advances `input`. `None` if `input` does not
    /// start with one; `input` must not be used then.
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
            networks: SmallVec::new(),
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

    /// Appends at most [`Watch::MAX_BYTES`]: the number of networks with the alert bit, window,
    /// requests, refused, windows, mean, total, networks. Integers are little-endian.
    pub fn write(&self, record: &mut Writer<'_>) {
        let networks = u8::try_from(self.networks.len()).unwrap_or(0); // never more than NETWORKS
        record.put([if self.alerted { networks | ALERTED } else { networks }]);
        record.put(self.window.to_le_bytes());
        record.put(self.requests.to_le_bytes());
        record.put(self.refused.to_le_bytes());
        record.put([self.windows]);
        record.put(self.mean.to_le_bytes());
        record.put(self.total.to_le_bytes());
        for network in &self.networks {
            record.put(network.to_le_bytes());
        }
    }

    /// Counts one request, and returns an anomaly if it is the first in its window. If the clock
    /// goes back, requests count in the latest window.
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

    /// Records that the last observed request was refused later.
    pub fn refuse(&mut self) {
        self.refused = self.refused.saturating_add(1).min(self.requests);
    }

    /// Closes the windows before this one, including idle ones.
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

    /// Adds a window to the mean. The first windows have equal weights. Otherwise a first window
    /// that was almost over would keep the mean low, and the next ones would look like a burst.
    fn close(&mut self, requests: u32) {
        self.windows = self.windows.saturating_add(1);
        let weight = u64::from(self.windows).min(MEAN_WINDOWS);
        let earlier = self.mean.saturating_mul(weight - 1);
        self.mean = earlier.saturating_add(u64::from(requests) * MEAN_UNIT) / weight;
    }

    /// Remembers the network of a client, and returns whether it is a new one. An unknown address
    /// is never new.
    fn visit(&mut self, source: Option<IpAddr>) -> bool {
        let Some(network) = source.map(network_hash) else {
            return false;
        };
        if self.networks.first() == Some(&network) {
            return false;
        }
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
