//! The grammar of numbers (RFC 8259, section 6).

/// How far a number has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    /// A minus sign.
    Minus,
    /// A leading zero.
    Zero,
    /// Digits of the integer.
    Whole,
    /// The decimal point.
    Point,
    /// Digits after the point.
    Fraction,
    /// An `e`.
    Exponent,
    /// The sign of the exponent.
    Sign,
    /// Digits of the exponent.
    Power,
}

impl Number {
    /// The first byte of a number; `None` if no number begins with it.
    pub(super) fn begin(byte: u8) -> Option<Self> {
        match byte {
            b'-' => Some(Self::Minus),
            _ => Self::Minus.next(byte),
        }
    }

    /// The next byte; `None` if the number does not go on with it.
    pub(super) fn next(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (Self::Minus, b'0') => Some(Self::Zero),
            (Self::Minus | Self::Whole, b'0'..=b'9') => Some(Self::Whole),
            (Self::Zero | Self::Whole, b'.') => Some(Self::Point),
            (Self::Point | Self::Fraction, b'0'..=b'9') => Some(Self::Fraction),
            (Self::Zero | Self::Whole | Self::Fraction, b'e' | b'E') => Some(Self::Exponent),
            (Self::Exponent, b'+' | b'-') => Some(Self::Sign),
            (Self::Exponent | Self::Sign | Self::Power, b'0'..=b'9') => Some(Self::Power),
            _ => None,
        }
    }

    /// Whether the number may end here.
    pub(super) fn may_end(self) -> bool {
        matches!(self, Self::Zero | Self::Whole | Self::Fraction | Self::Power)
    }
}
