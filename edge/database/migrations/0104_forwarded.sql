-- How far what each forwarder has sent is in the checkpoint: life and number of the last record.
CREATE TABLE forwarded (id TEXT PRIMARY KEY, life TEXT NOT NULL, seq INTEGER NOT NULL) STRICT;
