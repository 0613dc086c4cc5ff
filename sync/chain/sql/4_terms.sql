-- Terms of stores with two gateways that may run the service: batches with a lower one than a series has are dropped.

ALTER TABLE chain.series ADD COLUMN term bigint NOT NULL DEFAULT 0;
