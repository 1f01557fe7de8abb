"""Configuration files, the files they are based on, and overrides."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import yaml

from detector.config import Config
from detector.config.load import dump_config, load_config, parse_config
from tests.fuzz import raw_bytes
from tests.fuzz.cases import Case, Reading
from tests.tiny import TINY

_ALIASED_NODES = 100
_SCALARS = (
    "", "~", "null", "true", "no", "yes", "0", "-1", "1e-4", "1e999", "-1e999", ".inf", ".nan", "0x10", "0o7", "1_000",
    "12:30:00", "2020-01-01", "9" * 400, "1" * 5000, "1e", "'", '"', '"\\x1b[2J"', '"\\ud800"', '"\\U00110000"',
    '"\\UFFFFFFFF"', '"\\0"', "\x1b[2J", "\x00", "\x85", "\ufeff", "\u2028", "é",
    "!!python/object/apply:os.system [id]",
    "!!python/name:os.system", "!!binary aGk=", "!!set {a}", "!!timestamp 2020-01-01", "!!int abc", "!!float 1",
    "!foo 1",
    "!<tag:yaml.org,2002:str> 5", "!!str", "!!map []", "!!merge <<", "&a 1", "*a", "&a [*a]", "{<<: {depth: 18}}",
    "[" * 100, "[" * 5000, "{" * 5000, "[" * 30 + "]" * 30, "[" * 60 + "]" * 60, "- - - - 1", "? a", "|\n  a", ">\n  b",
    "%", "@", "`", "#", ": :", "---", "...", "[1, 2", "{a: 1", "[a, b]", "{a: b}", "{a: 1, a: 2}", "x" * 100_000,
    "[1, 1, 1]", "[-1]", "[1e308, 1e308]", "[.inf]", "[]", "{}", "true false", "%YAML 1.2", "!!%41 a", "!%ff a",
    "*" + "x" * 600,
)  # fmt: skip
_LINES = (
    "unknown: 1", "training: {}", "seed: 1\nseed: 2", "model:\n  bakbone: {depth: 18}", "base: good.yaml", "\tseed: 1",
    "base: [good.yaml, good.yaml]", "base: nowhere.yaml", "base: ../../etc/passwd", "base: /etc/passwd", "base: folder",
    "base: main.yaml", "base: [main.yaml]", "base: http://127.0.0.1/a.yaml", "base: ''", "base: 5", "base: [[a]]",
    "base: {a: b}", 'base: "a\\0b"', 'base: "\\x1b[2J"', 'base: "\\ud800"', "base: " + "x" * 300,
    "base: " + "x/" * 3000,
    "base: loop.yaml", "base: many.yaml", "<<: {seed: 3}", "? [a]\n: 1", "? {a: b}\n: 1", "null: 1", "1: 2", "'': 1",
    "~: 1",
    "%YAML 9.9\n---", "--- \nseed: 1\n---\nseed: 2", "a" * 3000 + ": 1", "\x1b[2J: 1", '"\\x1b[2J": 1', "data: null",
    "data: {classes: [a, a]}", "data: {classes: ['']}", "model: {anchors: {sizes: [1e300]}}", "seed: 1e3", "model: 5",
    "model: {anchors: {sizes: [1, 1], aspect_ratios: [.inf]}}", "training: {learning_rate: 1e-400}", "output_dir: ''",
    "a: &a [x, x, x, x, x]\nb: &b [*a, *a, *a, *a]\nc: [*b, *b, *b, *b, *b, *b]", "a: &a {b: *a}", "a: *undefined",
    "data: {train: [{format: coco, images: a, annotations: b, x: 1}]}", "data: {train: [{format: [coco]}]}",
    "device: tpu",
    "data: {augmentations: [{name: Blur, arguments: {a: &b [1], c: *b}}]}", "data: {train: [5]}",
    "data: {train: {a: b}}",
)  # fmt: skip
_OVERRIDES = (
    "seed=1", "seed", "=", "=1", "seed=", ".=1", "a..b=1", "model.backbone.depth=18", "model.backbone=18", "seed=[[[",
    "seed=&a [*a]", "data.train=[{format: shapes}]", "\x1b[2J=1", "seed=\x1b[2J", "seed=" + "x" * 5000,
    "x" * 5000 + "=1",
    "a." * 300 + "b=1", "seed=!!python/object/apply:os.system [id]", "model.weights=\ud800",
    "training.learning_rate=1e-4",
    "data.train.0.images=5", "base=good.yaml", "seed=1\nseed=2", "model={}", "training.learning_rate=.nan", "seed='",
)  # fmt: skip


class ConfigTarget:
    """Changed texts of a small and of a complete configuration."""

    name = "config"

    def __init__(self, folder: Path, shared: Path | None) -> None:
        self.folder = folder
        (folder / "folder").mkdir()
        (folder / "good.yaml").write_text("seed: 5\nmodel: {backbone: {depth: 34}}\n", encoding="utf-8")
        (folder / "loop.yaml").write_text("base: main.yaml\n", encoding="utf-8")
        for level in range(6):  # 64 million files, if each were read whenever it is named
            name = f"many{level + 1}.yaml" if level < 5 else "good.yaml"
            (folder / f"many{level or ''}.yaml").write_text(f"base: [{', '.join([name] * 20)}]\n", encoding="utf-8")
        self.bases = [TINY, dump_config(parse_config(TINY, "tiny")), dump_config(Config()), "seed: 1\n", ""]

    def case(self, random: Random) -> Case:
        """One to three changed or added lines, or changed bytes; sometimes overrides."""
        case = Case()
        text = random.choice(self.bases)
        for _ in range(random.choice((1, 1, 1, 2, 3))):
            text, note = _changed(random, text)
            case.notes.append(note)
        data = text.encode("utf-8", "surrogatepass")
        kind = random.random()
        if kind < 0.12:
            data, note = raw_bytes.mutate(random, data, self.bases[1].encode())
            case.notes.append(note)
        elif kind < 0.16:
            data, note = raw_bytes.reencode(random, text)
            case.notes.append(note)
        case.arguments["overrides"] = [random.choice(_OVERRIDES)] if random.random() < 0.15 else []
        case.notes += [f"override {text!a:.60}" for text in case.arguments["overrides"]]
        case.files["main.yaml"] = data
        return case

    def readings(self, case: Case) -> Sequence[Reading]:
        """As a file, and as the text that stands in a weights file."""
        data, overrides = case.files["main.yaml"] or b"", case.arguments["overrides"]
        readings = [
            Reading(
                "load_config",
                lambda: load_config(self.folder / "main.yaml", overrides),
                lambda found: _faults_of_text(data.decode("utf-8-sig")) + _faults_of_config(found),
                None,
                (str(self.folder), "override ", "/etc/passwd"),
            )
        ]
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return readings
        readings.append(
            Reading(
                "parse_config",
                lambda: parse_config(text, "weights", overrides),
                lambda found: _faults_of_text(text) + _faults_of_config(found),
                None,
                ("weights", "override "),
            )
        )
        return readings


def _changed(random: Random, text: str) -> tuple[str, str]:
    lines = text.splitlines()
    operation = random.choice(("value", "value", "value", "add", "add", "add", "remove", "twice", "indent", "shuffle"))
    place = random.randrange(len(lines) + 1)
    note = operation
    if operation == "add" or place == len(lines):
        new = random.choice(_LINES)
        lines.insert(random.choice((0, place, len(lines))), new)
        note = f"add {new!a:.60}"
    elif operation == "value" and ": " in lines[place]:
        new = random.choice(_SCALARS)
        lines[place] = lines[place].rsplit(": ", 1)[0] + ": " + new
        note = f"value {lines[place].strip()!a:.60}"
    elif operation == "remove":
        lines.pop(place)
    elif operation == "twice":
        lines.insert(place, lines[place])
    elif operation == "indent":
        lines[place] = random.choice(("  ", " ", "\t", "")) + random.choice((lines[place], lines[place].lstrip()))
    elif operation == "shuffle":
        lines[place:] = random.sample(lines[place:], len(lines) - place)
    return "\n".join(lines) + "\n", note


def _faults_of_text(text: str) -> list[str]:
    """What a text may not hold that was accepted."""
    try:
        documents = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        return [f"accepted, though no YAML: {type(error).__name__}"]
    if len(documents) > 1:
        return ["several documents"]
    seen: set[int] = set()
    aliased = 0
    faults = []
    for node in _all_nodes(documents[0]) if documents and documents[0] is not None else ():
        if id(node) in seen:
            aliased += 1
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            faults += ["a key is there twice"] if len({value for _, value in keys}) < len(keys) else []
    return faults + (["more nodes by aliases than allowed"] if aliased > _ALIASED_NODES else [])


def _all_nodes(node: Any) -> Iterator[Any]:
    yield node
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            for item in pair:
                yield from _all_nodes(item)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _all_nodes(item)


def _faults_of_config(config: Config) -> list[str]:
    """What no accepted configuration may be."""
    text = dump_config(config)
    faults = [] if parse_config(text, "dumped") == config else ["it is another one when it is written and read"]
    return faults + [f"{value} is a setting" for value in _numbers(config.model_dump()) if not math.isfinite(value)]


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _numbers(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, int | float):
        yield value
