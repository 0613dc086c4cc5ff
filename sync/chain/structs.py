"""The contract's events as msgspec structs, made from its models: they are decoded and validated in one pass in C.

What a struct accepts, its model accepts too, with the same values. The reverse doesn't hold: models convert ("1" is a
number to them), and structs know no keys but their own. So whatever a struct refuses is for the model to judge.
"""

from __future__ import annotations

import types
from functools import cache
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

import msgspec
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sync.contract import CLASS_OF, Envelope, Event

INT64 = 2**63
"""Numbers as large as this, of either sign, are refused: they may not fit into a database's column."""


def event_decoder() -> msgspec.json.Decoder[msgspec.Struct]:
    """Return a decoder of any event of the contract; an unknown type or key is an error."""
    union, _ = get_args(Event)
    return msgspec.json.Decoder(cast(Any, Union[tuple(struct(model) for model in get_args(union))]))  # noqa: UP007


def head_decoder() -> msgspec.json.Decoder[Any]:
    """Return a decoder of envelopes, whose `events` are left undecoded."""
    fields = _fields(Envelope)
    fields.append(("events", list[msgspec.Raw]))
    return msgspec.json.Decoder(msgspec.defstruct("Head", fields, rename=_names(Envelope), kw_only=True))


@cache
def struct(model: type[BaseModel], limited: bool = True) -> type[msgspec.Struct]:
    """Return the struct of a model; that of an event is recognised by its `type`. Without limits it is for values that
    the model has accepted."""
    made = _fields(model, limited)
    kind = model.model_fields.get("type")
    tag: dict[str, Any] = {}
    if kind is not None and kind.default in CLASS_OF:
        made = [field for field in made if field[0] != "type"]
        tag = {"tag_field": "type", "tag": kind.default}
    return msgspec.defstruct(
        model.__name__, made, rename=_names(model), kw_only=True, forbid_unknown_fields=True, gc=False, **tag
    )


def type_of(event: msgspec.Struct) -> str:
    """Return the `type` of an event."""
    return str(event.__struct_config__.tag)


def _names(model: type[BaseModel]) -> dict[str, str]:
    return {name: field.alias for name, field in model.model_fields.items() if field.alias}


def _fields(model: type[BaseModel], limited: bool = True) -> list[Any]:
    made: list[Any] = []
    for name, field in model.model_fields.items():
        kind = _bounded(field.annotation, field.metadata, limited)
        made.append((name, kind) if field.is_required() else (name, kind, _default(field)))
    return made


def _default(field: FieldInfo) -> Any:
    value = field.get_default(call_default_factory=True, validated_data={})
    return msgspec.field(default_factory=type(value)) if isinstance(value, list | dict) else value


def _bounded(kind: Any, metadata: list[Any], limited: bool) -> Any:
    """Convert a type with its constraints; TypeError for what the contract doesn't use."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is not None and hasattr(kind, "__metadata__"):  # Annotated
        told: list[Any] = []
        for one in kind.__metadata__:
            told += one.metadata if isinstance(one, FieldInfo) else [one]
        return _bounded(inner[0], [*told, *metadata], limited)
    if not limited and kind in (int, float, str):
        return kind
    limits = _limits(metadata) if limited else {}
    if origin in (Union, types.UnionType):
        return Union[tuple(_bounded(one, metadata if one is not type(None) else [], limited) for one in inner)]  # noqa: UP007
    if origin is Literal or kind in (bool, type(None)):
        return kind
    if kind is int:
        low = max(1 - INT64, limits.get("ge", -INT64), limits.get("gt", -INT64) + 1)
        high = min(INT64 - 1, limits.get("le", INT64 - 1), limits.get("lt", INT64) - 1)
        return Annotated[int, msgspec.Meta(ge=low, le=high)]
    if kind is float:
        above = {} if "ge" in limits else {"gt": -float(INT64)}
        below = {} if "le" in limits else {"lt": float(INT64)}
        return _with(float, above | below | limits)
    if kind is str:
        return _with(str, limits)
    if origin is list or origin is tuple:
        one = _bounded(inner[0], [], limited)
        return _with(list[one] if origin is list else tuple[one, ...], limits)  # type: ignore[valid-type]
    if origin is dict:
        return dict[str, _bounded(inner[1], [], limited)]  # type: ignore[misc]
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return struct(kind, limited)
    raise TypeError(f"no struct for {kind!r}")


def _with(kind: Any, limits: dict[str, Any]) -> Any:
    return Annotated[kind, msgspec.Meta(**limits)] if limits else kind


def _limits(metadata: list[Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for one in metadata:
        if isinstance(one, Ge):
            made["ge"] = one.ge
        elif isinstance(one, Gt):
            made["gt"] = one.gt
        elif isinstance(one, Le):
            made["le"] = one.le
        elif isinstance(one, Lt):
            made["lt"] = one.lt
        elif isinstance(one, MaxLen):
            made["max_length"] = one.max_length
        elif isinstance(one, MinLen):
            made["min_length"] = one.min_length
        elif pattern := getattr(one, "pattern", None):
            made["pattern"] = pattern.replace("$", r"\Z")  # Python's $ would allow a line break
    return made
