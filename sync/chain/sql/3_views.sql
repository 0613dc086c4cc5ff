-- What a CRM team asks first. Numbers are those of the stores' own pages; definitions are in docs/definitions.md.
-- A store whose gateway was replaced on a day has a row for each gateway's epoch: each reports what it saw.

CREATE VIEW chain.event_by_id AS
SELECT s.store, s.epoch, s.class, e.seq, s.store || '/' || s.epoch || '/' || s.class || '/' || e.seq AS id,
       e.type, to_timestamp(e.received_us / 1e6) AS received, e.payload
FROM chain.event e JOIN chain.series s ON s.id = e.series;

-- Windows as they are by now: the highest revision within an epoch; its parts and the epochs add up.
CREATE VIEW chain.zone_window AS
SELECT business_date, store, zone, max(floor) AS floor, tag_class, window_us, to_timestamp(window_us / 1e6) AS began,
       length_us, def_version, max(revision) AS revision, max(layout_version) AS layout_version,
       sum(entered)::bigint AS entered, sum(ended)::bigint AS ended, sum(censored)::bigint AS censored,
       sum(pass_by)::bigint AS pass_by, sum(touch)::bigint AS touch, sum(visit)::bigint AS visit,
       sum(engaged)::bigint AS engaged, sum(present_us)::bigint AS present_us, max(peak) AS peak,
       least(1, round(sum(coverage)::numeric, 4))::double precision AS coverage,
       sum(door_passages)::bigint AS door_passages
FROM (SELECT *, max(revision) OVER (PARTITION BY business_date, store, epoch, zone, tag_class, window_us, length_us,
                                    def_version) AS valid FROM chain.window_told) AS told
WHERE revision = valid
GROUP BY business_date, store, zone, tag_class, window_us, length_us, def_version;

-- A zone's day so far, from its windows; visits count in the window in which they ended.
CREATE VIEW chain.zone_today AS
SELECT business_date, store, zone, floor, tag_class, sum(entered)::bigint AS entered, sum(ended)::bigint AS ended,
       sum(censored)::bigint AS censored, sum(pass_by)::bigint AS pass_by, sum(touch)::bigint AS touch,
       sum(visit)::bigint AS visit, sum(engaged)::bigint AS engaged,
       (sum(present_us) / 1e6)::double precision AS present_s, max(peak) AS peak,
       sum(coverage * length_us) / nullif(sum(length_us), 0) AS coverage, max(window_us + length_us) AS until_us
FROM chain.zone_window GROUP BY business_date, store, zone, floor, tag_class;

