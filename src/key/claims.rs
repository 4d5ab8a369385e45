//! Claims: the facts a key is minted with.

use crate::json::{Integers, Invalid, Json, Node};
use crate::key::revocations::KeyId;

/// The longest id (`jti`, `tenant`), in bytes.
pub const MAX_ID_BYTES: usize = 64;

/// The longest `sub`, in characters.
pub const MAX_SUB_CHARS: usize = 128;

/// The largest `meta`, in [bytes of compact JSON](Json::compact_bytes).
pub const MAX_META_BYTES: usize = 1024;

/// The tier of a key that names none.
pub const DEFAULT_TIER: &str = "default";

/// What a key says of itself. Times are Unix seconds, up to [`crate::time::LAST_SECS`]; the key is valid in `[not before, exp)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims {
    /// The key's id: what is counted, revoked and audited.
    pub jti: String,
    /// The tenant the key belongs to.
    pub tenant: String,
    /// The app, user or agent the key was given to.
    pub sub: Option<String>,
    /// The tier, where the key names one.
    pub tier: Option<String>,
    /// When the key was minted.
    pub iat: u64,
    /// The first second at which the key is no longer valid.
    pub exp: u64,
    /// The first second at which the key is valid.
    pub nbf: Option<u64>,
    /// Who the key is for; one of them must be the configured audience.
    pub aud: Option<Vec<String>>,
    /// What the key is limited to, not yet read as a restriction.
    pub only: Option<Json>,
    /// Carried for people; decides nothing.
    pub meta: Option<Json>,
}

const MEMBERS: [&str; 10] =
    ["jti", "tenant", "sub", "tier", "iat", "exp", "nbf", "aud", "only", "meta"];

impl Claims {
    /// Reads claims.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for duplicate, unknown, missing and ill-typed members.
    pub fn parse(text: &[u8]) -> Result<Self, Invalid> {
        let json = Json::parse(text)?;
        let root = json.root(Integers::Digits);
        let [jti, tenant, sub, tier, iat, exp, nbf, aud, only, meta] = root.members_of(&MEMBERS)?;
        Ok(Self {
            jti: id(&jti.ok_or_else(|| root.missing("jti"))?)?,
            tenant: id(&tenant.ok_or_else(|| root.missing("tenant"))?)?,
            sub: read(sub, self::sub)?,
            tier: read(tier, |node| node.string().map(str::to_owned))?,
            iat: iat.ok_or_else(|| root.missing("iat"))?.time()?,
            exp: exp.ok_or_else(|| root.missing("exp"))?.time()?,
            nbf: read(nbf, Node::time)?,
            aud: read(aud, audience)?,
            only: read(only, object)?,
            meta: read(meta, self::meta)?,
        })
    }

    /// The claims as JSON, absent members left out; [`Claims::parse`] reads the same again.
    pub fn to_json(&self) -> Json {
        let strings = |list: &Vec<String>| {
            Json::Array(list.iter().map(|item| Json::String(item.clone())).collect())
        };
        let text = |text: &String| Json::String(text.clone());
        let members = [
            ("jti", Some(text(&self.jti))),
            ("tenant", Some(text(&self.tenant))),
            ("sub", self.sub.as_ref().map(text)),
            ("tier", self.tier.as_ref().map(text)),
            ("iat", Some(self.iat.into())),
            ("exp", Some(self.exp.into())),
            ("nbf", self.nbf.map(Json::from)),
            ("aud", self.aud.as_ref().map(strings)),
            ("only", self.only.clone()),
            ("meta", self.meta.clone()),
        ];
        let present =
            members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Json::Object(present.collect())
    }

    /// What a revocation names the key by.
    pub fn key_id(&self) -> KeyId<'_> {
        KeyId { tenant: &self.tenant, jti: &self.jti, iat: self.iat }
    }

    /// The tier that judges the key.
    pub fn tier(&self) -> &str {
        self.tier.as_deref().unwrap_or(DEFAULT_TIER)
    }
}

/// Whether `text` can be a `jti` or a `tenant`: `[A-Za-z0-9_-]{1,64}`.
pub fn is_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=MAX_ID_BYTES).contains(&text.len()) && text.bytes().all(allowed)
}

/// Reads an id.
pub(crate) fn id(node: &Node<'_>) -> Result<String, Invalid> {
    let text = node.string()?;
    if is_id(text) { Ok(text.to_owned()) } else { Err(node.expected("1 to 64 of A-Z a-z 0-9 _ -")) }
}

/// Reads a member that may be absent.
fn read<'a, T>(
    node: Option<Node<'a>>,
    read: impl FnOnce(&Node<'a>) -> Result<T, Invalid>,
) -> Result<Option<T>, Invalid> {
    node.map(|node| read(&node)).transpose()
}

fn sub(node: &Node<'_>) -> Result<String, Invalid> {
    let text = node.string()?;
    let fits = (1..=MAX_SUB_CHARS).contains(&text.chars().count());
    if fits { Ok(text.to_owned()) } else { Err(node.expected("1 to 128 characters")) }
}

/// RFC 7519, section 4.1.3: one string, or a list of them.
fn audience(node: &Node<'_>) -> Result<Vec<String>, Invalid> {
    if let Some(one) = node.value().as_str() {
        return Ok(vec![one.to_owned()]);
    }
    Ok(node.list(|item| item.string().map(str::to_owned))?.into_vec())
}

fn meta(node: &Node<'_>) -> Result<Json, Invalid> {
    let json = object(node)?;
    if json.compact_bytes() > MAX_META_BYTES {
        return Err(node.expected("at most 1024 bytes"));
    }
    Ok(json)
}

/// An object, read later or never. A restriction that this version does not understand makes the key
/// unsupported, which is another reason than malformed.
fn object(node: &Node<'_>) -> Result<Json, Invalid> {
    match node.value() {
        object @ Json::Object(_) => Ok(object.clone()),
        _ => Err(node.expected("an object")),
    }
}
