//! Records in shared data, written by compare-and-swap.
//!
//! A decision that depends on a record is taken inside the loop: read, decide, write, and on a mismatch
//! all of it again. Hosts disagree on how a record is created:
//!
//! - Envoy's writes with `cas` 0 without comparing, and stores an absent record whatever `cas` says. So
//!   two workers that both found nothing would lose a count. A value that is never issued makes the
//!   host compare: it stores the record when it is absent, and refuses when another worker was first.
//!   (The counter that issues the values would have to pass 2^32 writes and meet this one record.)
//! - nginx's stores an absent record only with `cas` 0, and refuses 0 for a present one.
//!
//! Which of the two a host is, [`Rules::find`] finds out.
//!
//! A record that cannot be read would refuse its key for as long as the process lives. It begins anew: at
//! once where another version of the module wrote it, and where it is garbage as soon as further reads
//! show the same bytes, since a copy that was torn by a writer looks different the next time. The write
//! compares, so nothing is lost that another worker has written in the meantime.
//!
//! nginx finds records by CRC-32 of their name alone. Bytes that do not begin as a record of ours may
//! belong to another module there, so they are left alone and the next name is tried.

use std::borrow::Cow;
use std::cell::{Cell as Counter, RefCell};
use std::fmt;

use crate::decision::DenyReason;
use crate::record::{Name, NotThisRecord, Record, decode, encode};

use super::{Rules, SharedData, WriteError};

/// How often a record is read and written before giving up. Each failure means that another worker got
/// ahead, or the host lent a torn copy; that many in a row mean that something is wrong.
const MAX_TRIES: usize = 64;

/// How many names are tried for one record on a host that takes two names for one.
pub(crate) const MAX_NAMES: usize = 4;

/// How often garbage is read again before it is believed.
const GARBAGE_READS: usize = 2;

/// A compare-and-swap value that no host issues.
pub(crate) const NEVER_ISSUED: u32 = u32::MAX;

/// The compare-and-swap value that means "must not exist" on nginx.
const ABSENT: u32 = 0;

/// Records in a host's shared data.
pub struct RecordStore<'a, S: ?Sized> {
    shared: &'a S,
    rules: Rules,
    retries: Counter<u64>,
    resets: RefCell<Vec<Reset>>,
}

/// A record that could not be read, and began anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reset {
    /// Its name in shared data.
    pub name: String,
    /// Why it could not be read.
    pub reason: ResetReason,
}

/// Why a record could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetReason {
    /// Another version of the module wrote it.
    Layout,
    /// It was not the module that wrote it, or not all of it.
    Garbage,
}

/// Why a request could not be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotCounted {
    /// Another worker wrote first in every attempt.
    Contention,
    /// The host does not keep the record: it has no shared data, or no room.
    HostRefuses,
    /// The host overwrites records without comparing, so that counts would be lost.
    HostOverwrites,
}

/// A record as it was read. It can be the base of an update; the update is repeated if another
/// worker wrote in between.
pub struct Snapshot<'a, R> {
    slot: RecordSlot<'a>,
    content: Option<R>,
}

/// Where a record is, or would be created.
struct RecordSlot<'a> {
    name: Cow<'a, str>,
    found: Option<Found>,
}

/// A record that exists, with its compare-and-swap value.
struct Found {
    record: Vec<u8>,
    cas: u32,
}

impl<'a, S: SharedData + ?Sized> RecordStore<'a, S> {
    /// The records of a host that was found to follow `rules`.
    pub fn new(shared: &'a S, rules: Rules) -> Self {
        Self { shared, rules, retries: Counter::new(0), resets: RefCell::default() }
    }

    /// Whether the host keeps records at all; without it nothing is counted.
    pub fn is_available(&self) -> bool {
        self.rules != Rules::Bare
    }

    /// How often something was read again because another worker got ahead.
    pub fn retries(&self) -> u64 {
        self.retries.get()
    }

    /// The records that began anew since this was last asked.
    pub fn take_resets(&self) -> Vec<Reset> {
        self.resets
            .try_borrow_mut()
            .map(|mut resets| std::mem::take(&mut *resets))
            .unwrap_or_default()
    }

