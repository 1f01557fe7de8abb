"""Files and overrides to a ``Config``: bases merged, everything checked, all problems in one report."""

from __future__ import annotations

import difflib
import errno
import json
import os
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from detector.config.schema import Config
from detector.config.yaml_tree import MAX_BYTES, Dumper, KeyPath, Origin, Tree, parse_yaml
from detector.errors import ConfigError, one_line, quote
from detector.regular_file import read_regular

MAX_BASE_DEPTH = 8
MAX_FILES = 64
_MAX_PROBLEMS = 50
_LONGEST_KEY = 100
_SHOWN_KEYS = 8
_FORMATS = "coco, voc or shapes"
_LABELLED = "; or folder, cifar10, cifar100 or crops for pretrain.py"


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a configuration file with the files it is based on, and applies overrides.

    Args:
        path: YAML file. Its key ``base`` may name a file, or a list of files merged in order, relative to itself.
        overrides: ``"key.path=value"`` texts; the value is YAML.

    Raises:
        ConfigError: one line a problem, each with its file, line and key.
    """
    return validate(read_tree(path, overrides))


def of_a_detector(config: Config) -> Config:
    """The configuration of a detector, as it is.

    Raises:
        ConfigError: it is one of a classifier.
    """
    if config.model.classifier is not None:
        raise ConfigError(
            "model.classifier: this is the configuration of a classifier, for pretrain.py; a detector is wanted here"
        )
    return config


def read_tree(path: str | Path, overrides: Sequence[str] = ()) -> Tree:
    """The values of a file, of those it is based on and of overrides, merged, and where each was written.

    Raises:
        ConfigError: a file cannot be read, or is no valid YAML.
    """
    return _override(_read_with_bases(Path(path), chain=(), files=iter(range(MAX_FILES))), overrides)


def parse_config(text: str, source: str, overrides: Sequence[str] = ()) -> Config:
    """Reads a configuration that stands alone, such as the one saved inside a weights file.

    Raises:
        ConfigError: as ``load_config``.
    """
    return validate(_override(_checked_mapping(parse_yaml(text, source), source), overrides))


def dump_config(config: Config) -> str:
    """Writes every setting as YAML; ``parse_config`` reads it back equal."""
    return yaml.dump(config.model_dump(mode="json"), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=110)


def _read_with_bases(path: Path, chain: tuple[str, ...], files: Iterator[int]) -> Tree:
    """The settings of a file and its bases.

    Args:
        path: the file.
        chain: those whose bases are being read.
        files: gives a number for each file that may still be read.
    """
    name, resolved = one_line(path), os.path.realpath(path)
    if resolved in chain:
        names = " -> ".join(Path(item).name for item in (*chain, resolved))
        raise ConfigError(f"{name}: base leads back to itself: {one_line(names)}")
    if len(chain) >= MAX_BASE_DEPTH:
        raise ConfigError(f"{name}: more than {MAX_BASE_DEPTH} levels of base")
    if next(files, None) is None:
        raise ConfigError(f"{name}: base leads to more than {MAX_FILES} files")
    tree = _checked_mapping(parse_yaml(_read_text(path), name), name)
    own = dict(tree.value)
    origin = tree.origins.get(("base",), Origin(name, None))
    bases = own.pop("base", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) and base for base in bases):
        raise ConfigError(f"{origin}: base: must be a file name or a list of file names")
    merged = Tree({}, {})
    for base in bases:
        base_path = path.parent / base
        if not os.path.isfile(base_path):  # Path's own raises where a name is too long
            raise ConfigError(f"{origin}: base: no such file: {one_line(base_path)}")
        merged = _merge(merged, _read_with_bases(base_path, (*chain, resolved), files))
    return _merge(merged, Tree(own, tree.origins))


def _read_text(path: Path) -> str:
    name = one_line(path)
    try:
        return read_regular(path, MAX_BYTES).decode("utf-8-sig")
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [item.name for item in path.parent.glob("*.y*ml")], n=1)
        hint = f"; did you mean {one_line(path.parent / near[0])}?" if near else ""
        raise ConfigError(f"{name}: no such file{hint}") from None
    except IsADirectoryError:
        raise ConfigError(f"{name}: this is a folder; name a YAML file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: not UTF-8 text (byte {error.start}); this is no configuration") from None
    except OSError as error:
        hint = "; this is no configuration" if error.errno == errno.EFBIG else ""
        raise ConfigError(f"{name}: cannot be read: {error.strerror}{hint}") from None


def _checked_mapping(tree: Tree, source: str) -> Tree:
    if tree.value is None:
        return Tree({}, {})
    if not isinstance(tree.value, dict):
        raise ConfigError(f"{source}: must hold 'key: value' lines, not a {type(tree.value).__name__}")
    return tree


def _merge(under: Tree, over: Tree) -> Tree:
    """Mappings merge by key; anything else, lists too, is replaced whole."""
    replaced: set[KeyPath] = set()

    def join(low: Any, high: Any, path: KeyPath) -> Any:
        if isinstance(low, dict) and isinstance(high, dict):
            return low | {key: join(low.get(key), value, (*path, key)) for key, value in high.items()}
        replaced.add(path)
        return high

    value = join(under.value, over.value, ())
    kept = {
        key: origin
        for key, origin in under.origins.items()
        if not any(key[:length] in replaced for length in range(len(key) + 1))
    }
    return Tree(value, kept | over.origins)


def _override(tree: Tree, overrides: Sequence[str]) -> Tree:
    for override in overrides:
        key, equals, text = override.partition("=")
        source = f"override {quote(override)}"
        path = tuple(key.split("."))
        if not equals or not all(path):
            raise ConfigError(f"{source}: write it as key.path=value, such as training.batch_size=4")
        parsed = parse_yaml(text, source, first_line=None)
        origin = Origin(source, None)
        value, origins = parsed.value, {path: origin} | {(*path, *keys): item for keys, item in parsed.origins.items()}
        for part in reversed(path):
            value = {part: value}
        tree = _merge(tree, Tree(value, origins))
        for length in range(1, len(path)):  # sections that come with it
            tree.origins.setdefault(path[:length], origin)
    return tree


def validate(tree: Tree) -> Config:
    """The settings in a tree, checked; what it lacks has its default.

    Raises:
        ConfigError: one line a problem, each with where it was written.
    """
    try:
        # JSON, since only there may a strict schema take a list for a tuple.
        return Config.model_validate_json(json.dumps(tree.value))
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=True)
        # A list whose items are refused is also called too short.
        inner = {problem["loc"][:length] for problem in problems for length in range(len(problem["loc"]))}
        problems = [item for item in problems if item["type"] != "too_short" or item["loc"] not in inner]
        lines = sorted({_describe(item, tree) for item in problems[:_MAX_PROBLEMS]})
        if len(problems) > _MAX_PROBLEMS:
            source = tree.origins.get((), Origin("configuration", None)).source
            lines.append(f"{source}: and {len(problems) - _MAX_PROBLEMS} more problems")
        raise ConfigError("\n".join(lines)) from None


def _describe(problem: Any, tree: Tree) -> str:
    path = _path_in_tree(problem["loc"], tree.value)
    origin = next((tree.origins[path[:n]] for n in range(len(path), -1, -1) if path[:n] in tree.origins), None)
    where = f"{origin}: " if origin else ""
    key = one_line(".".join(str(part) for part in path), 100)
    found = quote(json.dumps(problem["input"], default=str)) if not isinstance(problem["input"], dict) else ""
    kind, message = problem["type"], problem["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        return f"{where}{key}: unknown key{_suggestion(path)}"
    if kind == "missing":
        return f"{where}{key}: {'is missing' if isinstance(problem['loc'][-1], str) else 'holds too few values'}"
    more = "" if key.endswith(".of") else _LABELLED
    if kind == "union_tag_not_found":
        return f"{where}{key}: needs a format: {_FORMATS}{more}"
    if kind == "union_tag_invalid":
        return f"{where}{key}: unknown format {quote(problem['ctx']['tag'])}; use {_FORMATS}{more}"
    return f"{where}{key + ': ' if key else ''}{message[:1].lower()}{message[1:]}{', got ' + found if found else ''}"


def _path_in_tree(location: tuple[str | int, ...], value: Any) -> KeyPath:
    """Drops the parts of a pydantic location that name union members instead of keys."""
    path: list[str | int] = []
    for position, part in enumerate(location):
        last = position == len(location) - 1
        if isinstance(value, dict) and (part in value or last):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            continue
        path.append(part)
    return tuple(path)


def _suggestion(path: KeyPath) -> str:
    """The nearest key of the same section, or the same key of another section."""
    known = list(dict.fromkeys(_known_keys(Config)))
    section, key = tuple(part for part in path[:-1] if isinstance(part, str)), str(path[-1])
    if len(key) > _LONGEST_KEY:  # to compare it would take long
        return ""
    siblings = [keys[-1] for keys in known if keys[:-1] == section and keys[-1] != key]  # another format's may be
    near = difflib.get_close_matches(key, siblings, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]}?"
    elsewhere = [".".join(keys) for keys in known if difflib.SequenceMatcher(None, keys[-1], key).ratio() > 0.85]
    if elsewhere:
        return f"; did you mean {elsewhere[0]}?"
    more = f" and {len(siblings) - _SHOWN_KEYS} more" if len(siblings) > _SHOWN_KEYS else ""
    return f"; known here: {', '.join(siblings[:_SHOWN_KEYS])}{more}" if siblings else ""


def _known_keys(section: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, field in section.model_fields.items():
        yield (*prefix, name)
        for member in _sections(field.annotation):
            yield from _known_keys(member, (*prefix, name))


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The sections in a type: itself, the items of its tuple, the members of its union."""
    arguments = typing.get_args(annotation)
    if not arguments and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for argument in arguments for section in _sections(argument)]
