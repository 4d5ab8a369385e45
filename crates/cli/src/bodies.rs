//! What `vkey config check` says about requests whose bodies decide: whether the proxy holds them.

use vkey::access::restriction::Restriction;
use vkey::config::Settings;
use vkey::host::Dialect;
use vkey::limits::Limits;

use super::plugins::{Holding, Plugin};
use super::text::quoted;

const BEFORE: &str = "bodies decide about requests";

const REFUSED: &str = "such requests are refused (body_unreadable)";

/// What most likely is a mistake in how the proxy runs the module, and what to do.
pub(super) fn notes(settings: &Settings, plugin: &Plugin) -> Vec<String> {
    let needs = needs(settings);
    let holding = match settings.dialect {
        Dialect::Nginx => Holding::OnNginx,
        _ => plugin.holding,
    };
    let unheld = why_unheld(holding).filter(|_| !needs.is_empty());
    let mut notes =
        Vec::from_iter(unheld.map(|why| format!("{BEFORE} ({}), and {why}", needs.join(", "))));
    let bodies = !needs.is_empty() || settings.llm.audit_tokens;
    let bounds = [
        (bodies, "body.max_bytes", settings.body.max_bytes, "refuses a longer body itself (413)"),
        (
            !settings.mcp.is_empty(),
            "body.max_list_bytes",
            settings.body.max_list_bytes,
            "does not hold a longer list",
        ),
    ];
    for (_, member, bytes, what) in bounds.into_iter().filter(|(matters, ..)| *matters) {
        let buffer = plugin.buffer_bytes.filter(|buffer| *buffer < bytes);
        notes.extend(buffer.map(|buffer| {
            format!(
                "{member} is {bytes}, but the listener holds {buffer} bytes, and Envoy {what}; set its \
                 per_connection_buffer_limit_bytes to more than {bytes}, or lower {member}"
            )
        }));
    }
    notes
}

/// The parts of the configuration by which a body decides.
fn needs(settings: &Settings) -> Vec<String> {
    let mcp = (!settings.mcp.is_empty() && !settings.mcp.trusts_headers).then(|| "mcp".to_owned());
    let reads =
        |only: &Restriction, limits: &Limits| only.restricts_models() || limits.measured().any();
    let tiers = settings.tiers.iter().filter(|(_, tier)| reads(&tier.only, &tier.limits));
    let tiers = tiers.map(|(name, _)| format!("tier {}", quoted(name)));
    let tenants = settings.tenants.iter();
    let tenants = tenants.filter(|(_, tenant)| reads(&tenant.only, &tenant.limits));
    let tenants = tenants.map(|(name, _)| format!("tenant {}", quoted(name)));
    mcp.into_iter().chain(tiers).chain(tenants).collect()
}

/// Why the proxy holds no request until its body is read, and what to do.
fn why_unheld(holding: Holding) -> Option<String> {
    let option = "allow_on_headers_stop_iteration: true";
    Some(match holding {
        Holding::Held | Holding::Unknown => return None,
        Holding::NotSet => format!(
            "without {option} Envoy does not hold them until their bodies are read: {REFUSED}; add it beside \
             configuration"
        ),
        Holding::ByNo(kind) => {
            let other =
                if kind == "EnvoyExtensionPolicy" { "EnvoyPatchPolicy" } else { "EnvoyFilter" };
            format!(
                "no {kind} can set {option}, without which Envoy does not hold them until their bodies are read: \
                 {REFUSED}; put the gate into an {other} in its place"
            )
        }
        Holding::OnNginx => {
            format!("nginx does not hold them until their bodies are read: {REFUSED}; use Envoy")
        }
    })
}
