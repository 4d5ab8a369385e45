//! Reads the plugin configuration. Unknown members are errors, and every error names the member.

use std::collections::{BTreeMap, BTreeSet};

use crate::access::CanonicalPath;
use crate::access::restriction::{Restriction, Slashes, cidr, refuse_mistakes};
use crate::alerts::anomaly::Sensitivity;
use crate::alerts::failures::FailureRules;
use crate::audit::{DEFAULT_ANCHOR_EVERY, MAX_ANCHOR_EVERY, Mask};
use crate::decision::Mode;
use crate::headers::{ForeignCredentials, KeySource};
use crate::host::{Dialect, Level};
use crate::json::{Integers, Invalid, Json, Members, Node};
use crate::key::claims::{id, is_id};
use crate::key::revocations::{Revoked, revoked_key};
use crate::limits::Limits;
use crate::limits::allowance::LimitHeaders;
use crate::upstream_tls::PolicyRule;

use super::forward::{Forward, named_credentials};
use super::header::{header_name, token};
use super::ledger::LedgerConfig;
use super::llm::{BodySettings, LlmSettings};
use super::mcp::McpSettings;
use super::public::public;
use super::ring::variable;
use super::{
    AuditSettings, ClientRules, Config, DEFAULT_READY_PATH, DEFAULT_USAGE_PATH, LimitSettings,
    RingConfig, RoleConfig, Settings, Sink, Tenant, Tier, UnlistedTenants, UpstreamConfig,
    UpstreamTls,
};

/// The highest clock skew. More would make rotation meaningless.
const MAX_CLOCK_SKEW_SECS: u64 = 3600;

/// The most trusted hops.
const MAX_TRUSTED_HOPS: u64 = 16;

/// How far the clock of a minter may be ahead unless configured, in seconds.
pub const DEFAULT_CLOCK_SKEW_SECS: u64 = 5;

const INVALID_TENANT: &str = "the name of a tenant is 1 to 64 of A-Z a-z 0-9 _ -";

/// The headers in which AI clients send their keys.
const DEFAULT_KEY_SOURCES: [(&str, Option<&str>); 4] = [
    ("authorization", Some("Bearer")),
    ("x-api-key", None),
    ("api-key", None),
    ("x-goog-api-key", None),
];

const MEMBERS: [&str; 27] = [
    "audience",
    "keyring",
    "clock_skew",
    "key_sources",
    "foreign_credentials",
    "tiers",
    "tenants",
    "unlisted_tenants",
    "revoked",
    "forward",
    "limits",
    "ledger",
    "client",
    "auth_failures",
    "anomaly",
    "body",
    "llm",
    "mcp",
    "upstream_tls",
    "usage",
    "ready",
    "public",
    "audit",
    "preflight",
    "upgrades",
    "host",
    "mode",
];

const FOREIGN_BESIDE_OWN: &str = "a client's own credential would meet the provider credential that this \
    configuration gives to requests; set it to drop, or remove forward.credentials";

const NO_LEDGER: &str = "a quota has \"scope\": \"cluster\", so the ledger must be named: {\"cluster\": \
    \"vkey_ledger\"} is the cluster of the proxy that leads to it";

/// The longest time that a request waits for its connection to the upstream, unless configured.
const DEFAULT_DEADLINE_SECS: u64 = 10;

/// The highest such deadline that can be configured.
const MAX_DEADLINE_SECS: u64 = 300;

pub(super) fn role(text: &[u8]) -> Result<RoleConfig, Invalid> {
    let json = Json::parse(text)?;
    let root = json.root(Integers::Whole);
    match root.open_members()?.get("role") {
        Some(role) => {
            role.choice(&[("upstream_tls", ())])?;
            upstream(&root).map(RoleConfig::UpstreamTls)
        }
        None => config(&root, text).map(|config| RoleConfig::Gate(Box::new(config))),
    }
}

