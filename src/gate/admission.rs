//! Admission: one request counted in its key's cell and in its tenant's, and decided by the limits of
//! both.
//!
//! Two records cannot be written at once. The key's cell is charged first and the tenant's second, each
//! inside its own compare-and-swap loop; what the tenant has no room for is taken back from the key. So
//! no limit is ever passed, and what is refused is charged to nobody. A look at the tenant's cell before
//! keeps that from being the rule when a tenant has used up its limits; the tenant's loop begins with
//! what was seen then.

use std::net::IpAddr;

use crate::alerts::anomaly::{Anomaly, Observation, Sensitivity};
use crate::decision::{Decision, DenyReason, Mode};
use crate::engine::Engine;
use crate::exchange::{Refund, Reservations};
use crate::host::{NotCounted, RecordStore, SharedData, Snapshot};
use crate::key::Key;
use crate::limits::Charge;
use crate::limits::allowance::Allowance;
use crate::limits::cell::{Cell, CountedRequest, key_name, tenant_name};
use crate::limits::ledger::{Exceeded, Reservation};
use crate::record::Name;
use crate::time::secs;

/// What a request of a key is counted by.
pub struct Admission<'a, S: ?Sized> {
    store: &'a RecordStore<'a, S>,
    key: &'a Key,
    key_charges: Vec<Charge>,
    tenant_charges: Vec<Charge>,
    /// The request is counted and charged to no limit.
    is_free: bool,
    source: Option<IpAddr>,
    now_ns: u64,
    mode: Mode,
    sensitivity: Option<Sensitivity>,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The decision that is final.
    pub decision: Decision,
    /// The limit that had no room.
    pub exceeded: Option<Exceeded>,
    /// What is left of all limits.
    pub allowances: Vec<Allowance>,
    /// What is unusual about the use of the key.
    pub anomaly: Option<Anomaly>,
    /// What one cell has counted could not be undone when the other refused: it is off by one.
    pub miscounted: Option<NotCounted>,
    /// What it reserved.
    pub reservations: Reservations,
}

/// What one cell made of a request, and what is left of its limits.
struct Entry {
    counted: CountedRequest,
    left: Vec<Allowance>,
}

impl<'a, S: SharedData + ?Sized> Admission<'a, S> {
    /// An admission by the limits that the engine's plan and the key set.
    pub fn new(
        store: &'a RecordStore<'a, S>,
        engine: &Engine,
        key: &'a Key,
        source: Option<IpAddr>,
        now_ns: u64,
    ) -> Self {
        Self {
            store,
            key,
            key_charges: engine.key_charges(key),
            tenant_charges: engine.tenant_charges(&key.claims().tenant),
            is_free: false,
            source,
            now_ns,
            mode: engine.settings().mode,
            sensitivity: engine.settings().sensitivity,
        }
    }

    /// Whether the key or its tenant has limits.
    pub fn is_limited(&self) -> bool {
        !self.key_charges.is_empty() || !self.tenant_charges.is_empty()
    }

    /// The same admission, of a request that is counted and charged to no limit.
    #[must_use]
    pub fn free_of_charge(self) -> Self {
        Self { is_free: true, ..self }
    }

    /// Counts a request. What cannot be counted is refused, and says so, whatever else was decided.
    pub fn admit(&self, decision: Decision) -> Admitted {
        if !self.store.is_available() {
            return Admitted::uncounted(decision.without_counts(self.is_limited()));
        }
        let tenant = self.tenant_name();
        let look = self.look_at_tenant(&tenant, decision);
        match self.count_key(decision, self.barred_by(look.as_ref())) {
            Ok((of_key, anomaly)) => {
                Admitted { anomaly, ..self.admit_to_tenant(&tenant, look, of_key) }
            }
            Err(not_counted) => Admitted::uncounted(Decision::Deny(not_counted.into())),
        }
    }