-- A zone's day that is over.
CREATE VIEW chain.zone_day AS
SELECT store, epoch, first_day AS day, about AS zone, payload ->> 'floor' AS floor, revision,
       (payload ->> 'coverage')::double precision AS coverage, (payload ->> 'n')::bigint AS n,
       (payload ->> 'pass_by')::bigint AS pass_by, (payload ->> 'touch')::bigint AS touch,
       (payload ->> 'visit')::bigint AS visit, (payload ->> 'engaged')::bigint AS engaged,
       (payload ->> 'median_s')::double precision AS median_s, (payload ->> 'p75_s')::double precision AS p75_s,
       (payload ->> 'conversion')::double precision AS conversion,
       (payload #>> '{draw,k}')::bigint AS draw_k, (payload #>> '{draw,n}')::bigint AS draw_n,
       (payload #>> '{engaged_share,k}')::bigint AS engaged_k, (payload #>> '{engaged_share,n}')::bigint AS engaged_n,
       (payload #>> '{bounce,k}')::bigint AS bounce_k, (payload #>> '{bounce,n}')::bigint AS bounce_n,
       (payload ->> 'wait_median_s')::double precision AS wait_median_s,
       (payload ->> 'rank_best')::bigint AS rank_best, (payload ->> 'rank_worst')::bigint AS rank_worst
FROM chain.day_report WHERE type = 'scorecard' AND first_day = last_day;

-- A floor's day: arrivals.
CREATE VIEW chain.floor_day AS
SELECT r.store, r.epoch, r.first_day AS day, r.about AS floor, r.revision,
       (r.payload ->> 'coverage')::double precision AS coverage, w.*
FROM chain.day_report r CROSS JOIN LATERAL (
    SELECT sum(member)::bigint AS member, sum("unknown")::bigint AS "unknown", sum(cart)::bigint AS cart,
           max(peak) AS peak, count(*) FILTER (WHERE member IS NULL) AS unknown_windows
    FROM jsonb_to_recordset(r.payload -> 'windows') AS w (member bigint, "unknown" bigint, cart bigint, peak bigint)
) AS w
WHERE r.type = 'floor_day';

-- Visits of members with consent, one a row.
CREATE VIEW chain.member_visit AS
SELECT member, business_date, store, epoch, tag, zone, to_timestamp(enter_us / 1e6) AS entered,
       to_timestamp(exit_us / 1e6) AS left_at, (exit_us - enter_us) / 1e6 AS dwell_s, censored, confidence, seq, stop
FROM chain.visit WHERE member IS NOT NULL;

-- Journeys of members with consent: a row each, however many parts they came in.
CREATE VIEW chain.member_journey AS
SELECT j.member, j.business_date, j.store, j.epoch, j.tag, to_timestamp(j.start_us / 1e6) AS began,
       to_timestamp(j.end_us / 1e6) AS ended, bool_or(j.censored) AS censored, count(*) = max(j.parts) AS complete,
       (SELECT array_agg(v.zone ORDER BY v.enter_us, v.seq, v.stop) FROM chain.visit v
        WHERE v.business_date = j.business_date AND v.store = j.store AND v.epoch = j.epoch
          AND v.seq = ANY(array_agg(j.seq))) AS zones
FROM chain.journey j WHERE j.member IS NOT NULL
GROUP BY j.member, j.business_date, j.store, j.epoch, j.tag, j.start_us, j.end_us;

-- Routes of all people, and of one tag class where the store file allows it.
CREATE VIEW chain.route AS
SELECT r.store, r.epoch, r.first_day AS day, r.last_day, nullif(r.about, '') AS tag_class, r.revision,
       ARRAY(SELECT jsonb_array_elements_text(p.path -> 'zones')) AS zones, (p.path ->> 'n')::bigint AS n,
       (r.payload ->> 'with_path')::bigint AS with_path
FROM chain.day_report r
CROSS JOIN LATERAL jsonb_array_elements(r.payload -> CASE r.type WHEN 'flow_day' THEN 'paths' ELSE 'ways' END) AS p (path)
WHERE r.type IN ('flow_day', 'way_day');

-- Transitions between zones; no from_zone: into the store, no to_zone: out of it.
CREATE VIEW chain.flow AS
SELECT r.store, r.epoch, r.first_day AS day, r.last_day, r.revision, l.from_zone, l.to_zone, l.n
FROM chain.day_report r
CROSS JOIN LATERAL jsonb_to_recordset(r.payload -> 'links') AS l (from_zone text, to_zone text, n bigint)
WHERE r.type = 'flow_day';

-- Members by tier. Null where there were too few.
CREATE VIEW chain.tier_mix AS
SELECT r.store, r.epoch, r.first_day AS day, r.last_day, r.revision, t.tier ->> 'tier' AS tier,
       (t.tier ->> 'members')::bigint AS members, (t.tier ->> 'journeys')::bigint AS journeys,
       (r.payload ->> 'journeys')::bigint AS all_journeys,
       (t.tier ->> 'visit_share')::double precision AS visit_share,
       (t.tier ->> 'dwell_share')::double precision AS dwell_share,
       (t.tier #>> '{returning,k}')::bigint AS returning_k, (t.tier #>> '{returning,n}')::bigint AS returning_n,
       (t.tier #>> '{contact,k}')::bigint AS contact_k, (t.tier #>> '{contact,n}')::bigint AS contact_n,
       (t.tier ->> 'wait_median_s')::double precision AS wait_median_s,
       (t.tier #>> '{wait_kept,k}')::bigint AS wait_kept_k, (t.tier #>> '{wait_kept,n}')::bigint AS wait_kept_n,
       (t.tier ->> 'assist_median_s')::double precision AS assist_median_s
FROM chain.day_report r CROSS JOIN LATERAL jsonb_array_elements(r.payload -> 'tiers') AS t (tier)
WHERE r.type = 'tier_day';

-- Staffing, waits and assistance of a zone.
CREATE VIEW chain.service AS
SELECT store, epoch, first_day AS day, last_day, about AS zone, payload ->> 'floor' AS floor, revision,
       (payload ->> 'coverage')::double precision AS coverage, (payload ->> 'staffed')::double precision AS staffed,
       (payload ->> 'wanted')::bigint AS wanted, (payload #>> '{met,k}')::bigint AS met_k,
       (payload #>> '{met,n}')::bigint AS met_n, (payload ->> 'wait_median_s')::double precision AS wait_median_s,
       (payload ->> 'wait_p75_s')::double precision AS wait_p75_s,
       (payload ->> 'assist_median_s')::double precision AS assist_median_s,
       (payload ->> 'visits_per_staff_hour')::double precision AS visits_per_staff_hour
FROM chain.day_report WHERE type = 'service_day';

-- Cues for staff, with the outcome that counts: the final one, if there is one.
CREATE VIEW chain.cue_result AS
SELECT c.store, c.epoch, c.seq, c.kind, c.member, c.tier, c.zone, c.floor, to_timestamp(c.due_us / 1e6) AS due,
       to_timestamp(c.made_us / 1e6) AS made, c.rule, o.outcome, to_timestamp(o.at_us / 1e6) AS outcome_at
FROM chain.cue c LEFT JOIN LATERAL (
    SELECT outcome, at_us FROM chain.cue_outcome o
    WHERE o.cue = c.store || '/' || c.epoch || '/member/' || c.seq
    ORDER BY (outcome IN ('done', 'attended', 'expired')) DESC, at_us DESC, seq DESC LIMIT 1
) AS o ON true;

-- Share of the day in which zones were watched, by store; what isn't watched isn't empty.
CREATE VIEW chain.coverage AS
SELECT store, first_day AS day, avg((payload ->> 'coverage')::double precision) AS coverage,
       count(*) FILTER (WHERE payload -> 'coverage' = 'null') AS zones_unknown,
       count(*) FILTER (WHERE (payload ->> 'coverage')::double precision < 0.8) AS zones_below_80, count(*) AS zones
FROM chain.day_report WHERE type = 'scorecard' AND first_day = last_day GROUP BY store, first_day;

-- How fresh each store is: when it was last heard, what is missing, what it has lost, how its gateway is.
CREATE VIEW chain.freshness AS
SELECT s.store, s.shard, (t.state ->> 'online')::boolean AS online, t.state ->> 'version' AS version,
       to_timestamp(max(s.heard_us) / 1e6) AS heard,
       extract(epoch FROM now())::double precision - max(s.heard_us) / 1e6 AS silent_s,
       sum(s.highest - s.upto)::bigint AS behind, sum(s.lost)::bigint AS lost, sum(s.dead)::bigint AS dead,
       sum(s.received)::bigint AS received, to_timestamp(t.health_us / 1e6) AS examined_at,
       t.health ->> 'clock' AS clock, t.health ->> 'clock_reason' AS clock_reason,
       (t.health ->> 'readers_up')::integer AS readers_up, (t.health ->> 'readers')::integer AS readers,
       (SELECT coalesce(sum(value::bigint), 0) FROM jsonb_each_text(t.health -> 'backlog'))::bigint AS backlog,
       coalesce(jsonb_array_length(nullif(t.examined, 'null')), 0) AS findings,
       (t.config ->> 'running')::bigint AS config, t.config ->> 'state' AS config_state,
       (t.directory ->> 'generation')::bigint AS directory, t.directory ->> 'state' AS directory_state
FROM chain.series s LEFT JOIN chain.store t USING (store) GROUP BY s.store, s.shard, t.store;

-- Events by minute of receipt, of today and yesterday.
CREATE VIEW chain.arrival AS
SELECT date_trunc('minute', to_timestamp(e.received_us / 1e6)) AS minute, s.class, count(*) AS events
FROM chain.event e JOIN chain.series s ON s.id = e.series
WHERE e.received_on >= (now() AT TIME ZONE 'UTC')::date - 1 GROUP BY 1, 2;

-- What waits or was put aside.
CREATE VIEW chain.waiting AS
SELECT (SELECT count(*) FROM chain.fanout) AS not_in_the_log, (SELECT count(*) FROM chain.dead_letter) AS dead_letters,
       (SELECT count(*) FROM chain.dead_message) AS dead_messages,
       (SELECT count(*) FROM chain.erasure WHERE completed_at IS NULL) AS erasures,
       (SELECT count(*) FROM chain.command WHERE state IN ('waiting', 'sent', 'received', 'pending')) AS commands;
