//! Cells in shared data, written by compare-and-swap.
//!
//! A decision that depends on a cell is taken inside the loop: read, decide, write, and on a mismatch
//! all of it again. Hosts disagree on how a record is created:
//!
//! - Envoy's writes with `cas` 0 without comparing, and stores an absent record whatever `cas` says. So
//!   two workers that both found nothing would lose a count. A value that is never issued makes the
//!   host compare: it stores the record when it is absent, and refuses when another worker was first.
//!   (The counter that issues the values would have to pass 2^32 writes and meet this one record.)
//! - nginx's stores an absent record only with `cas` 0, and refuses 0 for a present one.
//!
//! Trying Envoy's way first is safe on both, and its refusal of a record that is still absent tells
//! that the host is of the other kind.

use std::fmt;

use crate::cell::{Cell, NotThisCell};
use crate::config::Dialect;
use crate::decision::DenyReason;

use super::{SharedData, WriteError};

/// How often a cell is read and written before giving up. Each failure means that another worker got
/// ahead, or the host lent a torn copy; that many in a row mean that something is wrong.
const MAX_TRIES: usize = 64;

/// How many names are tried for one cell on a host that takes two names for one.
const MAX_NAMES: usize = 4;

/// A compare-and-swap value that no host issues.
const NEVER_ISSUED: u32 = u32::MAX;

/// The compare-and-swap value that means "must not exist" on nginx.
const ABSENT: u32 = 0;

/// Cells in a host's shared data.
pub struct CellStore<'a, S: ?Sized> {
    shared: &'a S,
    dialect: Dialect,
}

/// Why a request could not be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotCounted {
    /// Other workers were ahead every time.
    Contention,
    /// The host does not keep the record: it has no shared data, or no room.
    HostRefuses,
}

/// Where a cell was found, or would be.
struct Place {
    name: String,
    /// The cell and its compare-and-swap value, where there is one.
    found: Option<(Cell, u32)>,
}

impl<'a, S: SharedData + ?Sized> CellStore<'a, S> {
    /// The cells of a host that follows the rules of `dialect`.
    pub fn new(shared: &'a S, dialect: Dialect) -> Self {
        Self { shared, dialect }
    }

    /// Whether the host counts at all.
    pub fn counts(&self) -> bool {
        self.dialect != Dialect::Bare
    }

    /// The cell of a key, as it is now; a fresh one when nothing was counted yet.
    ///
    /// # Errors
    ///
    /// [`NotCounted`] when it cannot be read.
    pub fn read(&self, id: &str) -> Result<Cell, NotCounted> {
        for _ in 0..MAX_TRIES {
            if let Some(place) = self.find(id)? {
                return Ok(place.found.map_or_else(|| Cell::new(id), |(cell, _)| cell));
            }
        }
        Err(NotCounted::Contention)
    }

    /// Changes the cell of a key. `change` is called again with fresh numbers whenever another
    /// worker got ahead; what it returned last is the result. Does nothing on a bare host.
    ///
    /// # Errors
    ///
    /// [`NotCounted`] when nothing was written.
    pub fn update(&self, id: &str, mut change: impl FnMut(&mut Cell)) -> Result<(), NotCounted> {
        if !self.counts() {
            return Ok(());
        }
        for _ in 0..MAX_TRIES {
            let Some(Place { name, found }) = self.find(id)? else {
                continue;
            };
            let written = match found {
                Some((mut cell, cas)) => {
                    change(&mut cell);
                    self.shared.set_shared_data(&name, &cell.encode(), cas)
                }
                None => {
                    let mut cell = Cell::new(id);
                    change(&mut cell);
                    self.create(&name, &cell.encode())
                }
            };
            match written {
                Ok(()) => return Ok(()),
                Err(WriteError::CasMismatch) => {}
                Err(WriteError::Host(_)) => return Err(NotCounted::HostRefuses),
            }
        }
        Err(NotCounted::Contention)
    }

    /// Looks a cell up; `None` when what is there cannot be read this time.
    fn find(&self, id: &str) -> Result<Option<Place>, NotCounted> {
        for attempt in 0..MAX_NAMES {
            let name = record_name(id, attempt);
            let record = self.shared.shared_data(&name).map_err(|_| NotCounted::HostRefuses)?;
            let Some((record, cas)) = record else {
                return Ok(Some(Place { name, found: None }));
            };
            match Cell::decode(id, &record) {
                Ok(cell) => {
                    return Ok(Some(Place { name, found: Some((cell, cas)) }));
                }
                Err(NotThisCell::Corrupt) => return Ok(None),
                Err(NotThisCell::Foreign) => {}
            }
        }
        Ok(None)
    }

    fn create(&self, name: &str, record: &[u8]) -> Result<(), WriteError> {
        if self.dialect == Dialect::Nginx {
            return self.shared.set_shared_data(name, record, ABSENT);
        }
        let written = self.shared.set_shared_data(name, record, NEVER_ISSUED);
        if self.dialect == Dialect::Envoy || written != Err(WriteError::CasMismatch) {
            return written;
        }
        // Nothing is ever deleted on Envoy's host, so a record that it refused to create is there.
        match self.shared.shared_data(name) {
            Ok(None) => self.shared.set_shared_data(name, record, ABSENT),
            _ => written,
        }
    }
}

impl From<NotCounted> for DenyReason {
    fn from(not_counted: NotCounted) -> Self {
        match not_counted {
            NotCounted::Contention => Self::Contention,
            NotCounted::HostRefuses => Self::NotReady,
        }
    }
}

impl fmt::Display for NotCounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Contention => "too many workers write this key's cell at once",
            Self::HostRefuses => {
                "the host does not keep the record; set \"host\": \"bare\" where it has no shared data"
            }
        })
    }
}

impl std::error::Error for NotCounted {}

/// Ids have no `/`, so no two cells share a name. nginx chooses the zone by what stands before the
/// first `/`.
fn record_name(id: &str, attempt: usize) -> String {
    match attempt {
        0 => format!("vkey/k/{id}"),
        more => format!("vkey/k/{id}/{more}"),
    }
}

#[cfg(test)]
mod tests;
