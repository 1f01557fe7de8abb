"""Configuration files: bases, overrides, strictness, and the files that are shipped."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from detector.config import Config, dump_config, load_config, parse_config
from detector.errors import ConfigError
from tests.conftest import ROOT


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def refusal(text: str, *overrides: str) -> str:
    """The message with which a configuration, written as a.yaml, is refused."""
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "a.yaml", overrides)
    return str(caught.value)


def refusal_of_file(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return str(caught.value)


def setting(config: Config, key: str) -> Any:
    return reduce(getattr, key.split("."), config)


# Bases


def test_a_file_alone_changes_only_what_it_names() -> None:
    assert parse_config("seed: 7", "a.yaml") == Config(seed=7)


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "---\n", "\ufeff"])
def test_an_empty_file_means_the_defaults(tmp_path: Path, text: str) -> None:
    assert load_config(write(tmp_path / "a.yaml", text)) == Config()


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    assert load_config(write(tmp_path / "a.yaml", "\ufeffseed: 7")).seed == 7


def test_mappings_merge_by_key(tmp_path: Path) -> None:
    write(tmp_path / "low.yaml", "training: {momentum: 0.5, schedule: {factor: 0.2, warmup_iterations: 3}}")
    path = write(tmp_path / "high.yaml", "base: low.yaml\ntraining: {schedule: {factor: 0.3}}")
    training = load_config(path).training
    assert (training.momentum, training.schedule.factor, training.schedule.warmup_iterations) == (0.5, 0.3, 3)


def test_lists_are_replaced_whole(tmp_path: Path) -> None:
    write(tmp_path / "low.yaml", "model: {anchors: {sizes: [8, 16, 32]}}")
    path = write(tmp_path / "high.yaml", "base: low.yaml\nmodel: {anchors: {sizes: [64]}}")
    assert load_config(path).model.anchors.sizes == (64.0,)


def test_null_replaces_a_value_of_the_base(tmp_path: Path) -> None:
    write(tmp_path / "low.yaml", "model: {weights: x.safetensors}")
    assert load_config(write(tmp_path / "high.yaml", "base: low.yaml\nmodel: {weights: null}")).model.weights is None


def test_of_several_bases_the_last_wins(tmp_path: Path) -> None:
    write(tmp_path / "one.yaml", "seed: 1\ndevice: cpu")
    write(tmp_path / "two.yaml", "seed: 2")
    config = load_config(write(tmp_path / "high.yaml", "base: [one.yaml, two.yaml]"))
    assert (config.seed, config.device) == (2, "cpu")


def test_the_file_itself_wins_over_its_bases(tmp_path: Path) -> None:
    write(tmp_path / "low.yaml", "seed: 1")
    assert load_config(write(tmp_path / "high.yaml", "seed: 5\nbase: low.yaml")).seed == 5


def test_a_base_is_relative_to_the_file_that_names_it(tmp_path: Path) -> None:
    write(tmp_path / "shared" / "lowest.yaml", "seed: 9")
    write(tmp_path / "shared" / "low.yaml", "base: lowest.yaml")
    write(tmp_path / "lowest.yaml", "seed: 1")
    path = write(tmp_path / "mine" / "high.yaml", "base: ../shared/low.yaml")
    assert load_config(path).seed == 9


def test_a_file_that_is_its_own_base_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "base: a.yaml")
    assert "base leads back to itself: a.yaml -> a.yaml" in refusal_of_file(path)


def test_a_cycle_of_bases_is_told_as_a_chain(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "base: b.yaml")
    write(tmp_path / "b.yaml", "base: c.yaml")
    write(tmp_path / "c.yaml", "base: a.yaml")
    assert "a.yaml -> b.yaml -> c.yaml -> a.yaml" in refusal_of_file(path)


def test_two_bases_may_share_theirs(tmp_path: Path) -> None:
    write(tmp_path / "root.yaml", "seed: 3")
    write(tmp_path / "one.yaml", "base: root.yaml\ndevice: cpu")
    write(tmp_path / "two.yaml", "base: root.yaml")
    assert load_config(write(tmp_path / "a.yaml", "base: [one.yaml, two.yaml]")).seed == 3


def chain_of_bases(folder: Path, files: int) -> Path:
    write(folder / "0.yaml", "seed: 4")
    for number in range(1, files):
        write(folder / f"{number}.yaml", f"base: {number - 1}.yaml")
    return folder / f"{files - 1}.yaml"


def test_eight_files_may_stand_on_each_other(tmp_path: Path) -> None:
    assert load_config(chain_of_bases(tmp_path, 8)).seed == 4


def test_nine_files_on_each_other_are_too_many(tmp_path: Path) -> None:
    assert "more than 8 levels of base" in refusal_of_file(chain_of_bases(tmp_path, 9))


def test_a_missing_base_is_told_with_the_line_that_names_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "seed: 1\nbase: nowhere.yaml")
    assert refusal_of_file(path) == f"{path}:2: base: no such file: {tmp_path / 'nowhere.yaml'}"


@pytest.mark.parametrize("value", ["5", "null", "{a: b.yaml}", "[b.yaml, 5]", "''", "['']"])
def test_a_base_must_be_a_name_or_a_list_of_names(tmp_path: Path, value: str) -> None:
    path = write(tmp_path / "a.yaml", f"base: {value}")
    assert "base: must be a file name or a list of file names" in refusal_of_file(path)


def test_a_base_is_never_fetched_from_the_network(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "base: https://example.org/a.yaml")
    assert "base: no such file" in refusal_of_file(path)


def test_a_mistake_in_a_base_names_the_base_and_its_line(tmp_path: Path) -> None:
    low = write(tmp_path / "low.yaml", "seed: 1\ntraining:\n  batch_size: 0")
    path = write(tmp_path / "high.yaml", "base: low.yaml")
    assert refusal_of_file(path).startswith(f"{low}:3: training.batch_size: ")


def test_a_value_that_the_file_replaced_in_its_base_is_told_at_the_file(tmp_path: Path) -> None:
    write(tmp_path / "low.yaml", "training: {batch_size: 2}")
    path = write(tmp_path / "high.yaml", "base: low.yaml\ntraining:\n\n  batch_size: 0")
    assert refusal_of_file(path).startswith(f"{path}:4: training.batch_size: ")


# Files


def test_a_missing_file_suggests_its_neighbour(tmp_path: Path) -> None:
    near = write(tmp_path / "quickstart.yaml", "")
    assert f"no such file; did you mean {near}?" in refusal_of_file(tmp_path / "quickstat.yaml")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"seed: \xff\xfe", "not UTF-8 text (byte 6)"),
        (b"\x89PNG\r\n\x1a\n\0\0", "not UTF-8 text"),
        (b"seed: 1 # \0", "not valid YAML"),
        (b"#" * 1_000_001, "larger than 1000000 bytes"),
    ],
    ids=["latin", "image", "control character", "huge"],
)
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    assert words in refusal_of_file(path)


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    assert "this is a folder" in refusal_of_file(tmp_path)


# YAML


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E-4", 1e-4),
        ("1.e-4", 1e-4),
        (".5", 0.5),
        ("+2", 2.0),
        ("3", 3.0),
    ],
)
def test_what_looks_like_a_number_is_one(text: str, value: float) -> None:
    assert parse_config(f"training: {{learning_rate: {text}}}", "a.yaml").training.learning_rate == value


@pytest.mark.parametrize("text", ["no", "yes", "on", "off", "y", "n", "12:30:00", "2026-01-01", "0x10", "1_000", "01"])
def test_what_other_readers_convert_stays_text(text: str) -> None:
    assert parse_config(f"data: {{classes: [{text}]}}", "a.yaml").data.classes == (text,)


@pytest.mark.parametrize("text", ["true", "True", "TRUE"])
def test_true_is_a_truth_value(text: str) -> None:
    assert (
        parse_config(f"model: {{backbone: {{stride_in_1x1: {text}}}}}", "a.yaml").model.backbone.stride_in_1x1 is True
    )


@pytest.mark.parametrize("text", ["null", "~", "Null", ""])
def test_null_is_nothing(text: str) -> None:
    assert parse_config(f"model:\n  weights: {text}\n", "a.yaml").model.weights is None


def test_a_key_stands_once() -> None:
    assert refusal("seed: 1\n\nseed: 2") == ("a.yaml:3: the key 'seed' is given twice (first at a.yaml:1); remove one")


def test_a_key_stands_once_deep_inside_too() -> None:
    assert "a.yaml:4: the key 'factor' is given twice (first at a.yaml:3)" in refusal(
        "training:\n  schedule:\n    factor: 1\n    factor: 2"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed:\n\t- 1", "a.yaml:2: not valid YAML"),
        ("seed: 1\n  device: cpu", "a.yaml:2: not valid YAML"),
        ("data:\n  train: [1, 2", "a.yaml:2: not valid YAML"),
        ("seed: 'open", "a.yaml:1: not valid YAML"),
        ("seed: 1\n---\nseed: 2", "a.yaml:2: not valid YAML"),
        ("seed: *there", "a.yaml:1: not valid YAML"),
        ("? [a]\n: 1", "a.yaml:1: a key must be a word"),
        ("[" * 5000, "a.yaml:1: too large or too deeply nested"),
    ],
    ids=["tab", "bad indent", "open list", "open quote", "two documents", "no such alias", "list as key", "nested"],
)
def test_broken_yaml_is_told_with_its_line(text: str, words: str) -> None:
    assert refusal(text).startswith(words)


@pytest.mark.parametrize("text", ["- seed", "5", "just words"])
def test_a_document_must_be_a_mapping(text: str) -> None:
    assert refusal(text).startswith("a.yaml: must hold 'key: value' lines")


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.getcwd []",
        "!!python/name:os.system",
        "!!python/tuple [1, 2]",
        "!!set {a, b}",
        "!!binary aGVsbG8=",
        "!mine 5",
    ],
)
def test_a_tag_that_makes_objects_is_refused(value: str) -> None:
    message = refusal(f"device: cpu\nseed: {value}")
    assert message.startswith("a.yaml:2: the tag ")
    assert "is not allowed" in message


@pytest.mark.parametrize("value", ["!!bool 'yes'", "!!null 'nothing'", "!!int 'x'", "!!float 'x'"])
def test_a_tag_that_contradicts_its_value_is_refused(value: str) -> None:
    assert "a.yaml:1: " in refusal(f"data: {{augmentations: [{{name: Blur, arguments: {{p: {value}}}}}]}}")


def test_an_alias_stands_for_its_value() -> None:
    config = parse_config("seed: &it 3\ntraining: {log_every: *it}", "a.yaml")
    assert (config.seed, config.training.log_every) == (3, 3)


def test_aliases_cannot_multiply_without_end() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    assert "too large or too deeply nested" in refusal("\n".join(lines))


def test_an_alias_inside_itself_is_refused() -> None:
    assert refusal("data: &a {train: [*a]}").startswith("a.yaml:1: too large or too deeply nested")


# Keys


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("traning: {}", "a.yaml:1: traning: unknown key; did you mean training?"),
        ("model:\n  rpn:\n    nms_uio: 0.7", "a.yaml:3: model.rpn.nms_uio: unknown key; did you mean nms_iou?"),
        ("training:\n  learning_rat: 1", "a.yaml:2: training.learning_rat: unknown key; did you mean learning_rate?"),
    ],
)
def test_an_unknown_key_suggests_the_nearest(text: str, line: str) -> None:
    assert refusal(text) == line


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        ("data: {train: [{format: shapes, images: 5, hards: true}]}", "data.train.0.hards", "hard"),
        ("data: {val: [{format: shapes, images: 5, sizes: [64, 80]}]}", "data.val.0.sizes", "size"),
        ("data: {train: [{format: coco, images: a, anotations: b}]}", "data.train.0.anotations", "annotations"),
        ("data: {train: [{format: voc, root: a, splits: b}]}", "data.train.0.splits", "split"),
        ("data: {augmentations: [{name: Blur, argument: {}}]}", "data.augmentations.0.argument", "arguments"),
    ],
)
def test_an_unknown_key_in_a_list_suggests_the_nearest(text: str, key: str, nearest: str) -> None:
    assert f"a.yaml:1: {key}: unknown key; did you mean {nearest}?" in refusal(text).splitlines()


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [
        ("depth: 50", "did you mean model.backbone.depth?"),
        ("model: {depth: 50}", "did you mean model.backbone.depth?"),
        ("training: {horizontal_flip: 0.5}", "did you mean data.horizontal_flip?"),
        ("batch_size: 4", "did you mean training.batch_size?"),
    ],
)
def test_a_key_of_another_section_is_suggested_with_its_section(text: str, suggestion: str) -> None:
    assert refusal(text).endswith(f"unknown key; {suggestion}")


def test_a_key_like_no_other_lists_those_there_are() -> None:
    assert refusal("model: {anchors: {xyz: 1}}").endswith("unknown key; known here: sizes, aspect_ratios")


@pytest.mark.parametrize("key", ["no", "1", "1e-4", "null", "<<", "ü", "a b"])
def test_an_odd_key_is_an_unknown_key(key: str) -> None:
    assert f"{key}: unknown key" in refusal(f"{key}: 1")


# Values


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training: {iterations: many}", "training.iterations: input should be a valid integer"),
        ('training: {learning_rate: "1e-4"}', "training.learning_rate: input should be a valid number"),
        ("training: {batch_size: '4'}", "training.batch_size: input should be a valid integer"),
        ("training: {batch_size: 4.5}", "training.batch_size: input should be a valid integer"),
        ("data: {group_by_aspect_ratio: no}", "data.group_by_aspect_ratio: input should be a valid boolean"),
        ("data: {group_by_aspect_ratio: 'False'}", "data.group_by_aspect_ratio: input should be a valid boolean"),
        ("data: {group_by_aspect_ratio: 0}", "data.group_by_aspect_ratio: input should be a valid boolean"),
        ("seed: true", "seed: input should be a valid integer"),
        ("output_dir: 5", "output_dir: input should be a valid string"),
        ("data: {classes: [cat, 1e-4]}", "data.classes.1: input should be a valid string"),
        ("model: 5", "model: input should be an object"),
        ("model: null", "model: input should be an object"),
        ("data: {train: {format: shapes, images: 5}}", "data.train: input should be a valid array"),
        ("data: {train: [shapes]}", "data.train.0: input should be an object"),
    ],
)
def test_a_value_of_another_type_is_refused(text: str, words: str) -> None:
    assert words in refusal(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training: {learning_rate: -1}", "training.learning_rate: input should be greater than 0"),
        ("training: {learning_rate: 0}", "training.learning_rate: input should be greater than 0"),
        ("training: {learning_rate: .nan}", "training.learning_rate: input should be a finite number"),
        ("training: {learning_rate: 1e999}", "training.learning_rate: input should be a finite number"),
        ("training: {batch_size: 0}", "training.batch_size: input should be greater than or equal to 1"),
        ("training: {momentum: 1}", "training.momentum: input should be less than 1"),
        ("training: {iterations: 99999999999999999999}", "training.iterations: input should be less than or equal"),
        ("data: {workers: -1}", "data.workers: input should be greater than or equal to 0"),
        ("data: {horizontal_flip: 1.5}", "data.horizontal_flip: input should be less than or equal to 1"),
        ("seed: -1", "seed: input should be greater than or equal to 0"),
        ("model: {backbone: {depth: 51}}", "model.backbone.depth: input should be 18, 34, 50, 101 or 152"),
        ("device: gpu", "device: input should be 'auto', 'cpu', 'cuda' or 'mps'"),
        ("evaluation: {metrics: [coco, map]}", "evaluation.metrics.1: input should be 'coco', 'voc07' or 'voc'"),
        ("evaluation: {metrics: []}", "evaluation.metrics: "),
        ("model: {anchors: {sizes: []}}", "model.anchors.sizes: "),
        ("data: {classes: []}", "data.classes: "),
        ("data: {classes: ['']}", "data.classes.0: string should have at least 1 character"),
    ],
)
def test_a_value_out_of_range_is_refused(text: str, words: str) -> None:
    assert refusal(text).startswith(f"a.yaml:1: {words}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data: {classes: [a, b, a]}", "data: classes holds a name twice"),
        ("model: {rpn: {background_iou: 0.8}}", "model.rpn: background_iou must not exceed foreground_iou"),
        ("training: {schedule: {steps: [5, 3]}}", "training.schedule: steps must rise"),
        ("training: {schedule: {kind: cosine, steps: [5]}}", "training.schedule: steps are given but kind is cosine"),
        ("training: {batch_size: 6, micro_batch_size: 4}", "training: micro_batch_size 4 does not divide batch_size 6"),
    ],
)
def test_values_that_contradict_each_other_are_refused(text: str, words: str) -> None:
    assert refusal(text).startswith(f"a.yaml:1: {words}")


@pytest.mark.parametrize("value", ["[1, 2]", "[1, 2, 3, 4]"])
def test_a_list_of_the_wrong_length_is_not_called_missing(value: str) -> None:
    message = refusal(f"model: {{pixel_mean: {value}}}")
    assert "model.pixel_mean" in message
    assert "is missing" not in message


@pytest.mark.parametrize("value", [".nan", ".inf"])
def test_an_argument_of_an_augmentation_is_a_finite_number(value: str) -> None:
    # dump_config could not write it: JSON knows neither.
    assert "data.augmentations" in refusal(f"data: {{augmentations: [{{name: Blur, arguments: {{p: {value}}}}}]}}")


def test_a_data_set_needs_a_format() -> None:
    assert refusal("data: {train: [{images: a}]}") == (
        "a.yaml:1: data.train.0: needs a format: coco, voc or shapes; or folder, cifar10, cifar100 or crops for "
        "pretrain.py"
    )


def test_an_unknown_format_lists_the_known_ones() -> None:
    assert refusal("data:\n  train:\n    - {format: yolo}") == (
        "a.yaml:3: data.train.0: unknown format 'yolo'; use coco, voc or shapes; or folder, cifar10, cifar100 or crops "
        "for pretrain.py"
    )


def test_a_missing_key_is_told() -> None:
    assert refusal("data: {val: [{format: voc, root: a}]}") == "a.yaml:1: data.val.0.split: is missing"


def test_all_problems_stand_in_one_report() -> None:
    lines = refusal("seed: x\ntraning: {}\nmodel:\n  backbone: {depth: 7}\n  rpm: {}\n").splitlines()
    assert [line.split(" ")[:2] for line in lines] == [
        ["a.yaml:1:", "seed:"],
        ["a.yaml:2:", "traning:"],
        ["a.yaml:4:", "model.backbone.depth:"],
        ["a.yaml:5:", "model.rpm:"],
    ]


@pytest.mark.parametrize("text", ['device: "{}"', '"{}": 1', 'training: {{"{}": 1}}', "{}"])
def test_foreign_text_cannot_forge_a_line(text: str) -> None:
    assert refusal(text.format(r"cpu\nerror: \e[31m all is lost")).isprintable()


@pytest.mark.parametrize("text", ["device: {}", "{}: 1", "training: {{{}: 1}}", "data: {{train: [{{format: {}}}]}}"])
def test_long_text_is_cut(text: str) -> None:
    assert len(refusal(text.format("x" * 1000))) < 400


# Overrides


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("training.batch_size=4", "training.batch_size", 4),
        ("training.learning_rate=1e-4", "training.learning_rate", 1e-4),
        ("data.classes=[no, cat]", "data.classes", ("no", "cat")),
        ("data.group_by_aspect_ratio=false", "data.group_by_aspect_ratio", False),
        ("model.weights=torchvision:NAME", "model.weights", "torchvision:NAME"),
        ("model.weights=a=b", "model.weights", "a=b"),
        ("model.weights=", "model.weights", None),
        ("training.schedule={factor: 0.5}", "training.schedule.factor", 0.5),
    ],
)
def test_the_value_of_an_override_is_yaml(override: str, key: str, value: object) -> None:
    assert setting(parse_config("", "a.yaml", [override]), key) == value


def test_an_override_of_a_section_keeps_its_other_keys() -> None:
    config = parse_config("training: {momentum: 0.5}", "a.yaml", ["training={batch_size: 4}"])
    assert (config.training.momentum, config.training.batch_size) == (0.5, 4)


def test_an_override_wins_over_the_file_and_the_last_over_the_first(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "seed: 1\ndevice: cpu")
    config = load_config(path, ["seed=2", "seed=3"])
    assert (config.seed, config.device) == (3, "cpu")


@pytest.mark.parametrize("override", ["seed", "=5", "training..batch_size=4", ".seed=1", "seed.=1", ""])
def test_an_override_that_is_no_assignment_is_refused(override: str) -> None:
    assert refusal("", override).endswith("write it as key.path=value, such as training.batch_size=4")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.batch_sise=4", "training.batch_sise: unknown key; did you mean batch_size?"),
        ("training.batch_size=four", "training.batch_size: input should be a valid integer"),
        ("training.batch_size=0", "training.batch_size: input should be greater than or equal to 1"),
        ("training=5", "training: input should be an object"),
        ("seed=[1", "not valid YAML"),
        ("seed=!!python/name:os.system", "is not allowed; write plain values"),
        ("seed=", "seed: input should be a valid integer, got 'null'"),
        ("data.train.0.images=5", "data.train: input should be a valid array"),
    ],
)
def test_a_wrong_override_is_told_as_an_override(override: str, words: str) -> None:
    message = refusal("seed: 3\ndata: {train: [{format: shapes, images: 4}]}", override)
    assert message.startswith(f"override {override!r}: ")
    assert words in message


# What comes back


@pytest.mark.parametrize("name", ["1e-4", "no", "null", "true", "~", "5", " x ", "a: b", "#", "ü", "日本", "a\nb", "'"])
def test_a_class_name_survives_dump_and_load(name: str) -> None:
    config = Config.model_validate_json('{"data": {"classes": ["cat"]}}')
    config = config.model_copy(update={"data": config.data.model_copy(update={"classes": (name, "dog")})})
    assert parse_config(dump_config(config), "a.yaml") == config


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().training.batch_size = 4  # type: ignore[misc]


def test_two_configurations_loaded_in_turn_are_independent(tmp_path: Path) -> None:
    one = write(tmp_path / "one.yaml", "training: {batch_size: 4}\ndata: {classes: [a]}")
    two = write(tmp_path / "two.yaml", "training: {momentum: 0.5}")
    first = load_config(one, ["seed=1"])
    second = load_config(two)
    assert second == parse_config("training: {momentum: 0.5}", "two.yaml")
    assert load_config(one, ["seed=1"]) == first


# The shipped files

SHIPPED = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if path.parent.name != "base")
PUBLIC_SETS = [path for path in SHIPPED if path.parent.name in ("coco", "voc", "cifar")]


def comment(path: Path) -> str:
    """The comment that a file begins with."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return "\n".join(lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))])


