//! The places in messages that decide something.

use crate::body::json::{Names, Spot};

/// The version of JSON-RPC. It is the first of the places of texts.
pub(super) const JSONRPC: Spot = Spot(2);
pub(super) const METHOD: Spot = Spot(3);
pub(super) const NAME: Spot = Spot(4);
pub(super) const URI: Spot = Spot(5);
pub(super) const TASK: Spot = Spot(6);
/// What kind of object a completion is for, and which one.
pub(super) const REF_TYPE: Spot = Spot(7);
pub(super) const REF_NAME: Spot = Spot(8);
pub(super) const REF_URI: Spot = Spot(9);
/// The revision of MCP that a message is of, since 2026-07-28.
pub(super) const META_REVISION: Spot = Spot(10);
/// The revision that a client asks for when it initializes a session.
pub(super) const REVISION: Spot = Spot(11);
/// The places of texts.
pub(super) const TEXTS: usize = 10;

pub(super) const ID: Spot = Spot(12);
pub(super) const PARAMS: Spot = Spot(13);
/// The result or the error of a response.
pub(super) const RESULT: Spot = Spot(14);
pub(super) const ERROR: Spot = Spot(15);
pub(super) const META: Spot = Spot(16);
pub(super) const REF: Spot = Spot(17);
pub(super) const NOTIFICATIONS: Spot = Spot(18);
/// The list of resources whose changes a client listens to, and each of them.
pub(super) const SUBSCRIPTIONS: Spot = Spot(19);
pub(super) const SUBSCRIPTION: Spot = Spot(20);
/// The arguments of a call. All spots from here on are places in them.
pub(super) const ARGUMENTS: Spot = Spot(21);

const DOCUMENT_NAMES: Names = Names::new(
    &[
        ("jsonrpc", JSONRPC),
        ("id", ID),
        ("method", METHOD),
        ("params", PARAMS),
        ("result", RESULT),
        ("error", ERROR),
    ],
    Spot::IGNORED,
);

const PARAMS_NAMES: Names = Names::new(
    &[
        ("name", NAME),
        ("uri", URI),
        ("taskId", TASK),
        ("ref", REF),
        ("notifications", NOTIFICATIONS),
        ("arguments", ARGUMENTS),
        ("protocolVersion", REVISION),
        ("_meta", META),
    ],
    Spot::IGNORED,
);

const META_NAMES: Names =
    Names::new(&[("io.modelcontextprotocol/protocolVersion", META_REVISION)], Spot::IGNORED);

const REF_NAMES: Names =
    Names::new(&[("type", REF_TYPE), ("name", REF_NAME), ("uri", REF_URI)], Spot::IGNORED);

const NOTIFICATIONS_NAMES: Names =
    Names::new(&[("resourceSubscriptions", SUBSCRIPTIONS)], Spot::IGNORED);

const NO_NAMES: Names = Names::new(&[], Spot::IGNORED);

/// The members of interest of an object, without those of arguments.
pub(super) fn names(at: Spot) -> &'static Names {
    match at {
        Spot::ROOT => &DOCUMENT_NAMES,
        PARAMS => &PARAMS_NAMES,
        META => &META_NAMES,
        REF => &REF_NAMES,
        NOTIFICATIONS => &NOTIFICATIONS_NAMES,
        _ => &NO_NAMES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_of_texts_come_first() {
        let texts = usize::from(REVISION.0 - JSONRPC.0) + 1;
        assert_eq!((texts, ID.0), (TEXTS, REVISION.0 + 1));
    }
}
