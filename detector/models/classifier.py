"""Networks that tell the class of a whole image.

Shape letters: B images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import get_model

from detector.config.schema import BackboneConfig, ClassifierConfig, ModelConfig
from detector.errors import ConfigError
from detector.models.blocks import PartlyFrozen
from detector.models.cifar_resnet import CifarResNet
from detector.models.lenet import LeNet
from detector.models.pixels import PixelNetwork
from detector.models.resnet import ResNetC4, conv5_x, stage_channels
from detector.structures import ImageBatch, Target

_FOREIGN = "torchvision:"
# Both build a second class layer otherwise, and warn unless they are told how to begin.
_ARGUMENTS = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}
_STAGES = {
    "resnet": ("conv1", "conv2_x", "conv3_x", "conv4_x", "conv5_x"),
    "cifar": ("conv1", "conv2_x", "conv3_x", "conv4_x"),
}
# Below these sides nothing is left of the maps.
_SMALLEST = {
    "lenet": 14,
    "torchvision:alexnet": 63,
    "torchvision:vgg16": 32,
    "torchvision:googlenet": 15,
    "torchvision:inception_v3": 75,
}


class ClassificationNetwork(PixelNetwork):
    """A network with a class layer at its end.

    Args:
        model: the settings; ``classifier`` None counts as its defaults.
        num_classes: K.
    """

    losses = ("loss_class",)
    measures = ("error",)

    def __init__(self, model: ModelConfig, num_classes: int) -> None:
        config = model.as_classifier
        super().__init__(model.pixel_order, model.pixel_mean, model.pixel_std, config.channels)
        self.config = config
        self.num_classes = num_classes

    def logits(self, pixels: Tensor) -> Tensor:
        """Normalised pixels ``(B, C, H, W)`` to ``(B, K)``."""
        raise NotImplementedError

    def forward(self, images: ImageBatch, targets: Sequence[Target]) -> dict[str, Tensor]:
        """The loss of a batch, and how much of it is classified wrongly.

        Args:
            images: B images.
            targets: B targets of one object each.

        Returns:
            loss_class, the cross entropy, and error in 0..1, without gradient; both float32.

        Raises:
            ConfigError: the images are too small for the network.
        """
        logits = self.classify(images)
        labels = torch.cat([target.labels for target in targets])
        loss = F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
        return {"loss_class": loss, "error": (logits.detach().argmax(dim=1) != labels).float().mean()}

    def classify(self, images: ImageBatch) -> Tensor:
        """The logits ``(B, K)``, float32.

        Raises:
            ConfigError: the images are too small for the network.
        """
        positions: list[int] = []
        parts = [self.pixel_mean.new_zeros((0, self.num_classes))]
        for members, pixels in images.groups():
            check_side(self.config, min(pixels.shape[-2:]))
            positions += members
            parts.append(self.logits(self.normalize(pixels)).float())
        logits = torch.cat(parts)
        if positions == sorted(positions):
            return logits
        return logits[sorted(range(len(positions)), key=positions.__getitem__)]


class StagedNetwork(PartlyFrozen, ClassificationNetwork):
    """A body and a class layer: ``backbone``, for a ResNet ``conv5_x``, and ``class_layer``."""

    def __init__(self, model: ModelConfig, num_classes: int) -> None:
        super().__init__(model, num_classes)
        parts, channels = _parts(model.backbone, self.config)
        for name, part in parts.items():
            self.add_module(name, part)
        self.class_layer = nn.Linear(channels, num_classes)
        _begin(self.class_layer)
        self.freeze(model.backbone.frozen)

    @property
    def body(self) -> tuple[nn.Module, ...]:
        """All modules but the class layer, in their order."""
        return tuple(part for part in self.children() if part is not self.class_layer)

    def logits(self, pixels: Tensor) -> Tensor:
        """Normalised pixels ``(B, C, H, W)`` to ``(B, K)``."""
        features = pixels
        for part in self.body:
            features = part(features)
        features = features.float()
        vectors = features.mean(dim=(2, 3)) if features.ndim == 4 else features
        with torch.autocast(vectors.device.type, enabled=False):
            return self.class_layer(vectors)  # type: ignore[no-any-return]


class TorchvisionNetwork(PartlyFrozen, ClassificationNetwork):
    """A network of torchvision, with random weights, as ``network``."""

    def __init__(self, model: ModelConfig, num_classes: int) -> None:
        super().__init__(model, num_classes)
        name = self.config.network.removeprefix(_FOREIGN)
        self.network = get_model(name, weights=None, num_classes=num_classes, **_ARGUMENTS.get(name, {}))
        _begin(self._class_layer())
        if self.channels == 1:
            self._see_gray()
        # Random norms must learn, whatever their kind is called.
        if model.backbone.norm == "frozen_batch" and model.weights is not None:
            self.keep_still(module for module in self.network.modules() if isinstance(module, nn.BatchNorm2d))

    @property
    def body(self) -> tuple[nn.Module, ...]:
        """All layers but the class layer."""
        layers = [module for module in self.network.modules() if not list(module.children())]
        return tuple(layer for layer in layers if layer is not self._class_layer())

    def logits(self, pixels: Tensor) -> Tensor:
        """Normalised pixels ``(B, C, H, W)`` to ``(B, K)``."""
        return self.network(pixels)  # type: ignore[no-any-return]

    def _class_layer(self) -> nn.Linear:
        return [module for module in self.network.modules() if isinstance(module, nn.Linear)][-1]

    def _see_gray(self) -> None:
        """Lets the first convolution take one channel for three equal ones."""
        conv = next(module for module in self.network.modules() if isinstance(module, nn.Conv2d))
        conv.in_channels = 1
        conv.weight = nn.Parameter(conv.weight.detach().sum(dim=1, keepdim=True))


def build_classifier(model: ModelConfig, num_classes: int) -> ClassificationNetwork:
    """Builds the network with random weights.

    Args:
        model: all its settings; ``classifier`` None counts as its defaults.
        num_classes: K.

    Raises:
        ConfigError: a stage shall be frozen that the network does not have.
    """
    network = model.as_classifier.network
    _check_stages(network, model.backbone)
    return (TorchvisionNetwork if network.startswith(_FOREIGN) else StagedNetwork)(model, num_classes)


def smallest_side(classifier: ClassifierConfig) -> int:
    """The least height and width, in pixels, of an image that the network takes."""
    return _SMALLEST.get(classifier.network, 1)


def _parts(backbone: BackboneConfig, classifier: ClassifierConfig) -> tuple[dict[str, nn.Module], int]:
    """What comes before the class layer, and how many channels it gives out."""
    if classifier.network == "lenet":
        lenet = LeNet(classifier.channels)
        return {"backbone": lenet}, lenet.out_channels
    if classifier.network == "cifar":
        cifar = CifarResNet(backbone, classifier)
        return {"backbone": cifar}, cifar.out_channels
    parts = {"backbone": ResNetC4(backbone, classifier), "conv5_x": conv5_x(backbone, classifier)}
    return parts, stage_channels(backbone.depth, 5)


def _begin(class_layer: nn.Linear) -> None:
    nn.init.normal_(class_layer.weight, std=0.01)
    nn.init.zeros_(class_layer.bias)


def _check_stages(network: str, backbone: BackboneConfig) -> None:
    unknown = [stage for stage in backbone.frozen if stage not in _STAGES.get(network, ())]
    if unknown:
        what = "has no such stage; set it to 0"
        if network in _STAGES:
            what = f"has no stage {unknown[0]}; leave it out or set it to 0"
        raise ConfigError(f"model.backbone.frozen_stages: network {network} {what}")


def check_side(classifier: ClassifierConfig, side: int) -> None:
    """Looks whether the network takes images of a side in pixels.

    Raises:
        ConfigError: they are too small.
    """
    least = smallest_side(classifier)
    if side < least:
        raise ConfigError(
            f"data.crop.size: network {classifier.network} needs images of at least {least} x {least} pixels, "
            f"got a side of {side}; raise data.crop.size to {least} or more"
        )
