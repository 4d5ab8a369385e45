//! Requests for usage, which the gate answers itself.

use std::rc::Rc;

use crate::decision::Decision;
use crate::exchange::{Decided, Seen};
use crate::host::{Host, NotCounted};
use crate::key::Key;
use crate::key::claims::Claims;
use crate::limits::allowance::Allowance;
use crate::limits::cell::{Cell, key_name, tenant_name};
use crate::reply::Reply;
use crate::time::secs;
use crate::usage::{self, Account, Subject};

use super::request::{Next, RequestGate, refuse};

impl<H: Host> RequestGate<'_, H> {
    /// Replies with the usage of a key or a tenant. The request itself is not counted.
    pub(super) fn show_usage(&self, seen: Box<Seen>, key: Rc<Key>, subject: &Subject) -> Next {
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

    fn usage_of_caller(&self, key: &Key) -> Result<String, NotCounted> {
        let Claims { jti, tenant, .. } = key.claims();
        let cell: Cell = self.store.read(&key_name(tenant, jti))?;
        let mut allowances = cell.ledger().allowances(&self.engine.key_charges(key), self.now_ns);
        allowances.extend(self.tenant_allowances(tenant)?);
        let tier = Some(key.claims().tier());
        let tenant = Some(tenant.as_str());
        let account = Account { jti: Some(jti), tenant, tier, ..self.account() };
        Ok(usage::reply_body(&account, &cell, &allowances))
    }

    /// The usage of a tenant, or of one of its keys. The limits in claims and caveats are known from the key alone.
    fn usage_of(&self, tenant: &str, jti: Option<&str>) -> Result<String, NotCounted> {
        let name = jti.map_or_else(|| tenant_name(tenant), |jti| key_name(tenant, jti));
        let cell: Cell = self.store.read(&name)?;
        let charges = match (jti, cell.tier()) {
            (None, _) => self.engine.tenant_charges(tenant),
            (Some(_), Some(tier)) => self.engine.tier_charges(tier),
            (Some(_), None) => Vec::new(),
        };
        let is_named = jti.is_none() && self.engine.settings().tenants.contains_key(tenant);
        let is_unknown = cell.seen() == 0 && !is_named;
        let account =
            Account { jti, tenant: Some(tenant), tier: cell.tier(), is_unknown, ..self.account() };
        Ok(usage::reply_body(&account, &cell, &cell.ledger().allowances(&charges, self.now_ns)))
    }

    /// An account of which only is known since when it counts.
    fn account<'k>(&self) -> Account<'k> {
        let since_secs = self.start.since_secs(&self.store, secs(self.now_ns));
        Account { since_secs, ..Account::default() }
    }

    fn tenant_allowances(&self, tenant: &str) -> Result<Vec<Allowance>, NotCounted> {
        let charges = self.engine.tenant_charges(tenant);
        if charges.is_empty() {
            return Ok(Vec::new());
        }
        let cell: Cell = self.store.read(&tenant_name(tenant))?;
        Ok(cell.ledger().allowances(&charges, self.now_ns))
    }
}
