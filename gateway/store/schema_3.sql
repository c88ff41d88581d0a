-- What schema version 3 adds: fences, each try of a delivery, and what is swept by age.

ALTER TABLE prediction ADD COLUMN fence INTEGER NOT NULL DEFAULT 0;      -- grows each time it changes hands
ALTER TABLE prediction ADD COLUMN ended_at INTEGER;                      -- null: open, or its data is removed
ALTER TABLE delivery ADD COLUMN history BLOB;                            -- its newest tries; null: none yet
ALTER TABLE file ADD COLUMN expires_at INTEGER NOT NULL DEFAULT 0;

CREATE INDEX prediction_aged ON prediction (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX ledger_maybe ON ledger (prediction) WHERE state = 'maybe';
CREATE INDEX file_expiring ON file (expires_at);
