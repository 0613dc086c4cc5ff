-- digest: of what the command asks for, so that another one under its id is noticed; too short to find out whom it was about.
ALTER TABLE command ADD COLUMN digest BLOB;

-- files: JSON, base ("" for all members) → SHA-256, of the files that are known to make this generation.
ALTER TABLE directory_state ADD COLUMN files TEXT;

-- sent: all up to here, at least, left the house; no ack beyond is believed. packed: the CRM took gzip when last heard.
ALTER TABLE outbox_class ADD COLUMN sent INTEGER NOT NULL DEFAULT 0;
ALTER TABLE outbox_class ADD COLUMN packed INTEGER NOT NULL DEFAULT 0;
