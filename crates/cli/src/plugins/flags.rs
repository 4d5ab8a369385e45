//! What a file says about how a proxy runs the module: whether it refuses requests when the module fails, in which order
//! it runs, and whether its code is pinned by a digest.

use serde_json::Value;

use super::super::document::{at, get, is_choice, is_true, text};
use super::place::Place;

/// The digits of a SHA-256.
const DIGITS: usize = 64;

/// The start of a digest in the reference of an image.
const DIGEST: &str = "@sha256:";

const OPEN: &str = "requests pass when the module fails, and only the seal refuses them";

const UNPINNED: &str = "no digest pins the module, so that whoever can replace it at its address decides about requests; \
                        write its SHA-256 here";

const NO_DIGEST: &str = "expected a SHA-256, 64 of 0-9 a-f";

/// What is wrong with how the proxy runs the module, or is to be known about it.
#[derive(Clone, Default)]
pub(crate) struct Flags {
    /// Mistakes.
    pub(crate) faults: Vec<Flag>,
    /// What is no mistake.
    pub(crate) notes: Vec<Flag>,
}

/// One thing to say, and the place of the member that it is about.
#[derive(Clone)]
pub(crate) struct Flag {
    /// The path in the file.
    pub(crate) place: String,
    /// What is wrong, and what is expected.
    pub(crate) text: String,
}

impl Flags {
    /// All of them, to change their places.
    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Flag> {
        self.faults.iter_mut().chain(&mut self.notes)
    }

    fn fault(&mut self, place: &Place<'_>, member: &str, text: impl Into<String>) {
        self.faults.push(Flag { place: format!("{place}.{member}"), text: text.into() });
    }
}

/// Those of a Wasm plugin of Envoy.
pub(super) fn of_envoy(plugin: &Value, place: &Place<'_>) -> Flags {
    let mut flags = Flags::default();
    let is = |word, number| is_choice(plugin, "failure_policy", word, number);
    let is_known = is("UNSPECIFIED", 0) || is("FAIL_RELOAD", 1) || is("FAIL_CLOSED", 2);
    if is_true(plugin, "fail_open") {
        flags.fault(place, "config.fail_open", format!("{OPEN}; remove it"));
    }
    if is("FAIL_OPEN", 3) {
        let text = format!("{OPEN}; expected FAIL_RELOAD or FAIL_CLOSED");
        flags.fault(place, "config.failure_policy", text);
    } else if get(plugin, "failure_policy").is_some() && !is_known {
        flags.fault(place, "config.failure_policy", "expected FAIL_RELOAD or FAIL_CLOSED");
    }
    if let Some(remote) = at(plugin, &["vm_config", "code", "remote"]) {
        let fault = match text(remote, "sha256") {
            Some(digest) if is_digest(digest) => None,
            Some(_) => Some(NO_DIGEST),
            None => Some(UNPINNED),
        };
        let member = "config.vm_config.code.remote.sha256";
        fault.into_iter().for_each(|text| flags.fault(place, member, text));
    }
    flags
}

/// Those of a plugin of Istio, apart from its [phase](add_phase).
pub(super) fn of_istio(wasm: &Value, place: &Place<'_>) -> Flags {
    let mut flags = Flags::default();
    match text(wasm, "failStrategy") {
        None | Some("FAIL_CLOSE" | "FAIL_RELOAD") => {}
        Some("FAIL_OPEN") => {
            flags.fault(place, "failStrategy", format!("{OPEN}; expected FAIL_CLOSE"));
        }
        Some(_) => flags.fault(place, "failStrategy", "expected FAIL_CLOSE or FAIL_RELOAD"),
    }
    if !matches!(text(wasm, "type"), None | Some("HTTP" | "UNSPECIFIED_PLUGIN_TYPE")) {
        flags.fault(place, "type", "expected HTTP: a network filter sees no requests");
    }
    let (url, digest) = (text(wasm, "url").unwrap_or_default(), text(wasm, "sha256"));
    if url.starts_with("file://") {
        let text = "Istio checks no digest of file://: pin the image by which the file gets into the proxy";
        flags.notes.push(Flag { place: format!("{place}.url"), text: text.to_owned() });
        return flags;
    }
    let is_image = url.starts_with("oci://") || !url.contains("://");
    flags.pin(place, "sha256", digest, in_url(url).filter(|_| is_image));
    flags
}

/// Adds that of the phase in which Istio runs a plugin.
pub(super) fn add_phase(flags: &mut Flags, spec: &Value, place: &Place<'_>) {
    if text(spec, "phase") != Some("AUTHN") {
        let text = "expected AUTHN: in any other phase filters act on requests that the module has not checked";
        flags.fault(place, "phase", text);
    }
}

/// Those of a plugin of Envoy Gateway.
pub(super) fn of_envoy_gateway(wasm: &Value, place: &Place<'_>) -> Flags {
    let mut flags = Flags::default();
    if is_true(wasm, "failOpen") {
        flags.fault(place, "failOpen", format!("{OPEN}; expected false"));
    }
    let source = |name| at(wasm, &["code", name]);
    match (source("image"), source("http")) {
        (Some(image), _) => {
            let url = text(image, "url").unwrap_or_default();
            flags.pin(place, "code.image.sha256", text(image, "sha256"), in_url(url));
        }
        (None, Some(http)) => {
            flags.pin(place, "code.http.sha256", text(http, "sha256"), None);
        }
        (None, None) => flags.fault(place, "code", "expected an image, or an address"),
    }
    flags
}

impl Flags {
    /// A module needs a digest in a member or in its address, and two must be the same.
    fn pin(&mut self, place: &Place<'_>, member: &str, digest: Option<&str>, in_url: Option<&str>) {
        let fault = match (digest, in_url) {
            (None, None) => UNPINNED,
            (Some(digest), _) | (None, Some(digest)) if !is_digest(digest) => NO_DIGEST,
            (_, Some(digest)) if !is_digest(digest) => NO_DIGEST,
            (Some(own), Some(other)) if own != other => "the address has another digest",
            _ => return,
        };
        self.fault(place, member, fault);
    }
}

/// The digest in the reference of an image.
fn in_url(url: &str) -> Option<&str> {
    url.rsplit_once(DIGEST).map(|(_, digest)| digest)
}

fn is_digest(text: &str) -> bool {
    text.len() == DIGITS && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