@pytest.mark.parametrize(
    "name",
    [
        "quickstart.yaml",
        "coco/faster_rcnn_r101_c4_3x.yaml",
        "coco/faster_rcnn_r101_c4_1x.yaml",
        "coco/faster_rcnn_r50_c4_1x.yaml",
        "coco/faster_rcnn_r50_c4_3x.yaml",
        "coco/faster_rcnn_r101_c4_he2015.yaml",
        "voc/faster_rcnn_r101_c4_0712.yaml",
        "voc/faster_rcnn_r50_c4_0712.yaml",
        "voc/faster_rcnn_r101_c4_he2015.yaml",
        "examples/custom_coco.yaml",
        "examples/custom_voc.yaml",
        "examples/pretrain_folder.yaml",
    ],
)
def test_a_promised_configuration_is_there(name: str) -> None:
    assert ROOT / "configs" / name in SHIPPED


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_configuration_loads(path: Path) -> None:
    config = load_config(path)
    assert config.data.train
    assert config.data.val or not config.training.evaluate_every or config.model.classifier


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_configuration_survives_dump_and_load(path: Path) -> None:
    config = load_config(path)
    assert parse_config(dump_config(config), "dump") == config


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_configuration_names_its_command(path: Path) -> None:
    commands = [line for line in comment(path).splitlines() if line.startswith("#   command:")]
    assert len(commands) == 1
    tool = "train" if load_config(path).model.classifier is None else "pretrain"
    assert f"tools/{tool}.py configs/{path.relative_to(ROOT / 'configs').as_posix()}" in commands[0]


