"""A configuration with the place that each value comes from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from detector.config.load import read_tree, validate
from detector.config.yaml_tree import Dumper, KeyPath, Tree
from detector.errors import one_line

_COLUMN = 60


def explain_config(path: str | Path, overrides: Sequence[str] = ()) -> str:
    """Every setting as YAML, each with a comment: file and line, the override, or "default".

    Args:
        path: YAML file.
        overrides: ``"key.path=value"`` texts.

    Raises:
        ConfigError: as ``load_config``.
    """
    tree = read_tree(path, overrides)
    return "\n".join(_lines(validate(tree).model_dump(mode="json"), tree, ()))


def _lines(section: dict[str, Any], tree: Tree, path: KeyPath) -> Iterator[str]:
    indent = "  " * len(path)
    for key, value in section.items():
        place = (*path, key)
        if isinstance(value, dict):
            yield f"{indent}{key}:"
            yield from _lines(value, tree, place)
            continue
        shown = yaml.dump(value, Dumper=Dumper, default_flow_style=True, allow_unicode=True, width=10**6)
        text = f"{indent}{key}: {shown.removesuffix('...' + chr(10)).rstrip()}"
        yield f"{text:<{_COLUMN}}  # {one_line(tree.origins.get(place, 'default'))}"