fn upstream(root: &Node<'_>) -> Result<UpstreamConfig, Invalid> {
    let members = root.members(&["role", "upstream_tls", "credentials", "host", "deadline"])?;
    let deadline_secs = members.read("deadline", |node| match node.seconds()? {
        secs @ 1..=MAX_DEADLINE_SECS => Ok(secs),
        _ => Err(node.expected("1s to 300s")),
    })?;
    Ok(UpstreamConfig {
        upstream_tls: members.read("upstream_tls", upstream_tls)?.unwrap_or_default(),
        credentials: members.read("credentials", named_credentials)?.unwrap_or_default(),
        dialect: members.read("host", dialect)?.unwrap_or(Dialect::Auto),
        deadline_secs: deadline_secs.unwrap_or(DEFAULT_DEADLINE_SECS),
    })
}

pub(super) fn config(root: &Node<'_>, text: &[u8]) -> Result<Config, Invalid> {
    let members = root.members(&MEMBERS)?;
    let rings = rings(&members.require("keyring")?)?;
    let clock_skew_secs = members.read("clock_skew", clock_skew)?;
    let mut forward = members.read("forward", Forward::read)?.unwrap_or_default();
    let credentials = std::mem::take(&mut forward.credentials);
    let gives = !credentials.is_empty() || !forward.grants.is_empty();
    let settings = settings(&members, forward)?;
    if gives
        && settings.foreign_credentials == ForeignCredentials::Forward
        && let Some(node) = members.get("foreign_credentials")
    {
        return Err(node.unusable(FOREIGN_BESIDE_OWN));
    }
    let clock_skew_secs = clock_skew_secs.unwrap_or(DEFAULT_CLOCK_SKEW_SECS);
    let ledger = members.read("ledger", LedgerConfig::read)?;
    if ledger.is_none() && settings.has_shared_quotas() {
        return Err(Invalid::unusable("ledger", NO_LEDGER));
    }
    Ok(Config::new(settings, rings, credentials, ledger, clock_skew_secs, text))
}

fn settings(members: &Members<'_>, forward: Forward) -> Result<Settings, Invalid> {
    let unlisted = [("allow", UnlistedTenants::Allow), ("deny", UnlistedTenants::Deny)];
    let foreign = [
        ("refuse", ForeignCredentials::Refuse),
        ("drop", ForeignCredentials::Drop),
        ("forward", ForeignCredentials::Forward),
    ];
    let modes = [("enforce", Mode::Enforce), ("shadow", Mode::Shadow)];
    let tiers = members.read("tiers", tiers)?.unwrap_or_default();
    let keeps_slashes = tiers.values().any(|tier| tier.keeps_escaped_slashes);
    Ok(Settings {
        audience: members.read("audience", audience)?,
        key_sources: members.read("key_sources", key_sources)?.unwrap_or_else(default_key_sources),
        foreign_credentials: members
            .read("foreign_credentials", |node| node.choice(&foreign))?
            .unwrap_or(ForeignCredentials::Refuse),
        tenants: members.read("tenants", |node| tenants(node, keeps_slashes))?.unwrap_or_default(),
        tiers,
        unlisted_tenants: members
            .read("unlisted_tenants", |node| node.choice(&unlisted))?
            .unwrap_or(UnlistedTenants::Allow),
        revoked: members.read("revoked", revoked)?.unwrap_or_default(),
        identity_headers: forward.identity_headers,
        grants: forward.grants.into(),
        limits: members.read("limits", limits)?.unwrap_or_default(),
        client: members.read("client", client)?.unwrap_or_default(),
        auth_failures: members.read("auth_failures", FailureRules::read)?,
        sensitivity: members.read("anomaly", Sensitivity::read)?,
        body: members.read("body", BodySettings::read)?.unwrap_or_default(),
        llm: members
            .read("llm", |node| LlmSettings::read(node, Slashes::written(keeps_slashes)))?
            .unwrap_or_default(),
        mcp: members
            .read("mcp", |node| McpSettings::read(node, Slashes::written(keeps_slashes)))?
            .unwrap_or_default(),
        upstream_tls: members.read("upstream_tls", upstream_tls)?.unwrap_or_default(),
        usage_path: members.read("usage", reply_path)?.unwrap_or(DEFAULT_USAGE_PATH.to_owned()),
        ready_path: ready_path(members)?,
        public: members.read("public", public)?.unwrap_or_default(),
        audit: members.read("audit", audit)?.unwrap_or_default(),
        allows_preflights: members
            .read("preflight", |node| node.choice(&[("refuse", false), ("pass", true)]))?
            .unwrap_or(false),
        upgrades: members.read("upgrades", Node::bool)?.unwrap_or(false),
        dialect: members.read("host", dialect)?.unwrap_or(Dialect::Auto),
        mode: members.read("mode", |node| node.choice(&modes))?.unwrap_or(Mode::Enforce),
    })
}

