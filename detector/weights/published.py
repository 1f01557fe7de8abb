"""The weights that torchvision publishes, by name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from detector.errors import WeightsError, quote
from detector.weights.files import read_tensors

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


def published(name: str, family: str, networks: Sequence[str]) -> dict[str, Tensor]:
    """Weights by torchvision's name and address, kept in torch's cache folder; read as strangers' files are.

    Args:
        name: such as ``ResNet101_Weights.IMAGENET1K_V1``.
        family: of the networks, for messages.
        networks: whose weights will do, by the names of their builders.

    Raises:
        WeightsError: there are no such weights, or they cannot be had.
    """
    from torchvision.models import get_model_weights, get_weight

    # One of VGG-16's lacks the class layers, and so the names of classes.
    known = [str(item) for network in networks for item in get_model_weights(network) if item.meta["categories"]]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(known)}"
        raise WeightsError(f"model.weights: torchvision has no {family} weights {quote(name)}; {hint}")
    weights = get_weight(name)
    cache = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    try:
        if not cache.is_file():
            cache.parent.mkdir(parents=True, exist_ok=True)
            digest = cache.stem.rsplit("-", 1)[1]
            torch.hub.download_url_to_file(weights.url, str(cache), digest)
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"model.weights: {name} cannot be downloaded ({quote(str(error), 80)}); fetch {weights.url} on a machine "
            f"with a network and put it at {cache}, or set model.weights to the file, or to null for random weights"
        ) from None
    return read_tensors(cache)[0]
