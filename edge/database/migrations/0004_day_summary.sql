-- Business days that are over, summed up: counts only, kept as long as windows are.
CREATE TABLE day_summary (
    date TEXT PRIMARY KEY,
    format INTEGER NOT NULL,       -- edge.days.facts.FORMAT
    def_version INTEGER NOT NULL,
    rows INTEGER NOT NULL,         -- visits that it was made of
    names TEXT NOT NULL,           -- JSON: [[zone, …], [floor, …]] in the order of the arrays
    totals BLOB NOT NULL,          -- zlib of numpy's npz
    windows BLOB NOT NULL,
    paths BLOB NOT NULL            -- apart, since they are most of it and only flows want them
) WITHOUT ROWID;

-- A member's earlier journeys, without reading everybody's.
CREATE INDEX journey_member ON journey (member, start_us) WHERE member IS NOT NULL;