@pytest.mark.parametrize("path", PUBLIC_SETS, ids=lambda path: path.stem)
def test_a_configuration_of_a_public_set_says_what_to_expect_and_that_it_was_not_run(path: Path) -> None:
    assert "#   expected:" in comment(path)
    assert "#   state:     not run" in comment(path)


REFERENCE = {
    "training.optimizer": "sgd",
    "training.learning_rate": 0.02,
    "training.batch_size": 16,
    "training.momentum": 0.9,
    "training.weight_decay": 1e-4,
    "training.gradient_clip": None,
    "training.iterations": 270_000,
    "training.schedule.kind": "steps",
    "training.schedule.steps": (210_000, 250_000),
    "training.schedule.factor": 0.1,
    "training.schedule.warmup_iterations": 1000,
    "training.schedule.warmup_factor": 0.001,
    "model.weights": "R-101.pkl",
    "model.pixel_order": "bgr",
    "model.pixel_mean": (103.53, 116.28, 123.675),
    "model.pixel_std": (1.0, 1.0, 1.0),
    "model.backbone.depth": 101,
    "model.backbone.stride_in_1x1": True,
    "model.backbone.norm": "frozen_batch",
    "model.backbone.frozen_stages": 2,
    "data.resize.train_short_side": (640, 672, 704, 736, 768, 800),
    "data.resize.test_short_side": 800,
    "data.resize.max_long_side": 1333,
    "data.horizontal_flip": 0.5,
    "data.augmentations": (),
    "data.group_by_aspect_ratio": True,
    "model.anchors.sizes": (32.0, 64.0, 128.0, 256.0, 512.0),
    "model.anchors.aspect_ratios": (0.5, 1.0, 2.0),
    "model.rpn.background_iou": 0.3,
    "model.rpn.foreground_iou": 0.7,
    "model.rpn.anchors_per_image": 256,
    "model.rpn.foreground_fraction": 0.5,
    "model.rpn.train_candidates": 12_000,
    "model.rpn.train_proposals": 2000,
    "model.rpn.test_candidates": 6000,
    "model.rpn.nms_iou": 0.7,
    "evaluation.proposals": 1000,
    "model.roi_head.regions_per_image": 512,
    "model.roi_head.foreground_fraction": 0.25,
    "model.roi_head.foreground_iou": 0.5,
    "model.roi_head.pooled_size": 14,
    "model.roi_head.sampling_ratio": 0,
    "model.roi_head.box_weights": (10.0, 10.0, 5.0, 5.0),
    "model.roi_head.score_threshold": 0.05,
    "model.roi_head.nms_iou": 0.5,
    "model.roi_head.detections_per_image": 100,
    "evaluation.metrics": ("coco",),
}


