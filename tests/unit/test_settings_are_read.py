"""A setting that nothing reads would be a promise that nobody keeps."""

from __future__ import annotations

import ast
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from pydantic import BaseModel

from detector.config import Config
from tests.conftest import ROOT


def sections_of(annotation: object) -> list[type[BaseModel]]:
    """The sections that a field's type mentions, whether alone, in a tuple, or one of several."""
    arguments = typing.get_args(annotation)
    # In Python 3.10 even tuple[int, ...] is an instance of type.
    if not arguments and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for argument in arguments for section in sections_of(argument)]


def leaves(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted keys of a section that hold values, those of its sections included."""
    for name, field in section.model_fields.items():
        inner = sections_of(field.annotation)
        if not inner:
            yield prefix + name
        for member in inner:
            yield from leaves(member, f"{prefix}{name}.")


@cache
def names_read() -> frozenset[str]:
    """Every name that the package reads as an attribute outside detector/config, calls of methods left aside."""
    found: set[str] = set()
    for path in (ROOT / "detector").rglob("*.py"):
        if "config" not in path.relative_to(ROOT / "detector").parts[:-1]:
            found |= attributes_in(path)
    return frozenset(found)


def attributes_in(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    return {node.attr for node in nodes if isinstance(node, ast.Attribute) and id(node) not in called}


KEYS = sorted(dict.fromkeys(leaves(Config)))


def test_the_walk_finds_settings_at_every_depth() -> None:
    assert {"seed", "model.rpn.nms_iou", "training.schedule.steps", "data.train.annotations"} <= set(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_a_setting_is_read(key: str) -> None:
    assert key.rsplit(".", 1)[-1] in names_read()
