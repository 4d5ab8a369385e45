//! The header map of a proxy-wasm host.

/// A header map as a host serialises it (proxy-wasm ABI 0.2.1, `proxy_get_header_map_pairs`): the
/// number of pairs, the lengths of each name and value, then the texts, each followed by a NUL;
/// integers are 32 bits, little-endian. Names and values are bytes: no host promises UTF-8. It has
/// no `Debug`: keys are among the values.
#[derive(Clone, Default)]
pub struct Headers {
    pairs: Vec<u8>,
    spans: Vec<Span>,
    flawed: bool,
}

/// The bytes are not a valid header map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidPairs(());

#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    name_len: usize,
    value_len: usize,
}

// === impl Headers ===

impl Headers {
    /// Reads a serialised header map. No bytes at all are a map without headers.
    ///
    /// # Errors
    ///
    /// [`InvalidPairs`] when the lengths do not add up.
    pub fn from_pairs(pairs: Vec<u8>) -> Result<Self, InvalidPairs> {
        if pairs.is_empty() {
            return Ok(Self::default());
        }
        let mut words = pairs.chunks_exact(4).map(read_usize);
        let count =
            words.next().filter(|count| *count <= pairs.len() / 8).ok_or(InvalidPairs(()))?;
        let mut spans = Vec::with_capacity(count);
        let mut start = 4 + count * 8;
        for _ in 0..count {
            let (name_len, value_len) = words.next().zip(words.next()).ok_or(InvalidPairs(()))?;
            spans.push(Span { start, name_len, value_len });
            let end = start.checked_add(name_len).and_then(|end| end.checked_add(value_len));
            start = end.and_then(|end| end.checked_add(2)).ok_or(InvalidPairs(()))?;
        }
        if start != pairs.len() {
            return Err(InvalidPairs(()));
        }
        Ok(Self { pairs, spans, flawed: false })
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
        self.spans.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Serialises a header map as a host does.
    pub fn to_pairs(headers: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let word = |len: usize| u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
        let mut pairs = word(headers.len()).to_vec();
        for (name, value) in headers {
            pairs.extend([word(name.len()), word(value.len())].concat());
        }
        for (name, value) in headers {
            pairs.extend([name.as_slice(), &[0], value, &[0]].concat());
        }
        pairs
    }

    /// Bytes of all names and values.
    pub fn total_bytes(&self) -> u64 {
        let bytes = |span: &Span| span.name_len.saturating_add(span.value_len);
        let total = self.spans.iter().map(bytes).fold(0, usize::saturating_add);
        u64::try_from(total).unwrap_or(u64::MAX)
    }

    /// Every header, in the order of the host.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.spans.iter().map(|span| {
            let value_start = span.start + span.name_len + 1;
            (self.slice(span.start, span.name_len), self.slice(value_start, span.value_len))
        })
    }

    fn slice(&self, start: usize, len: usize) -> &[u8] {
        self.pairs.get(start..start + len).unwrap_or_default()
    }
}

fn read_usize(bytes: &[u8]) -> usize {
    let word = bytes.try_into().map_or(0, u32::from_le_bytes);
    usize::try_from(word).unwrap_or(usize::MAX)
}
