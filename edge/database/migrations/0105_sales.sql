-- What the chain's tills sold, by zone and hour of the business day. An hour that was not told is unknown, not 0.
CREATE TABLE sales (
    hour_us INTEGER NOT NULL,
    zone TEXT NOT NULL,
    tickets INTEGER NOT NULL,
    units INTEGER,                 -- NULL: not told
    cents INTEGER,                 -- hundredths of the currency; NULL: not told
    revision INTEGER NOT NULL,
    PRIMARY KEY (hour_us, zone)
) STRICT, WITHOUT ROWID;

-- Days with sales, and their facts (edge.days.sold), which are NULL until they are made.
CREATE TABLE sales_day (
    date TEXT PRIMARY KEY,
    changes INTEGER NOT NULL,      -- how often the day's sales have changed
    basis TEXT,                    -- state of all that the facts were made of
    names TEXT,                    -- JSON: [[zone, …], []] in the order of the arrays
    days BLOB,
    hours BLOB                     -- apart, since they are most of it and few ask for them
) STRICT;
CREATE INDEX sales_stamp ON sales_day (date, changes, basis);
