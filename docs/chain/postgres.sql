-- Users of the chain's database; run once as a superuser: psql < postgres.sql. Then give each a password.
-- The owner creates and upgrades the tables (tagtrail chain setup); sinks write; readers see the views only.
CREATE ROLE tagtrail_chain LOGIN;
CREATE ROLE tagtrail_sink LOGIN;
CREATE ROLE tagtrail_reader LOGIN;
CREATE DATABASE tagtrail OWNER tagtrail_chain;
REVOKE ALL ON DATABASE tagtrail FROM PUBLIC;
GRANT CONNECT ON DATABASE tagtrail TO tagtrail_sink, tagtrail_reader;
-- A sink's host that vanishes must give its leases up.
ALTER ROLE tagtrail_sink SET tcp_keepalives_idle = '5s';
ALTER ROLE tagtrail_sink SET idle_in_transaction_session_timeout = '30s';
ALTER ROLE tagtrail_reader SET statement_timeout = '60s';
