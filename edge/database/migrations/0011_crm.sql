-- digest: of what the command asks for, so that another one under its id is noticed; too short to find out whom it was about.
ALTER TABLE command ADD COLUMN digest BLOB;
