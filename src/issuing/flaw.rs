//! What is wrong with the form of a credential, for the person who has it. A gate tells no client.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::json::{Integers, Invalid, Json, Node};
use crate::key::claims::Claims;
use crate::key::token::{Kid, Unverified};

/// A part of a credential that no gate accepts.
#[derive(Debug)]
pub enum KeyFlaw {
    /// It has not the form of a key.
    Form,
    /// The header of a JWT.
    Header(Invalid),
    /// The claims of a key or of a JWT.
    Claims(Invalid),
}

impl KeyFlaw {
    /// Reads the form of a key.
    ///
    /// # Errors
    ///
    /// [`KeyFlaw::Header`] for a JWT whose header no gate accepts, [`KeyFlaw::Form`] for anything else that is not a key.
    pub fn read(key: &str) -> Result<Unverified<'_>, Self> {
        Unverified::parse(key.as_bytes()).map_err(|_| header_flaw(key).unwrap_or(Self::Form))
    }

    /// What no gate accepts in a credential; `None` if it has not even the form of a key, or if its header and its
    /// claims are accepted.
    pub fn find(credential: &str) -> Option<Self> {
        match Unverified::parse(credential.as_bytes()) {
            Ok(key) => Claims::parse(key.untrusted_content().0).err().map(Self::Claims),
            Err(_) => header_flaw(credential),
        }
    }
}

/// What no gate accepts in the header of a JWT; `None` if it is accepted, or the credential is not a JWT.
fn header_flaw(credential: &str) -> Option<KeyFlaw> {
    let mut parts = credential.split('.');
    let header = parts.next().filter(|_| parts.count() == 2)?;
    let header = Json::parse(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
    check_header(&header.root(Integers::Digits)).err().map(KeyFlaw::Header)
}

/// Checks the header of a JWT like the gate.
fn check_header(root: &Node<'_>) -> Result<(), Invalid> {
    let members = root.members(&["alg", "kid", "typ"])?;
    let is = |node: &Node<'_>, word: &'static str| match node.string()? {
        text if text == word => Ok(()),
        _ => Err(node.expected(word)),
    };
    is(&members.require("alg")?, "HS256")?;
    members.read("typ", |node| is(node, "JWT"))?;
    let kid = members.require("kid")?;
    match Kid::parse(kid.string()?.as_bytes()) {
        Ok(_) => Ok(()),
        Err(_) => Err(kid.expected("the name of a ring, - and the epoch, e.g. main-0")),
    }
}

impl fmt::Display for KeyFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (part, invalid) = match self {
            Self::Form => {
                return f.write_str(
                    "the input is not a virtual key; expected vk1.<kid>.<claims>.<tag> on one line, as \
                     `vkey mint` prints it",
                );
            }
            Self::Header(invalid) => ("header of the JWT", invalid),
            Self::Claims(invalid) => ("claims", invalid),
        };
        write!(f, "no gate accepts the {part}: {invalid}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(header: &str, claims: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.{}", part(header), part(claims), "A".repeat(43))
    }

    const HEADER: &str = r#"{"alg":"HS256","typ":"JWT","kid":"main-0"}"#;
    const CLAIMS: &str = r#"{"jti":"k","tenant":"t","iat":1,"exp":2}"#;

    #[test]
    fn the_part_that_no_gate_accepts_is_named() {
        for (header, claims, says) in [
            (
                r#"{"alg":"HS256","typ":"at+jwt","kid":"main-0"}"#,
                CLAIMS,
                "header of the JWT: typ: expected JWT",
            ),
            (r#"{"alg":"RS256","kid":"main-0"}"#, CLAIMS, "header of the JWT: alg: expected HS256"),
            (r#"{"alg":"HS256"}"#, CLAIMS, "header of the JWT: kid: missing"),
            (
                r#"{"alg":"HS256","kid":"main"}"#,
                CLAIMS,
                "header of the JWT: kid: expected the name",
            ),
            (
                r#"{"alg":"HS256","kid":"main-0","x5t":"a"}"#,
                CLAIMS,
                "header of the JWT: x5t: unknown member",
            ),
            (
                HEADER,
                r#"{"jti":"k","tenant":"t","iat":1,"exp":2,"iss":"i"}"#,
                "claims: iss: unknown member",
            ),
            (HEADER, r#"{"jti":"k","tenant":"t","iat":1}"#, "claims: exp: missing"),
            (HEADER, r#"{"\u001b[1m":1}"#, r"claims: \u{1b}[1m: unknown member"),
        ] {
            let flaw = KeyFlaw::find(&jwt(header, claims)).map(|flaw| flaw.to_string());
            let flaw = flaw.expect(header);
            assert!(flaw.starts_with(&format!("no gate accepts the {says}")), "{flaw}");
        }
        assert!(KeyFlaw::find(&jwt(HEADER, CLAIMS)).is_none());
        assert!(KeyFlaw::find(&jwt("{", CLAIMS)).is_none());
        for other in ["", "a.b", "a.b.c", "vk1.main-0.e30"] {
            assert!(KeyFlaw::find(other).is_none(), "{other}");
        }
    }
}
