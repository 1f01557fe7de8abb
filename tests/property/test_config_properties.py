"""Laws of configuration files that hold for all settings and all texts."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from detector.config import Config, dump_config, parse_config
from detector.errors import ConfigError

# The same examples every time, and nothing written into the folder that the tests are started in.
EXAMPLES = settings(max_examples=80, deadline=None, database=None, derandomize=True)

# Names that YAML readers are known to turn into something else.
HARD_NAMES = ["1e-4", "no", "Yes", "null", "~", "true", "FALSE", "0x10", "012", "1_000", ".inf", "-.5", "12:30:00"]
HARD_NAMES += ["2026-01-01", "=", "<<", "- a", "? a", "a: b", "a #b", "#", "'", '"', "\\", "%a", "@a", "`", "|", ">"]
HARD_NAMES += [" a", "a ", "a\nb", "a\r", "\t", "\x85", "\u2028", "\ufeff", "ünï", "日本", "🐈", "\x00", "\x1b[31m"]

names = st.sampled_from(HARD_NAMES) | st.text(min_size=1, max_size=200)
finite = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
fractions = st.floats(0, 1)
counts = st.integers(1, 2**31)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
sets = st.one_of(
    st.fixed_dictionaries({"format": st.just("coco"), "images": names, "annotations": names}),
    st.fixed_dictionaries({"format": st.just("voc"), "root": names, "split": names}),
    st.fixed_dictionaries(
        {"format": st.just("shapes"), "images": counts},
        optional={"seed": st.integers(0, 2**31), "hard": st.booleans()},
    ),
)
configs = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 2**31 - 1),
        "output_dir": st.none() | names,
        "model": st.fixed_dictionaries(
            {},
            optional={
                "weights": st.none() | names,
                "pixel_mean": st.tuples(finite, finite, finite),
                "anchors": st.fixed_dictionaries({"sizes": st.lists(positive, min_size=1, max_size=4)}),
            },
        ),
        "data": st.fixed_dictionaries(
            {},
            optional={
                "train": st.lists(sets, max_size=3),
                "classes": st.none() | st.lists(names, min_size=1, max_size=5, unique=True),
                "augmentations": st.lists(
                    st.fixed_dictionaries({"name": names, "arguments": st.dictionaries(names, plain, max_size=3)}),
                    max_size=2,
                ),
                "horizontal_flip": fractions,
            },
        ),
        "training": st.fixed_dictionaries(
            {}, optional={"learning_rate": positive, "gradient_clip": st.none() | positive, "iterations": counts}
        ),
    },
).map(lambda values: Config.model_validate_json(json.dumps(values)))


@EXAMPLES
@given(configs)
def test_a_dumped_configuration_reads_back_equal(config: Config) -> None:
    assert parse_config(dump_config(config), "dump") == config


@EXAMPLES
@given(configs)
def test_dumping_twice_gives_the_same_text(config: Config) -> None:
    text = dump_config(config)
    assert dump_config(parse_config(text, "dump")) == text


@EXAMPLES
@given(names)
def test_every_class_name_survives(name: str) -> None:
    config = Config.model_validate_json(json.dumps({"data": {"classes": [name]}}))
    assert parse_config(dump_config(config), "dump") == config


@EXAMPLES
@given(finite)
def test_every_number_survives(value: float) -> None:
    config = Config.model_validate_json(json.dumps({"model": {"pixel_mean": [value, 0.0, 0.0]}}))
    assert parse_config(dump_config(config), "dump").model.pixel_mean[0] == value


@EXAMPLES
@given(st.text(max_size=60))
def test_any_text_is_a_configuration_or_a_clear_error(text: str) -> None:
    refused_clearly(text, ())


@EXAMPLES
@given(st.sampled_from(["seed", "data.classes", "training", "model.rpn.nms_iou", "x", ""]), st.text(max_size=30))
def test_any_override_is_applied_or_a_clear_error(key: str, value: str) -> None:
    refused_clearly("", (f"{key}={value}",))


@EXAMPLES
@given(plain)
def test_any_value_in_place_of_a_section_is_a_clear_error(value: Any) -> None:
    refused_clearly(json.dumps({"training": value}), ())


def refused_clearly(text: str, overrides: tuple[str, ...]) -> None:
    try:
        parse_config(text, "a.yaml", overrides)
    except ConfigError as error:
        for line in str(error).split("\n"):
            assert len(line) <= 400
            assert line.isprintable()