    /// What the tenant makes of a request that its key has counted. Where that is something else, the
    /// key counts it as that, and gets back what it was charged.
    fn admit_to_tenant<'n>(
        &self,
        tenant: &'n Name,
        look: Option<Snapshot<'n, Cell>>,
        of_key: Entry,
    ) -> Admitted {
        let Entry { counted: CountedRequest { decision, exceeded, reservation }, mut left } =
            of_key;
        let mut admitted = match self.count_tenant(tenant, look, decision) {
            Ok(Entry { counted, left }) => Admitted {
                exceeded: exceeded.or(counted.exceeded),
                allowances: left,
                reservations: Reservations {
                    decision: counted.decision,
                    key: None,
                    tenant: counted.reservation,
                },
                ..Admitted::uncounted(counted.decision)
            },
            Err(not_counted) => Admitted::uncounted(Decision::Deny(not_counted.into())),
        };
        if admitted.decision == decision {
            admitted.reservations.key = reservation;
        } else {
            match self.recount_key(decision, admitted.decision, reservation.as_ref()) {
                Ok(left_again) => left = left_again,
                Err(not_counted) => admitted.miscounted = Some(not_counted),
            }
        }
        left.append(&mut admitted.allowances);
        Admitted { allowances: left, ..admitted }
    }

    /// Counts a request that was let in as one that is refused after all.
    ///
    /// # Errors
    ///
    /// [`NotCounted`] when a cell could not be written.
    pub fn withdraw(
        &self,
        reserved: &Reservations,
        reason: DenyReason,
        refund: Refund,
    ) -> Result<(), NotCounted> {
        if !self.store.is_available() {
            return Ok(());
        }
        let (was, is) = (reserved.decision, Decision::Deny(reason));
        let [of_key, of_tenant] = [&reserved.key, &reserved.tenant]
            .map(|reservation| reservation.as_ref().filter(|_| refund == Refund::Everything));
        let by_key = self.store.update(&self.key_name(), |cell: &mut Cell| {
            cell.recount(was, is, &self.key_charges, of_key);
        });
        let by_tenant = self.store.update(&self.tenant_name(), |cell: &mut Cell| {
            cell.recount(was, is, &self.tenant_charges, of_tenant);
        });
        by_key.and(by_tenant)
    }

    /// The cell of a tenant with limits, before the key is charged.
    fn look_at_tenant<'n>(
        &self,
        tenant: &'n Name,
        decision: Decision,
    ) -> Option<Snapshot<'n, Cell>> {
        let limited =
            decision == Decision::Allow && !self.is_free && !self.tenant_charges.is_empty();
        limited.then(|| self.store.snapshot(tenant).ok()).flatten()
    }

    /// The tenant's limit that has no room, as far as can be told before the tenant decides. A tenant
    /// that has used up its limits is asked often, and a rate cannot be given back for nothing.
    fn barred_by(&self, look: Option<&Snapshot<'_, Cell>>) -> Option<Exceeded> {
        let fresh = Cell::default();
        let cell = look?.content().unwrap_or(&fresh);
        cell.ledger().has_room(&self.tenant_charges, self.now_ns).err()
    }

    fn count_key(
        &self,
        decision: Decision,
        barred: Option<Exceeded>,
    ) -> Result<(Entry, Option<Anomaly>), NotCounted> {
        let claims = self.key.claims();
        self.store.update(&self.key_name(), |cell: &mut Cell| {
            cell.set_tier(claims.tier());
            let entry = self.count(cell, &self.key_charges, decision, barred);
            let seen = Observation {
                source: self.source,
                refused: !entry.counted.decision.forwards(),
                now_secs: secs(self.now_ns),
            };
            let anomaly = self.sensitivity.and_then(|sensitivity| cell.observe(&seen, sensitivity));
            (entry, anomaly)
        })
    }

    fn count_tenant<'n>(
        &self,
        tenant: &'n Name,
        look: Option<Snapshot<'n, Cell>>,
        decision: Decision,
    ) -> Result<Entry, NotCounted> {
        self.store.update_from(look, tenant, |cell: &mut Cell| {
            self.count(cell, &self.tenant_charges, decision, None)
        })
    }

    fn count(
        &self,
        cell: &mut Cell,
        charges: &[Charge],
        decision: Decision,
        barred: Option<Exceeded>,
    ) -> Entry {
        let charged = if self.is_free { &[] } else { charges };
        let counted = cell.count(decision, charged, barred, self.now_ns, self.mode);
        Entry { counted, left: cell.ledger().allowances(charges, self.now_ns) }
    }

    /// What is left of the key's limits when it counts a request as something else.
    fn recount_key(
        &self,
        was: Decision,
        is: Decision,
        reservation: Option<&Reservation>,
    ) -> Result<Vec<Allowance>, NotCounted> {
        self.store.update(&self.key_name(), |cell: &mut Cell| {
            cell.recount(was, is, &self.key_charges, reservation);
            cell.ledger().allowances(&self.key_charges, self.now_ns)
        })
    }

    fn key_name(&self) -> Name {
        let claims = self.key.claims();
        key_name(&claims.tenant, &claims.jti)
    }

    fn tenant_name(&self) -> Name {
        tenant_name(&self.key.claims().tenant)
    }
}

impl Admitted {
    fn uncounted(decision: Decision) -> Self {
        Self {
            decision,
            exceeded: None,
            allowances: Vec::new(),
            anomaly: None,
            miscounted: None,
            reservations: Reservations { decision, key: None, tenant: None },
        }
    }
}

#[cfg(test)]
mod tests;
