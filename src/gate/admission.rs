//! Admission: one request counted in its key's cell and in its tenant's, and decided by the limits of
//! both. A tenant without limits has no cell: the host's metrics count its requests.
//!
//! Two records cannot be written at once. The key's cell is charged first and the tenant's second, each inside its own
//! compare-and-swap loop; if the tenant has no room, the key is refunded. So no limit is ever exceeded, and a refused
//! request is charged to nobody. Reading the tenant's cell first avoids most of these refunds when a tenant has
//! exhausted its limits. The tenant's loop starts from that snapshot.

use std::net::IpAddr;

use crate::alerts::anomaly::{Anomaly, Observation, Sensitivity};
use crate::decision::{Decision, DenyReason, Mode};
use crate::engine::{Engine, KnownKey};
use crate::exchange::{Refund, Reservations};
use crate::host::{NotCounted, RecordStore, SharedData, Snapshot};
use crate::limits::allowance::{Allowance, LimitHeaders};
use crate::limits::cell::{Cell, CountedRequest};
use crate::limits::tally::{Exceeded, Reservation};
use crate::limits::{Amounts, Charge};
use crate::record::Name;
use crate::time::secs;

/// Counts one request of a key.
pub struct Admission<'a, S: ?Sized> {
    store: &'a RecordStore<'a, S>,
    key: &'a KnownKey,
    /// The request is counted and charged to no limit.
    is_free: bool,
    amounts: Amounts,
    source: Option<IpAddr>,
    now_ns: u64,
    mode: Mode,
    sensitivity: Option<Sensitivity>,
    headers: LimitHeaders,
}

/// The result of an admission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The final decision.
    pub decision: Decision,
    /// The limit that had no room.
    pub exceeded: Option<Exceeded>,
    /// What is left of all limits, if the response shows it.
    pub allowances: Vec<Allowance>,
    /// What is unusual about the use of the key.
    pub anomaly: Option<Anomaly>,
    /// Why a count could not be rolled back after the other cell refused. It is off by one.
    pub miscounted: Option<NotCounted>,
    /// What it reserved.
    pub reservations: Reservations,
    /// How the leases of its budgets stand.
    pub leases: LeaseState,
}

/// How the leases of a key stand after a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseState {
    /// One of them is low.
    pub is_low: bool,
    /// The request was charged beyond one of them, because the ledger does not respond.
    pub is_local: bool,
}

/// The count of a request in one cell, and what is left of its limits.
struct Entry {
    counted: CountedRequest,
    left: Vec<Allowance>,
    leases: LeaseState,
}

impl<'a, S: SharedData + ?Sized> Admission<'a, S> {
    /// An admission under the limits of the plan and of the key.
    pub fn new(
        store: &'a RecordStore<'a, S>,
        engine: &Engine,
        key: &'a KnownKey,
        source: Option<IpAddr>,
        now_ns: u64,
    ) -> Self {
        Self {
            store,
            key,
            is_free: false,
            amounts: Amounts::default(),
            source,
            now_ns,
            mode: engine.settings().mode,
            sensitivity: engine.settings().sensitivity,
            headers: engine.settings().limits.headers,
        }
    }

    /// Whether the key or its tenant has limits.
    pub fn is_limited(&self) -> bool {
        !self.key.charges().is_empty() || !self.key.tenant_charges().is_empty()
    }

    /// The same admission, of a request that is counted and charged to no limit.
    #[must_use]
    pub fn free_of_charge(self) -> Self {
        Self { is_free: true, ..self }
    }

    /// The same admission, of a request that reserves these amounts.
    #[must_use]
    pub fn with_amounts(self, amounts: Amounts) -> Self {
        Self { amounts, ..self }
    }

    /// Counts a request. A request that cannot be counted is refused for that reason, whatever was decided before.
    pub fn admit(&self, decision: Decision) -> Admitted {
        let admitted = self.count_or_wait(decision, false);
        admitted.unwrap_or_else(|| Admitted::uncounted(Decision::Deny(DenyReason::NotReady)))
    }

    /// As [`Admission::admit`]; `None` if the request lacks nothing but the first lease of a budget. Then it is not counted.
    pub fn admit_or_wait(&self, decision: Decision) -> Option<Admitted> {
        let may_wait = decision == Decision::Allow && !self.is_free && self.key.has_budgets();
        self.count_or_wait(decision, may_wait)
    }

