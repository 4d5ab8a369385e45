//! Restrictions: what a caveat, the claims' `only`, a tier or a tenant narrows a key to.
//!
//! Every present member must hold. An absent one does not restrict; an empty list never holds. A
//! restriction can therefore only take away: `allow(key + caveat, access)` implies `allow(key,
//! access)`.

mod conditions;
mod decimal;
mod globs;
mod hosts;
mod mcp;
mod mistakes;
mod needs;
mod places;

pub use globs::{GlobWords, MAX_GLOB_STEPS};
pub use hosts::HostPattern;
pub(crate) use mistakes::refuse_dead_paths;
pub use mistakes::{Slashes, refuse_mistakes};
pub use needs::{ArgumentNeeds, MAX_POINTERS};

use crate::access::cidr::Cidr;
use crate::access::{Access, Mcp, Models, without_final_slash};
use crate::body::mcp::ObjectKind;
use crate::decision::DenyReason;
use crate::digest::is_sha256_hex;
use crate::glob::Globs;
use crate::json::{Integers, Invalid, Json, Node};
use crate::limits::Limits;

use mcp::McpRestriction;

/// A compiled restriction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Restriction {
    nbf: Option<u64>,
    exp: Option<u64>,
    methods: Option<Box<[String]>>,
    hosts: Option<Box<[HostPattern]>>,
    paths: Option<Globs>,
    models: Option<Globs>,
    mcp: Option<Box<McpRestriction>>,
    sources: Option<Box<[Cidr]>>,
    client_cert: Option<Box<[String]>>,
    any_of: Option<Box<[Restriction]>>,
    limits: Limits,
}

const MEMBERS: [&str; 12] = [
    "nbf", "exp", "methods", "hosts", "paths", "models", "mcp", "sources", "client_cert", "any_of",
    "rate", "quotas",
];

/// In a configuration, limits stand beside a restriction.
const UNLIMITED_MEMBERS: [&str; 10] = [
    "nbf", "exp", "methods", "hosts", "paths", "models", "mcp", "sources", "client_cert", "any_of",
];

const FLAT_MEMBERS: [&str; 9] =
    ["nbf", "exp", "methods", "hosts", "paths", "models", "mcp", "sources", "client_cert"];

/// Approximate memory of a text in a list, in bytes.
const TEXT_BYTES: usize = 128;

// === impl Restriction ===

impl Restriction {
    /// Reads a caveat's JSON text.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for an unknown or ill-typed member: what is not understood cannot be enforced.
    pub fn parse(text: &[u8]) -> Result<Self, Invalid> {
        Self::read(&Json::parse(text)?.root(Integers::Digits))
    }

