//! Keys of the only ring in these tests.

use super::*;

/// A secret, computed at run time: configurations accept it, so no file may contain it.
pub(crate) fn secret() -> String {
    format!("A-{}", sha256_hex(b"the property tests"))
}

pub(crate) fn ring() -> Ring {
    let secret = Secret::parse(&secret()).unwrap();
    Ring::new("main", &secret, RingState::Active, None).unwrap()
}

pub(crate) fn engine() -> Engine {
    let text = br#"{"keyring": [{"name": "main", "secret": "${SECRET}"}]}"#;
    let secret = |_: &str| Some(secret());
    Engine::new(Config::parse(text).unwrap().compile(secret).unwrap())
}

pub(crate) fn sign(claims: &Value) -> String {
    let kid = Kid::new("main", 0).unwrap();
    mint(&ring().signing_key(&kid).unwrap(), &kid, claims.to_string().as_bytes())
}

pub(crate) fn attenuate(token: &str, caveat: &Value) -> String {
    Unverified::parse(token.as_bytes()).unwrap().attenuate(caveat.to_string().as_bytes()).unwrap()
}

pub(crate) fn verify(token: &str) -> Option<Key> {
    let keyring = Keyring::new(vec![ring()], 0);
    Key::verify(Unverified::parse(token.as_bytes()).ok()?, &keyring).ok()
}

pub(crate) fn allows(engine: &mut Engine, token: &str, access: &Access<'_>) -> bool {
    match engine.identify(token.as_bytes(), access.now_secs) {
        Identity::Known { key, validity: Ok(()) } => engine.authorize(&key, access).is_ok(),
        Identity::Known { .. } | Identity::Stranger(_) => false,
    }
}

pub(crate) fn jwt(claims: &Value) -> String {
    let header = json!({"alg": "HS256", "kid": "main-0", "typ": "JWT"});
    let encode = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let signed = format!("{}.{}", encode(&header), encode(claims));
    let mut key = [0; 32];
    hkdf_sha256(b"vkey.v1", secret().as_bytes(), b"main-0", &mut key).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}
