"""A batch whose loss is not finite: told, kept, and looked into once more."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from detector.config.load import dump_config, parse_config
from detector.config.schema import Config
from detector.data.loader import Batch
from detector.durable import replace_by
from detector.engine.device import autocast
from detector.engine.learner import Learner, Update
from detector.engine.task import task_of
from detector.errors import WeightsError, one_line, quote
from detector.models.trainable import Trainable
from detector.structures import ImageBatch, ImageId, Target

_FORMAT = "detector-diverged-1"
_KEYS = {"config", "iteration", "losses", "gradient_norm", "classes", "weights", "parts"}


def explain_divergence(
    number: int, update: Update, rate: float, image_ids: Sequence[ImageId], place: Path | None
) -> str:
    """One line: iteration, losses, gradient norm, learning rate, images, and what to do."""
    losses = ", ".join(f"{name} {value:.4g}" for name, value in update.losses.items())
    ids = [quote(image_id) for image_id in image_ids]
    images = ", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
    kept = f"look into it: train.py --replay {one_line(place, 120)}; " if place else ""
    return (
        f"iteration {number}: the loss is not finite ({losses}; gradient norm {update.gradient_norm:.4g}; "
        f"learning rate {rate:.3g}); {kept}lower training.learning_rate or set training.gradient_clip; images {images}"
    )


def save_diverged(
    folder: Path, rank: int, learner: Learner, config: Config, parts: list[Batch], number: int, update: Update
) -> Path | None:
    """Writes the batch of this process with the weights that it met.

    Args:
        folder: the run's.
        rank: of this process.
        learner: with the weights.
        config: all settings.
        parts: the micro-batches.
        number: the iteration, counted from 1.
        update: what came of it.

    Returns:
        The file; None if it cannot be written.
    """
    content = {
        "format": _FORMAT,
        "config": dump_config(config),
        "iteration": number,
        "losses": update.losses,
        "gradient_norm": update.gradient_norm,
        "classes": learner.model.num_classes,
        "weights": {name: value.cpu() for name, value in learner.model.state_dict().items()},
        "parts": [
            {
                "pixels": part.images.pixels.cpu(),
                "sizes": [list(size) for size in part.images.sizes],
                "targets": [
                    {"boxes": item.boxes.cpu(), "labels": item.labels.cpu(), "seed": item.seed} for item in part.targets
                ],
                "images": [str(info.image_id) for info in part.infos],
            }
            for part in parts
        ],
    }
    path = folder / f"diverged-{number:09d}" / f"rank{rank}.pt"
    try:
        os.makedirs(path.parent, exist_ok=True)
        replace_by(path, lambda file: torch.save(content, cast(IO[bytes], file)))
    except OSError:
        return None
    return path


def replay(path: Path, device: torch.device) -> list[str]:
    """Computes a kept batch again, and looks where numbers stop being finite.

    Args:
        path: what ``save_diverged`` wrote.
        device: where to compute.

    Returns:
        The findings, in lines for people.

    Raises:
        WeightsError: the file cannot be read.
    """
    kept = _read(path)
    config = parse_config(kept["config"], f"{path}: its configuration")
    model = task_of(config).build(config, [""] * kept["classes"], False)
    model.load_state_dict(kept["weights"])
    model = model.to(device).train()
    bad = [name for name, value in kept["weights"].items() if value.is_floating_point() and not value.isfinite().all()]
    lines = [f"{path}: iteration {kept['iteration']}, in {config.training.precision} on {device}"]
    lines += [f"weights that are not finite: {', '.join(bad)}" if bad else "all weights are finite"]
    lines += [
        "",
        f"{'':<28}" + "".join(f"{name.removeprefix('loss_'):>14}" for name in model.losses) + f"{'gradient':>14}",
    ]
    lines += [_row("as it was", [*kept["losses"].values(), kept["gradient_norm"]])]
    for precision in dict.fromkeys([config.training.precision, "fp32"]):
        for part in kept["parts"]:
            for name, indices in _groups(model, part):
                numbers, culprit = _compute(model, part, indices, device, precision)
                lines.append(_row(f"{name}, {precision}", numbers))
                if culprit:
                    lines.append(f"    first output that is not finite: {culprit}")
    return lines


def _read(path: Path) -> dict[str, Any]:
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(kept, dict) or kept.get("format") != _FORMAT or not set(kept) >= _KEYS:
            raise KeyError
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file; name one such as runs/NAME/diverged-000000012/rank0.pt") from None
    except Exception as error:
        raise WeightsError(f"{path}: not a batch kept by a diverged training ({type(error).__name__})") from None
    return kept


def _groups(model: Trainable, part: dict[str, Any]) -> list[tuple[str, list[int]]]:
    """Which images are computed together, with a name: each alone, but where batch norms saw all of a process's."""
    if any(isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm) and module.training for module in model.modules()):
        names = quote(", ".join(part["images"]), 200)
        return [(f"{names} together", list(range(len(part["images"]))))]
    return [(f"image {quote(name, 16)}", [index]) for index, name in enumerate(part["images"])]


def _compute(
    model: Trainable, part: dict[str, Any], indices: list[int], device: torch.device, precision: str
) -> tuple[list[float], str | None]:
    """Losses and gradient norm of some images, and the first module that gave a number that is not finite."""
    sizes = [part["sizes"][index] for index in indices]
    images = ImageBatch.of(
        [part["pixels"][index, :, :height, :width] for index, (height, width) in zip(indices, sizes, strict=True)]
    )
    targets = [Target(**part["targets"][index]).to(device) for index in indices]
    model.zero_grad(set_to_none=True)
    with _watched(model) as culprits, autocast(device, precision):
        losses = model(images.to(device), targets)
    values = torch.stack([losses[name] for name in model.losses])
    values.sum().backward()  # type: ignore[no-untyped-call]
    gradients = [value.grad for value in model.parameters() if value.grad is not None]
    return [*values.tolist(), float(get_total_norm(gradients))], next(iter(culprits), None)


@contextmanager
def _watched(model: nn.Module) -> Iterator[list[str]]:
    culprits: list[str] = []

    def look(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and not output.isfinite().all():
            culprits.append(name)

    handles = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: look(name, output))
        for name, module in model.named_modules()
        if not list(module.children())
    ]
    try:
        yield culprits
    finally:
        for handle in handles:
            handle.remove()


def _row(title: str, values: list[float]) -> str:
    return f"{title:<28}" + "".join(f"{value:>14.5g}" if math.isfinite(value) else f"{value!s:>14}" for value in values)
