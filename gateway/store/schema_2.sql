-- What schema version 2 adds: columns to search predictions by, and the trail of what people did by hand.

ALTER TABLE prediction ADD COLUMN model TEXT NOT NULL DEFAULT '';
ALTER TABLE prediction ADD COLUMN providers TEXT NOT NULL DEFAULT '';    -- all that were tried, a blank round each
ALTER TABLE prediction ADD COLUMN is_rescued INTEGER NOT NULL DEFAULT 0;

-- Holds all that is searched by, so that a search never touches the rows it does not find: they may be megabytes.
CREATE INDEX prediction_searched ON prediction (created_at, id, status, owner, model, providers, is_rescued);

CREATE TABLE audit (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    at           INTEGER NOT NULL,
    who          TEXT    NOT NULL,
    action       TEXT    NOT NULL,
    target       TEXT    NOT NULL,
    reason       TEXT    NOT NULL,
    outcome      TEXT    NOT NULL
) STRICT;
