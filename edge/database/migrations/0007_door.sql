-- Passages at door counters by 15 minutes; covered_us: how much of them the contact's reader was up and watching.
CREATE TABLE door (
    window_us INTEGER NOT NULL,
    reader TEXT NOT NULL,
    port INTEGER NOT NULL,
    zone TEXT NOT NULL,
    passages INTEGER NOT NULL,
    covered_us INTEGER NOT NULL,
    PRIMARY KEY (window_us, reader, port, zone)
) WITHOUT ROWID;
