"""From a classifier of ours to a detector: whose stages fit, and what is told of it."""

from __future__ import annotations

from detector.config.schema import ClassifierConfig, ModelConfig
from detector.errors import WeightsError
from detector.weights.own_file import WeightsInfo


def what_a_detector_lacks(classifier: ClassifierConfig) -> tuple[str, object, object] | None:
    """A setting of a classifier in which its stages are not a detector's, as found and as wanted; None if they fit."""
    settings = {
        "network": (classifier.network, "resnet"),
        "block": (classifier.block, "residual"),
        "shortcut": (classifier.shortcut or "projection", "projection"),
        "channels": (classifier.channels, 3),
    }
    return next(((name, found, wanted) for name, (found, wanted) in settings.items() if found != wanted), None)


def refuse_other_networks(source: str, model: ModelConfig) -> None:
    """Makes an error of a classifier whose stages are not a detector's.

    Args:
        source: the file.
        model: its settings; those of a detector pass.

    Raises:
        WeightsError: says which classifier would do.
    """
    difference = None if model.classifier is None else what_a_detector_lacks(model.classifier)
    if difference is not None:
        setting, found, wanted = difference
        raise WeightsError(
            f"{source}: is a classifier with {setting} {found}, from which a detector cannot start; "
            f"pretrain with model.classifier.{setting}={wanted}"
        )


def taken_from_classifier(source: str, info: WeightsInfo, model: ModelConfig, count: int) -> str:
    """The sentence that tells a user what a detector has taken from a classifier.

    Args:
        source: the file.
        info: what it says of itself.
        model: settings of the detector; the depth is the classifier's, too.
        count: tensors taken.
    """
    made = f"ResNet-{model.backbone.depth}, iteration {info.iteration}"
    return (
        f"{source}: a classifier of {len(info.class_names)} classes ({made}): conv1 to conv5_x taken "
        f"({count} tensors); the RPN and the class and box layers start from random values"
    )
