//! The cell: the counts of one key or one tenant, in one record of the shared data.

use std::iter;

use smallvec::SmallVec;

use crate::alerts::anomaly::{Anomaly, Observation, Sensitivity, Watch};
use crate::decision::Mode;
use crate::decision::{Decision, DenyClass};
use crate::limits::tally::{Exceeded, Reservation, Tally};
use crate::limits::{Amounts, Charge};
use crate::record::{Name, Record, Writer, take, take_str};

/// The length of a tier name that takes no memory of its own.
const TIER_BYTES: usize = 24;

/// The bytes of all counts in a record.
const COUNTS_BYTES: usize = (1 + DenyClass::COUNT) * size_of::<u64>();

/// Counts of one key or tenant. `seen = allowed + sum(denied)` holds in every cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    allowed: u64,
    denied: [u64; DenyClass::COUNT],
    tally: Tally,
    /// Empty if it is not known.
    tier: SmallVec<[u8; TIER_BYTES]>,
    watch: Option<Watch>,
}

/// The result of counting one request in a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedRequest {
    /// The decision that was counted.
    pub decision: Decision,
    /// The limit that was exceeded.
    pub exceeded: Option<Exceeded>,
    /// The reservation, if the limits had room.
    pub reservation: Option<Reservation>,
}

/// The name of a key's cell. It includes the tenant, because keys of two tenants may have the same
/// id.
pub fn key_name(tenant: &str, jti: &str) -> Name {
    Name::within("k", tenant, jti)
}

/// The name of a tenant's cell.
pub fn tenant_name(tenant: &str) -> Name {
    Name::new("t", tenant)
}

impl Cell {
    /// Counts one request. If it was allowed so far, the limits decide: it is charged to all of
    /// them, or refused and charged to none. A request that only shadow mode forwards is charged to
    /// none either, as if it had been refused.
    ///
    /// `barred`: the exceeded limit of another cell. If given, nothing is charged here.
    pub fn count(
        &mut self,
        decision: Decision,
        charges: &[Charge],
        amounts: &Amounts,
        barred: Option<Exceeded>,
        now_ns: u64,
        mode: Mode,
    ) -> CountedRequest {
        let mut counted = CountedRequest { decision, exceeded: None, reservation: None };
        if decision == Decision::Allow {
            match self.charge(charges, amounts, barred, now_ns) {
                Ok(reservation) => counted.reservation = reservation,
                Err(exceeded) => {
                    self.tally.lack(charges, amounts, now_ns);
                    counted.decision = Decision::limited(exceeded.reason, mode);
                    counted.exceeded = Some(exceeded);
                }
            }
        }
        let count = self.count_of(counted.decision);
        *count = count.saturating_add(1);
        counted
    }

    /// Corrects the count of a request from `was` to `is`, and refunds what it reserved.
    pub fn recount(
        &mut self,
        was: Decision,
        is: Decision,
        charges: &[Charge],
        reserved: Option<(&Reservation, &Amounts)>,
    ) {
        let count = self.count_of(was);
        *count = count.saturating_sub(1);
        let count = self.count_of(is);
        *count = count.saturating_add(1);
        if let Some((reservation, amounts)) = reserved {
            self.tally.give_back(charges, reservation, amounts);
        }
        if let Some(watch) = self.watch.as_mut().filter(|_| was.forwards() && !is.forwards()) {
            watch.refuse();
        }
    }

    /// Replaces the tokens and the money that a request reserved by what it used, the first amounts by the second: see
    /// [`Tally::settle`].
    pub fn settle(
        &mut self,
        charges: &[Charge],
        reservation: &Reservation,
        amounts: (&Amounts, &Amounts),
        now_ns: u64,
    ) {
        self.tally.settle(charges, reservation, amounts, now_ns);
    }

    /// Records a use of the key, and returns an anomaly if it shows one: see [`Watch::observe`].
    pub fn observe(&mut self, seen: &Observation, sensitivity: Sensitivity) -> Option<Anomaly> {
        self.watch.get_or_insert_default().observe(seen, sensitivity)
    }

    /// Requests decided on.
    pub fn seen(&self) -> u64 {
        self.denied.iter().fold(self.allowed, |sum, denied| sum.saturating_add(*denied))
    }

    /// Requests that were forwarded.
    pub fn allowed(&self) -> u64 {
        self.allowed
    }

    /// Requests refused, by class.
    pub fn denied(&self) -> impl Iterator<Item = (DenyClass, u64)> {
        DenyClass::ALL.into_iter().zip(self.denied)
    }

