-- Keys of pseudonyms, one a business day, drawn at random. A key is deleted once the journeys of its day have closed: then
-- nobody can tell any more whose pseudonyms they were, not with the tag key either.
CREATE TABLE day_key (date TEXT PRIMARY KEY, key BLOB NOT NULL) WITHOUT ROWID;
