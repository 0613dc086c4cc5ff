"""Types that all models of the store file share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict

Int = Annotated[int, Strict()]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
"""A number; strings and booleans are not accepted, integers are."""
Metres = Annotated[Number, Field(ge=-10_000, le=10_000)]
Seconds = Annotated[Number, Field(gt=0, le=30 * 86_400)]

Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""Letters, digits, dot, dash and underscore, because ids are used in MQTT topics, file names and URLs."""


class Model(BaseModel):
    """Base model. Unknown keys are errors, because a misspelt key would otherwise be ignored silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _path(path: Path) -> Path:
    # Path("") is the current folder.
    if str(path) == "." or "\0" in str(path):
        raise ValueError("expected: the path of a file")
    return path


FilePath = Annotated[Path, AfterValidator(_path)]
Point = tuple[Metres, Metres]
