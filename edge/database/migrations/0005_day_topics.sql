-- Stored arrays are zlib of a line of JSON that names them and of their bytes.
-- hours: dwell by hour, apart like paths; verdicts: the last ones on suspected tags that these facts know of.
ALTER TABLE day_summary ADD COLUMN hours BLOB NOT NULL DEFAULT x'';
ALTER TABLE day_summary ADD COLUMN verdicts INTEGER NOT NULL DEFAULT 0;

-- What the CRM was told of days, weeks and trials: told again, as the next revision, when it has become something else.
CREATE TABLE told (
    key TEXT PRIMARY KEY,          -- day/2026-03-14 · week/2026-03-15 · promotion/… · layout/…
    basis TEXT NOT NULL,           -- of what it was made: as long as that is the same, nobody looks again
    digest TEXT NOT NULL,          -- of what was told
    revision INTEGER NOT NULL
) WITHOUT ROWID;
