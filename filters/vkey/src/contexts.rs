//! Root contexts: one for each configuration of the plugin.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use vkey::gate::Plugin;
use vkey::upstream_tls::Policy;

use crate::hostcalls::ProxyHost;

/// The upstream-TLS policy, which the build has checked.
const POLICY: &[u8] = include_bytes!(env!("VKEY_UPSTREAM_TLS_POLICY"));

thread_local! {
    static ROOTS: RefCell<BTreeMap<u32, Rc<Plugin>>> = const { RefCell::new(BTreeMap::new()) };
}

/// The plugin of a root context. One that is not configured denies everything.
pub(crate) fn plugin(root_id: u32) -> Rc<Plugin> {
    ROOTS.with_borrow(|roots| roots.get(&root_id).cloned()).unwrap_or_else(closed)
}

/// Puts a configuration in force. `false` only for a text that is no configuration anywhere: where
/// workers disagree about the answer, Envoy lets requests pass unfiltered.
pub(crate) fn configure(root_id: u32, text: &[u8]) -> bool {
    #[cfg(feature = "faults")]
    if !crate::faults::configure() {
        return false;
    }
    let Ok(plugin) = Plugin::configure(text, policy(), crate::hostcalls::environment, &ProxyHost)
    else {
        return false;
    };
    ROOTS.with_borrow_mut(|roots| roots.insert(root_id, Rc::new(plugin)));
    true
}

/// Forgets a root context; requests under way keep its plugin.
pub(crate) fn delete(root_id: u32) {
    ROOTS.with_borrow_mut(|roots| roots.remove(&root_id));
}

fn policy() -> Policy {
    Policy::parse(POLICY).unwrap_or_else(|_| Policy::strictest())
}

fn closed() -> Rc<Plugin> {
    Rc::new(Plugin::closed(policy()))
}
