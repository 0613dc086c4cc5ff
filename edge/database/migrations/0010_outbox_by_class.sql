-- A table a class, keyed by number: events are only ever put at a table's end, where SQLite fills one page after the
-- other. In one table by class and number it kept splitting pages in the middle, and gave every event of more than
-- 1,000 bytes a page of its own: twice as much was written to flash.
CREATE TABLE outbox_member (seq INTEGER PRIMARY KEY, payload TEXT NOT NULL);
CREATE TABLE outbox_journey (seq INTEGER PRIMARY KEY, payload TEXT NOT NULL);
CREATE TABLE outbox_agg (seq INTEGER PRIMARY KEY, payload TEXT NOT NULL);
CREATE TABLE outbox_health (seq INTEGER PRIMARY KEY, payload TEXT NOT NULL);
INSERT INTO outbox_member SELECT seq, payload FROM outbox WHERE class = 0 ORDER BY seq;
DELETE FROM outbox WHERE class = 0;
INSERT INTO outbox_journey SELECT seq, payload FROM outbox WHERE class = 1 ORDER BY seq;
DELETE FROM outbox WHERE class = 1;
INSERT INTO outbox_agg SELECT seq, payload FROM outbox WHERE class = 2 ORDER BY seq;
DELETE FROM outbox WHERE class = 2;
INSERT INTO outbox_health SELECT seq, payload FROM outbox WHERE class = 3 ORDER BY seq;
DROP TABLE outbox;
-- For who wants to look at all of them; class: index in sync.contract.CLASSES.
CREATE VIEW outbox (class, seq, payload) AS
    SELECT 0, seq, payload FROM outbox_member UNION ALL SELECT 1, seq, payload FROM outbox_journey
    UNION ALL SELECT 2, seq, payload FROM outbox_agg UNION ALL SELECT 3, seq, payload FROM outbox_health;