    /// Reads a restriction that is part of a larger document.
    ///
    /// # Errors
    ///
    /// As [`Restriction::parse`].
    pub fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        Self::read_members(node, &MEMBERS)
    }

    /// Reads a restriction that has no limits of its own: a configuration's.
    ///
    /// # Errors
    ///
    /// As [`Restriction::parse`].
    pub fn read_unlimited(node: &Node<'_>) -> Result<Self, Invalid> {
        Self::read_members(node, &UNLIMITED_MEMBERS)
    }

    /// The first Unix second at which it holds, if set.
    pub fn nbf_secs(&self) -> Option<u64> {
        self.nbf
    }

    /// The first Unix second at which it no longer holds, if set.
    pub fn exp_secs(&self) -> Option<u64> {
        self.exp
    }

    /// The members of `any_of`; empty if it is absent.
    pub fn alternatives(&self) -> &[Self] {
        self.any_of.as_deref().unwrap_or_default()
    }

    /// The rate and the quotas.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The first reason why the time alone prohibits any access.
    pub fn prohibits_time(&self, now_secs: u64) -> Option<DenyReason> {
        if self.nbf.is_some_and(|nbf| now_secs < nbf) {
            Some(DenyReason::KeyNotYetValid)
        } else if self.exp.is_some_and(|exp| now_secs >= exp) {
            Some(DenyReason::KeyExpired)
        } else {
            self.refused_by_all(any, |other| other.prohibits_time(now_secs)).flatten()
        }
    }

    /// The first reason why the client's address or certificate prohibits any access.
    pub fn prohibits_client(&self, access: &Access<'_>) -> Option<DenyReason> {
        let alternatives =
            || self.refused_by_all(any, |other| other.prohibits_client(access)).flatten();
        self.prohibits_source(access).or_else(|| self.prohibits_cert(access)).or_else(alternatives)
    }

    /// The first reason for which the client or the target refuses, whatever the request calls for: all
    /// but the time, which every key is judged by, models and MCP calls.
    pub fn prohibits_request(&self, access: &Access<'_>) -> Option<DenyReason> {
        self.prohibits_source(access)
            .or_else(|| self.prohibits_target(access))
            .or_else(|| self.prohibits_cert(access))
            .or_else(|| {
                let refused = self.refused_by_all(any, |other| other.prohibits_request(access));
                refused.map(|first| first.unwrap_or(DenyReason::Path))
            })
    }

    /// The first reason for which the restriction does not hold; `None` when it holds.
    pub fn prohibits(&self, access: &Access<'_>) -> Option<DenyReason> {
        self.prohibits_time(access.now_secs)
            .or_else(|| self.prohibits_source(access))
            .or_else(|| self.prohibits_target(access))
            .or_else(|| self.prohibits_cert(access))
            .or_else(|| self.prohibits_call(access))
            .or_else(|| {
                // A list without alternatives holds never, and blames the path.
                let is_meant = |other: &Self| other.is_meant_for(access);
                let refused = self.refused_by_all(is_meant, |other| other.prohibits(access));
                refused.map(|blamed| blamed.unwrap_or(DenyReason::Path))
            })
    }

    /// Whether the client's certificate is needed for the check.
    pub fn needs_client_cert(&self) -> bool {
        let inside = || self.any_of.iter().flatten().any(Self::needs_client_cert);
        self.client_cert.is_some() || inside()
    }

    /// Whether it never holds for a request that is no MCP call: it restricts those, or each of its alternatives does.
    pub fn needs_mcp_call(&self) -> bool {
        let all = |others: &[Self]| !others.is_empty() && others.iter().all(Self::needs_mcp_call);
        self.mcp.is_some() || all(self.alternatives())
    }

    /// Whether it never holds for a request that is no AI request: it restricts models, or each of its alternatives does.
    pub fn needs_models(&self) -> bool {
        let all = |others: &[Self]| !others.is_empty() && others.iter().all(Self::needs_models);
        self.models.is_some() || all(self.alternatives())
    }

    /// Whether the models of a request decide whether it holds.
    pub fn restricts_models(&self) -> bool {
        self.models.is_some() || self.any_of.iter().flatten().any(Self::restricts_models)
    }

    /// Whether it restricts MCP calls, or an alternative does.
    pub fn restricts_mcp(&self) -> bool {
        self.mcp.is_some() || self.any_of.iter().flatten().any(Self::restricts_mcp)
    }

    /// Whether a part of it never holds for any request whose models decide on it: `models` holds for no MCP call, and
    /// `mcp` for nothing else. What is meant is `any_of: [{"models": …}, {"mcp": …}]`.
    pub fn pairs_models_with_mcp(&self) -> bool {
        self.models_rule_out_mcp(false, false)
    }

    /// `models`, `mcp`: what the restriction that this is an alternative of restricts.
    fn models_rule_out_mcp(&self, models: bool, mcp: bool) -> bool {
        let (models, mcp) = (models || self.models.is_some(), mcp || self.mcp.is_some());
        (models && mcp)
            || self.alternatives().iter().any(|other| other.models_rule_out_mcp(models, mcp))
    }

    /// Adds what its conditions need to know of the arguments of an MCP call.
    pub fn add_needs(&self, needs: &mut ArgumentNeeds) {
        if let Some(mcp) = &self.mcp {
            mcp.add_needs(needs);
        }
        self.alternatives().iter().for_each(|other| other.add_needs(needs));
    }

    /// Whether an object is shown in a list: whether the call that uses it is allowed, with some arguments as far as
    /// names decide. `access`: as the access of that call.
    pub fn shows(&self, access: &Access<'_>, kind: ObjectKind, name: &str) -> bool {
        access.shows(kind, name, |access| self.prohibits(access).is_none())
    }

    /// Whether a method, a path or a host decides whether it holds.
    pub fn restricts_target(&self) -> bool {
        let inside = || self.any_of.iter().flatten().any(Self::restricts_target);
        self.methods.is_some() || self.paths.is_some() || self.hosts.is_some() || inside()
    }

    /// How many steps its globs take, those of its alternatives included.
    pub fn glob_words(&self) -> GlobWords {
        let words = |globs: &Option<Globs>| globs.as_ref().map_or(0, Globs::words);
        let mcp = self.mcp.as_ref().map(|mcp| mcp.words()).unwrap_or_default();
        let own = GlobWords { paths: words(&self.paths), models: words(&self.models), ..mcp };
        self.any_of.iter().flatten().map(Self::glob_words).fold(own, GlobWords::plus)
    }

    /// Approximate memory of the restriction, in bytes.
    pub(crate) fn footprint(&self) -> usize {
        fn items<T>(list: &Option<Box<[T]>>) -> usize {
            list.as_ref().map_or(0, |list| list.len())
        }
        let globs = |globs: &Option<Globs>| globs.as_ref().map_or(0, Globs::footprint);
        let mcp = self.mcp.as_ref().map_or(0, |mcp| mcp.footprint());
        let texts = items(&self.methods) + items(&self.hosts) + items(&self.client_cert);
        let alternatives = self.any_of.iter().flatten().map(Self::footprint).sum::<usize>();
        size_of::<Self>()
            + texts * TEXT_BYTES
            + items(&self.sources) * size_of::<Cidr>()
            + globs(&self.paths)
            + globs(&self.models)
            + mcp
            + alternatives
            + self.limits.footprint()
    }

    fn prohibits_source(&self, access: &Access<'_>) -> Option<DenyReason> {
        let in_network = |cidr: &Cidr| access.source.is_some_and(|source| cidr.contains(source));
        none_holds(&self.sources, in_network).then_some(DenyReason::Source)
    }

    fn prohibits_cert(&self, access: &Access<'_>) -> Option<DenyReason> {
        let shown = |digest: &String| access.client_cert == Some(digest);
        none_holds(&self.client_cert, shown).then_some(DenyReason::ClientCert)
    }

    fn prohibits_target(&self, access: &Access<'_>) -> Option<DenyReason> {
        let path = access.path.resource();
        let host = |pattern: &HostPattern| access.host.is_some_and(|host| pattern.matches(host));
        if none_holds(&self.methods, |method| method == access.method) {
            Some(DenyReason::Method)
        } else if none_holds(&self.hosts, host) {
            Some(DenyReason::Host)
        } else {
            self.paths
                .as_ref()
                .is_some_and(|globs| !globs.matches(path))
                .then_some(DenyReason::Path)
        }
    }

    fn prohibits_call(&self, access: &Access<'_>) -> Option<DenyReason> {
        let are_allowed = |globs: &Globs| access.models.are_all(|model| globs.matches(model));
        let holds = |mcp: &McpRestriction| access.mcp.is(|call| mcp.holds(call));
        if self.models.as_ref().is_some_and(|globs| !are_allowed(globs)) {
            return Some(DenyReason::Model);
        }
        self.mcp.as_ref().is_some_and(|mcp| !holds(mcp)).then_some(DenyReason::McpCall)
    }

    /// Whether it judges what a request of this kind calls for: the tool of an MCP call, or the models of an AI request.
    fn is_meant_for(&self, access: &Access<'_>) -> bool {
        match (access.mcp, access.models) {
            (Mcp::Unread | Mcp::Call(_), _) => self.mcp.is_some(),
            (Mcp::None, Models::Unread | Models::Named { .. }) => self.models.is_some(),
            (Mcp::None, Models::None | Models::Exempt) => true,
        }
    }

    /// `None` when there are no alternatives to choose from or `refuses` finds nothing against one. Otherwise the reason
    /// of the first alternative that `is_meant`, or of the first of all. An empty list has none.
    fn refused_by_all(
        &self,
        is_meant: impl Fn(&Self) -> bool,
        refuses: impl Fn(&Self) -> Option<DenyReason>,
    ) -> Option<Option<DenyReason>> {
        let (mut first, mut meant) = (None, None);
        for alternative in self.any_of.as_deref()? {
            let reason = refuses(alternative)?;
            first = first.or(Some(reason));
            meant = meant.or_else(|| is_meant(alternative).then_some(reason));
        }
        Some(meant.or(first))
    }

    /// An alternative has no alternatives of its own.
    fn read_members(node: &Node<'_>, known: &[&str]) -> Result<Self, Invalid> {
        let members = node.members(known)?;
        Ok(Self {
            nbf: members.read("nbf", Node::time)?,
            exp: members.read("exp", Node::time)?,
            methods: members.read("methods", |list| list.list(text))?,
            hosts: members.read("hosts", |list| list.list(HostPattern::read))?,
            paths: members.read("paths", path_globs)?,
            models: members.read("models", name_globs)?,
            mcp: members.read("mcp", |node| McpRestriction::read(node).map(Box::new))?,
            sources: members.read("sources", |list| list.list(cidr))?,
            client_cert: members.read("client_cert", |list| list.list(digest))?,
            any_of: members.read("any_of", |list| {
                list.list(|alternative| Self::read_members(alternative, &FLAT_MEMBERS))
            })?,
            limits: Limits::read(&members)?,
        })
    }
}

