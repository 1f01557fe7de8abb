"""The ledger of published numbers, and the recipes behind them."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from detector.config import Config, load_config
from tests.scripts import load_script


@pytest.fixture(scope="module")
def maker(root: Path) -> ModuleType:
    """The script that writes the page."""
    return load_script(root / "tools" / "make_results.py")


@pytest.fixture(scope="module")
def results(root: Path) -> list[dict[str, Any]]:
    """The entries of the ledger."""
    return json.loads((root / "configs" / "results.json").read_text())  # type: ignore[no-any-return]


def test_the_page_is_what_the_script_writes(root: Path, maker: ModuleType, results: list[dict[str, Any]]) -> None:
    assert (root / "configs" / "RESULTS.md").read_text() == maker.render(results)


def test_every_recipe_is_in_the_ledger(root: Path, results: list[dict[str, Any]]) -> None:
    recipes = {
        str(path.relative_to(root / "configs"))
        for kind in ("coco", "voc", "cifar")
        for path in (root / "configs" / kind).glob("*.yaml")
    }
    assert recipes == {result["config"] for result in results}


def test_a_recipe_says_the_numbers_of_the_ledger(root: Path, results: list[dict[str, Any]]) -> None:
    for result in results:
        head = (root / "configs" / result["config"]).read_text().split("base:")[0]
        assert result["state"] in head
        if result["expected"] is not None and "overrides" not in result:
            assert str(result["expected"]) in head
            assert f"+- {result['tolerance']}" in head


@pytest.mark.parametrize(
    ("config", "numbers"),
    [
        ("coco/faster_rcnn_r101_c4_3x.yaml", (101, 270000, (210000, 250000), 1000, 0.02, 16, 1e-4, 1000)),
        ("coco/faster_rcnn_r101_c4_1x.yaml", (101, 90000, (60000, 80000), 1000, 0.02, 16, 1e-4, 1000)),
        ("coco/faster_rcnn_r50_c4_3x.yaml", (50, 270000, (210000, 250000), 1000, 0.02, 16, 1e-4, 1000)),
        ("coco/faster_rcnn_r50_c4_1x.yaml", (50, 90000, (60000, 80000), 1000, 0.02, 16, 1e-4, 1000)),
        ("voc/faster_rcnn_r101_c4_0712.yaml", (101, 18000, (12000, 16000), 100, 0.02, 16, 1e-4, 1000)),
        ("voc/faster_rcnn_r50_c4_0712.yaml", (50, 18000, (12000, 16000), 100, 0.02, 16, 1e-4, 1000)),
        ("coco/faster_rcnn_r101_c4_he2015.yaml", (101, 320000, (240000,), 0, 0.001, 8, 5e-4, 300)),
        ("voc/faster_rcnn_r101_c4_he2015.yaml", (101, 80000, (60000,), 0, 0.001, 2, 5e-4, 300)),
        ("voc/faster_rcnn_r101_c4_0712pp.yaml", (101, 80000, (60000,), 0, 0.001, 2, 5e-4, 300)),
    ],
)
def test_schedules_are_the_published_ones(root: Path, config: str, numbers: tuple[Any, ...]) -> None:
    found = load_config(root / "configs" / config)
    training = found.training
    assert numbers == (
        found.model.backbone.depth, training.iterations, training.schedule.steps, training.schedule.warmup_iterations,
        training.learning_rate, training.batch_size, training.weight_decay, found.evaluation.proposals,
    )  # fmt: skip
    assert (training.optimizer, training.momentum, training.schedule.factor) == ("sgd", 0.9, 0.1)
    assert training.gradient_clip is None


@pytest.mark.parametrize(
    ("config", "short", "test", "limit", "anchors"),
    [
        ("coco/faster_rcnn_r101_c4_3x.yaml", range(640, 801, 32), 800, 1333, (32, 64, 128, 256, 512)),
        ("voc/faster_rcnn_r50_c4_0712.yaml", range(480, 801, 32), 800, 1333, (32, 64, 128, 256, 512)),
        ("coco/faster_rcnn_r101_c4_he2015.yaml", [600], 600, 1000, (64, 128, 256, 512)),
        ("voc/faster_rcnn_r101_c4_he2015.yaml", [600], 600, 1000, (128, 256, 512)),
    ],
)
def test_images_and_anchors_are_the_published_ones(
    root: Path, config: str, short: Any, test: int, limit: int, anchors: tuple[int, ...]
) -> None:
    found = load_config(root / "configs" / config)
    resize = found.data.resize
    assert (list(resize.train_short_side), resize.test_short_side, resize.max_long_side) == (list(short), test, limit)
    assert found.model.anchors.sizes == anchors
    assert found.model.anchors.aspect_ratios == (0.5, 1, 2)
    assert found.data.horizontal_flip == 0.5


def test_the_defaults_of_the_schema_are_the_modern_recipe(root: Path) -> None:
    """Once more as written in the base file, so that neither can drift alone."""
    recipe, default = load_config(root / "configs" / "coco" / "faster_rcnn_r101_c4_3x.yaml").model, Config().model
    assert recipe.model_copy(update={"weights": None}) == default
    rpn, head = default.rpn, default.roi_head
    assert (rpn.foreground_iou, rpn.background_iou, rpn.anchors_per_image, rpn.foreground_fraction) == (
        0.7,
        0.3,
        256,
        0.5,
    )
    assert (rpn.train_candidates, rpn.train_proposals, rpn.test_candidates, rpn.nms_iou) == (12000, 2000, 6000, 0.7)
    assert (head.regions_per_image, head.foreground_fraction, head.foreground_iou) == (512, 0.25, 0.5)
    assert (head.pooled_size, head.sampling_ratio, head.box_weights) == (14, 0, (10, 10, 5, 5))
    assert (head.score_threshold, head.nms_iou, head.detections_per_image) == (0.05, 0.5, 100)
