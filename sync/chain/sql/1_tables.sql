-- What a chain's sinks commit. Times are UTC in microseconds since 1970.

CREATE TABLE chain.setting (name text PRIMARY KEY, value text NOT NULL);
INSERT INTO chain.setting VALUES ('keep_events_days', '35'), ('keep_windows_days', '400'), ('keep_members_days', '400');

-- One numbering: a store, an epoch and a class. All numbers up to `upto` are accounted for; none above `highest` has
-- been seen. Each number up to `highest` is received, dead, lost, or missing.
CREATE TABLE chain.series (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    store text NOT NULL, epoch text NOT NULL, class text NOT NULL, shard smallint NOT NULL,
    upto bigint NOT NULL DEFAULT 0, highest bigint NOT NULL DEFAULT 0,
    received bigint NOT NULL DEFAULT 0, duplicates bigint NOT NULL DEFAULT 0,
    lost bigint NOT NULL DEFAULT 0, dead bigint NOT NULL DEFAULT 0, heard_us bigint NOT NULL DEFAULT 0,
    UNIQUE (store, epoch, class)
) WITH (fillfactor = 50);
CREATE INDEX series_shard ON chain.series (shard, class);
-- Numbers above `upto` that are accounted for.
CREATE TABLE chain.ahead (series bigint, first bigint, last bigint NOT NULL, PRIMARY KEY (series, first));
-- Numbers that no event will come for. One that comes all the same is received.
CREATE TABLE chain.lost (
    series bigint, first bigint, last bigint NOT NULL, reason text NOT NULL, PRIMARY KEY (series, first)
);
-- Invalid events, and those of types that came after `judged_by`, the version that put them aside.
CREATE TABLE chain.dead_letter (
    series bigint, seq bigint, type text NOT NULL, error text NOT NULL, payload bytea NOT NULL,
    received_us bigint NOT NULL, judged_by text NOT NULL, PRIMARY KEY (series, seq)
);
-- Messages that are no batches. They have no numbers.
CREATE TABLE chain.dead_message (
    digest bytea PRIMARY KEY, topic text NOT NULL, error text NOT NULL, payload bytea NOT NULL,
    received_us bigint NOT NULL
);
-- Ranges of events committed but not yet confirmed by the log; `again`: published a second time, because it lost them.
CREATE TABLE chain.fanout (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, series bigint NOT NULL,
    first bigint NOT NULL, last bigint NOT NULL, shard smallint NOT NULL, class text NOT NULL,
    again boolean NOT NULL DEFAULT false, at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE chain.event (
    received_on date NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')::date,
    series bigint NOT NULL, seq bigint NOT NULL, received_us bigint NOT NULL,
    type text NOT NULL, payload text NOT NULL, PRIMARY KEY (series, seq, received_on)
) PARTITION BY RANGE (received_on);
CREATE TABLE chain.event_other PARTITION OF chain.event DEFAULT;

CREATE TABLE chain.recognition (
    received_on date NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')::date,
    store text NOT NULL, epoch text NOT NULL, seq bigint NOT NULL, member text NOT NULL,
    tier text NOT NULL, zone text NOT NULL, floor text NOT NULL, read_us bigint NOT NULL, expires_us bigint NOT NULL,
    received_us bigint NOT NULL
) PARTITION BY RANGE (received_on);
CREATE TABLE chain.recognition_other PARTITION OF chain.recognition DEFAULT;
CREATE INDEX recognition_member ON chain.recognition (member);
CREATE TABLE chain.cue (
    received_on date NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')::date,
    store text NOT NULL, epoch text NOT NULL, seq bigint NOT NULL, kind text NOT NULL,
    member text NOT NULL, tier text NOT NULL, zone text NOT NULL, floor text NOT NULL, since_us bigint NOT NULL,
    due_us bigint NOT NULL, made_us bigint NOT NULL, expires_us bigint NOT NULL, rule text NOT NULL,
    rules_version bigint NOT NULL
) PARTITION BY RANGE (received_on);
CREATE TABLE chain.cue_other PARTITION OF chain.cue DEFAULT;
CREATE INDEX cue_member ON chain.cue (member);
CREATE TABLE chain.cue_outcome (
    received_on date NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')::date,
    store text NOT NULL, epoch text NOT NULL, seq bigint NOT NULL, cue text NOT NULL,
    member text NOT NULL, outcome text NOT NULL, at_us bigint NOT NULL
) PARTITION BY RANGE (received_on);
CREATE TABLE chain.cue_outcome_other PARTITION OF chain.cue_outcome DEFAULT;
CREATE INDEX cue_outcome_cue ON chain.cue_outcome (cue);

CREATE TABLE chain.journey (
    business_date date NOT NULL, store text NOT NULL, epoch text NOT NULL, seq bigint NOT NULL, member text,
    tag text NOT NULL, tag_class text NOT NULL, start_us bigint NOT NULL, end_us bigint NOT NULL,
    censored boolean NOT NULL, def_version bigint NOT NULL, part bigint NOT NULL, parts bigint NOT NULL
) PARTITION BY RANGE (business_date);
CREATE TABLE chain.journey_other PARTITION OF chain.journey DEFAULT;
CREATE INDEX journey_member ON chain.journey (member);
CREATE INDEX journey_day ON chain.journey (business_date, store);
CREATE TABLE chain.visit (
    business_date date NOT NULL, store text NOT NULL, epoch text NOT NULL, seq bigint NOT NULL, stop bigint NOT NULL,
    member text, tag text NOT NULL, tag_class text NOT NULL, zone text NOT NULL, enter_us bigint NOT NULL,
    exit_us bigint NOT NULL, reads bigint NOT NULL, censored boolean NOT NULL, confidence double precision NOT NULL
) PARTITION BY RANGE (business_date);
CREATE TABLE chain.visit_other PARTITION OF chain.visit DEFAULT;
CREATE INDEX visit_member ON chain.visit (member);
CREATE INDEX visit_day ON chain.visit (business_date, store, zone);

-- Windows as they were told, with all their revisions and parts; chain.zone_window says what they are by now.
CREATE TABLE chain.window_told (
    business_date date NOT NULL, store text NOT NULL, epoch text NOT NULL, seq bigint NOT NULL, zone text NOT NULL,
    floor text NOT NULL, tag_class text NOT NULL, window_us bigint NOT NULL, length_us bigint NOT NULL,
    def_version bigint NOT NULL, revision bigint NOT NULL, layout_version text NOT NULL, entered bigint NOT NULL,
    ended bigint NOT NULL, censored bigint NOT NULL, pass_by bigint NOT NULL, touch bigint NOT NULL,
    visit bigint NOT NULL, engaged bigint NOT NULL, present_us bigint NOT NULL, peak bigint NOT NULL,
    coverage double precision NOT NULL, histogram text NOT NULL, door_passages bigint, door_coverage double precision
) PARTITION BY RANGE (business_date);
CREATE TABLE chain.window_told_other PARTITION OF chain.window_told DEFAULT;
CREATE INDEX window_told_day ON chain.window_told (business_date, store, zone);
CREATE TABLE chain.floor_window (
    business_date date NOT NULL, store text NOT NULL, epoch text NOT NULL, seq bigint NOT NULL, floor text NOT NULL,
    window_us bigint NOT NULL, length_us bigint NOT NULL, member bigint NOT NULL, unknown bigint NOT NULL,
    cart bigint NOT NULL, visitors bigint NOT NULL, present_us bigint NOT NULL, peak bigint NOT NULL,
    coverage double precision NOT NULL, def_version bigint NOT NULL, layout_version text NOT NULL
) PARTITION BY RANGE (business_date);
CREATE TABLE chain.floor_window_other PARTITION OF chain.floor_window DEFAULT;
CREATE INDEX floor_window_day ON chain.floor_window (business_date, store);

-- Reports about whole days, by their highest revision in each epoch.
CREATE TABLE chain.day_report (
    store text, epoch text, type text, about text, first_day date, last_day date, revision bigint NOT NULL,
    as_of_us bigint NOT NULL, payload jsonb NOT NULL,
    PRIMARY KEY (store, epoch, type, about, first_day, last_day)
);
CREATE INDEX day_report_day ON chain.day_report (first_day, type, store);
CREATE TABLE chain.layout (
    store text, version text, floor text, from_us bigint NOT NULL, payload jsonb NOT NULL,
    PRIMARY KEY (store, version, floor)
);

-- What each store said of itself last.
CREATE TABLE chain.store (
    store text PRIMARY KEY, shard smallint NOT NULL, state jsonb, state_us bigint, config jsonb, directory jsonb,
    health jsonb, health_us bigint, examined jsonb
) WITH (fillfactor = 50);

-- Sinks that run, as long as they hold their advisory lock.
CREATE TABLE chain.sink (
    id integer PRIMARY KEY, lane text NOT NULL, first smallint NOT NULL, last smallint NOT NULL, broker text NOT NULL,
    host text NOT NULL, pid integer NOT NULL, version text NOT NULL, started timestamptz NOT NULL DEFAULT now(),
    counters jsonb NOT NULL DEFAULT '{}'
);

-- Create the partitions of days; those of tables by day of receipt, or of those by business day.
CREATE FUNCTION chain.prepare(days date[], by_receipt boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = chain, pg_temp AS $$
DECLARE
    parent text;
    day date;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('chain.prepare'));
    FOREACH day IN ARRAY days LOOP
        FOREACH parent IN ARRAY CASE WHEN by_receipt THEN ARRAY['event', 'recognition', 'cue', 'cue_outcome']
                                ELSE ARRAY['journey', 'visit', 'window_told', 'floor_window'] END LOOP
            IF to_regclass(format('chain.%I', parent || to_char(day, '_YYYYMMDD'))) IS NULL THEN
                BEGIN
                    EXECUTE format('CREATE TABLE chain.%I PARTITION OF chain.%I FOR VALUES FROM (%L) TO (%L)',
                                   parent || to_char(day, '_YYYYMMDD'), parent, day, day + 1);
                EXCEPTION WHEN check_violation THEN
                    NULL;  -- rows of this day are in the default partition, and may as well stay there
                END;
            END IF;
        END LOOP;
    END LOOP;
END $$;

-- Drop what has been kept long enough, and prepare the next days; returns the tables dropped.
CREATE FUNCTION chain.keep_house() RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = chain, pg_temp AS $$
DECLARE
    found record;
    today date := (now() AT TIME ZONE 'UTC')::date;
BEGIN
    PERFORM chain.prepare(ARRAY[today, today + 1, today + 2], true);
    FOR found IN
        SELECT child.relname AS name, parent.relname AS parent, kept.day, today - s.value::integer AS first
        FROM pg_inherits i JOIN pg_class child ON child.oid = i.inhrelid JOIN pg_class parent ON parent.oid = i.inhparent
        JOIN (VALUES ('event', 'received_on', 'keep_events_days'), ('recognition', 'received_on', 'keep_members_days'),
              ('cue', 'received_on', 'keep_members_days'), ('cue_outcome', 'received_on', 'keep_members_days'),
              ('journey', 'business_date', 'keep_members_days'), ('visit', 'business_date', 'keep_members_days'),
              ('window_told', 'business_date', 'keep_windows_days'),
              ('floor_window', 'business_date', 'keep_windows_days')) AS kept (parent, day, setting)
            ON kept.parent = parent.relname
        JOIN chain.setting s ON s.name = kept.setting
        WHERE parent.relnamespace = 'chain'::regnamespace AND parent.relkind = 'p'
    LOOP
        IF found.name = found.parent || '_other' THEN
            EXECUTE format('DELETE FROM chain.%I WHERE %I < %L', found.name, found.day, found.first);
        ELSIF to_date(right(found.name, 8), 'YYYYMMDD') < found.first THEN
            EXECUTE format('DROP TABLE chain.%I', found.name);
            RETURN NEXT found.name;
        END IF;
    END LOOP;
    DELETE FROM chain.day_report
    WHERE last_day < today - (SELECT value::integer FROM chain.setting WHERE name = 'keep_windows_days');
END $$;
