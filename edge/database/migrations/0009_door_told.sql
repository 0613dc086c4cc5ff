-- What of a door's window has been told to the CRM: its windows may come in parts, which add up.
ALTER TABLE door ADD COLUMN told INTEGER NOT NULL DEFAULT 0;
ALTER TABLE door ADD COLUMN told_us INTEGER NOT NULL DEFAULT 0;
UPDATE door SET told = passages, told_us = covered_us WHERE EXISTS (
    SELECT 1 FROM aggregate WHERE aggregate.window_us = door.window_us AND aggregate.zone = door.zone
);