// === keyring ===

fn rings(node: &Node<'_>) -> Result<Vec<RingConfig>, Invalid> {
    let (mut rings, mut names) = (Vec::new(), BTreeSet::new());
    for item in node.items()? {
        let ring = RingConfig::read(&item)?;
        if !names.insert(ring.name().to_owned()) {
            return Err(item.unusable("another ring has this name already"));
        }
        rings.push(ring);
    }
    if rings.is_empty() { Err(node.expected("at least one ring")) } else { Ok(rings) }
}

fn clock_skew(node: &Node<'_>) -> Result<u64, Invalid> {
    let seconds = node.seconds()?;
    if seconds > MAX_CLOCK_SKEW_SECS { Err(node.expected("at most 1h")) } else { Ok(seconds) }
}

// === access ===

fn audience(node: &Node<'_>) -> Result<String, Invalid> {
    match node.string()? {
        "" => Err(node.expected("the name of an audience")),
        audience => Ok(audience.to_owned()),
    }
}

fn key_sources(node: &Node<'_>) -> Result<Vec<KeySource>, Invalid> {
    let sources = node.list(|item| {
        let members = item.members(&["header", "scheme", "item_prefix"])?;
        let source = KeySource {
            header: header_name(&members.require("header")?)?,
            scheme: members.read("scheme", token)?,
            item_prefix: members.read("item_prefix", token)?,
        };
        match source.scheme.is_some() && source.item_prefix.is_some() {
            true => Err(item.unusable("a scheme stands before a whole value, item_prefix before an item of a list; remove one")),
            false => Ok(source),
        }
    })?;
    let is_list = |source: &&KeySource| source.item_prefix.is_some();
    let mut lists = BTreeSet::new();
    lists.extend(sources.iter().filter(is_list).map(|list| list.header.clone()));
    if sources.iter().any(|source| !is_list(&source) && lists.contains(&source.header)) {
        return Err(node.unusable(
            "a header with an item_prefix is a list, so its whole value cannot be a key too",
        ));
    }
    if sources.is_empty() { Err(node.expected("at least one header")) } else { Ok(sources.into()) }
}

/// The key sources, unless configured.
pub(crate) fn default_key_sources() -> Vec<KeySource> {
    let source = |(header, scheme): (&str, Option<&str>)| KeySource {
        header: header.to_owned(),
        scheme: scheme.map(str::to_owned),
        item_prefix: None,
    };
    DEFAULT_KEY_SOURCES.into_iter().map(source).collect()
}

fn tiers(node: &Node<'_>) -> Result<BTreeMap<String, Tier>, Invalid> {
    let mut tiers = BTreeMap::new();
    for (name, entry) in node.entries()? {
        let known = ["only", "rate", "quotas", "usage_of_others", "escaped_slashes"];
        let members = entry.members(&known)?;
        let keeps = members
            .read("escaped_slashes", |node| node.choice(&[("refuse", false), ("keep", true)]))?
            .unwrap_or(false);
        let tier = Tier {
            only: members.read("only", |node| only(node, keeps))?.unwrap_or_default(),
            limits: Limits::read_shareable(&members)?,
            keeps_escaped_slashes: keeps,
            usage_of_others: members.read("usage_of_others", Node::bool)?.unwrap_or(false),
        };
        tiers.insert(name.to_owned(), tier);
    }
    Ok(tiers)
}

