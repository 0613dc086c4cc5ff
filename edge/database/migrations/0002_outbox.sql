-- tried: up to here events may have left the house, so that they are never merged any more.
ALTER TABLE outbox_class ADD COLUMN tried INTEGER NOT NULL DEFAULT 0;
-- bytes: of payloads that are there, acknowledged ones too; kept up to date so that no quota check reads rows.
ALTER TABLE outbox_class ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
-- Up to here windows of class agg were merged, to save room.
ALTER TABLE outbox_class ADD COLUMN merged_hours INTEGER NOT NULL DEFAULT 0;
ALTER TABLE outbox_class ADD COLUMN merged_days INTEGER NOT NULL DEFAULT 0;
UPDATE outbox_class SET bytes =
    (SELECT coalesce(sum(length(CAST(payload AS BLOB))), 0) FROM outbox WHERE outbox.class = outbox_class.class);

-- Acknowledged events are kept for a replay: all up to `upto` until `until_us`.
CREATE TABLE kept (
    class INTEGER NOT NULL,
    until_us INTEGER NOT NULL,
    upto INTEGER NOT NULL,
    PRIMARY KEY (class, until_us)
) WITHOUT ROWID;
