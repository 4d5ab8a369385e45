//! Records in shared data, written by compare-and-swap.
//!
//! A decision that depends on a record is made inside the loop: read, decide, write, and start again on a
//! mismatch. Hosts differ in how a record is created:
//!
//! - Envoy does not compare if `cas` is 0, and stores an absent record for any `cas`. So two workers that
//!   both found no record would lose a count. A value that is never issued makes it compare: it stores the
//!   record if it is absent, and refuses if another worker was first. (The counter that issues the values
//!   would need 2^32 writes, and would have to hit this one record.)
//! - nginx stores an absent record only if `cas` is 0, and refuses 0 for a present one.
//!
//! [`Rules::find`] detects the kind of host.
//!
//! A key whose record cannot be read would be refused until the process ends, so the record is reset. If
//! another version of the module wrote it, it is reset at once. If it is garbage, it is reset after further
//! reads returned the same bytes: a copy that was torn by a writer is different the next time. The write
//! compares, so it loses nothing that another worker wrote in the meantime.
//!
//! nginx finds records by the CRC-32 of their name alone. On nginx, bytes that do not begin like a record
//! of this module may belong to another one, so they are not changed, and the next name is used.

mod draft;

use std::borrow::Cow;
use std::cell::{Cell as Counter, RefCell};
use std::fmt;

use crate::decision::DenyReason;
use crate::record::{Name, NotThisRecord, Record};

use super::{Rules, SharedData, WriteError};

use self::draft::{Changing, Content, Draft};

/// How often a record is read and written before giving up. Each failure means that another worker was
/// first, or that the host returned a torn copy. This many in a row mean that something is wrong.
const MAX_TRIES: usize = 64;

/// How many names are tried for a record on a host that confuses names.
pub(crate) const MAX_NAMES: usize = 4;

/// How often garbage is read again before the record is reset.
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

/// A record that could not be read and was reset.
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
    /// It was not written by this module, or only in part.
    Garbage,
}

/// Why a request could not be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotCounted {
    /// Another worker wrote first in every attempt.
    Contention,
    /// The host does not store the record: it has no shared data, or no room.
    HostRefuses,
    /// The host overwrites records without comparing, so counts would be lost.
    HostOverwrites,
}

/// A record as it was read, from which an update can start. The update is repeated if another worker wrote
/// in between.
pub struct Snapshot<'a, R> {
    slot: RecordSlot<'a>,
    content: Option<Box<R>>,
}

