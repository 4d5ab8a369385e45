//! The places in a response that decide what is shown.

use crate::body::json::{Names, Spot};
use crate::body::mcp::ObjectKind;

pub(super) const ID: Spot = Spot(2);
pub(super) const RESULT: Spot = Spot(3);
pub(super) const CACHE_SCOPE: Spot = Spot(4);
/// A member of every result of `server/discover`, and of no request for input.
pub(super) const VERSIONS: Spot = Spot(5);

/// The first list. The items of a list are [`LISTS`] spots after it, and their names as many after these.
const FIRST_LIST: u8 = 8;
const TOOLS: Spot = Spot(FIRST_LIST);
const PROMPTS: Spot = Spot(FIRST_LIST + 1);
const RESOURCES: Spot = Spot(FIRST_LIST + 2);
const TEMPLATES: Spot = Spot(FIRST_LIST + 3);
const LISTS: u8 = 4;

/// What a spot is in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The list itself.
    List,
    /// One of its items.
    Item,
    /// What an item is called.
    Name(ObjectKind),
}

static ROOT_NAMES: Names = named(&[("id", ID), ("result", RESULT)]);
static RESULT_NAMES: Names = named(&[
    ("tools", TOOLS),
    ("prompts", PROMPTS),
    ("resources", RESOURCES),
    ("resourceTemplates", TEMPLATES),
    ("cacheScope", CACHE_SCOPE),
    ("supportedVersions", VERSIONS),
]);
static TOOL_NAMES: Names = named(&[("name", name_of(TOOLS))]);
static PROMPT_NAMES: Names = named(&[("name", name_of(PROMPTS))]);
static RESOURCE_NAMES: Names = named(&[("uri", name_of(RESOURCES))]);
static TEMPLATE_NAMES: Names = named(&[("uriTemplate", name_of(TEMPLATES))]);
static NO_NAMES: Names = named(&[]);

/// The members of interest of what is at a spot.
pub(super) fn names(at: Spot) -> &'static Names {
    match at {
        Spot::ROOT => &ROOT_NAMES,
        RESULT => &RESULT_NAMES,
        _ if at == item_of(TOOLS) => &TOOL_NAMES,
        _ if at == item_of(PROMPTS) => &PROMPT_NAMES,
        _ if at == item_of(RESOURCES) => &RESOURCE_NAMES,
        _ if at == item_of(TEMPLATES) => &TEMPLATE_NAMES,
        _ => &NO_NAMES,
    }
}

/// The spot of the elements of an array at a spot.
pub(super) fn items(at: Spot) -> Spot {
    if part(at) == Some(Part::List) { item_of(at) } else { Spot::IGNORED }
}

/// What a spot is in a list; `None` if it is not in one.
pub(super) fn part(at: Spot) -> Option<Part> {
    let place = at.0.checked_sub(FIRST_LIST)?;
    let kind = match place % LISTS {
        0 => ObjectKind::Tool,
        1 => ObjectKind::Prompt,
        _ => ObjectKind::Resource,
    };
    match place / LISTS {
        0 => Some(Part::List),
        1 => Some(Part::Item),
        _ => Some(Part::Name(kind)),
    }
}

const fn item_of(list: Spot) -> Spot {
    Spot(list.0 + LISTS)
}

const fn name_of(list: Spot) -> Spot {
    Spot(list.0 + 2 * LISTS)
}

const fn named(named: &'static [(&'static str, Spot)]) -> Names {
    Names::new(named, Spot::IGNORED)
}
