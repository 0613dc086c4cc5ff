-- The engine's state in parts of a bounded size: one piece of all of it would be in memory several times while it is
-- written. Whoever upgrades with tags in the store loses what they had under way, as with any change of the engine.
CREATE TABLE checkpoint_part (
    n INTEGER PRIMARY KEY,
    part BLOB NOT NULL             -- together: zstd of edge.intake.checkpoint's stream
);
ALTER TABLE checkpoint DROP COLUMN state;
