//! How a tally is stored in a record.

use crate::limits::gcra::Tat;
use crate::limits::lease::{Lease, State};
use crate::limits::quota::{Period, Spent, Unit};
use crate::limits::{Child, ChildId, FamilyId, Scope};
use crate::record::{Writer, take};

use super::{Leased, QuotaUse, RateUse, Tally};

impl Tally {
    /// Appends the tally to a record: the clock, the number of refunds, then the rates and the
    /// quotas in use, each list after its length.
    pub(crate) fn write(&self, record: &mut Writer<'_>) {
        record.put(self.clock_ns.to_le_bytes());
        record.put(self.undone.to_le_bytes());
        write_list(record, &self.rates, |RateUse { scope, tat }, record| {
            write_scope(*scope, record);
            record.put(tat.ns.to_le_bytes());
            record.put(tat.fraction.to_le_bytes());
        });
        let has_leases = if self.leases.is_empty() { 0 } else { LEASES };
        record.put([length(&self.quotas) | has_leases]);
        write_items(record, &self.quotas, |QuotaUse { scope, unit, per, spent }, record| {
            write_scope(*scope, record);
            record.put([*unit as u8, *per as u8]);
            record.put(spent.window.to_le_bytes());
            record.put(spent.used.to_le_bytes());
            if *unit != Unit::Requests {
                record.put(spent.over.to_le_bytes());
                record.put(spent.entry.to_le_bytes());
            }
        });
        if self.leases.is_empty() {
            return;
        }
        write_list(record, &self.leases, |Leased { scope, unit, per, lease }, record| {
            write_scope(*scope, record);
            record.put([*unit as u8, *per as u8]);
            lease.write(record);
        });
    }

    /// Reads a tally that [`Tally::write`] wrote over a fresh one, and advances `bytes`.
    pub(crate) fn read_over(&mut self, bytes: &mut &[u8]) -> Option<()> {
        self.clock_ns = take(bytes).map(u64::from_le_bytes)?;
        self.undone = take(bytes).map(u32::from_le_bytes)?;
        let [rates] = take(bytes)?;
        for _ in 0..rates {
            let scope = read_scope(bytes)?;
            let ns = take(bytes).map(u64::from_le_bytes)?;
            let fraction = take(bytes).map(u32::from_le_bytes)?;
            self.rates.push(RateUse { scope, tat: Tat { ns, fraction } });
        }
        let [quotas] = take(bytes)?;
        for _ in 0..quotas & !LEASES {
            let scope = read_scope(bytes)?;
            let (unit, per) = read_kind(bytes)?;
            let window = take(bytes).map(u32::from_le_bytes)?;
            let used = take(bytes).map(u64::from_le_bytes)?;
            let (over, entry) = match unit {
                Unit::Requests => (0, 0),
                Unit::Tokens | Unit::CostMicroUsd => {
                    let over = take(bytes).map(u64::from_le_bytes)?;
                    (over, take(bytes).map(u32::from_le_bytes)?)
                }
            };
            let spent = Spent { window, used, over, entry };
            self.quotas.push(QuotaUse { scope, unit, per, spent });
        }
        let [leases] = if quotas & LEASES > 0 { take(bytes)? } else { [0] };
        for _ in 0..leases {
            let scope = read_scope(bytes)?;
            let (unit, per) = read_kind(bytes)?;
            self.leases.push(Leased { scope, unit, per, lease: Lease::read(bytes)? });
        }
        Some(())
    }
}

/// Set in the number of the quotas if a list of leases follows them. There are at most 100 quotas: 64 of children, and one of
/// each unit and period that tier and claims set.
const LEASES: u8 = 0x80;

/// The numbers of the scopes in a record never change.
const TIER: u8 = 0;
const ONLY: u8 = 1;
const TENANT: u8 = 2;
const CHILD: u8 = 3;
const LATER_CHILD: u8 = 4;