    /// The use of the limits.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The use of the limits, whose leases can be changed.
    pub(crate) fn tally_mut(&mut self) -> &mut Tally {
        &mut self.tally
    }

    /// The tier of the key. `None` for a tenant's cell, a cell that was never written, and a tier
    /// name of more than 255 bytes.
    pub fn tier(&self) -> Option<&str> {
        std::str::from_utf8(&self.tier).ok().filter(|tier| !tier.is_empty())
    }

    /// Records the tier of the key.
    pub fn set_tier(&mut self, tier: &str) {
        if *self.tier != *tier.as_bytes() {
            self.tier = SmallVec::from_slice(tier.as_bytes());
        }
    }

    fn charge(
        &mut self,
        charges: &[Charge],
        amounts: &Amounts,
        barred: Option<Exceeded>,
        now_ns: u64,
    ) -> Result<Option<Reservation>, Exceeded> {
        match barred {
            Some(barred) => self.tally.has_room(charges, amounts, now_ns).and(Err(barred)),
            None if charges.is_empty() => Ok(None),
            None => self.tally.reserve(charges, amounts, now_ns).map(Some),
        }
    }

    fn count_of(&mut self, decision: Decision) -> &mut u64 {
        match decision {
            // Preflights and public requests have no key, and no cell.
            Decision::Allow | Decision::Preflight | Decision::Public | Decision::Shadow(_) => {
                &mut self.allowed
            }
            Decision::Deny(reason) => {
                let [unauthenticated, forbidden, bad_request, limited, upstream, unavailable] =
                    &mut self.denied;
                match reason.class() {
                    DenyClass::Unauthenticated => unauthenticated,
                    DenyClass::Forbidden => forbidden,
                    DenyClass::BadRequest => bad_request,
                    DenyClass::Limited => limited,
                    DenyClass::Upstream => upstream,
                    DenyClass::Unavailable => unavailable,
                }
            }
        }
    }
}

impl Record for Cell {
    const VERSION: u8 = 18;

    fn fresh() -> Self {
        Self::default()
    }

    fn write(&self, record: &mut Writer<'_>) {
        let mut counts = [0; COUNTS_BYTES];
        let places = counts.as_chunks_mut().0.iter_mut();
        for (place, count) in places.zip(iter::once(&self.allowed).chain(&self.denied)) {
            *place = count.to_le_bytes();
        }
        record.put(counts);
        self.tally.write(record);
        record.put_text(self.tier().unwrap_or_default());
        record.put([self.watch.is_some().into()]);
        self.watch.iter().for_each(|watch| watch.write(record));
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let mut cell = Self::fresh();
        cell.read_over(bytes).map(|()| cell)
    }

