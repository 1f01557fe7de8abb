"""The weights file of this toolkit: safetensors whose metadata holds configuration and class names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from torch import Tensor

from detector.durable import replace_file
from detector.errors import MachineError, WeightsError
from detector.structures import ImageId, is_class_name

FORMAT = "detector-weights-1"


@dataclass(frozen=True)
class WeightsInfo:
    """What a weights file says of itself.

    Attributes:
        config: the resolved configuration, as YAML.
        class_names: in the order of labels.
        category_ids: of the data set it was trained on, in the same order; results are written with them.
        iteration: of the training that made it.
        score_threshold: the score from which detections are worth showing; None if nobody has chosen one.
        class_thresholds: the same for each class, in the order of labels; empty if nobody has chosen them.
        run: folder of the training that made it; empty if unknown.
        fingerprint: of the annotations that it was trained on; empty if unknown.
    """

    config: str
    class_names: tuple[str, ...]
    category_ids: tuple[ImageId, ...]
    iteration: int
    score_threshold: float | None = None
    class_thresholds: tuple[float, ...] = ()
    run: str = ""
    fingerprint: str = ""


def save_weights(path: Path, tensors: Mapping[str, Tensor], info: WeightsInfo) -> None:
    """Writes a weights file, so that at any moment there is the old one or the new one under that name.

    Args:
        path: the file.
        tensors: the state dict of a model.
        info: what goes with them.

    Raises:
        MachineError: it cannot be written.
    """
    metadata = {
        "format": FORMAT,
        "config": info.config,
        "class_names": json.dumps(info.class_names),
        "category_ids": json.dumps(info.category_ids),
        "iteration": str(info.iteration),
        "score_threshold": json.dumps(info.score_threshold),
        "class_thresholds": json.dumps(info.class_thresholds),
        "run": info.run,
        "fingerprint": info.fingerprint,
    }
    plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, safetensors.torch.save(plain, metadata))
    except OSError as error:
        raise MachineError(f"{path}: cannot be written ({error.strerror or error}); make room") from None


def parse_info(metadata: Mapping[str, str], path: Path) -> WeightsInfo | None:
    """What the metadata of a file say; None if it is no file of this toolkit.

    Raises:
        WeightsError: the metadata are damaged.
    """
    if metadata.get("format") != FORMAT:
        return None
    try:
        names, ids = json.loads(metadata["class_names"]), json.loads(metadata["category_ids"])
        threshold = json.loads(metadata["score_threshold"])
        thresholds = json.loads(metadata.get("class_thresholds", "[]"))
        sound = (
            isinstance(names, list)
            and isinstance(ids, list)
            and len(names) == len(ids)
            and all(map(is_class_name, names))
            and len(set(names)) == len(names)
            and all(isinstance(item, int | str) and not isinstance(item, bool) for item in ids)
            and len(set(ids)) == len(ids)
            and (threshold is None or 0 <= threshold <= 1)
            and isinstance(thresholds, list)
            and len(thresholds) in (0, len(names))
            and all(0 <= value <= 1 for value in thresholds)
            and int(metadata["iteration"]) >= 0
        )
        if not sound:
            raise ValueError
        return WeightsInfo(
            metadata["config"],
            tuple(names),
            tuple(ids),
            int(metadata["iteration"]),
            threshold,
            tuple(map(float, thresholds)),
            metadata.get("run", ""),
            metadata.get("fingerprint", ""),
        )
    except (KeyError, ValueError, TypeError, RecursionError):
        raise WeightsError(f"{path}: its metadata is damaged; fetch or write the file again") from None
