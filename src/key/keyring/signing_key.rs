//! A single signing key as text, for machines that must not have the secret of its ring.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::secret::{BASE64, InvalidSecret, Secret};
use crate::key::mac::{RootKey, TAG_BYTES};
use crate::key::token::Kid;

impl Secret {
    /// The signing key of a kid as text: `base64:` and 32 bytes. Whoever has it can sign and verify keys of this kid
    /// only; it tells nothing of the secret, nor of other signing keys.
    pub fn derive(&self, kid: &Kid) -> Zeroizing<String> {
        // As long as the whole, so that no copy is left when the text grows.
        let mut text = Zeroizing::new(String::with_capacity(BASE64.len() + 2 * TAG_BYTES));
        text.push_str(BASE64);
        let key = RootKey::extract(&self.0).derive_bytes(kid.as_str());
        STANDARD.encode_string(key.expose(), &mut text);
        text
    }

    /// Reads a single signing key, as [`Secret::derive`] writes it.
    ///
    /// # Errors
    ///
    /// [`InvalidSecret`] for anything but `base64:` and 32 bytes that cannot be guessed.
    pub fn parse_signing_key(text: &str) -> Result<Self, InvalidSecret> {
        match Self::parse_unguessable(text) {
            Ok(key) if text.starts_with(BASE64) && key.0.len() == TAG_BYTES => Ok(key),
            Ok(_) | Err(InvalidSecret::Short | InvalidSecret::Uniform) => {
                Err(InvalidSecret::SigningKey)
            }
            invalid => invalid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::keyring::secret::SAMPLE_SECRETS;
    use crate::key::mac::SigningKey;
    use sha2::{Digest as _, Sha256};

    fn text(bytes: &[u8]) -> String {
        format!("{BASE64}{}", STANDARD.encode(bytes))
    }

    /// Bytes without any order, the same each time.
    fn random(len: usize) -> Vec<u8> {
        let blocks = (0_u32..).flat_map(|n| Sha256::digest(n.to_be_bytes()));
        blocks.take(len).collect()
    }

    #[test]
    fn a_signing_key_is_exactly_32_bytes_in_base64() {
        let error = |text: &str| Secret::parse_signing_key(text).err();
        assert_eq!(error(&text(&random(32))), None);
        for len in [0, 16, 31, 33, 64] {
            assert_eq!(error(&text(&random(len))), Some(InvalidSecret::SigningKey), "{len}");
        }
        for wrong in ["", "short", "xK7#mQ2$vL9@pR4!nW6%tY1^z8", "xK7#mQ2$vL9@pR4!nW6%tY1^z8-12345"]
        {
            assert_eq!(error(wrong), Some(InvalidSecret::SigningKey), "{wrong}");
        }
        assert_eq!(error(&text(&[7; 32])), Some(InvalidSecret::Regular));
        assert_eq!(error(SAMPLE_SECRETS[2]), Some(InvalidSecret::Sample));
        assert_eq!(error("base64:%%%"), Some(InvalidSecret::Base64));
        assert_eq!(
            error(&format!("{}\n", text(&random(32)))),
            Some(InvalidSecret::ControlCharacter)
        );
    }

    #[test]
    fn what_is_derived_is_the_signing_key_of_its_kid_alone() {
        let secret = Secret::parse(&text(&random(32))).unwrap();
        let root = RootKey::extract(&secret.0);
        let [kid, next] = [7, 8].map(|epoch| Kid::new("main", epoch).unwrap());
        let read = Secret::parse_signing_key(&secret.derive(&kid)).unwrap();
        let read = SigningKey::new(&read.0).sign(&[b"text"]);
        assert!(read.matches(&root.derive("main-7").sign(&[b"text"])));
        assert!(!read.matches(&root.derive("main-8").sign(&[b"text"])));
        assert_ne!(*secret.derive(&kid), *secret.derive(&next));
    }
}
