//! Base64 (RFC 4648, section 4: the standard alphabet, with padding), in any pieces.

/// Decodes a text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Decoder {
    /// The bits of the characters that do not yet make three bytes.
    bits: u32,
    /// The number of these characters, with padding.
    count: u8,
    /// How many of them are padding.
    padding: u8,
}

/// A text is not base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotBase64;

impl Decoder {
    /// Decodes the next piece of a text and appends its bytes, at most 3 for 4 characters.
    ///
    /// # Errors
    ///
    /// [`NotBase64`] for a character that is not in the alphabet, and for anything after padding.
    pub fn decode(&mut self, text: &[u8], bytes: &mut Vec<u8>) -> Result<(), NotBase64> {
        bytes.reserve(text.len() / 4 * 3 + 3);
        for character in text {
            self.character(*character)?;
            if self.count == 4 {
                let [_, first, second, third] = self.bits.to_be_bytes();
                let len = 3 - usize::from(self.padding);
                bytes.extend([first, second, third].iter().take(len));
                self.bits = 0;
                self.count = 0;
            }
        }
        Ok(())
    }

    /// Whether the text may end here.
    pub fn is_complete(self) -> bool {
        self.count == 0
    }

    fn character(&mut self, character: u8) -> Result<(), NotBase64> {
        let is_padding = character == b'=';
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' if self.count >= 2 => 0,
            _ => return Err(NotBase64),
        };
        if self.padding > 0 && !is_padding {
            return Err(NotBase64);
        }
        self.bits = self.bits << 6 | u32::from(value);
        self.count += 1;
        self.padding += u8::from(is_padding);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(pieces: &[&str]) -> Result<Vec<u8>, NotBase64> {
        let mut decoder = Decoder::default();
        let mut bytes = Vec::new();
        for piece in pieces {
            decoder.decode(piece.as_bytes(), &mut bytes)?;
        }
        decoder.is_complete().then_some(bytes).ok_or(NotBase64)
    }

    /// RFC 4648, section 10.
    #[test]
    fn texts_are_decoded_however_they_are_cut() {
        for (text, expected) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
        ] {
            for at in 0..=text.len() {
                let (first, second) = text.split_at(at);
                assert_eq!(decoded(&[first, second]).unwrap(), expected.as_bytes(), "{text}");
            }
        }
        assert_eq!(decoded(&["+/8="]).unwrap(), [0xFB, 0xFF]);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in
            ["Z", "Zg", "Zg=", "=", "Z===", "Zg==Zg==", "Zg=v", "Zm9v====", "Zm-_", "Zm 9", "Zm9\n"]
        {
            assert_eq!(decoded(&[text]), Err(NotBase64), "{text}");
        }
    }
}
