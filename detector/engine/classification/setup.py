"""A classifier ready for use: new for a training, or out of a weights file; the twin of ``engine/setup.py``."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from detector.config.schema import Config
from detector.engine.setup import Loaded, assemble, warn_of_random_layers, with_conventions
from detector.errors import WeightsError
from detector.models.classifier import ClassificationNetwork, build_classifier, check_side
from detector.weights.classifier import for_classifier, load_classifier_initial
from detector.weights.layouts import OWN_CLASSIFIER
from detector.weights.load import Weights

LoadedClassifier = Loaded[ClassificationNetwork]


def build_initial_classifier(config: Config, class_names: Sequence[str], fresh: bool) -> ClassificationNetwork:
    """The network as a run starts with it.

    Args:
        config: all settings; its seed decides the random weights.
        class_names: K names.
        fresh: take ``model.weights``; a run that goes on has its own.

    Raises:
        ConfigError: the network has no such stage to freeze, or takes no images so small.
        WeightsError: ``model.weights`` cannot be had, do not fit, or contradict a setting.
    """
    check_side(config.model.as_classifier, config.data.crop.size)
    torch.manual_seed(config.seed)
    model = build_classifier(config.model, len(class_names))
    if fresh:
        load_classifier_initial(model, config.model, class_names)
        if config.model.as_classifier.has_stages:  # the others have norms of their own and no stages
            warn_of_random_layers(config.model)
    return model


def classifier_of(weights: Weights, config: Config | None = None) -> LoadedClassifier:
    """A classifier out of a file of this toolkit.

    Args:
        weights: the contents of the file.
        config: used instead of the file's own. Pixel order, mean and std, the place of the stride and the kind of norm
            come from the weights all the same.

    Raises:
        WeightsError: it holds no classifier of this toolkit, or does not fit ``config``.
        ConfigError: its settings cannot be read.
    """
    if weights.config is None or weights.info is None:
        raise WeightsError(
            f"{weights.source}: is of another toolkit ({weights.layout.name} layout) and does not name its classes; "
            "to start a training of a classifier from it, set model.weights"
        )
    if weights.layout is not OWN_CLASSIFIER:
        raise WeightsError(
            f"{weights.source}: holds a detector and no classifier; use Detector.load in Python, evaluate.py or "
            "visualize.py; to start a training of a classifier from it, set model.weights"
        )
    config = with_conventions(config or weights.config, weights)
    fitting = for_classifier(weights, config.model)
    return assemble(fitting, config, weights.info, lambda config, count: build_classifier(config.model, count))