    /// The current content of a record; a fresh one if nothing was written yet.
    ///
    /// # Errors
    ///
    /// [`NotCounted`] when it cannot be read.
    pub fn read<R: Record>(&self, name: &Name) -> Result<R, NotCounted> {
        let Snapshot { content, .. } = self.snapshot(name)?;
        Ok(content.unwrap_or_else(R::fresh))
    }

    /// The current record.
    ///
    /// # Errors
    ///
    /// [`NotCounted`] when it cannot be read.
    pub fn snapshot<'n, R: Record>(&self, name: &'n Name) -> Result<Snapshot<'n, R>, NotCounted> {
        let mut content = None;
        for _ in 0..MAX_TRIES {
            if let Some(slot) = self.find_content(name, &mut content)? {
                return Ok(Snapshot { slot, content });
            }
            self.retry();
        }
        Err(NotCounted::Contention)
    }

    /// Changes the content of a record. `change` is called again with what is there now whenever
    /// another worker got ahead; what it returned last is the result. What it leaves as it was is not
    /// written.
    ///
    /// # Errors
    ///
    /// [`NotCounted`] when nothing was written.
    pub fn update<R: Record, T>(
        &self,
        name: &Name,
        change: impl FnMut(&mut R) -> T,
    ) -> Result<T, NotCounted> {
        self.update_from(None, name, change)
    }

    /// [`RecordStore::update`] from a snapshot: the record is not read again unless another worker
    /// wrote it since. If `change` changes nothing, nothing is compared with the host.
    ///
    /// # Errors
    ///
    /// [`NotCounted`] when nothing was written.
    pub fn update_from<'n, R: Record, T>(
        &self,
        look: Option<Snapshot<'n, R>>,
        name: &'n Name,
        mut change: impl FnMut(&mut R) -> T,
    ) -> Result<T, NotCounted> {
        let mut result = Err(NotCounted::Contention);
        self.replace(look, name, &mut |content| result = Ok(change(content)))?;
        result
    }

    /// [`RecordStore::update`] once for each kind of record, not for each kind of change.
    fn replace<'n, R: Record>(
        &self,
        looked: Option<Snapshot<'n, R>>,
        name: &'n Name,
        change: &mut dyn FnMut(&mut R),
    ) -> Result<(), NotCounted> {
        let (mut looked, mut content) = match looked {
            Some(Snapshot { slot, content }) => (Some(slot), content),
            None => (None, None),
        };
        for _ in 0..MAX_TRIES {
            let slot = match looked.take() {
                Some(slot) => Some(slot),
                None => self.find_content(name, &mut content)?,
            };
            if let Some(slot) = slot {
                let content = content.get_or_insert_with(R::fresh);
                change(content);
                if self.write(&slot, &encode(name, content))? {
                    return Ok(());
                }
            }
            self.retry();
        }
        Err(NotCounted::Contention)
    }

    /// Writes a record where another was found, or none; `false` when another worker got ahead.
    fn write(&self, slot: &RecordSlot<'_>, record: &[u8]) -> Result<bool, NotCounted> {
        let written = match &slot.found {
            Some(Found { record: before, .. }) if before == record => Ok(()),
            Some(Found { cas, .. }) => self.shared.set_shared_data(&slot.name, record, *cas),
            None => self.create(&slot.name, record),
        };
        match written {
            Ok(()) => Ok(true),
            Err(WriteError::CasMismatch) => Ok(false),
            Err(WriteError::Host(_)) => Err(NotCounted::HostRefuses),
        }
    }

    /// Looks a record up and reads its content; `None` when what is there cannot be read this time.
    fn find_content<'n, R: Record>(
        &self,
        name: &'n Name,
        content: &mut Option<R>,
    ) -> Result<Option<RecordSlot<'n>>, NotCounted> {
        *content = None;
        let read = &mut |record: &[u8]| {
            *content = Some(decode(name, record)?);
            Ok(())
        };
        self.find(name, read, &|| encode(name, &R::fresh()))
    }

    /// Finds a record that `read` takes; `fresh` is what one begins with that cannot be read. One function for all
    /// kinds of records.
    fn find<'n>(
        &self,
        name: &'n Name,
        read: &mut dyn FnMut(&[u8]) -> Result<(), NotThisRecord>,
        fresh: &dyn Fn() -> Vec<u8>,
    ) -> Result<Option<RecordSlot<'n>>, NotCounted> {
        if !self.is_available() {
            return Err(NotCounted::HostRefuses);
        }
        let mut was_garbage = false;
        for attempt in 0..MAX_NAMES {
            let tried = tried_name(name, attempt);
            let record = self.shared.shared_data(&tried).map_err(|_| NotCounted::HostRefuses)?;
            let Some((record, cas)) = record else {
                if was_garbage {
                    self.note(name, ResetReason::Garbage);
                }
                return Ok(Some(RecordSlot { name: tried, found: None }));
            };
            match read(&record) {
                Ok(()) => {
                    return Ok(Some(RecordSlot {
                        name: tried,
                        found: Some(Found { record, cas }),
                    }));
                }
                Err(not_this) => {
                    if !self.leaves(name, &tried, &(record, cas), not_this, fresh)? {
                        return Ok(None);
                    }
                    was_garbage |= not_this != NotThisRecord::Foreign;
                }
            }
        }
        Ok(None)
    }

    /// Whether bytes that cannot be read are to be left alone, since they may be another module's. If not
    /// they begin anew, unless they have changed, and what is there now is still to be read. Apart from
    /// [`RecordStore::find`], because it hardly ever runs.
    #[cold]
    fn leaves(
        &self,
        name: &Name,
        tried: &str,
        record: &(Vec<u8>, u32),
        not_this: NotThisRecord,
        fresh: &dyn Fn() -> Vec<u8>,
    ) -> Result<bool, NotCounted> {
        let reason = match not_this {
            NotThisRecord::OtherLayout => ResetReason::Layout,
            // nginx lends a record without holding it. Where its room has gone to another by then, a second
            // record beside it would count anew.
            _ if !self.is_unchanged(tried, record)? => return Ok(false),
            NotThisRecord::Foreign => return Ok(true),
            // nginx does not find records by the whole of their name.
            NotThisRecord::Unknown if self.rules == Rules::Nginx => return Ok(true),
            _ => ResetReason::Garbage,
        };
        match self.shared.set_shared_data(tried, &fresh(), record.1) {
            Ok(()) => self.note(name, reason),
            Err(WriteError::CasMismatch) => {}
            Err(WriteError::Host(_)) => return Err(NotCounted::HostRefuses),
        }
        Ok(false)
    }

    /// Whether further reads show the same record.
    fn is_unchanged(&self, name: &str, record: &(Vec<u8>, u32)) -> Result<bool, NotCounted> {
        for _ in 0..GARBAGE_READS {
            let again = self.shared.shared_data(name).map_err(|_| NotCounted::HostRefuses)?;
            if again.as_ref() != Some(record) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn note(&self, name: &Name, reason: ResetReason) {
        if let Ok(mut resets) = self.resets.try_borrow_mut() {
            resets.push(Reset { name: name.as_str().to_owned(), reason });
        }
    }

    fn retry(&self) {
        self.retries.set(self.retries.get().saturating_add(1));
    }

    fn create(&self, name: &str, record: &[u8]) -> Result<(), WriteError> {
        let absent = if self.rules == Rules::Nginx { ABSENT } else { NEVER_ISSUED };
        self.shared.set_shared_data(name, record, absent)
    }
}

impl<R> Snapshot<'_, R> {
    /// The content; `None` if nothing was written yet.
    pub fn content(&self) -> Option<&R> {
        self.content.as_ref()
    }
}

impl From<NotCounted> for DenyReason {
    fn from(not_counted: NotCounted) -> Self {
        match not_counted {
            NotCounted::Contention => Self::Contention,
            NotCounted::HostRefuses | NotCounted::HostOverwrites => Self::NotReady,
        }
    }
}

impl fmt::Display for NotCounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Contention => "too many workers write this record at once",
            Self::HostRefuses => {
                "the host does not keep the record; set \"host\": \"bare\" where it has no shared data"
            }
            Self::HostOverwrites => {
                "the host overwrites records without comparing, so counts would be lost; set \"host\": \
                 \"bare\" to count nothing"
            }
        })
    }
}

impl std::error::Error for NotCounted {}

/// Neither a kind nor an id has a `/`, so no two records share a name.
pub(crate) fn tried_name(name: &Name, attempt: usize) -> Cow<'_, str> {
    match attempt {
        0 => Cow::Borrowed(name.as_str()),
        more => Cow::Owned(format!("{}/{more}", name.as_str())),
    }
}

#[cfg(test)]
mod tests;
