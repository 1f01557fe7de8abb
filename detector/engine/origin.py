"""What a state came from, and whether going on from it here is exact."""

from __future__ import annotations

import logging
from typing import Any

import torch

from detector.config.load import dump_config, parse_config
from detector.config.schema import Config
from detector.data.dataset import DetectionDataset
from detector.engine.checkpoint import TrainingState
from detector.engine.run_folder import check_same_config, versions
from detector.errors import DatasetError

_log = logging.getLogger(__name__)


def origin_of(config: Config, train_set: DetectionDataset, world_size: int) -> dict[str, Any]:
    """What a state of this process comes from: plain values.

    Args:
        config: the resolved configuration.
        train_set: what is trained on.
        world_size: processes.
    """
    return {
        "config": dump_config(config),
        "train_set": train_set.annotations.fingerprint(),
        "images": len(train_set),
        "objects": len(train_set.annotations.labels),
        "processes": world_size,
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        **versions(),
    }


def check_origin(state: TrainingState, config: Config, now: dict[str, Any], anyway: bool) -> None:
    """Refuses to go on with other settings or data, and tells what may change the last bits.

    Args:
        state: from a checkpoint.
        config: the resolved configuration of this process.
        now: the origin of states that this process would save.
        anyway: differences are only told.

    Raises:
        ConfigError: settings differ.
        DatasetError: the training set is another one.
    """
    old = state.origin
    whose = f"the checkpoint of iteration {state.iteration} has"
    check_same_config(whose, parse_config(old["config"], "the checkpoint's configuration"), config, anyway)
    if old["train_set"] != now["train_set"]:
        sizes = [f"{item['images']} images, {item['objects']} objects" for item in (old, now)]
        message = (
            f"{whose} another training set: its annotations had the fingerprint {old['train_set']} ({sizes[0]}), "
            f"those of data.train have {now['train_set']} ({sizes[1]})"
        )
        if not anyway:
            raise DatasetError(f"{message}; restore them, choose another --output, or add --resume-anyway")
        _log.warning("%s; it is gone on with anyway", message)
    told = ("config", "train_set", "images", "objects")
    changed = [
        f"{name} {old.get(name)} -> {now[name]}" for name in now if name not in told and old.get(name) != now[name]
    ]
    if changed:
        _log.warning(
            "not bit for bit what an unbroken run would give, since sums are made in another order: %s. "
            "The order of samples is the same",
            ", ".join(changed),
        )
