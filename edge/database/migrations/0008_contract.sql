-- Windows that were told anew, as a whole; of those that are not here the first telling holds.
CREATE TABLE corrected (
    window_us INTEGER NOT NULL,
    zone TEXT NOT NULL,
    tag_class INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (window_us, zone, tag_class)
) WITHOUT ROWID;

-- Layouts (floors, zones, where antennas hang), and since when each held.
CREATE TABLE layout (
    from_us INTEGER PRIMARY KEY,
    version TEXT NOT NULL
);
