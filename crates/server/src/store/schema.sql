-- One row per request. The id is when it began, in Unix microseconds, times 1024, and a number that tells it from others
-- of the same microsecond. `line` is the audit line as it was read.
CREATE TABLE records (
    id INTEGER PRIMARY KEY,
    failed INTEGER NOT NULL, -- 1 if it was refused, or its response is an error
    decision TEXT NOT NULL,
    reason TEXT,
    tenant TEXT,
    key TEXT,
    user TEXT,
    model TEXT,
    tool TEXT,
    method TEXT,
    path TEXT,
    code INTEGER, -- the HTTP status
    request_id TEXT,
    tokens INTEGER,
    cost INTEGER, -- micro-USD
    verdict TEXT,
    anomaly TEXT,
    chain INTEGER REFERENCES chains (id),
    seq INTEGER,
    line TEXT NOT NULL
);
-- For questions about the beginnings of paths.
CREATE INDEX records_path ON records (path) WHERE path IS NOT NULL;
CREATE UNIQUE INDEX records_place ON records (chain, seq) WHERE chain IS NOT NULL;

-- The values of each record as words of nine letters, by which it is found.
CREATE VIRTUAL TABLE words USING fts5 (
    text, content = '', contentless_delete = 1, detail = none, tokenize = 'ascii'
);
-- The bytes that are held before a part of the index is written, and the parts of a size that are merged.
INSERT INTO words (words, rank) VALUES ('hashsize', 16777216), ('automerge', 8);

-- What the requests of a day come to. Absent values are empty texts, so that they are part of the primary key.
CREATE TABLE days (
    day INTEGER NOT NULL, -- days since 1970-01-01, UTC
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    model TEXT NOT NULL,
    tool TEXT NOT NULL,
    reason TEXT NOT NULL,
    verdict TEXT NOT NULL,
    requests INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    refused INTEGER NOT NULL,
    tokens_in INTEGER NOT NULL,
    tokens_out INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    PRIMARY KEY (day, tenant, key, model, tool, reason, verdict)
) WITHOUT ROWID;

-- What the requests of an hour come to, for the last weeks.
CREATE TABLE hours (
    hour INTEGER PRIMARY KEY, -- hours since 1970-01-01T00:00Z
    requests INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    refused INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    cost INTEGER NOT NULL
);

CREATE TABLE chains (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    host TEXT,
    first_ts INTEGER,
    last_ts INTEGER,
    anchored INTEGER, -- the records that its last anchor counts
    closed INTEGER, -- the records with which an anchor ended it
    alerted INTEGER NOT NULL DEFAULT 0 -- the missing records that alerts have counted
);
CREATE INDEX chains_last_ts ON chains (last_ts);

-- Consecutive records that were taken, with what the first follows and the MAC of the last.
CREATE TABLE spans (
    chain INTEGER NOT NULL REFERENCES chains (id),
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    prev TEXT NOT NULL,
    mac TEXT NOT NULL,
    PRIMARY KEY (chain, first)
) WITHOUT ROWID;

CREATE TABLE anchors (
    chain INTEGER NOT NULL REFERENCES chains (id),
    records INTEGER NOT NULL,
    last TEXT NOT NULL,
    line TEXT NOT NULL,
    PRIMARY KEY (chain, records)
) WITHOUT ROWID;

-- What does not verify.
CREATE TABLE findings (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL, -- when it was found, Unix seconds
    kind TEXT NOT NULL,
    chain TEXT,
    seq INTEGER,
    text TEXT NOT NULL
);

-- What somebody should look at. Times are Unix seconds, of the collector.
CREATE TABLE alerts (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    cause TEXT NOT NULL, -- the kind, and what tells it from others of its kind
    tenant TEXT,
    key TEXT,
    first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    count INTEGER NOT NULL, -- how often the cause occurred
    text TEXT NOT NULL,
    delivered_at INTEGER
);
CREATE INDEX alerts_cause ON alerts (cause, first_at);
CREATE INDEX alerts_kind ON alerts (kind, first_at);
CREATE INDEX alerts_undelivered ON alerts (id) WHERE delivered_at IS NULL;

-- How far each file was read. A file is known by its first line, whatever its name.
CREATE TABLE positions (
    path TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    offset INTEGER NOT NULL,
    pending TEXT NOT NULL, -- the beginnings of lines that are not complete
    done INTEGER NOT NULL, -- 1 if it was read to its end, and has another name by now
    at INTEGER NOT NULL, -- when it was written, Unix seconds
    PRIMARY KEY (path, fingerprint)
) WITHOUT ROWID;

CREATE TABLE counters (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;
