-- The chain can take sales back. The hour stays, so that an older message that arrives later doesn't bring them back.
CREATE TABLE sales_told (
    hour_us INTEGER NOT NULL,
    zone TEXT NOT NULL,
    tickets INTEGER,               -- NULL: unknown
    units INTEGER,                 -- NULL: not told
    cents INTEGER,                 -- hundredths of the currency; NULL: not told
    revision INTEGER NOT NULL,
    PRIMARY KEY (hour_us, zone)
) STRICT, WITHOUT ROWID;
INSERT INTO sales_told SELECT hour_us, zone, tickets, units, cents, revision FROM sales;
DROP TABLE sales;
ALTER TABLE sales_told RENAME TO sales;
