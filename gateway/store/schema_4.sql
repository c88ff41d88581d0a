-- What schema version 4 adds: what budgets have come to, and what is reserved of them.

CREATE TABLE spending (
    counter      TEXT    PRIMARY KEY,        -- names its window, too
    ends_at      INTEGER NOT NULL,
    limit_nanos  INTEGER NOT NULL,           -- of whoever reserved last
    settled      INTEGER NOT NULL,
    reserved     INTEGER NOT NULL,
    open         INTEGER NOT NULL            -- how many reservations make up what is reserved
) STRICT, WITHOUT ROWID;

CREATE INDEX spending_ending ON spending (ends_at, counter);

CREATE TABLE reservation (
    id           TEXT    PRIMARY KEY,
    nanos        INTEGER NOT NULL,           -- reserved; once it is settled, what it came to
    counters     TEXT    NOT NULL,           -- a blank between them
    at           INTEGER NOT NULL,           -- reserved last, or settled first
    is_open      INTEGER NOT NULL,
    fence        INTEGER NOT NULL,
    revision     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX reservation_open ON reservation (at, id) WHERE is_open = 1;
CREATE INDEX reservation_settled ON reservation (at) WHERE is_open = 0;
