"""JSON that a JSON library would not write, and mutations of its records."""

from __future__ import annotations

import json
import math
from random import Random
from typing import Any


class Raw(str):
    """Stands in the text as it is."""


class Twice(dict[str, Any]):
    """An object in which the first key stands twice, with the value ``again`` the second time."""

    again: Any = None


HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 1.5, -0.0, 7, 1e308, -1e308, 1e15, 1e9, 5e-324, math.nan, math.inf, -math.inf,
    10**400, -(10**400), 2**31, 2**53 + 1, 2**63, 2**64, Raw("1" * 5000), Raw("1e400"), Raw("-0"), Raw("0x10"),
    Raw("01"), Raw("1."), Raw("'a'"), Raw("nan"), Raw("undefined"), Raw(""), Raw("[" * 100_000), Raw("1e-400"),
    Raw("[" * 30_000 + "]" * 30_000), Raw('{"a":' * 30_000 + "0" + "}" * 30_000), Raw("-"), Raw("1E+2"), Raw("1,2"),
    "", "0", "1", "1.5", "nan", "é", "\0", "\x1b[2J\x1b]0;owned\x07", "a\nb", "\r", "\u2028", "\u202e", "\ud800",
    "\udcff", "x" * 100_000, "\x7f", " ", "<script>alert(1)</script>", "%s%n", "\\", '"', "٣", "𝟙",
    [], [[]], [None], {}, {"id": 1}, [1, 2, 3], [1, 2, 3, 4, 5], [1, 2, [3], 4], Raw('[1,2,3,"4"]'),
    Raw("\u00a01"), Raw("/*c*/1"), Raw('"\t"'), Raw('"\\ud83d"'), Raw('"\\u0000"'), Raw('"\\x41"'),
    Raw('"\\ud83d\\ude00"'),
)  # fmt: skip


def write(value: Any) -> str:
    """JSON, or what ``Raw`` and ``Twice`` make of it."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        items = [f"{json.dumps(str(key))}:{write(item)}" for key, item in value.items()]
        if isinstance(value, Twice) and items:
            items.append(f"{json.dumps(next(iter(value)))}:{write(value.again)}")
        return "{" + ",".join(items) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(write, value)) + "]"
    return json.dumps(value)


def change_record(random: Random, records: list[Any], position: int) -> str:
    """Changes one record of a list in one way; returns what was done."""
    record = dict(records[position])
    operation = random.choice(("value", "value", "value", "remove", "twice", "rename", "inner", "replace", "extra"))
    key = random.choice(list(record) or [""])
    if operation == "value":
        record[key] = random.choice(HOSTILE)
    elif operation == "remove":
        record.pop(key, None)
    elif operation == "twice":
        doubled = Twice({key: record.get(key)} | record)
        doubled.again = random.choice((record.get(key), *HOSTILE))
        record = doubled
    elif operation == "rename":
        record[random.choice((key.upper(), key + " ", key[:-1], "bbox", "id"))] = record.pop(key, None)
    elif operation == "inner":
        _change_inner(random, record, key)
    elif operation == "extra":
        record[random.choice(("x", "", "score", "é", "\ud800", "__class__"))] = random.choice(HOSTILE)
    records[position] = random.choice(HOSTILE) if operation == "replace" else record
    return f"{operation} {key}"


def _change_inner(random: Random, record: dict[str, Any], key: str) -> None:
    """Changes one item of a list within a record."""
    lists = [name for name, value in record.items() if isinstance(value, list) and value]
    key = key if key in lists else random.choice(lists or [""])
    if key:
        inner = list(record[key])
        inner[random.randrange(len(inner))] = random.choice(HOSTILE)
        record[key] = inner


def change_list(random: Random, records: list[Any]) -> str:
    """Changes a list of records; returns what was done."""
    operation = random.choice(("copy", "remove", "shuffle", "insert", "empty", "many"))
    if operation == "copy" and records:
        records.insert(random.randrange(len(records) + 1), random.choice(records))
    elif operation == "remove" and records:
        records.pop(random.randrange(len(records)))
    elif operation == "shuffle":
        random.shuffle(records)
    elif operation == "insert":
        records.insert(random.randrange(len(records) + 1), random.choice(HOSTILE))
    elif operation == "empty":
        records.clear()
    elif operation == "many" and records:
        records.extend([random.choice(records)] * 50)
    return operation


_USED = {
    "images", "annotations", "categories", "id", "file_name", "height", "width", "name", "image_id", "category_id",
    "bbox", "area", "iscrowd", "difficult", "score",
}  # fmt: skip


class Strict:
    """JSON read with all that is not allowed in it noted; the validators' own reader.

    Attributes:
        value: what it holds.
        faults: why it must be refused.
        doubts: why it may be refused.
    """

    def __init__(self, data: bytes) -> None:
        self.faults: list[str] = []
        self.doubts: list[str] = []
        self.value: Any = None
        try:
            text = data.decode("utf-8-sig")
            self.value = json.loads(
                text, object_pairs_hook=self._pairs, parse_constant=self._constant, parse_int=self._whole
            )
        except (ValueError, RecursionError) as error:
            self.faults.append(f"no JSON: {type(error).__name__}")

    def _pairs(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        twice = {key for key in keys if keys.count(key) > 1}
        unused = {"id"} if "image_id" in keys else set()  # of an annotation
        if twice & (_USED - unused):
            self.faults.append("a key stands twice")
        elif twice:
            self.doubts.append("a key that nothing reads stands twice")
        return dict(pairs)

    def _constant(self, name: str) -> None:
        self.faults.append(name)

    def _whole(self, text: str) -> int | float:
        if len(text) < 4000:
            return int(text)
        self.doubts.append("a number of thousands of digits")
        return math.inf


def plain_number(value: Any) -> bool:
    """Whether it is a number that a float holds, and no truth value."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value)) and abs(value) < 1e15
    except OverflowError:
        return False


def proper_id(value: Any) -> bool:
    """Whether it can be an id."""
    return isinstance(value, int | str) and not isinstance(value, bool)