@pytest.mark.parametrize("key", REFERENCE)
def test_the_reference_configuration_has_the_published_value(key: str) -> None:
    """The modern recipe: detectron2's C4 configurations, 3x schedule, caffe's weights."""
    assert setting(load_config(ROOT / "configs/coco/faster_rcnn_r101_c4_3x.yaml"), key) == REFERENCE[key]


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("coco/faster_rcnn_r101_c4_1x", "training.iterations", 90_000),
        ("coco/faster_rcnn_r101_c4_1x", "training.schedule.steps", (60_000, 80_000)),
        ("coco/faster_rcnn_r50_c4_1x", "training.schedule.steps", (60_000, 80_000)),
        ("coco/faster_rcnn_r50_c4_1x", "model.backbone.depth", 50),
        ("coco/faster_rcnn_r50_c4_3x", "training.iterations", 270_000),
        ("coco/faster_rcnn_r50_c4_3x", "model.weights", "R-50.pkl"),
        ("voc/faster_rcnn_r50_c4_0712", "training.iterations", 18_000),
        ("voc/faster_rcnn_r50_c4_0712", "training.schedule.steps", (12_000, 16_000)),
        ("voc/faster_rcnn_r50_c4_0712", "training.schedule.warmup_iterations", 100),
        ("voc/faster_rcnn_r50_c4_0712", "data.resize.train_short_side", tuple(range(480, 801, 32))),
        ("coco/faster_rcnn_r101_c4_he2015", "data.resize.test_short_side", 600),
        ("coco/faster_rcnn_r101_c4_he2015", "data.resize.max_long_side", 1000),
        ("coco/faster_rcnn_r101_c4_he2015", "evaluation.proposals", 300),
        ("coco/faster_rcnn_r101_c4_he2015", "training.weight_decay", 5e-4),
        ("coco/faster_rcnn_r101_c4_he2015", "training.iterations", 320_000),
        ("coco/faster_rcnn_r101_c4_he2015", "training.schedule.steps", (240_000,)),
        ("coco/faster_rcnn_r101_c4_he2015", "model.anchors.sizes", (64.0, 128.0, 256.0, 512.0)),
        ("voc/faster_rcnn_r101_c4_he2015", "model.anchors.sizes", (128.0, 256.0, 512.0)),
        ("voc/faster_rcnn_r101_c4_he2015", "training.iterations", 80_000),
        ("voc/faster_rcnn_r101_c4_he2015", "training.schedule.steps", (60_000,)),
    ],
)
def test_the_other_recipes_have_the_published_values(name: str, key: str, value: object) -> None:
    assert setting(load_config(ROOT / f"configs/{name}.yaml"), key) == value


