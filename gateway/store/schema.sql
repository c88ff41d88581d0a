-- The tables of the SQLite store as its first version had them; `schema_2.sql` and so on say what each later one adds.
-- Times are whole microseconds since 1970, UTC.
-- `number` is a prediction's place in this file: children refer to it, so that their rows lie together.

CREATE TABLE prediction (
    number       INTEGER PRIMARY KEY,
    id           TEXT    NOT NULL UNIQUE,
    stream_token TEXT    NOT NULL UNIQUE,
    owner        TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    status       TEXT    NOT NULL,
    is_open      INTEGER NOT NULL,
    due_at       INTEGER NOT NULL,           -- 0: at once
    worker       TEXT,                       -- who holds it
    state        BLOB    NOT NULL            -- all of it but the request
) STRICT;

CREATE INDEX prediction_listed ON prediction (owner, created_at, id);
CREATE INDEX prediction_free ON prediction (due_at) WHERE is_open = 1 AND worker IS NULL;
CREATE INDEX prediction_held ON prediction (worker) WHERE is_open = 1 AND worker IS NOT NULL;

-- Apart from its prediction: an UPDATE rewrites a whole row, and a request may carry megabytes that never change.
CREATE TABLE request (
    prediction   INTEGER PRIMARY KEY REFERENCES prediction (number),
    body         BLOB    NOT NULL
) STRICT;

CREATE TABLE attempt (
    token_hash   TEXT    PRIMARY KEY,
    prediction   INTEGER NOT NULL REFERENCES prediction (number),
    number       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE event (
    prediction   INTEGER NOT NULL REFERENCES prediction (number),
    sequence     INTEGER NOT NULL,
    event        TEXT    NOT NULL,
    data         TEXT    NOT NULL,
    at           INTEGER NOT NULL,
    PRIMARY KEY (prediction, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE ledger (
    prediction   INTEGER NOT NULL REFERENCES prediction (number),
    attempt      INTEGER NOT NULL,
    offer        TEXT    NOT NULL,
    provider     TEXT    NOT NULL,
    state        TEXT    NOT NULL,
    nanos        INTEGER,                    -- null: unknown
    basis        TEXT    NOT NULL,
    at           INTEGER NOT NULL,
    PRIMARY KEY (prediction, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency (
    owner        TEXT    NOT NULL,
    key          TEXT    NOT NULL,
    body_hash    TEXT    NOT NULL,
    prediction   INTEGER NOT NULL REFERENCES prediction (number),
    expires_at   INTEGER NOT NULL,
    PRIMARY KEY (owner, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_expiring ON idempotency (expires_at);

CREATE TABLE delivery (
    number       INTEGER PRIMARY KEY,
    id           TEXT    NOT NULL UNIQUE,
    prediction   INTEGER NOT NULL REFERENCES prediction (number),
    sequence     INTEGER NOT NULL,
    event        TEXT    NOT NULL,
    url          TEXT    NOT NULL,
    host         TEXT    NOT NULL,
    body         BLOB    NOT NULL,
    created_at   INTEGER NOT NULL,
    slot_at      INTEGER NOT NULL,           -- when it was first due: what spaces the next of its event
    due_at       INTEGER NOT NULL,           -- while claimed: when the claim is over
    worker       TEXT,                       -- who has claimed it
    tries        INTEGER NOT NULL DEFAULT 0,
    is_final     INTEGER NOT NULL,
    ended        TEXT,
    last_status  INTEGER,
    last_error   TEXT,
    fence        INTEGER NOT NULL DEFAULT 0, -- 0: nobody ever claimed it
    UNIQUE (prediction, sequence)
) STRICT;

CREATE INDEX delivery_due ON delivery (due_at, host) WHERE ended IS NULL;

CREATE TABLE worker (
    name         TEXT    PRIMARY KEY,
    lease_until  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE file (
    id           TEXT    PRIMARY KEY,
    owner        TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    body         BLOB    NOT NULL
) STRICT;

CREATE INDEX file_listed ON file (owner, created_at, id);

CREATE TABLE setting (
    name         TEXT    PRIMARY KEY,
    value        TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
