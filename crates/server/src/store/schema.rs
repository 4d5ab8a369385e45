//! The schema of the store, and its versions.

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;

/// What makes each version of the schema out of the one before it. Version 0 is an empty file.
const MIGRATIONS: [&str; 1] = [include_str!("schema.sql")];

/// Brings a store to the present version of the schema.
///
/// # Errors
///
/// [`StoreError::Newer`] if a later version of the command wrote the store; it is not changed.
pub(super) fn migrate(db: &mut Connection) -> Result<(), StoreError> {
    migrate_by(db, &MIGRATIONS)
}

/// The tables of every version.
const TABLES: &str = "SELECT count(*) = 5 FROM sqlite_schema WHERE type = 'table' AND name IN ('records', 'chains', 'spans', 'anchors', 'words')";

/// Whether a file is a store of the present version or an earlier one.
pub(super) fn recognize(db: &Connection) -> Result<(), StoreError> {
    let is_store: bool = db.query_row(TABLES, (), |row| row.get(0))?;
    match version(db)? {
        _ if !is_store => Err(StoreError::Foreign),
        0 => Err(StoreError::Foreign),
        version if version > MIGRATIONS.len() => Err(StoreError::Newer),
        _ => Ok(()),
    }
}

/// Whether a store has the present version.
pub(super) fn check(db: &Connection) -> Result<(), StoreError> {
    match version(db)? {
        version if version == MIGRATIONS.len() => Ok(()),
        version if version < MIGRATIONS.len() => Err(StoreError::Older),
        _ => Err(StoreError::Newer),
    }
}

fn version(db: &Connection) -> Result<usize, StoreError> {
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    usize::try_from(version).map_err(|_| StoreError::Newer)
}

fn migrate_by(db: &mut Connection, migrations: &[&str]) -> Result<(), StoreError> {
    let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version = version(&change)?;
    let Some(steps) = migrations.get(version..) else { return Err(StoreError::Newer) };
    for step in steps {
        change.execute_batch(step)?;
    }
    change.pragma_update(
        None,
        "user_version",
        i64::try_from(migrations.len()).unwrap_or(i64::MAX),
    )?;
    change.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [&str; 3] = [
        "CREATE TABLE a (x INTEGER);",
        "ALTER TABLE a ADD COLUMN y INTEGER; UPDATE a SET y = x + 1;",
        "CREATE TABLE b (x INTEGER); nonsense;",
    ];

    #[test]
    fn a_store_of_an_earlier_version_is_brought_forward_with_its_rows() {
        let mut db = Connection::open_in_memory().unwrap();
        migrate_by(&mut db, &STEPS[..1]).unwrap();
        db.execute("INSERT INTO a VALUES (1)", ()).unwrap();
        migrate_by(&mut db, &STEPS[..2]).unwrap();
        migrate_by(&mut db, &STEPS[..2]).unwrap();
        let y: i64 = db.query_row("SELECT y FROM a", (), |row| row.get(0)).unwrap();
        assert_eq!((y, version(&db).unwrap()), (2, 2));
    }

    #[test]
    fn a_step_that_fails_changes_nothing() {
        let mut db = Connection::open_in_memory().unwrap();
        migrate_by(&mut db, &STEPS[..1]).unwrap();
        assert!(migrate_by(&mut db, &STEPS).is_err());
        assert_eq!(version(&db).unwrap(), 1);
        assert!(db.prepare("SELECT y FROM a").is_err(), "the second step is undone too");
    }

    #[test]
    fn a_store_of_a_later_version_is_left_alone() {
        let mut db = Connection::open_in_memory().unwrap();
        db.pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(migrate(&mut db), Err(StoreError::Newer)));
        assert!(matches!(check(&db), Err(StoreError::Newer)));
        assert_eq!(version(&db).unwrap(), 99);
    }

    #[test]
    fn only_a_store_is_recognized() {
        let mut db = Connection::open_in_memory().unwrap();
        assert!(matches!(recognize(&db), Err(StoreError::Foreign)), "an empty file");
        db.pragma_update(None, "user_version", 1).unwrap();
        assert!(matches!(recognize(&db), Err(StoreError::Foreign)), "without the tables");
        db.pragma_update(None, "user_version", 0).unwrap();
        migrate(&mut db).unwrap();
        assert!(recognize(&db).is_ok());
        for (version, is_newer) in [(0, false), (-1, true), (99, true)] {
            db.pragma_update(None, "user_version", version).unwrap();
            let found = recognize(&db).unwrap_err();
            assert_eq!(matches!(found, StoreError::Newer), is_newer, "{version}");
            assert_eq!(matches!(found, StoreError::Foreign), !is_newer, "{version}");
        }
    }
}