def test_voc_has_its_twenty_classes() -> None:
    classes = load_config(ROOT / "configs/voc/faster_rcnn_r101_c4_0712.yaml").data.classes
    assert classes is not None
    assert len(classes) == 20
    assert list(classes) == sorted(classes)


# Classifiers


@pytest.mark.parametrize("depth", [8, 20, 32, 44, 56, 110, 1202])
def test_a_network_for_small_images_has_6n_plus_2_layers(depth: int) -> None:
    found = parse_config(f"model: {{classifier: {{network: cifar, depth: {depth}}}}}", "a.yaml").model.classifier
    assert found is not None
    assert found.depth == depth


@pytest.mark.parametrize("depth", [18, 21, 51, 55])
def test_another_number_of_layers_is_refused(depth: int) -> None:
    message = refusal(f"model: {{classifier: {{network: cifar, depth: {depth}}}}}")
    assert "6n + 2" in message
    assert str(depth) in message


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_the_depth_of_a_resnet_is_not_that_of_small_images(depth: int) -> None:
    message = refusal(f"model: {{classifier: {{network: resnet, depth: {depth}}}}}")
    assert "set model.backbone.depth" in message


def test_an_activation_belongs_to_preactivation() -> None:
    assert "block is residual" in refusal("model: {classifier: {activation: elu}}")