/// Any alternative may be blamed.
fn any(_: &Restriction) -> bool {
    true
}

/// Whether a list is present and none of its items holds.
fn none_holds<T>(list: &Option<Box<[T]>>, holds: impl FnMut(&T) -> bool) -> bool {
    list.as_ref().is_some_and(|list| !list.iter().any(holds))
}

fn text(node: &Node<'_>) -> Result<String, Invalid> {
    node.string().map(str::to_owned)
}

/// Reads globs over canonical paths.
pub(crate) fn path_globs(node: &Node<'_>) -> Result<Globs, Invalid> {
    globs(node, |patterns| {
        let patterns: Vec<&str> = patterns.iter().map(|path| without_final_slash(path)).collect();
        Globs::paths(&patterns)
    })
}

/// Reads globs over names.
pub(crate) fn name_globs(node: &Node<'_>) -> Result<Globs, Invalid> {
    globs(node, Globs::names)
}

fn globs(node: &Node<'_>, compile: fn(&[&str]) -> Globs) -> Result<Globs, Invalid> {
    let patterns: Vec<&str> = node.items()?.map(|item| item.string()).collect::<Result<_, _>>()?;
    Ok(compile(&patterns))
}

/// Reads a network.
pub(crate) fn cidr(node: &Node<'_>) -> Result<Cidr, Invalid> {
    node.string()?.parse().map_err(|_| node.expected("a network, as 10.0.0.0/8 or 2001:db8::/32"))
}

fn digest(node: &Node<'_>) -> Result<String, Invalid> {
    let digits = node.string()?;
    if is_sha256_hex(digits) {
        Ok(digits.to_ascii_lowercase())
    } else {
        Err(node.expected("a SHA-256 in 64 hexadecimal digits"))
    }
}
