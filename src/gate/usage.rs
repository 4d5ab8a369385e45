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
use crate::usage::{self, Account, Subject, Totals};

use super::request::{Next, RequestGate, refuse};

impl<H: Host> RequestGate<'_, H> {
    /// Replies with the usage of a key or a tenant. The request itself is not counted.
    pub(super) fn show_usage(&self, seen: Box<Seen>, key: Rc<KnownKey>, subject: &Subject) -> Next {
        let usage = match subject {
            Subject::Own => self.usage_of_caller(&key),
            Subject::Of { tenant, jti: Some(jti) } => self.usage_of_key(tenant, jti),
            Subject::Of { tenant, jti: None } => self.usage_of_tenant(tenant),
        };
        let decided = Decided::with_key(seen, key, Decision::Allow);
        match usage {
            Ok(usage) => Next::Reply(decided, Reply::ok(usage, "vkey_usage")),
            Err(not_counted) => refuse(decided, not_counted.into()),
        }
    }

    fn usage_of_caller(&self, key: &KnownKey) -> Result<String, NotCounted> {
        let cell: Cell = self.store.read(key.cell_name())?;
        let mut allowances = cell.tally().allowances(key.charges(), self.now_ns);
        allowances.extend(self.tenant_allowances(key)?);
        let (jti, tenant, tier) = (Some(key.jti()), Some(key.tenant()), Some(key.tier()));
        let account = Account { jti, tenant, tier, ..self.account() };
        Ok(usage::reply_body(&account, &Totals::from(&cell), &allowances))
    }

    /// The usage of another key. The limits in its claims and caveats are known from the key alone.
    fn usage_of_key(&self, tenant: &str, jti: &str) -> Result<String, NotCounted> {
        let cell: Cell = self.store.read(&key_name(tenant, jti))?;
        let charges = cell.tier().map(|tier| self.engine.tier_charges(tier)).unwrap_or_default();
        let account = Account {
            jti: Some(jti),
            tenant: Some(tenant),
            tier: cell.tier(),
            is_unknown: cell.seen() == 0,
            ..self.account()
        };
        let allowances = cell.tally().allowances(charges, self.now_ns);
        Ok(usage::reply_body(&account, &Totals::from(&cell), &allowances))
    }

    /// The usage of a tenant: of one with limits what its cell says, of another what the host's metrics say.
    fn usage_of_tenant(&self, tenant: &str) -> Result<String, NotCounted> {
        let charges = self.engine.tenant_charges(tenant);
        let account = Account { tenant: Some(tenant), ..self.account() };
        if charges.is_empty() {
            if !self.store.is_available() {
                return Err(NotCounted::HostRefuses);
            }
            let totals = self.metrics.totals(self.host, tenant);
            let account = Account { is_unknown: totals.is_none(), ..account };
            return Ok(usage::reply_body(&account, &totals.unwrap_or_default(), &[]));
        }
        let cell: Cell = self.store.read(&tenant_name(tenant))?;
        let allowances = cell.tally().allowances(charges, self.now_ns);
        Ok(usage::reply_body(&account, &Totals::from(&cell), &allowances))
    }

    /// An account of which only is known since when it counts.
    fn account<'k>(&self) -> Account<'k> {
        let since_secs = self.start.since_secs(&self.store, secs(self.now_ns));
        Account { since_secs, ..Account::default() }
    }

    fn tenant_allowances(&self, key: &KnownKey) -> Result<Vec<Allowance>, NotCounted> {
        let Some(name) = key.tenant_cell_name() else {
            return Ok(Vec::new());
        };
        let cell: Cell = self.store.read(name)?;
        Ok(cell.tally().allowances(key.tenant_charges(), self.now_ns))
    }
}