/// `keeps_slashes`: a tier keeps escaped slashes. Its keys may belong to any tenant.
fn tenants(node: &Node<'_>, keeps_slashes: bool) -> Result<BTreeMap<String, Tenant>, Invalid> {
    let mut tenants = BTreeMap::new();
    for (name, entry) in node.entries()? {
        if !is_id(name) {
            return Err(entry.unusable(INVALID_TENANT));
        }
        let members = entry.members(&["only", "rate", "quotas"])?;
        let tenant = Tenant {
            only: members.read("only", |node| only(node, keeps_slashes))?.unwrap_or_default(),
            limits: Limits::read_shareable(&members)?,
        };
        tenants.insert(name.to_owned(), tenant);
    }
    Ok(tenants)
}

/// `keeps_slashes`: the restriction applies to keys whose tier keeps escaped slashes.
fn only(node: &Node<'_>, keeps_slashes: bool) -> Result<Restriction, Invalid> {
    let members = node.open_members()?;
    let misplaced = Limits::MEMBERS.into_iter().find_map(|limit| members.get(limit));
    if let Some(limit) = misplaced {
        return Err(limit.unusable("unknown member; rate and quotas stand beside only"));
    }
    let only = Restriction::read_unlimited(node)?;
    refuse_mistakes(node, Slashes::written(keeps_slashes)).map(|()| only)
}

/// A function that reads a text. A pointer, so that the code that reads a list of texts exists once.
type ReadText = fn(&Node<'_>) -> Result<String, Invalid>;

fn revoked(node: &Node<'_>) -> Result<Revoked, Invalid> {
    let members = node.members(&["version", "keys", "tenants"])?;
    // Inserted one by one: collecting would sort them first, and nothing else needs the code for that.
    let mut keys = BTreeSet::new();
    keys.extend(
        members.read("keys", |list| list.list(revoked_one as ReadText))?.unwrap_or_default(),
    );
    let tenants = members.read("tenants", |node| {
        let mut tenants = BTreeMap::new();
        for (tenant, entry) in node.entries()? {
            if !is_id(tenant) {
                return Err(entry.unusable(INVALID_TENANT));
            }
            let members = entry.members(&["issued_before"])?;
            tenants.insert(tenant.to_owned(), members.require("issued_before")?.time()?);
        }
        Ok(tenants)
    })?;
    Ok(Revoked {
        version: members.read("version", Node::integer)?,
        keys,
        tenants: tenants.unwrap_or_default(),
    })
}

/// A revoked key: its id, for any tenant, or an object that names the tenant too.
fn revoked_one(node: &Node<'_>) -> Result<String, Invalid> {
    if !matches!(node.value(), Json::Object(_)) {
        return id(node);
    }
    let members = node.members(&["tenant", "jti"])?;
    let [tenant, jti] = ["tenant", "jti"].map(|name| id(&members.require(name)?));
    Ok(revoked_key(&tenant?, &jti?))
}

fn limits(node: &Node<'_>) -> Result<LimitSettings, Invalid> {
    let members = node.members(&["headers", "cluster"])?;
    Ok(LimitSettings {
        headers: members.read("headers", LimitHeaders::read)?.unwrap_or_default(),
        of_cluster: members.read("cluster", Node::bool)?.unwrap_or(false),
    })
}

fn client(node: &Node<'_>) -> Result<ClientRules, Invalid> {
    let members = node.members(&["trusted_hops", "allow", "deny"])?;
    let networks = |list: &Node<'_>| list.list(cidr);
    let allowed = |list: &Node<'_>| match networks(list)? {
        allowed if allowed.is_empty() => Err(list.expected("at least one network")),
        allowed => Ok(allowed),
    };
    let trusted_hops = members.read("trusted_hops", |node| match node.integer()? {
        hops @ 0..=MAX_TRUSTED_HOPS => Ok(hops),
        _ => Err(node.expected("0 to 16")),
    })?;
    Ok(ClientRules {
        trusted_hops: trusted_hops.unwrap_or(0),
        allow: members.read("allow", allowed)?,
        deny: members.read("deny", networks)?.unwrap_or_default(),
    })
}

// === forwarding and logging ===