fn write_scope(scope: Scope, record: &mut Writer<'_>) {
    match scope {
        Scope::Tier => record.put([TIER]),
        Scope::Only => record.put([ONLY]),
        Scope::Tenant => record.put([TENANT]),
        Scope::Child(Child { id: ChildId(id), exp_secs, family }) => {
            record.put([if family.is_some() { LATER_CHILD } else { CHILD }]);
            record.put(id);
            record.put(exp_secs.to_le_bytes());
            family.iter().for_each(|id| record.put(id.bits().to_le_bytes()));
        }
    }
}

fn read_scope(bytes: &mut &[u8]) -> Option<Scope> {
    let [scope] = take(bytes)?;
    match scope {
        TIER => Some(Scope::Tier),
        ONLY => Some(Scope::Only),
        TENANT => Some(Scope::Tenant),
        CHILD | LATER_CHILD => {
            let id = take(bytes).map(ChildId)?;
            let exp_secs = take(bytes).map(u64::from_le_bytes)?;
            let family = match scope {
                LATER_CHILD => Some(FamilyId::from_bits(take(bytes).map(u64::from_le_bytes)?)),
                _ => None,
            };
            Some(Scope::Child(Child { id, exp_secs, family }))
        }
        _ => None,
    }
}

fn read_kind(bytes: &mut &[u8]) -> Option<(Unit, Period)> {
    let [unit, per] = take(bytes)?;
    Some((*Unit::ALL.get(usize::from(unit))?, *Period::ALL.get(usize::from(per))?))
}

impl Lease {
    fn write(&self, record: &mut Writer<'_>) {
        let Self { id, granted, used, left, sent_ns, reported, lacked, size, overdrawn, .. } = self;
        for number in [id, granted, used, left, sent_ns, reported, lacked, size, overdrawn] {
            record.put(number.to_le_bytes());
        }
        let (wanted, pace) = (&self.wanted, &self.pace);
        for number in [wanted.need, wanted.want, pace.rate, pace.used, pace.at_ns, pace.busy_ns] {
            record.put(number.to_le_bytes());
        }
        record.put(self.window.to_le_bytes());
        record.put(self.number.to_le_bytes());
        let State { is_pending, is_open, is_lost, others_hold } = self.state;
        record.put([is_pending, is_open, is_lost, others_hold].map(u8::from));
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let mut number = || take(bytes).map(u64::from_le_bytes);
        let mut lease = Self::new(number()?, 0);
        let Self { granted, used, left, sent_ns, reported, lacked, size, overdrawn, .. } =
            &mut lease;
        for place in [granted, used, left, sent_ns, reported, lacked, size, overdrawn] {
            *place = number()?;
        }
        let (wanted, pace) = (&mut lease.wanted, &mut lease.pace);
        let places = [&mut wanted.need, &mut wanted.want, &mut pace.rate];
        for place in places.into_iter().chain([&mut pace.used, &mut pace.at_ns, &mut pace.busy_ns])
        {
            *place = number()?;
        }
        lease.window = take(bytes).map(u32::from_le_bytes)?;
        lease.number = take(bytes).map(u32::from_le_bytes)?;
        let flags: [u8; 4] = take(bytes)?;
        let [is_pending, is_open, is_lost, others_hold] = flags.map(|flag| flag != 0);
        lease.state = State { is_pending, is_open, is_lost, others_hold };
        Some(lease)
    }
}

/// No list has more than 255 items: limits of children and leases are bounded, and all others by the number of
/// kinds.
fn write_list<T>(record: &mut Writer<'_>, items: &[T], write: impl Fn(&T, &mut Writer<'_>)) {
    record.put([length(items)]);
    write_items(record, items, write);
}

fn write_items<T>(record: &mut Writer<'_>, items: &[T], write: impl Fn(&T, &mut Writer<'_>)) {
    items.iter().for_each(|item| write(item, record));
}

fn length<T>(items: &[T]) -> u8 {
    u8::try_from(items.len()).unwrap_or(u8::MAX)
}
