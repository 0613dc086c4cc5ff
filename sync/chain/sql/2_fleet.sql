-- What stores shall have and do. Sinks send it and write down what comes back; nothing else of ours runs.

-- A command for a store, sent again until it is answered. Open: waiting, sent, received, pending; over: applied, failed,
-- refused.
CREATE TABLE chain.command (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id text NOT NULL UNIQUE, store text NOT NULL,
    shard smallint NOT NULL, name text NOT NULL, body jsonb NOT NULL, erasure bigint, state text NOT NULL DEFAULT 'waiting',
    reason text NOT NULL DEFAULT '', output jsonb, tries integer NOT NULL DEFAULT 0,
    made_at timestamptz NOT NULL DEFAULT now(), sent_at timestamptz, answered_at timestamptz
);
CREATE INDEX command_open ON chain.command (shard) WHERE state IN ('waiting', 'sent', 'received', 'pending');
CREATE INDEX command_erasure ON chain.command (erasure);

-- The retained message on down/config or down/directory of a store.
CREATE TABLE chain.desired (
    store text NOT NULL, kind text NOT NULL, shard smallint NOT NULL, generation bigint NOT NULL,
    message text NOT NULL, at timestamptz NOT NULL DEFAULT now(), sent_at timestamptz, PRIMARY KEY (store, kind)
);
CREATE INDEX desired_unsent ON chain.desired (shard) WHERE sent_at IS NULL;
CREATE TABLE chain.rollout (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind text NOT NULL, generation bigint NOT NULL,
    digest text NOT NULL, message text NOT NULL, state text NOT NULL DEFAULT 'running', reason text NOT NULL DEFAULT '',
    begun timestamptz NOT NULL DEFAULT now(), ended timestamptz, UNIQUE (kind, generation)
);
CREATE TABLE chain.directory_file (
    sha256 text PRIMARY KEY, content bytea NOT NULL, at timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE chain.directory_file ALTER COLUMN content SET STORAGE EXTERNAL;

-- An erasure; `member` is forgotten once it is complete.
CREATE TABLE chain.erasure (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, member text, asked_at timestamptz NOT NULL DEFAULT now(),
    completed_at timestamptz, erased jsonb NOT NULL DEFAULT '{}', proof jsonb
);
