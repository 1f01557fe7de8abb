"""What all settings are made of: sections that know no keys beyond their own, and numbers with ranges."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1, le=2**31)]
CountOrZero = Annotated[int, Field(ge=0, le=2**31)]
PartOfOne = Annotated[float, Field(ge=0, lt=1)]
PartOfRun = Annotated[float, Field(gt=0, lt=1)]
Pixels = Annotated[int, Field(ge=1, le=16384)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Triple = tuple[float, float, float]


class Section(BaseModel):
    """A group of settings: immutable, typed without conversions, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())
