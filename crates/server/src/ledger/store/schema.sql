CREATE TABLE accounts (
    name TEXT NOT NULL,
    window INTEGER NOT NULL,
    state TEXT NOT NULL, -- JSON
    kept_until_secs INTEGER, -- NULL: for ever
    PRIMARY KEY (name, window)
) WITHOUT ROWID;
CREATE INDEX accounts_by_end ON accounts (kept_until_secs) WHERE kept_until_secs IS NOT NULL;
