//! The rotation of a ring: its epochs.

use std::fmt;

/// How a ring's signing key changes with time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    interval_secs: u64,
    max_age_secs: u64,
    pub(super) keep_expired: bool,
}

/// Why a rotation makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidRotation {
    /// The interval is zero.
    Interval,
    /// A key would be refused before its ring's next epoch.
    MaxAge,
}

// === impl Rotation ===

impl Rotation {
    /// A rotation every `interval_secs`, each signing key accepted for `max_age_secs` from the start
    /// of its epoch. With `keep_expired`, keys past their life are still identified when refused.
    ///
    /// # Errors
    ///
    /// [`InvalidRotation`] for an interval of zero or longer than the age.
    pub fn new(
        interval_secs: u64,
        max_age_secs: u64,
        keep_expired: bool,
    ) -> Result<Self, InvalidRotation> {
        if interval_secs == 0 {
            Err(InvalidRotation::Interval)
        } else if interval_secs > max_age_secs {
            Err(InvalidRotation::MaxAge)
        } else {
            Ok(Self { interval_secs, max_age_secs, keep_expired })
        }
    }

    /// How often the signing key changes.
    pub fn interval_secs(&self) -> u64 {
        self.interval_secs
    }

    /// How long the signing key of an epoch is accepted, from the start of the epoch.
    pub fn max_age_secs(&self) -> u64 {
        self.max_age_secs
    }

    /// The epoch of a time.
    pub fn epoch_at(&self, now_secs: u64) -> u32 {
        let epoch = now_secs.checked_div(self.interval_secs).unwrap_or(0);
        u32::try_from(epoch).unwrap_or(u32::MAX)
    }

    /// The first second of an epoch.
    pub fn start_of(&self, epoch: u32) -> u64 {
        u64::from(epoch).saturating_mul(self.interval_secs)
    }

    /// The first second at which keys of an epoch are refused.
    pub fn end_of(&self, epoch: u32) -> u64 {
        self.start_of(epoch).saturating_add(self.max_age_secs)
    }
}

impl fmt::Display for InvalidRotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interval => "the interval must be at least 1s",
            Self::MaxAge => "max_age must not be shorter than the interval",
        })
    }
}

impl std::error::Error for InvalidRotation {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_follow_the_clock() {
        let rotation = Rotation::new(10, 25, true).unwrap();
        assert_eq!((rotation.epoch_at(0), rotation.epoch_at(9), rotation.epoch_at(10)), (0, 0, 1));
        assert_eq!((rotation.start_of(3), rotation.end_of(3)), (30, 55));
        assert_eq!(rotation.epoch_at(u64::MAX), u32::MAX);
        assert_eq!(Rotation::new(0, 1, true), Err(InvalidRotation::Interval));
        assert_eq!(Rotation::new(11, 10, true), Err(InvalidRotation::MaxAge));
        assert!(Rotation::new(10, 10, true).is_ok());
    }
}
