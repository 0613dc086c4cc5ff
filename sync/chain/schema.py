"""Tables, views and functions of the chain's database, in numbered files; each is applied once, in order."""

from __future__ import annotations

from importlib import resources
from typing import Any

import psycopg

LOCK = 0x7461_6763
"""Advisory lock while the schema is being set up; sinks that start together take turns."""
SINK_ROLE, READER_ROLE = "tagtrail_sink", "tagtrail_reader"


class OutdatedError(psycopg.OperationalError):
    """The database lacks files of this version; the text says what to do."""


def set_up(conn: psycopg.Connection[Any]) -> list[str]:
    """Apply the files that are missing, and grant the roles, if they exist, what they need; returns the names of the
    files. Needs the owner of the schema, or a user who may create it."""
    applied = []
    with conn.transaction():
        conn.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        conn.execute("CREATE SCHEMA IF NOT EXISTS chain")
        conn.execute(
            "CREATE TABLE IF NOT EXISTS chain.applied (name text PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())"
        )
        there = _applied(conn)
        for name, text in _files():
            if name not in there:
                conn.execute(text.encode())
                conn.execute("INSERT INTO chain.applied (name) VALUES (%s)", (name,))
                applied.append(name)
        _grant(conn)
        conn.execute("SELECT chain.keep_house()")
    return applied


def require(conn: psycopg.Connection[Any]) -> None:
    """Set up the schema if this user may; else OutdatedError unless the owner has done so."""
    missing = [name for name, _ in _files()]
    if conn.execute("SELECT to_regclass('chain.applied')").fetchone() != (None,):
        there = _applied(conn)
        missing = [name for name in missing if name not in there]
    if not missing:
        return
    try:
        set_up(conn)
    except psycopg.errors.InsufficientPrivilege as error:
        raise OutdatedError(
            f"the database lacks {', '.join(missing)}: run `tagtrail chain setup` as the owner of its schema ({error})"
        ) from None


def _grant(conn: psycopg.Connection[Any]) -> None:
    """Let sinks write and readers see the views, if these roles exist."""
    conn.execute("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA chain FROM PUBLIC")
    there = {role for (role,) in conn.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'tagtrail%'")}
    for role in sorted(there & {SINK_ROLE, READER_ROLE}):
        conn.execute(f"GRANT USAGE ON SCHEMA chain TO {role}".encode())
    if SINK_ROLE in there:
        conn.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA chain TO {SINK_ROLE}".encode())
        conn.execute(f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA chain TO {SINK_ROLE}".encode())
    if READER_ROLE in there:
        for (view,) in conn.execute("SELECT quote_ident(viewname) FROM pg_views WHERE schemaname = 'chain'").fetchall():
            conn.execute(f"GRANT SELECT ON chain.{view} TO {READER_ROLE}".encode())


def _applied(conn: psycopg.Connection[Any]) -> set[str]:
    return {name for (name,) in conn.execute("SELECT name FROM chain.applied")}


def _files() -> list[tuple[str, str]]:
    folder = resources.files("sync.chain") / "sql"
    files = [file for file in folder.iterdir() if file.name.endswith(".sql")]
    return sorted((file.name, file.read_text("utf-8")) for file in files)
