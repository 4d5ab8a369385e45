//! The member `mcp`: what MCP calls a key may make.

use crate::access::McpCall;
use crate::body::mcp::{Arguments, ObjectKind};
use crate::glob::Globs;
use crate::json::{Invalid, Json, Node};

use super::conditions::ToolEntry;
use super::globs::GlobWords;
use super::name_globs;
use super::needs::ArgumentNeeds;
use super::places::PlaceGlobs;

/// What MCP calls a key may make. All present members must hold. As soon as one of `tools`, `resources` and `prompts` is
/// present, objects of the other kinds are closed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct McpRestriction {
    methods: Option<Globs>,
    servers: Option<Globs>,
    tools: Option<Tools>,
    resources: Option<PlaceGlobs>,
    prompts: Option<Globs>,
}

/// The tools that may be called. Entries are alternatives.
#[derive(Clone, Debug, PartialEq)]
struct Tools {
    /// The entries without conditions.
    any_args: Globs,
    entries: Box<[ToolEntry]>,
}

const MEMBERS: [&str; 5] = ["methods", "servers", "tools", "resources", "prompts"];

/// Methods whose calls must name an object, and the kinds that it may have. Servers may ignore the case of methods, and
/// white space around them: a method in another spelling names nothing, so it is refused where objects are restricted.
const NAMING_METHODS: [(&str, &[ObjectKind]); 6] = [
    ("tools/call", &[ObjectKind::Tool]),
    ("resources/read", &[ObjectKind::Resource]),
    ("resources/subscribe", &[ObjectKind::Resource]),
    ("resources/unsubscribe", &[ObjectKind::Resource]),
    ("prompts/get", &[ObjectKind::Prompt]),
    ("completion/complete", &[ObjectKind::Prompt, ObjectKind::Resource]),
];

/// Other methods that may name objects, or whose lists are filtered. In another case they would name nothing, or show
/// everything.
const LISTING_METHODS: [&str; 5] = [
    "subscriptions/listen",
    "tools/list",
    "resources/list",
    "resources/templates/list",
    "prompts/list",
];

// === impl McpRestriction ===

