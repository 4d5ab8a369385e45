//! Requests for usage, which the gate answers itself.

use std::rc::Rc;

use crate::decision::Decision;
use crate::engine::KnownKey;
use crate::exchange::{Decided, Seen};
use crate::host::{Host, NotCounted};
use crate::limits::allowance::Allowance;
use crate::limits::cell::{Cell, key_name, tenant_name};
use crate::reply::Reply;
use crate::time::secs;
use crate::usage::{self, Account, Subject};

use super::request::{Next, RequestGate, refuse};

impl<H: Host> RequestGate<'_, H> {
    /// Replies with the usage of a key or a tenant. The request itself is not counted.
    pub(super) fn show_usage(&self, seen: Box<Seen>, key: Rc<KnownKey>, subject: &Subject) -> Next {
        let usage = match subject {
            Subject::Own => self.usage_of_caller(&key),
            Subject::Of { tenant, jti } => self.usage_of(tenant, jti.as_deref()),
        };
        let decided = Decided::with_key(seen, key, Decision::Allow);
        match usage {
            Ok(usage) => Next::Reply(decided, Reply::ok(usage, "usage")),
            Err(not_counted) => refuse(decided, not_counted.into()),
        }
    }

    fn usage_of_caller(&self, key: &KnownKey) -> Result<String, NotCounted> {
        let cell: Cell = self.store.read(key.cell_name())?;
        let mut allowances = cell.ledger().allowances(key.charges(), self.now_ns);
        allowances.extend(self.tenant_allowances(key)?);
        let (jti, tenant, tier) = (Some(key.jti()), Some(key.tenant()), Some(key.tier()));
        let account = Account { jti, tenant, tier, ..self.account() };
        Ok(usage::reply_body(&account, &cell, &allowances))
    }

    /// The usage of a tenant, or of one of its keys. The limits in claims and caveats are known from the key alone.
    fn usage_of(&self, tenant: &str, jti: Option<&str>) -> Result<String, NotCounted> {
        let name = jti.map_or_else(|| tenant_name(tenant), |jti| key_name(tenant, jti));
        let cell: Cell = self.store.read(&name)?;
        let charges = match (jti, cell.tier()) {
            (None, _) => self.engine.tenant_charges(tenant),
            (Some(_), Some(tier)) => self.engine.tier_charges(tier),
            (Some(_), None) => &[],
        };
        let is_named = jti.is_none() && self.engine.settings().tenants.contains_key(tenant);
        let is_unknown = cell.seen() == 0 && !is_named;
        let account =
            Account { jti, tenant: Some(tenant), tier: cell.tier(), is_unknown, ..self.account() };
        Ok(usage::reply_body(&account, &cell, &cell.ledger().allowances(charges, self.now_ns)))
    }

    /// An account of which only is known since when it counts.
    fn account<'k>(&self) -> Account<'k> {
        let since_secs = self.start.since_secs(&self.store, secs(self.now_ns));
        Account { since_secs, ..Account::default() }
    }

    fn tenant_allowances(&self, key: &KnownKey) -> Result<Vec<Allowance>, NotCounted> {
        let charges = key.tenant_charges();
        if charges.is_empty() {
            return Ok(Vec::new());
        }
        let cell: Cell = self.store.read(&key.tenant_cell_name())?;
        Ok(cell.ledger().allowances(charges, self.now_ns))
    }
}
