-- One file a version, applied in one transaction; never edited after release.

-- Facts of this database: epoch (drawn at creation), store, tag_key (hex key of the tag pseudonyms).
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- The engine as of watermark_us. Committed together with everything that follows from it, so that a restart
-- goes on exactly where the committed visits end. Always one row.
CREATE TABLE checkpoint (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    watermark_us INTEGER NOT NULL,
    layout TEXT NOT NULL,          -- hash of zones and antennas: a state fits only the layout it was made with
    state BLOB NOT NULL            -- zlib of numpy's npz
);

-- Tags are keyed pseudonyms (BLAKE2b-128). EPCs stand in the checkpoint alone: those of the tags in the store now.
CREATE TABLE visit (
    id INTEGER PRIMARY KEY,
    tag BLOB NOT NULL,
    tag_class INTEGER NOT NULL,    -- dwell.layout.TagClass
    member TEXT,                   -- directory's member id, only with consent
    zone TEXT NOT NULL,
    enter_us INTEGER NOT NULL,
    exit_us INTEGER NOT NULL,
    journey_us INTEGER NOT NULL,   -- start of the journey: with tag, its identity
    reads INTEGER NOT NULL,
    censored INTEGER NOT NULL,
    confidence REAL NOT NULL
);
CREATE INDEX visit_enter ON visit (enter_us);

CREATE TABLE journey (
    id INTEGER PRIMARY KEY,
    tag BLOB NOT NULL,
    tag_class INTEGER NOT NULL,
    member TEXT,
    start_us INTEGER NOT NULL,
    end_us INTEGER NOT NULL,
    censored INTEGER NOT NULL,
    path TEXT NOT NULL             -- JSON: [[zone, enter_us, exit_us], …]
);
CREATE INDEX journey_start ON journey (start_us);

CREATE TABLE aggregate (
    window_us INTEGER NOT NULL,    -- start of the 15 minutes
    zone TEXT NOT NULL,
    tag_class INTEGER NOT NULL,
    entered INTEGER NOT NULL,      -- visits that began in the window
    ended INTEGER NOT NULL,        -- visits that ended in it, of which:
    censored INTEGER NOT NULL,     -- not fully seen: in no band and not in the histogram
    pass_by INTEGER NOT NULL,
    touch INTEGER NOT NULL,
    visit INTEGER NOT NULL,
    engaged INTEGER NOT NULL,
    present_us INTEGER NOT NULL,   -- presence within the window, summed over tags
    peak INTEGER NOT NULL,         -- most tags present at once
    coverage REAL NOT NULL,        -- share of the window in which the zone's readers were up
    def_version INTEGER NOT NULL,
    histogram BLOB NOT NULL,       -- dwell of uncensored ended visits, dwell.aggregates.histogram bins, little-endian u4
    PRIMARY KEY (window_us, zone, tag_class)
) WITHOUT ROWID;

-- The member directory: tags by keyed hash.
CREATE TABLE directory (
    tag BLOB PRIMARY KEY,
    member TEXT NOT NULL,
    tier TEXT NOT NULL,            -- A, B, C … of the CRM
    consent INTEGER NOT NULL,      -- 0: counts only in class totals
    hint TEXT                      -- the CRM's greeting hint
) WITHOUT ROWID;

-- Members recognised in a journey that has not ended: each is announced once a journey, restarts included.
CREATE TABLE recognised (
    tag BLOB PRIMARY KEY,
    member TEXT NOT NULL,
    at_us INTEGER NOT NULL
) WITHOUT ROWID;

-- What the CRM has not yet acknowledged. One key: a second index costs a third of the flash writes.
CREATE TABLE outbox (
    class INTEGER NOT NULL,        -- index in sync.contract.CLASSES
    seq INTEGER NOT NULL,          -- from 1, without gaps but for the rows of `lost`
    payload TEXT NOT NULL,         -- one event, JSON
    PRIMARY KEY (class, seq)
) WITHOUT ROWID;

CREATE TABLE outbox_class (
    class INTEGER PRIMARY KEY,
    next_seq INTEGER NOT NULL,     -- the next event's number
    acked INTEGER NOT NULL         -- all up to here are committed at the CRM
);
INSERT INTO outbox_class VALUES (0, 1, 0), (1, 1, 0), (2, 1, 0), (3, 1, 0);

-- Ranges that a quota evicted before the CRM had them; delivered with the class's next batch.
CREATE TABLE lost (
    class INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (class, first)
) WITHOUT ROWID;