@pytest.mark.parametrize("text", ["optimizer: adamw, nesterov: true", "momentum: 0.0, nesterov: true"])
def test_nesterov_needs_momentum(text: str) -> None:
    assert "nesterov needs optimizer sgd with a momentum" in refusal(f"training: {{{text}}}")


@pytest.mark.parametrize(
    ("value", "frozen"),
    [
        ("0", ()),
        ("2", ("conv1", "conv2_x")),
        ("4", ("conv1", "conv2_x", "conv3_x", "conv4_x")),
        ("[conv2_x, conv5_x]", ("conv2_x", "conv5_x")),
        ("[]", ()),
    ],
)
def test_stages_are_frozen_by_number_or_by_name(value: str, frozen: tuple[str, ...]) -> None:
    config = parse_config(f"model: {{backbone: {{frozen_stages: {value}}}}}", "a.yaml")
    assert config.model.backbone.frozen == frozen
    assert parse_config(dump_config(config), "dump") == config


@pytest.mark.parametrize("value", ["5", "-1", "conv1", "[conv6_x]", "2.5"])
def test_other_stages_are_refused_in_one_line(value: str) -> None:
    assert refusal(f"model: {{backbone: {{frozen_stages: {value}}}}}").startswith("a.yaml:1: model.backbone.frozen_st")


def test_the_sets_of_classifiers_load() -> None:
    text = """
data:
  train:
    - {format: folder, root: a}
    - {format: cifar10, root: b, split: train}
    - {format: cifar100, root: c, split: test}
    - {format: crops, of: {format: voc, root: d, split: trainval}}
"""
    config = parse_config(text, "a.yaml")
    assert [item.format for item in config.data.train] == ["folder", "cifar10", "cifar100", "crops"]
    assert parse_config(dump_config(config), "dump") == config


def test_crops_of_crops_are_refused() -> None:
    text = "data: {train: [{format: crops, of: {format: folder, root: a}}]}"
    assert "data.train.0.of: unknown format 'folder'" in refusal(text)