    fn count_or_wait(&self, decision: Decision, may_wait: bool) -> Option<Admitted> {
        if !self.store.is_available() {
            return Some(Admitted::uncounted(decision.without_counts(self.is_limited())));
        }
        let tenant = self.key.tenant_cell_name();
        let look = tenant.and_then(|tenant| self.look_at_tenant(tenant, decision));
        if may_wait && look.as_ref().is_some_and(|look| self.waits_for_tenant(look)) {
            return None;
        }
        let barred = self.barred_by(look.as_ref());
        let may_wait = may_wait && barred.is_none();
        Some(match self.count_key(decision, barred, may_wait) {
            Ok((None, _)) => return None,
            Ok((Some(of_key), anomaly)) => {
                let admitted = match tenant {
                    Some(tenant) => self.admit_to_tenant(tenant, look, of_key),
                    None => Admitted::by_key(of_key, self.amounts),
                };
                Admitted { anomaly, ..admitted }
            }
            Err(not_counted) => Admitted::uncounted(Decision::Deny(not_counted.into())),
        })
    }

    /// Whether a request lacks nothing of the limits of its tenant but the first lease of a budget.
    fn waits_for_tenant(&self, look: &Snapshot<'_, Cell>) -> bool {
        let fresh = Cell::default();
        let tally = look.content().unwrap_or(&fresh).tally();
        tally.may_wait(self.key.tenant_charges(), &self.amounts, self.now_ns)
    }