impl McpRestriction {
    pub(super) fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let members = node.members(&MEMBERS)?;
        Ok(Self {
            methods: members.read("methods", name_globs)?,
            servers: members.read("servers", name_globs)?,
            tools: members.read("tools", Tools::read)?,
            resources: members.read("resources", PlaceGlobs::read)?,
            prompts: members.read("prompts", name_globs)?,
        })
    }

    pub(super) fn holds(&self, call: &McpCall<'_>) -> bool {
        matches_or_absent(&self.servers, call.server)
            && (self.is_implied(call.method) || matches_or_absent(&self.methods, Some(call.method)))
            && (!self.restricts_objects() || self.allows_object(call))
    }

    /// Adds what its conditions need to know of the arguments.
    pub(super) fn add_needs(&self, needs: &mut ArgumentNeeds) {
        self.entries().iter().for_each(|entry| entry.add_needs(needs));
    }

    /// What its globs take.
    pub(super) fn words(&self) -> GlobWords {
        let globs = self.globs().into_iter().flatten().map(Globs::words);
        let resources = self.resources.as_ref();
        let own = GlobWords {
            mcp: globs.sum::<usize>() + resources.map_or(0, PlaceGlobs::words),
            looks: resources.map_or(0, PlaceGlobs::looks),
            ..GlobWords::default()
        };
        self.entries().iter().map(ToolEntry::words).fold(own, GlobWords::plus)
    }

    /// Approximate memory, in bytes.
    pub(super) fn footprint(&self) -> usize {
        let globs = self.globs().into_iter().flatten().map(Globs::footprint);
        let entries = self.entries();
        let entries =
            size_of_val(entries) + entries.iter().map(ToolEntry::footprint).sum::<usize>();
        let resources = self.resources.as_ref().map_or(0, PlaceGlobs::footprint);
        size_of::<Self>() + globs.sum::<usize>() + resources + entries
    }

    /// Those of all members but `resources`.
    fn globs(&self) -> [Option<&Globs>; 4] {
        let tools = self.tools.as_ref().map(|tools| &tools.any_args);
        let [methods, servers, prompts] =
            [&self.methods, &self.servers, &self.prompts].map(Option::as_ref);
        [methods, servers, tools, prompts]
    }

    fn entries(&self) -> &[ToolEntry] {
        self.tools.as_ref().map_or(&[], |tools| &tools.entries)
    }

    /// Whether a kind of objects is restricted, and every other one closed.
    fn restricts_objects(&self) -> bool {
        self.tools.is_some() || self.resources.is_some() || self.prompts.is_some()
    }

    /// Whether a method is allowed whatever `methods` says. Without these no client connects, or shows what its key may
    /// use. The lists are filtered, and that of a closed kind is empty.
    fn is_implied(&self, method: &str) -> bool {
        match method {
            "initialize" | "ping" | "server/discover" => true,
            "tools/list" | "resources/list" | "resources/templates/list" | "prompts/list" => {
                self.restricts_objects()
            }
            _ => method.starts_with("notifications/"),
        }
    }

    /// Tasks have no globs: who knows the id of one was given it by a call.
    fn allows_object(&self, call: &McpCall<'_>) -> bool {
        let object = call.object.filter(|(_, names)| !names.is_empty());
        if !may_name(call.method, object.map(|(kind, _)| kind)) {
            return false;
        }
        let Some((kind, names)) = object else { return true };
        match kind {
            ObjectKind::Tool => self
                .tools
                .as_ref()
                .is_some_and(|tools| names.iter().all(|name| tools.allow(name, call.arguments))),
            ObjectKind::Resource => self
                .resources
                .as_ref()
                .is_some_and(|globs| names.iter().all(|name| globs.matches(name))),
            ObjectKind::Prompt => self
                .prompts
                .as_ref()
                .is_some_and(|globs| names.iter().all(|name| globs.matches(name))),
            ObjectKind::Task => true,
        }
    }
}

// === impl Tools ===

impl Tools {
    fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let (mut globs, mut entries) = (Vec::new(), Vec::new());
        for item in node.items()? {
            match item.value() {
                Json::String(glob) => globs.push(glob.as_str()),
                Json::Object(_) => entries.push(ToolEntry::read(&item)?),
                _ => {
                    return Err(item.expected("a glob, or an object with name, args and only_args"));
                }
            }
        }
        Ok(Self { any_args: Globs::names(&globs), entries: entries.into() })
    }

    fn allow(&self, name: &str, arguments: Option<&Arguments>) -> bool {
        let accepts =
            |entry: &ToolEntry| arguments.is_none_or(|arguments| entry.accepts(arguments));
        self.any_args.matches(name)
            || self.entries.iter().any(|entry| entry.names(name) && accepts(entry))
    }
}

/// Whether a call of a method may name an object of this kind, or none.
fn may_name(method: &str, kind: Option<ObjectKind>) -> bool {
    // Some characters outside ASCII are letters of it in another case.
    if !method.bytes().all(|byte| byte.is_ascii_graphic()) {
        return false;
    }
    let is_similar = |name: &&str| name.eq_ignore_ascii_case(method);
    if let Some(name) = LISTING_METHODS.iter().find(|name| is_similar(name)) {
        return *name == method;
    }
    let naming = NAMING_METHODS.iter().find(|(name, _)| is_similar(name));
    naming.is_none_or(|(_, kinds)| kind.is_some_and(|kind| kinds.contains(&kind)))
}

fn matches_or_absent(globs: &Option<Globs>, text: Option<&str>) -> bool {
    globs.as_ref().is_none_or(|globs| text.is_some_and(|text| globs.matches(text)))
}

#[cfg(test)]
mod tests;
