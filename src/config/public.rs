//! Reads `public`: the requests that need no key.

use crate::access::restriction::{Restriction, Slashes, refuse_mistakes};
use crate::json::{Invalid, Node};

const MEMBERS: [&str; 4] = ["methods", "paths", "hosts", "sources"];

const EVERY_PATH: &str =
    "this makes every path public, so that no request needs a key; name the paths that need none";

/// Rules, each with at least one method and one path. A request is public if one of them holds.
pub(super) fn public(node: &Node<'_>) -> Result<Box<[Restriction]>, Invalid> {
    node.list(rule)
}

fn rule(node: &Node<'_>) -> Result<Restriction, Invalid> {
    let members = node.members(&MEMBERS)?;
    for name in ["methods", "paths"] {
        let list = members.require(name)?;
        if list.items()?.len() == 0 {
            return Err(list.expected("at least one entry"));
        }
    }
    for path in members.require("paths")?.items()? {
        if matches_every_path(path.string()?) {
            return Err(path.unusable(EVERY_PATH));
        }
    }
    refuse_mistakes(node, Slashes::written(false))?;
    Restriction::read_unlimited(node)
}

fn matches_every_path(glob: &str) -> bool {
    glob.contains("**") && glob.bytes().all(|byte| matches!(byte, b'*' | b'/'))
}