    /// Counts in the tenant's cell a request that its key has counted. If the tenant decides otherwise, the key counts
    /// that decision instead, and is refunded.
    fn admit_to_tenant<'n>(
        &self,
        tenant: &'n Name,
        look: Option<Snapshot<'n, Cell>>,
        of_key: Entry,
    ) -> Admitted {
        let Entry { counted, mut left, leases: of_key } = of_key;
        let CountedRequest { decision, exceeded, reservation } = counted;
        let mut admitted = match self.count_tenant(tenant, look, decision) {
            Ok(Entry { counted, left, leases }) => Admitted {
                exceeded: exceeded.or(counted.exceeded),
                allowances: left,
                leases: leases.or(of_key),
                reservations: Reservations {
                    decision: counted.decision,
                    key: None,
                    tenant: counted.reservation,
                    amounts: self.amounts,
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

    /// Counts an admitted request as refused.
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
        let [of_key, of_tenant] = [&reserved.key, &reserved.tenant].map(|reservation| {
            let reservation = reservation.as_ref().filter(|_| refund == Refund::Everything);
            reservation.zip(Some(&reserved.amounts))
        });
        let by_key = self.store.update(self.key.cell_name(), |cell: &mut Cell| {
            cell.recount(was, is, self.key.charges(), of_key);
        });
        let by_tenant = self.key.tenant_cell_name().map_or(Ok(()), |tenant| {
            self.store.update(tenant, |cell: &mut Cell| {
                cell.recount(was, is, self.key.tenant_charges(), of_tenant);
            })
        });
        by_key.and(by_tenant)
    }

    /// Replaces the tokens and the money that an admitted request reserved by what it used. To be called at most once for
    /// each request.
    ///
    /// # Errors
    ///
    /// [`NotCounted`] when a cell could not be written. There, what was reserved stays charged.
    pub fn settle(&self, reserved: &Reservations, actual: Amounts) -> Result<(), NotCounted> {
        let Reservations { key: of_key, tenant: of_tenant, .. } = reserved;
        let (key, tenant) = (self.key.cell_name(), self.key.tenant_cell_name());
        let amounts = (&reserved.amounts, &actual);
        let by_key = self.settle_in(Some(key), self.key.charges(), of_key.as_ref(), amounts);
        let of_tenant = of_tenant.as_ref();
        let by_tenant = self.settle_in(tenant, self.key.tenant_charges(), of_tenant, amounts);
        by_key.and(by_tenant)
    }

    fn settle_in(
        &self,
        name: Option<&Name>,
        charges: &[Charge],
        reservation: Option<&Reservation>,
        (reserved, actual): (&Amounts, &Amounts),
    ) -> Result<(), NotCounted> {
        match name.zip(reservation) {
            Some((name, reservation)) if reserved.differ(actual, charges) => {
                self.store.update(name, |cell: &mut Cell| {
                    cell.settle(charges, reservation, (reserved, actual), self.now_ns);
                })
            }
            _ => Ok(()),
        }
    }

    /// The cell of the tenant, before the key is charged.
    fn look_at_tenant<'n>(
        &self,
        tenant: &'n Name,
        decision: Decision,
    ) -> Option<Snapshot<'n, Cell>> {
        let is_charged = decision == Decision::Allow && !self.is_free;
        is_charged.then(|| self.store.snapshot(tenant).ok()).flatten()
    }

    /// The limit of the tenant that has no room in its snapshot. A tenant with exhausted limits is asked often, and
    /// refunding a rate is not free.
    fn barred_by(&self, look: Option<&Snapshot<'_, Cell>>) -> Option<Exceeded> {
        let fresh = Cell::default();
        let cell = look?.content().unwrap_or(&fresh);
        cell.tally().has_room(self.key.tenant_charges(), &self.amounts, self.now_ns).err()
    }

    fn count_key(
        &self,
        decision: Decision,
        barred: Option<Exceeded>,
        may_wait: bool,
    ) -> Result<(Option<Entry>, Option<Anomaly>), NotCounted> {
        let charges = self.key.charges();
        self.store.update(self.key.cell_name(), |cell: &mut Cell| {
            if may_wait && cell.tally().may_wait(charges, &self.amounts, self.now_ns) {
                return (None, None);
            }
            cell.set_tier(self.key.tier());
            let entry = self.count(cell, charges, decision, barred);
            let seen = Observation {
                source: self.source,
                refused: !entry.counted.decision.forwards(),
                now_secs: secs(self.now_ns),
            };
            let anomaly = self.sensitivity.and_then(|sensitivity| cell.observe(&seen, sensitivity));
            (Some(entry), anomaly)
        })
    }

    fn count_tenant<'n>(
        &self,
        tenant: &'n Name,
        look: Option<Snapshot<'n, Cell>>,
        decision: Decision,
    ) -> Result<Entry, NotCounted> {
        self.store.update_from(look, tenant, |cell: &mut Cell| {
            self.count(cell, self.key.tenant_charges(), decision, None)
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
        let (now_ns, mode) = (self.now_ns, self.mode);
        let counted = cell.count(decision, charged, &self.amounts, barred, now_ns, mode);
        let left = self.left(cell, charges, counted.decision);
        let leases = match self.key.has_budgets() {
            true => LeaseState::of(cell, charges, counted.decision, now_ns),
            false => LeaseState::default(),
        };
        Entry { counted, left, leases }
    }

    /// What is left of the limits of a cell, if the response to a request with this decision shows it.
    fn left(&self, cell: &Cell, charges: &[Charge], decision: Decision) -> Vec<Allowance> {
        match self.headers.need_allowances(decision) {
            true => cell.tally().allowances(charges, self.now_ns),
            false => Vec::new(),
        }
    }

    /// Counts a request of the key under another decision. Returns what is left of the key's limits.
    fn recount_key(
        &self,
        was: Decision,
        is: Decision,
        reservation: Option<&Reservation>,
    ) -> Result<Vec<Allowance>, NotCounted> {
        self.store.update(self.key.cell_name(), |cell: &mut Cell| {
            cell.recount(was, is, self.key.charges(), reservation.zip(Some(&self.amounts)));
            self.left(cell, self.key.charges(), is)
        })
    }
}

impl Admitted {
    /// A request that only its key has counted.
    fn by_key(Entry { counted, left, leases }: Entry, amounts: Amounts) -> Self {
        let CountedRequest { decision, exceeded, reservation } = counted;
        let reservations = Reservations { decision, key: reservation, tenant: None, amounts };
        let uncounted = Self::uncounted(decision);
        Self { exceeded, allowances: left, reservations, leases, ..uncounted }
    }

    fn uncounted(decision: Decision) -> Self {
        Self {
            decision,
            exceeded: None,
            allowances: Vec::new(),
            anomaly: None,
            miscounted: None,
            reservations: Reservations {
                decision,
                key: None,
                tenant: None,
                amounts: Amounts::default(),
            },
            leases: LeaseState::default(),
        }
    }
}

impl LeaseState {
    fn of(cell: &Cell, charges: &[Charge], decision: Decision, now_ns: u64) -> Self {
        let is_local = decision == Decision::Allow && cell.tally().is_local(charges, now_ns);
        Self { is_low: cell.tally().is_low(charges, now_ns), is_local }
    }

    fn or(self, other: Self) -> Self {
        let is_local = self.is_local || other.is_local;
        Self { is_low: self.is_low || other.is_low, is_local }
    }
}

#[cfg(test)]
mod tests;
