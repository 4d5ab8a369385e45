//! Root contexts: one for each configuration of the plugin.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use vkey::config::AuditSettings;
use vkey::host::Gate;

use crate::host::ProxyHost;

thread_local! {
    static ROOTS: RefCell<BTreeMap<u32, Rc<Gate>>> = const { RefCell::new(BTreeMap::new()) };
}

/// The gate of a root context. One that is not configured denies everything.
pub(crate) fn gate(root_id: u32) -> Rc<Gate> {
    ROOTS.with_borrow(|roots| roots.get(&root_id).cloned()).unwrap_or_else(closed)
}

/// Puts a configuration in force. `false` only for a text that is no configuration anywhere: where
/// workers disagree about the answer, Envoy lets requests pass unfiltered.
pub(crate) fn configure(root_id: u32, text: &[u8]) -> bool {
    #[cfg(feature = "faults")]
    if !crate::faults::configure() {
        return false;
    }
    let Ok(gate) = Gate::configure(text, crate::host::environment, &ProxyHost) else {
        return false;
    };
    ROOTS.with_borrow_mut(|roots| roots.insert(root_id, Rc::new(gate)));
    true
}

/// Forgets a root context; requests under way keep its gate.
pub(crate) fn delete(root_id: u32) {
    ROOTS.with_borrow_mut(|roots| roots.remove(&root_id));
}

fn closed() -> Rc<Gate> {
    Rc::new(Gate::closed(AuditSettings::default()))
}
