//! The header map of a proxy-wasm host.

use crate::bytes::same_bytes;

/// A header map as a host serialises it (proxy-wasm ABI 0.2.1, `proxy_get_header_map_pairs`): the
/// number of pairs, the lengths of each name and value, then the texts, each followed by a NUL;
/// integers are 32 bits, little-endian. Names and values are bytes: no host promises UTF-8. It has
/// no `Debug`: keys are among the values.
#[derive(Clone, Default)]
pub struct Headers {
    /// The lengths add up.
    pairs: Vec<u8>,
    flawed: bool,
}

/// Whether they are the same, byte for byte.
impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.flawed == other.flawed && same_bytes(&self.pairs, &other.pairs)
    }
}

impl Eq for Headers {}

/// The bytes are not a valid header map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidPairs(());

/// Bytes of a number, and of the lengths of a pair.
const COUNT_BYTES: usize = 4;
const LENGTHS_BYTES: usize = 8;

// === impl Headers ===

impl Headers {
    /// Reads a serialised header map. No bytes at all are a map without headers.
    ///
    /// # Errors
    ///
    /// [`InvalidPairs`] when the lengths do not add up.
    pub fn from_pairs(pairs: Vec<u8>) -> Result<Self, InvalidPairs> {
        let headers = Self { pairs, flawed: false };
        let mut len = 0_usize;
        for (name_len, value_len) in headers.lengths() {
            let ends = name_len.checked_add(value_len).and_then(|both| both.checked_add(2));
            len = ends.and_then(|both| len.checked_add(both)).ok_or(InvalidPairs(()))?;
        }
        let is_whole = match headers.split() {
            Some((_, texts)) => texts.len() == len,
            None => headers.pairs.is_empty(),
        };
        if is_whole { Ok(headers) } else { Err(InvalidPairs(())) }
    }

    /// Headers that the host does not show as they are: empty, and flawed.
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

    /// The number of headers.
    pub fn len(&self) -> usize {
        self.pairs.first_chunk().map_or(0, |count| number(*count))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Serialises a header map as a host does.
    pub fn to_pairs<T: AsRef<[u8]>>(headers: &[(T, T)]) -> Vec<u8> {
        Self::serialise(headers.iter().map(|(name, value)| (name.as_ref(), value.as_ref())))
    }

    /// Like [`Headers::to_pairs`], from headers that are kept in some other way.
    pub fn serialise<'t>(
        headers: impl ExactSizeIterator<Item = (&'t [u8], &'t [u8])> + Clone,
    ) -> Vec<u8> {
        let word = |len: usize| u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
        let bytes = |(name, value): (&[u8], &[u8])| name.len() + value.len() + LENGTHS_BYTES + 2;
        let len = COUNT_BYTES + headers.clone().map(bytes).sum::<usize>();
        let mut pairs = Vec::with_capacity(len);
        pairs.extend_from_slice(&word(headers.len()));
        for (name, value) in headers.clone() {
            pairs.extend_from_slice(&word(name.len()));
            pairs.extend_from_slice(&word(value.len()));
        }
        for (name, value) in headers {
            pairs.extend_from_slice(name);
            pairs.push(0);
            pairs.extend_from_slice(value);
            pairs.push(0);
        }
        pairs
    }

    /// Every header, in the order of the host.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = self.split().map_or([].as_slice(), |(_, texts)| texts);
        self.lengths().map_while(move |(name_len, value_len)| {
            let (name, after) = rest.split_at_checked(name_len)?;
            let (value, after) = after.get(1..)?.split_at_checked(value_len)?;
            rest = after.get(1..)?;
            Some((name, value))
        })
    }

    /// The lengths of each name and value.
    fn lengths(&self) -> impl Iterator<Item = (usize, usize)> {
        let lengths = self.split().map_or([].as_slice(), |(lengths, _)| lengths);
        lengths
            .iter()
            .map(|[a, b, c, d, e, f, g, h]| (number([*a, *b, *c, *d]), number([*e, *f, *g, *h])))
    }

    /// The lengths, and the texts. `None` if there are fewer lengths than the count says.
    fn split(&self) -> Option<(&[[u8; LENGTHS_BYTES]], &[u8])> {
        let rest = self.pairs.get(COUNT_BYTES..)?;
        let (lengths, texts) = rest.split_at_checked(self.len().checked_mul(LENGTHS_BYTES)?)?;
        Some((lengths.as_chunks().0, texts))
    }
}

fn number(bytes: [u8; COUNT_BYTES]) -> usize {
    usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX)
}
