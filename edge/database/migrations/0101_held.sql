-- What readers delivered while the time was unknown, if the service was stopped then: the next one puts it in its place,
-- or drops it if the machine has started again since. Always at most one row; EPCs are in it, as in the checkpoint.
CREATE TABLE held (
    boot TEXT NOT NULL,            -- the monotonic clock counts from there
    events TEXT NOT NULL,          -- JSON
    reads BLOB NOT NULL            -- zlib of READ
);
