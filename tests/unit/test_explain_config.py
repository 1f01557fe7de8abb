"""The explained configuration: every value, the place it comes from, and YAML that reads back the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings

from detector.config import Config, dump_config, load_config, parse_config
from detector.config.explain import explain_config
from detector.errors import ConfigError
from tests.conftest import ROOT
from tests.property.test_config_properties import EXAMPLES, configs


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def explained(path: Path, *overrides: str) -> dict[str, tuple[str, str]]:
    """The text and the place of each setting, by its dotted key."""
    found: dict[str, tuple[str, str]] = {}
    section: list[str] = []
    for line in explain_config(path, overrides).split("\n"):
        matched = re.fullmatch(r"( *)(\w+):(?: (.*?) +# (.*))?", line)
        assert matched, line
        indent, key, value, place = matched.groups()
        section = [*section[: len(indent) // 2], key]
        if value is not None:
            found[".".join(section)] = (value, place)
    return found


def test_a_value_has_its_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "# first line\nmodel:\n  rpn:\n    nms_iou: 0.6\n")
    assert explained(path)["model.rpn.nms_iou"] == ("0.6", f"{path}:4")


def test_a_value_of_a_base_has_the_line_of_the_base(tmp_path: Path) -> None:
    low = write(tmp_path / "low.yaml", "\nseed: 3\ndevice: cpu\n")
    high = write(tmp_path / "high.yaml", "base: low.yaml\nseed: 4\n")
    found = explained(high)
    assert found["seed"] == ("4", f"{high}:2")
    assert found["device"] == ("cpu", f"{low}:3")


def test_an_override_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "training: {batch_size: 2}\n")
    found = explained(path, "training.batch_size=8")
    assert found["training.batch_size"] == ("8", "override 'training.batch_size=8'")


def test_values_inside_an_overridden_section_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "training: {schedule: {factor: 0.5}}\n")
    found = explained(path, "training.schedule={kind: cosine}")
    assert found["training.schedule.kind"] == ("cosine", "override 'training.schedule={kind: cosine}'")
    assert found["training.schedule.factor"] == ("0.5", f"{path}:1")


def test_what_nobody_wrote_is_a_default(tmp_path: Path) -> None:
    found = explained(write(tmp_path / "a.yaml", "seed: 1\n"))
    assert found["training.momentum"] == ("0.9", "default")
    assert [key for key, (_, place) in found.items() if place != "default"] == ["seed"]


def test_the_default_written_out_is_no_default(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "seed: 0\n")
    assert explained(path)["seed"] == ("0", f"{path}:1")


def test_a_list_has_the_line_of_its_key(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "model:\n  anchors:\n    sizes:\n    - 8\n    - 16\n")
    assert explained(path)["model.anchors.sizes"] == ("[8.0, 16.0]", f"{path}:3")


def test_a_list_of_a_base_that_was_replaced_is_not_named(tmp_path: Path) -> None:
    write(tmp_path / "low.yaml", "data: {train: [{format: shapes, images: 1}, {format: shapes, images: 2}]}\n")
    high = write(tmp_path / "high.yaml", "base: low.yaml\ndata: {train: [{format: shapes, images: 3}]}\n")
    value, place = explained(high)["data.train"]
    assert yaml.safe_load(value) == [{"format": "shapes", "images": 3, "seed": 0, "size": [192, 256], "hard": False}]
    assert place == f"{high}:2"


def test_every_setting_is_there_once(tmp_path: Path) -> None:
    lines = explain_config(write(tmp_path / "a.yaml", "")).split("\n")
    settings = [line for line in lines if "#" in line]
    assert all(line.endswith("# default") for line in settings)
    assert list(explained(tmp_path / "a.yaml")) == list(flat(Config().model_dump(mode="json")))


def flat(section: dict[str, object], prefix: str = "") -> list[str]:
    return [
        name
        for key, value in section.items()
        for name in (flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key])
    ]


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_configurations_read_back_from_their_explanation(path: Path) -> None:
    assert parse_config(explain_config(path), "explained") == load_config(path)


@settings(EXAMPLES, max_examples=30)
@given(configs)
def test_any_configuration_reads_back_from_its_explanation(config: Config) -> None:
    path = write(Path("any.yaml"), dump_config(config))
    assert parse_config(explain_config(path), "explained") == load_config(path) == config


@pytest.mark.parametrize(
    "override",
    [
        "output_dir='a # b'",
        "output_dir='...'",
        "output_dir=a...",
        r'output_dir="a\nb"',
        "output_dir='no'",
        "output_dir=ü",
    ],
)
def test_awkward_texts_read_back(tmp_path: Path, override: str) -> None:
    path = write(tmp_path / "a.yaml", "")
    assert parse_config(explain_config(path, [override]), "explained") == load_config(path, [override])


def test_a_line_break_in_a_file_name_does_not_end_the_comment(tmp_path: Path) -> None:
    path = write(tmp_path / "a\ndevice: cuda\n.yaml", "seed: 7\n")
    assert parse_config(explain_config(path), "explained") == Config(seed=7)


def test_a_wrong_configuration_is_told_instead(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sed: unknown key; did you mean seed"):
        explain_config(write(tmp_path / "a.yaml", "sed: 7\n"))
