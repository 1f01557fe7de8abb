"""Numbers as people read them: fractions in per cent, and a dash where nothing defines a number."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

DASH = "–"
_LONGEST_NAME = 80


@dataclass(frozen=True)
class Span:
    """An interval around a number, ready to be written and drawn.

    Attributes:
        text: such as "49.6–54.7".
        low: per cent, 0..100.
        high: per cent, 0..100.
        middle: the number itself, per cent.
    """

    text: str
    low: float
    high: float
    middle: float


def defined(value: Any) -> float | None:
    """A fraction or count as it is; None for what is no number: None, NaN, infinity, and the -1 of COCO's tools."""
    if value is None or not math.isfinite(value) or value == -1:
        return None
    return float(value)


def percent(value: Any) -> str:
    """A fraction as per cent, "52.2"."""
    number = defined(value)
    return DASH if number is None else f"{100 * number:.1f}".replace("-", "−")


def signed(value: Any) -> str:
    """A difference of fractions as per cent, "+6.4"."""
    number = defined(value)
    if number is None:
        return DASH
    return f"{100 * number:+.1f}".replace("+0.0", "0.0").replace("-0.0", "0.0").replace("-", "−")


def score(value: Any) -> str:
    """A score, "0.573"."""
    number = defined(value)
    return DASH if number is None else f"{number:.3f}"


def count(value: Any) -> str:
    """A whole number, "1,749"."""
    number = defined(value)
    return DASH if number is None else f"{number:,.0f}"


def several(number: Any, singular: str, plural: str) -> str:
    """A count with its noun, "1 image" or "72 images"."""
    return f"{count(number)} {singular if number == 1 else plural}"


def span(limits: Any, middle: Any) -> Span | None:
    """The interval of a fraction, cut to what a fraction can be; None where it or the number is undefined.

    Args:
        limits: its ends, or None.
        middle: the fraction.
    """
    number = defined(middle)
    if number is None or limits is None:
        return None
    ends = [defined(end) for end in limits]
    if len(ends) != 2 or ends[0] is None or ends[1] is None:
        return None
    low, high = (100 * min(max(end, 0.0), 1.0) for end in ends if end is not None)
    return Span(f"{low:.1f}–{high:.1f}", low, high, 100 * number)


def shorten(name: str, limit: int = _LONGEST_NAME) -> str:
    """A name of bounded length, on one line."""
    line = " ".join(name.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