    fn read_over(&mut self, bytes: &mut &[u8]) -> Option<()> {
        let counts: [u8; COUNTS_BYTES] = take(bytes)?;
        let places = iter::once(&mut self.allowed).chain(&mut self.denied);
        for (count, bytes) in places.zip(counts.as_chunks().0) {
            *count = u64::from_le_bytes(*bytes);
        }
        self.tally.read_over(bytes)?;
        self.tier = SmallVec::from_slice(take_str(bytes)?.as_bytes());
        self.watch = match take(bytes)? {
            [0] => None,
            [1] => Some(Watch::read(bytes)?),
            _ => return None,
        };
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::DenyReason;
    use crate::limits::Origin;
    use crate::limits::gcra::Rate;
    use crate::limits::{Child, ChildId, Limit, Scope};
    use crate::record::{decode, encode};

    const NO: &Amounts = &Amounts { tokens: 0, cost_micro_usd: 0 };

    fn count(cell: &mut Cell, decision: Decision) {
        let counted = cell.count(decision, &[], NO, None, 0, Mode::Enforce);
        assert_eq!(counted, CountedRequest { decision, exceeded: None, reservation: None });
    }

    fn counted() -> Cell {
        let mut cell = Cell::fresh();
        count(&mut cell, Decision::Allow);
        count(&mut cell, Decision::Allow);
        count(&mut cell, Decision::Shadow(DenyReason::Path));
        count(&mut cell, Decision::Deny(DenyReason::Path));
        count(&mut cell, Decision::Deny(DenyReason::KeyExpired));
        cell
    }

    fn one_per_hour() -> [Charge; 1] {
        let rate = Rate::new(1, 3600, 1).unwrap();
        [Charge { origin: Origin::Tier, scope: Scope::Tier, limit: Limit::Rate(rate) }]
    }

    #[test]
    fn a_cell_reads_what_it_wrote() {
        let mut cell = counted();
        cell.set_tier("gold");
        cell.count(Decision::Allow, &one_per_hour(), NO, None, 7, Mode::Enforce);
        let name = key_name("acme", "k1");
        assert_eq!(decode(&name, &encode(&name, &cell)), Ok(cell));
    }

    #[test]
    fn seen_is_the_sum() {
        let mut cell = counted();
        assert_eq!((cell.seen(), cell.allowed()), (5, 3));
        cell.recount(Decision::Allow, Decision::Deny(DenyReason::NotReady), &[], None);
        assert_eq!((cell.seen(), cell.allowed()), (5, 2));
        let denied: Vec<u64> = cell.denied().map(|(_, count)| count).collect();
        assert_eq!(denied, [1, 1, 0, 0, 0, 1]);
    }

    #[test]
    fn a_limit_without_room_refuses_and_is_counted() {
        let mut cell = Cell::fresh();
        let first = cell.count(Decision::Allow, &one_per_hour(), NO, None, 0, Mode::Enforce);
        assert_eq!((first.decision, first.exceeded), (Decision::Allow, None));
        let second = cell.count(Decision::Allow, &one_per_hour(), NO, None, 0, Mode::Enforce);
        assert_eq!(second.decision, Decision::Deny(DenyReason::Rate));
        assert_eq!(second.exceeded.unwrap().until_ns, Some(3_600_000_000_000));
        assert_eq!((cell.allowed(), cell.seen()), (1, 2));
    }

    #[test]
    fn what_is_barred_elsewhere_is_charged_to_nothing() {
        let mut other = Cell::fresh();
        other.count(Decision::Allow, &one_per_hour(), NO, None, 0, Mode::Enforce);
        let barred = other.tally().has_room(&one_per_hour(), NO, 0).err();
        let mut cell = Cell::fresh();
        let counted = cell.count(Decision::Allow, &one_per_hour(), NO, barred, 0, Mode::Enforce);
        assert_eq!((counted.exceeded, counted.reservation), (barred, None));
        assert_eq!((cell.allowed(), cell.seen()), (0, 1));
        assert_eq!(cell.tally().has_room(&one_per_hour(), NO, 0), Ok(()));
    }

    #[test]
    fn a_shadow_counts_what_a_limit_would_refuse_as_allowed() {
        let mut cell = Cell::fresh();
        for decision in [Decision::Allow, Decision::Shadow(DenyReason::Rate)] {
            let counted = cell.count(Decision::Allow, &one_per_hour(), NO, None, 0, Mode::Shadow);
            assert_eq!(counted.decision, decision);
        }
        assert_eq!((cell.allowed(), cell.seen()), (2, 2));
    }

    /// A child whose caveats are over by the cell's clock is refused as any expired key, in shadow too.
    #[test]
    fn no_shadow_lets_a_child_through_that_is_over() {
        let child = Child { id: ChildId::default(), exp_secs: 600, family: None };
        let [of_tier] = one_per_hour();
        let of_child = Charge { scope: Scope::Child(child), ..of_tier };
        let mut cell = Cell::fresh();
        cell.count(Decision::Allow, &one_per_hour(), NO, None, 601_000_000_000, Mode::Shadow);
        let counted = cell.count(Decision::Allow, &[of_child], NO, None, 0, Mode::Shadow);
        assert_eq!(counted.decision, Decision::Deny(DenyReason::KeyExpired));
    }

    #[test]
    fn what_is_refused_is_charged_to_nothing() {
        let mut cell = Cell::fresh();
        let path = Decision::Deny(DenyReason::Path);
        assert_eq!(cell.count(path, &one_per_hour(), NO, None, 0, Mode::Enforce).reservation, None);
        let first = cell.count(Decision::Allow, &one_per_hour(), NO, None, 0, Mode::Enforce);
        let tenant_rate = Decision::Deny(DenyReason::TenantRate);
        let reserved = first.reservation.as_ref().zip(Some(NO));
        cell.recount(Decision::Allow, tenant_rate, &one_per_hour(), reserved);
        let again = cell.count(Decision::Allow, &one_per_hour(), NO, None, 0, Mode::Enforce);
        assert_eq!((again.decision, cell.allowed(), cell.seen()), (Decision::Allow, 1, 3));
    }
}
