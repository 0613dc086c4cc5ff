"""OpenAPI 3.1 document of everything under /api/."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge.days.period import AGAINST, MOST_DAYS
from edge.web.exports.tables import EVERYBODY, TABLES
from edge.words.tables import DATE, INTEGER, MOMENT, NUMBER, QUOTIENT, RATIO, SECONDS, SHARE, TEXT

COMPARING = ("against", "performance")
"""Tables that take `against`."""
NEXT = "Value of `before` for the next, older rows; null: there are none."


def openapi(version: str) -> dict[str, Any]:
    """Build the OpenAPI 3.1 document of everything under /api/."""
    types: Mapping[str, dict[str, Any]] = {
        INTEGER: {"type": ["integer", "string", "null"]},
        NUMBER: {"type": ["number", "null"]},
        SECONDS: {"type": ["number", "null"]},
        RATIO: {"type": ["number", "null"]},
        QUOTIENT: {"type": ["number", "null"], "minimum": 0},
        SHARE: {"type": ["number", "null"], "minimum": 0, "maximum": 1},
        TEXT: {"type": ["string", "null"]},
        DATE: {"type": ["string", "null"], "format": "date"},
        MOMENT: {"type": ["string", "null"], "format": "date-time"},
    }
    head = {
        "store": {"type": "string", "description": "Id of the store."},
        "table": {"type": "string"},
        "date": {"type": "string", "format": "date", "description": "Business date."},
        "days": {"type": "integer", "description": "Number of business days ending with that date."},
        "as_of": {**types[MOMENT], "description": "Everything that ended before this time is counted."},
        "complete": {
            "type": "boolean",
            "description": "True if the business day is over and all its visits have ended.",
        },
        "coverage": {**types[SHARE], "description": "Coverage of all zones on these days; null: closed."},
        "def_version": {"type": "integer", "description": "Version of the definitions."},
    }
    refused = {
        "description": "Log in",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    day = {
        "name": "date",
        "in": "query",
        "schema": {"type": "string", "format": "date"},
        "description": "Default: today.",
    }
    days = {
        "name": "days",
        "in": "query",
        "schema": {"anyOf": [{"type": "integer", "minimum": 1, "maximum": MOST_DAYS}, {"const": "month"}]},
        "description": "Number of days ending with that date, or its calendar month; default: 1.",
    }
    first = {
        "name": "from",
        "in": "query",
        "schema": {"type": "string", "format": "date"},
        "description": "First day, instead of `days`.",
    }
    beside = {
        "name": "against",
        "in": "query",
        "schema": {"enum": list(AGAINST)},
        "description": "Compare with the same weekdays before, a year before, or the same holiday a year before.",
    }
    below = {
        "name": "before",
        "in": "query",
        "schema": {"type": "integer"},
        "description": "The `next` of the previous answer.",
    }
    lang = {"name": "lang", "in": "query", "schema": {"enum": ["zh", "en"]}, "description": "Language of names."}

    def get(summary: str, schema: dict[str, Any], parameters: list[dict[str, Any]]) -> dict[str, Any]:
        answer = {"description": "OK", "content": {"application/json": {"schema": schema}}}
        return {"get": {"summary": summary, "parameters": parameters, "responses": {"200": answer, "401": refused}}}

    paths: dict[str, Any] = {
        "/api/now": get("Live state of the store; masked members for managers only.", {"type": "object"}, []),
        "/api/today": get("Business days in one document.", {"type": "object"}, [day, days, first]),
        "/api/openapi.json": get("This description.", {"type": "object"}, []),
    }
    for table in TABLES.values():
        columns = {
            field.id: {**types[field.type], "title": field.heading, "description": field.about}
            for field in table.fields
        }
        rows = {"type": "array", "items": {"type": "object", "properties": columns}}
        more = {} if table.bounded else {"next": {"type": ["integer", "null"], "description": NEXT}}
        schema = {"type": "object", "properties": {**head, **more, "rows": rows}}
        roles = "" if table.roles == EVERYBODY else f" For {', '.join(table.roles)}."
        asked = [*([day] if table.of_day else []), *([days, first] if table.spans else []), lang]
        asked += [] if table.bounded else [below]
        asked += [beside] if table.name in COMPARING else []
        paths[f"/api/tables/{table.name}"] = get(table.about + roles, schema, asked)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tagtrail",
            "version": version,
            "license": {"name": "GPL-3.0-or-later", "identifier": "GPL-3.0-or-later"},
            "description": "Figures of a store, read-only. null means unknown, not zero."
            " If users have been created: a token made on the console (tagtrail users token make), or HTTP Basic.",
        },
        "paths": paths,
        "components": {
            "schemas": {"Error": {"type": "object", "properties": {"error": {"type": "string"}}}},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "Reads as a viewer; no single members."},
                "basic": {"type": "http", "scheme": "basic"},
            },
        },
        "security": [{"token": []}, {"basic": []}, {}],
    }