fn upstream_tls(node: &Node<'_>) -> Result<UpstreamTls, Invalid> {
    let members = node.members(&["require_stamp", "require_gate", "tighten"])?;
    let default = UpstreamTls::default();
    let tighten = members.read("tighten", |list| list.list(PolicyRule::read_tightening))?;
    Ok(UpstreamTls {
        require_stamp: members.read("require_stamp", Node::bool)?.unwrap_or(default.require_stamp),
        require_gate: members.read("require_gate", Node::bool)?.unwrap_or(default.require_gate),
        tighten: tighten.unwrap_or_default(),
    })
}

/// The path of the readiness reply. It must differ from that of the usage reply.
fn ready_path(members: &Members<'_>) -> Result<String, Invalid> {
    let ready = members.read("ready", reply_path)?.unwrap_or(DEFAULT_READY_PATH.to_owned());
    let usage = members.read("usage", reply_path)?.unwrap_or(DEFAULT_USAGE_PATH.to_owned());
    let is_same = ready == usage;
    match members.get("ready").or_else(|| members.get("usage")).filter(|_| is_same) {
        Some(node) => Err(node.unusable("the paths of usage and ready must differ")),
        None => Ok(ready),
    }
}

/// The path of a reply of the gate's own.
fn reply_path(node: &Node<'_>) -> Result<String, Invalid> {
    let members = node.members(&["path"])?;
    let node = members.require("path")?;
    let path = node.string()?;
    let canonical = CanonicalPath::parse(path.as_bytes());
    if canonical.is_ok_and(|canonical| canonical.resource() == path) {
        Ok(path.to_owned())
    } else {
        Err(node.expected("a path in canonical form, e.g. /.vkey/usage"))
    }
}

const PRINTED_BY_PROXY: &str = "with the sink access_log, the proxy prints peer and upstream: leave them out of the \
    format of its access log instead";

const NO_CHAIN: &str = "without a secret the records form no chain: add audit.secret, or remove it";

fn audit(node: &Node<'_>) -> Result<AuditSettings, Invalid> {
    let sinks = [("access_log", Sink::AccessLog), ("log", Sink::Log)];
    let levels = Level::ALL.map(|level| (level.name(), level));
    let members =
        node.members(&["sink", "level", "mask", "mask_value", "secret", "anchor_every"])?;
    let default = AuditSettings::default();
    let maskable = Mask::MASKABLE.map(|name| (name, name));
    let sink = members.read("sink", |node| node.choice(&sinks))?.unwrap_or(default.sink);
    let choice = |item: &Node<'_>| match item.choice(&maskable)? {
        name if sink == Sink::AccessLog && Mask::OF_OUTCOME.contains(&name) => {
            Err(item.unusable(PRINTED_BY_PROXY))
        }
        name => Ok(name),
    };
    let masked = members.read("mask", |list| list.list(choice))?;
    let value = members.read("mask_value", |node| node.string().map(str::to_owned))?;
    let secret = members.read("secret", variable)?;
    if let Some(node) = members.get("anchor_every").filter(|_| secret.is_none()) {
        return Err(node.unusable(NO_CHAIN));
    }
    Ok(AuditSettings {
        sink,
        level: members.read("level", |node| node.choice(&levels))?.unwrap_or(default.level),
        mask: Mask::new(masked.unwrap_or_default(), value),
        secret,
        anchor_every: members.read("anchor_every", anchor_every)?.unwrap_or(default.anchor_every),
    })
}

fn anchor_every(node: &Node<'_>) -> Result<u64, Invalid> {
    let records = node.integer()?;
    if (1..=MAX_ANCHOR_EVERY).contains(&records) {
        Ok(records)
    } else {
        Err(node.expected("1 to 1000000 records"))
    }
}

fn dialect(node: &Node<'_>) -> Result<Dialect, Invalid> {
    node.choice(&[
        ("auto", Dialect::Auto),
        ("bare", Dialect::Bare),
        ("envoy", Dialect::Envoy),
        ("nginx", Dialect::Nginx),
    ])
}

// === helpers ===

impl Default for AuditSettings {
    fn default() -> Self {
        Self {
            sink: Sink::Log,
            level: Level::Info,
            mask: Mask::default(),
            secret: None,
            anchor_every: DEFAULT_ANCHOR_EVERY,
        }
    }
}
