-- Rules of cues; the newest version holds. Never deleted: each cue names the version that made it.
CREATE TABLE cue_rules (
    version INTEGER PRIMARY KEY,
    at_us INTEGER NOT NULL,
    who TEXT NOT NULL,             -- a user of the page; empty: the store file
    what TEXT NOT NULL,            -- why it was changed, in the words of who did it
    rules TEXT NOT NULL,           -- config.model.Cues, JSON
    file TEXT                      -- hash of the store file's [cues], if it came from there
);

-- Calls to go to a member. id: number of its event in class member, so that the CRM knows it by the same.
CREATE TABLE cue (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,            -- arrival, waiting
    tag BLOB NOT NULL,             -- as in `recognised`; with greeted_us the journey, over restarts too
    greeted_us INTEGER NOT NULL,
    member TEXT NOT NULL,
    tier TEXT NOT NULL,
    zone TEXT NOT NULL,
    since_us INTEGER NOT NULL,     -- the read that recognised; start of the visit that is being waited in
    due_us INTEGER NOT NULL,       -- that read; end of the target
    made_us INTEGER NOT NULL,
    expires_us INTEGER NOT NULL,
    latency_ms REAL,               -- due to committed, real time; NULL if that was not written before a crash
    rule TEXT NOT NULL,
    version INTEGER NOT NULL,      -- of cue_rules
    action TEXT,                   -- JSON {zh, en}
    ttl_us INTEGER NOT NULL,       -- the rule's expires_s
    state TEXT NOT NULL,           -- edge.cues.book.STATES
    changed_us INTEGER NOT NULL,
    answered_us INTEGER,           -- first acknowledged or done
    until_us INTEGER,              -- acknowledged: somebody is there by then; snoozed: shown again then
    who TEXT                       -- user of the page who changed it last
);
CREATE UNIQUE INDEX cue_once ON cue (tag, greeted_us, kind);
CREATE INDEX cue_made ON cue (made_us);
CREATE INDEX cue_open ON cue (id) WHERE state IN ('open', 'snoozed', 'acknowledged');

-- Service cases: cues that nobody followed, and what a manager wrote down by hand. They name no member.
CREATE TABLE service_case (
    id INTEGER PRIMARY KEY,
    at_us INTEGER NOT NULL,
    kind TEXT NOT NULL,            -- arrival, waiting, hand
    cue INTEGER,                   -- cue.id; gone when the member was erased
    zone TEXT NOT NULL,
    tier TEXT,
    state TEXT NOT NULL,           -- open, acknowledged, done, reviewed
    changed_us INTEGER NOT NULL
);
CREATE INDEX service_case_at ON service_case (at_us);
CREATE TABLE case_step (
    id INTEGER PRIMARY KEY,
    case_id INTEGER NOT NULL,
    at_us INTEGER NOT NULL,
    state TEXT NOT NULL,
    who TEXT NOT NULL,             -- empty: by itself
    note TEXT NOT NULL
);
CREATE INDEX case_step_case ON case_step (case_id);

-- Digests that were told to the CRM.
CREATE TABLE digest (
    last_date TEXT NOT NULL,
    days INTEGER NOT NULL,
    PRIMARY KEY (last_date, days)
) WITHOUT ROWID;

-- Class member carries more than recognitions now: how many of those there ever were is counted by itself.
INSERT INTO fact SELECT 'recognised', next_seq - 1 FROM outbox_class WHERE class = 0;
