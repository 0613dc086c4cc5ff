-- Commands of the CRM that were taken, with what came of them: one that comes again is answered, not done again.
CREATE TABLE command (
    id TEXT PRIMARY KEY,
    at_us INTEGER NOT NULL,
    result TEXT                    -- the answer, JSON; NULL while it is being carried out
) WITHOUT ROWID;

ALTER TABLE directory ADD COLUMN hint_until_us INTEGER;

-- Which directory this is. expired: its time is over, nobody is recognised. Always one row.
CREATE TABLE directory_state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    generation INTEGER NOT NULL,
    valid_until_us INTEGER,
    expired INTEGER NOT NULL
);
INSERT INTO directory_state VALUES (1, 0, NULL, 0);