/// Where a record is, or where it would be created.
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
    /// The records of a host with these rules.
    pub fn new(shared: &'a S, rules: Rules) -> Self {
        Self { shared, rules, retries: Counter::new(0), resets: RefCell::default() }
    }

    /// Whether the host has shared data. Without it, nothing is counted.
    pub fn is_available(&self) -> bool {
        self.rules != Rules::Bare
    }

    /// How often an update was repeated because another worker was first.
    pub fn retries(&self) -> u64 {
        self.retries.get()
    }

    /// The records that were reset since the last call.
    pub fn take_resets(&self) -> Vec<Reset> {
        self.resets
            .try_borrow_mut()
            .map(|mut resets| std::mem::take(&mut *resets))
            .unwrap_or_default()
    }

    /// The current content of a record; a fresh one if it does not exist.
    ///
    /// # Errors
    ///
    /// [`NotCounted`] if it cannot be read.
    pub fn read<R: Record>(&self, name: &Name) -> Result<R, NotCounted> {
        let Snapshot { content, .. } = self.snapshot(name)?;
        Ok(content.map_or_else(R::fresh, |content| *content))
    }

    /// The current record.
    ///
    /// # Errors
    ///
    /// [`NotCounted`] if it cannot be read.
    pub fn snapshot<'n, R: Record>(&self, name: &'n Name) -> Result<Snapshot<'n, R>, NotCounted> {
        let mut draft = Draft::new(name);
        let slot = self.look(name, &mut draft)?;
        Ok(Snapshot { slot, content: draft.content })
    }

    fn look<'n>(
        &self,
        name: &'n Name,
        content: &mut dyn Content,
    ) -> Result<RecordSlot<'n>, NotCounted> {
        for _ in 0..MAX_TRIES {
            if let Some(slot) = self.find(name, content)? {
                return Ok(slot);
            }
            self.retry();
        }
        Err(NotCounted::Contention)
    }

    /// Changes the content of a record. If another worker was first, `change` is called again with the new
    /// content. The result is that of its last call. Unchanged content is not written.
    ///
    /// # Errors
    ///
    /// [`NotCounted`] if the record could not be written.
    pub fn update<R: Record, T>(
        &self,
        name: &Name,
        change: impl FnMut(&mut R) -> T,
    ) -> Result<T, NotCounted> {
        self.update_from(None, name, change)
    }

    /// Like [`RecordStore::update`], but starts from a snapshot: the record is read again only if another
    /// worker wrote it since. If `change` changes nothing, the snapshot is not compared with the current
    /// record.
    ///
    /// # Errors
    ///
    /// [`NotCounted`] if the record could not be written.
    pub fn update_from<'n, R: Record, T>(
        &self,
        look: Option<Snapshot<'n, R>>,
        name: &'n Name,
        change: impl FnMut(&mut R) -> T,
    ) -> Result<T, NotCounted> {
        let (slot, content) = match look {
            Some(Snapshot { slot, content }) => (Some(slot), content),
            None => (None, None),
        };
        let mut changing = Changing::new(change);
        let change = Some(&mut changing as _);
        self.replace(slot, name, &mut Draft { name, content, change })?;
        changing.result.ok_or(NotCounted::Contention)
    }

    /// The loop of [`RecordStore::update`]. `looked`: where the content was read.
    fn replace<'n>(
        &self,
        mut looked: Option<RecordSlot<'n>>,
        name: &'n Name,
        content: &mut dyn Content,
    ) -> Result<(), NotCounted> {
        for _ in 0..MAX_TRIES {
            let slot = match looked.take() {
                Some(slot) => Some(slot),
                None => self.find(name, content)?,
            };
            if let Some(slot) = slot {
                content.change();
                if self.write(slot, content)? {
                    return Ok(());
                }
            }
            self.retry();
        }
        Err(NotCounted::Contention)
    }

    /// Writes a record into its slot; `false` if another worker was first.
    fn write(&self, slot: RecordSlot<'_>, content: &dyn Content) -> Result<bool, NotCounted> {
        let RecordSlot { name, found } = slot;
        let (mut record, cas) = match found {
            Some(Found { record, cas }) => (record, cas),
            None => (Vec::new(), self.absent()),
        };
        let written = match content.overwrite(&mut record) {
            true => self.shared.set_shared_data(&name, &record, cas),
            false => Ok(()),
        };
        match written {
            Ok(()) => Ok(true),
            Err(WriteError::CasMismatch) => Ok(false),
            Err(WriteError::Host(_)) => Err(NotCounted::HostRefuses),
        }
    }

    /// Finds a record and reads its content; `None` if it cannot be read this time. A record that can never be read is
    /// reset.
    fn find<'n>(
        &self,
        name: &'n Name,
        content: &mut dyn Content,
    ) -> Result<Option<RecordSlot<'n>>, NotCounted> {
        if !self.is_available() {
            return Err(NotCounted::HostRefuses);
        }
        let mut was_garbage = false;
        for attempt in 0..MAX_NAMES {
            let tried = tried_name(name, attempt);
            let record = self.shared.shared_data(&tried).map_err(|_| NotCounted::HostRefuses)?;
            let Some((record, cas)) = record else {
                content.forget();
                if was_garbage {
                    self.note(name, ResetReason::Garbage);
                }
                return Ok(Some(RecordSlot { name: tried, found: None }));
            };
            match content.read(&record) {
                Ok(()) => {
                    return Ok(Some(RecordSlot {
                        name: tried,
                        found: Some(Found { record, cas }),
                    }));
                }
                Err(not_this) => {
                    if !self.must_keep(name, &tried, &(record, cas), not_this, content)? {
                        return Ok(None);
                    }
                    was_garbage |= not_this != NotThisRecord::Foreign;
                }
            }
        }
        Ok(None)
    }

    /// Whether unreadable bytes must not be changed, because they may belong to another module. If not, the
    /// record is reset, unless the bytes have changed: then they must be read again. Not part of
    /// [`RecordStore::find`], because it hardly ever runs.
    #[cold]
    fn must_keep(
        &self,
        name: &Name,
        tried: &str,
        record: &(Vec<u8>, u32),
        not_this: NotThisRecord,
        content: &dyn Content,
    ) -> Result<bool, NotCounted> {
        let reason = match not_this {
            NotThisRecord::OtherLayout => ResetReason::Layout,
            // nginx returns a record without locking it, so its memory may already contain another record.
            // Creating a second record for this name would then lose the counts of the first.
            _ if !self.is_unchanged(tried, record)? => return Ok(false),
            NotThisRecord::Foreign => return Ok(true),
            // nginx finds records by a checksum of their name.
            NotThisRecord::Unknown if self.rules == Rules::Nginx => return Ok(true),
            _ => ResetReason::Garbage,
        };
        let mut fresh = Vec::new();
        content.overwrite(&mut fresh);
        match self.shared.set_shared_data(tried, &fresh, record.1) {
            Ok(()) => self.note(name, reason),
            Err(WriteError::CasMismatch) => {}
            Err(WriteError::Host(_)) => return Err(NotCounted::HostRefuses),
        }
        Ok(false)
    }

    /// Whether further reads return the same record.
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

    /// The compare-and-swap value that creates a record.
    fn absent(&self) -> u32 {
        if self.rules == Rules::Nginx { ABSENT } else { NEVER_ISSUED }
    }
}

impl<R> Snapshot<'_, R> {
    /// The content; `None` if the record does not exist.
    pub fn content(&self) -> Option<&R> {
        self.content.as_deref()
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

/// The name for an attempt: the name itself, then the name with `/` and a number. No kind or id contains a
/// `/`, so names are unique.
pub(crate) fn tried_name(name: &Name, attempt: usize) -> Cow<'_, str> {
    match attempt {
        0 => Cow::Borrowed(name.as_str()),
        more => Cow::Owned(format!("{}/{more}", name.as_str())),
    }
}

#[cfg(test)]
mod tests;
