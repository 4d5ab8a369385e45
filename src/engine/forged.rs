//! Tokens whose tags were wrong, so that one that comes again at once is refused without a MAC.

use crate::bytes::same_bytes;

/// How many tokens are remembered. A later one takes the place of the one in its slot.
const SLOTS: u8 = 64;

/// The last forged tokens. They are texts of strangers: nothing but a comparison reads them.
#[derive(Default)]
pub(super) struct ForgedTokens(Vec<Option<Forged>>);

struct Forged {
    token: Box<[u8]>,
    /// When its tag was found wrong, Unix seconds. What is found of a token before its tag depends on the time.
    at_secs: u64,
}

impl ForgedTokens {
    /// Whether exactly this token was found forged in the same second.
    pub(super) fn contains(&self, token: &[u8], now_secs: u64) -> bool {
        let forged = self.0.get(slot(token)).and_then(Option::as_ref);
        forged.is_some_and(|forged| forged.at_secs == now_secs && same_bytes(&forged.token, token))
    }

    /// Remembers a token.
    pub(super) fn insert(&mut self, token: &[u8], now_secs: u64) {
        if self.0.is_empty() {
            self.0.resize_with(SLOTS.into(), Option::default);
        }
        if let Some(slot) = self.0.get_mut(slot(token)) {
            *slot = Some(Forged { token: token.into(), at_secs: now_secs });
        }
    }
}

/// The slot of a token, by the end of its tag. Tokens that share a slot are verified again in turn.
fn slot(token: &[u8]) -> usize {
    let end = token.last_chunk::<8>().map_or(0, |end| u64::from_le_bytes(*end));
    let [.., high] = end.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
    usize::from(high % SLOTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_found() {
        let mut forged = ForgedTokens::default();
        let token = b"vk1.main-0.claims.tag-of-a-key";
        assert!(!forged.contains(b"", 7) && !forged.contains(token, 7));
        forged.insert(token, 7);
        assert!(forged.contains(token, 7));
        assert!(!forged.contains(token, 8) && !forged.contains(token, 6));
        assert!(!forged.contains(b"vk1.main-1.claims.tag-of-a-key", 7));
        assert!(!forged.contains(b"tag-of-a-key", 7) && !forged.contains(b"", 7));
    }

    #[test]
    fn so_many_are_remembered_at_most() {
        let mut forged = ForgedTokens::default();
        let token = |number: u32| format!("vk1.main-0.claims.{number:08}").into_bytes();
        (0..1_000).for_each(|number| forged.insert(&token(number), 7));
        let found = (0..1_000).filter(|number| forged.contains(&token(*number), 7)).count();
        assert!((SLOTS as usize / 2..=SLOTS.into()).contains(&found), "{found}");
    }
}
