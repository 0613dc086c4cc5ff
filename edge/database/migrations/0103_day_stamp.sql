-- Which days are stored, without reading through their facts.
CREATE INDEX day_stamp ON day_summary (date, format, def_version, verdicts, rows);
