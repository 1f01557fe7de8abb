"""Anchors and an image size that would cover the objects of a data set better than the configured ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detector.config.data_schema import ResizeConfig
from detector.config.schema import AnchorConfig
from detector.data.doctor.anchor_fit import (
    AnchorFit,
    Objects,
    ious_with_shapes,
    mean_pixels,
    measure_fit,
    resized_sides,
)
from detector.data.findings import Finding

GOOD_RECALL = 0.99  # From here on nothing is suggested.from detector.data.findings import Finding

# Numbers that people would choose, about a fifth apart: nothing is gained by finer ones.
_SIZES = (
    8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640,
    768, 1024,
)  # fmt: skip
_RATIOS = (0.1, 0.15, 0.2, 0.25, 0.33, 0.5, 0.67, 0.75, 1.0, 1.33, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0)
_COUNTS = ((5, 3), (6, 3), (6, 5))  # sizes and ratios, the cheapest first
BAD_RECALL = 0.7
_CLEAR_GAIN = 0.05
_LEAST_GAIN = 0.01  # of recall; less is not worth another configuration
_WORTH = 0.001  # What an anchor more must add to the measure, a sum of three fractions.
_SAMPLE = 4000
_SHORT_SIDES = (320, 480, 640, 800, 960, 1120, 1280, 1440, 1600)
_LARGEST_SIDE = 16384  # that a configuration may have
_MOST_UNDER_16, _MOST_UNDER_32 = 0.1, 0.5


@dataclass(frozen=True)
class Suggestion:
    """Settings that would fit better.

    Attributes:
        sizes: for ``model.anchors.sizes``.
        aspect_ratios: for ``model.anchors.aspect_ratios``.
        short_side: for ``data.resize.test_short_side``; the configured one where that is large enough.
        train_short_sides: for ``data.resize.train_short_side``, in proportion.
        max_long_side: for ``data.resize.max_long_side``, in proportion.
        larger: whether these differ from the configured ones.
        pixels: pixels of a resized image, by the configured ones: what a step costs.
        fit: what the anchors then cover.
    """

    sizes: tuple[float, ...]
    aspect_ratios: tuple[float, ...]
    short_side: int
    train_short_sides: tuple[int, ...]
    max_long_side: int
    larger: bool
    pixels: float
    fit: AnchorFit

    def __str__(self) -> str:
        side = f" and a short side of {self.short_side} ({self.pixels:.1f} times the pixels)" if self.larger else ""
        return (
            f"sizes {_listed(self.sizes)} with aspect ratios {_listed(self.aspect_ratios)}{side} "
            f"would leave {100 * (1 - self.fit.recall_50):.1f} %"
        )

    def as_yaml(self) -> str:
        """The settings as they stand in a configuration."""
        lines = ["model:", "  anchors:"]
        lines += [f"    sizes: {_listed(self.sizes)}", f"    aspect_ratios: {_listed(self.aspect_ratios)}"]
        if self.larger:
            lines += ["data:", "  resize:", f"    train_short_side: {_listed(self.train_short_sides)}"]
            lines += [f"    test_short_side: {self.short_side}", f"    max_long_side: {self.max_long_side}"]
        return "\n".join(lines) + "\n"


def suggest(
    objects: Objects, class_names: Sequence[str], resize: ResizeConfig, anchors: AnchorConfig, fit: AnchorFit
) -> Suggestion | None:
    """Better settings; None where the configured ones fit, or none were found that cover more.

    Images are enlarged where more than a tenth of the objects is smaller than a cell of the features, or more than
    half of them smaller than two by two. Anchors are searched on a sample of the objects; their number stays small.

    Args:
        objects: of one or more splits.
        class_names: in the order of labels.
        resize: the configured one.
        anchors: the configured ones.
        fit: how well these fit.
    """
    if fit.recall_50 >= GOOD_RECALL:
        return None
    larger = _enlarged(objects, resize)
    best: tuple[AnchorConfig, AnchorFit] | None = None
    for sizes, ratios in _COUNTS:
        found = _search(objects, larger, sizes, ratios)
        reached = measure_fit(objects, class_names, larger, found)
        if best is None or _measure(reached) > _measure(best[1]) + _WORTH:
            best = found, reached
        if reached.recall_50 >= GOOD_RECALL:
            break
    assert best is not None
    if best[1].recall_50 < fit.recall_50 + _LEAST_GAIN or best[1].recall_70 < fit.recall_70:
        return None
    return _suggestion(resize, larger, mean_pixels(objects, larger) / mean_pixels(objects, resize), *best)


def check_anchors(fit: AnchorFit, suggestion: Suggestion | None, split: str, file: str) -> list[Finding]:
    """A finding if the anchors miss objects that others would not.

    An object that no anchor fits can be found all the same, since the first stage moves its boxes: COCO's own recipe
    covers four fifths of COCO's objects. So there must be clearly better anchors, or very bad ones.

    Args:
        fit: of the configured anchors.
        suggestion: better ones.
        split: its name.
        file: where its annotations are.
    """
    gain = suggestion.fit.recall_50 - fit.recall_50 if suggestion else 0.0
    if fit.fits or (gain < _CLEAR_GAIN and fit.recall_50 >= BAD_RECALL):
        return []
    what = (
        f"{100 * (1 - fit.recall_50):.1f} % of {fit.objects:,} objects overlap no anchor by an IoU of 0.5 "
        f"(under 16 pixels after the resize: {100 * fit.under_16:.1f} %)"
    )
    return [Finding("anchors-miss", split, file, "", f"{what}; {suggestion}" if suggestion else what)]


def _suggestion(
    resize: ResizeConfig, larger: ResizeConfig, pixels: float, anchors: AnchorConfig, fit: AnchorFit
) -> Suggestion:
    return Suggestion(
        anchors.sizes, anchors.aspect_ratios, larger.test_short_side, larger.train_short_side, larger.max_long_side,
        larger != resize, pixels, fit,
    )  # fmt: skip


def _enlarged(objects: Objects, resize: ResizeConfig) -> ResizeConfig:
    """The smallest resize from the configured one on that leaves few objects too small; at most the last step."""
    best = resize
    for short_side in (resize.test_short_side, *_SHORT_SIDES):
        if short_side < best.test_short_side:
            continue
        best = _in_proportion(resize, short_side)
        sides = resized_sides(objects, best)
        if (sides < 16).mean() <= _MOST_UNDER_16 and (sides < 32).mean() <= _MOST_UNDER_32:
            break
    return best


def _in_proportion(resize: ResizeConfig, short_side: int) -> ResizeConfig:
    scale = short_side / resize.test_short_side
    if scale == 1:
        return resize
    train = sorted({16 * max(1, round(scale * side / 16)) for side in resize.train_short_side})
    limit = min(_LARGEST_SIDE, round(scale * resize.max_long_side))
    return ResizeConfig(train_short_side=tuple(train), test_short_side=short_side, max_long_side=limit)


def _search(objects: Objects, resize: ResizeConfig, sizes: int, ratios: int) -> AnchorConfig:
    """At most so many sizes and ratios, chosen in turn: sizes for given ratios, ratios for given sizes."""
    chosen = np.random.default_rng(0).permutation(len(objects))[:_SAMPLE]
    size, ratio = np.meshgrid(np.array(_SIZES, dtype=float), np.array(_RATIOS), indexing="ij")
    shapes = np.stack([size / np.sqrt(ratio), size * np.sqrt(ratio)], axis=-1).reshape(-1, 2)
    ious = ious_with_shapes(objects.keep(chosen), resize, shapes).reshape(-1, len(_SIZES), len(_RATIOS))
    ratio_columns = list(range(len(_RATIOS)))
    for _ in range(4):
        size_columns = _choose(ious[:, :, ratio_columns].max(axis=2), sizes)
        ratio_columns = _choose(ious[:, size_columns].max(axis=1), ratios)
    return AnchorConfig(
        sizes=tuple(float(_SIZES[column]) for column in size_columns),
        aspect_ratios=tuple(_RATIOS[column] for column in ratio_columns),
    )


def _choose(ious: np.ndarray, count: int) -> list[int]:
    """The columns of ``(M, P)`` IoUs that cover the rows best together: greedy, then each put to the test again."""
    chosen: list[int] = []
    while len(chosen) < count:
        column, gain = _best_addition(ious, chosen)
        if gain <= _WORTH:
            break
        chosen.append(column)
    for place in range(len(chosen)):
        chosen[place] = _best_addition(ious, chosen[:place] + chosen[place + 1 :])[0]
    return sorted(set(chosen))


def _best_addition(ious: np.ndarray, chosen: list[int]) -> tuple[int, float]:
    covered = ious[:, chosen].max(axis=1, initial=0.0)
    together = np.maximum(covered[:, None], ious)
    measures = _coverage(together)
    column = int(measures.argmax())
    return column, float(measures[column] - _coverage(covered[:, None])[0])


def _coverage(ious: np.ndarray) -> np.ndarray:
    """Of each column: the recall at IoU 0.5, that at 0.7, and the mean IoU, which tells where neither moves."""
    total: np.ndarray = (ious >= 0.5).mean(axis=0) + (ious >= 0.7).mean(axis=0) + ious.mean(axis=0)
    return total


def _measure(fit: AnchorFit) -> float:
    return fit.recall_50 + fit.recall_70 + fit.mean_iou


def _listed(numbers: Sequence[float]) -> str:
    return "[" + ", ".join(f"{number:g}" for number in numbers) + "]"
